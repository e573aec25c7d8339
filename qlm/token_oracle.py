"""Which tokens are wanted: a predicate over token ids and their text."""

import operator
import re
from collections.abc import Callable, Collection, Iterable

import torch
from transformers import PreTrainedTokenizerBase

from qlm.tokenizer import ByteTokenizer

Accept = str | re.Pattern[str] | Callable[[int, str], bool] | Collection[int]
"""A regular expression for a token's whole text, a predicate of (id, text), or the accepted ids themselves."""


class TokenOracle:
    """Tells for token ids whether they are accepted; each token is asked about once and remembered.

    ``accept``: a regular expression that must match the whole text of a token, a predicate ``(id, text) -> bool``,
    which has to be a pure function, or a collection of ids. ``decode``: a Hugging Face tokenizer or a function from id
    to text; None: the byte tokenizer, whose bytes above 127 read U+FFFD. Special tokens are tokens like others: accept
    the end of text where generation may end. Raises ValueError for what is no regular expression, TypeError for what is
    no predicate and no collection of integers.

    >>> oracle = TokenOracle("[a-z]")
    >>> oracle([97, 65, 256]), oracle.n_evaluations
    ([True, False, False], 3)
    """

    def __init__(self, accept: Accept, decode: PreTrainedTokenizerBase | Callable[[int], str] | None = None) -> None:
        self._accepts = _predicate(accept)
        source = ByteTokenizer() if decode is None else decode
        self._text = (
            (lambda token: str(source.decode([token]))) if isinstance(source, PreTrainedTokenizerBase) else source
        )
        if not callable(self._text):
            raise TypeError(
                f"decode expects a tokenizer or a function of an id, got {type(decode).__name__}; pass one."
            )
        self._known: dict[int, bool] = {}

    @property
    def n_evaluations(self) -> int:
        """Tokens that the predicate has been asked about."""
        return len(self._known)

    def __call__(self, tokens: Iterable[int]) -> list[bool]:
        return [self._accepted(int(token)) for token in tokens]

    def _accepted(self, token: int) -> bool:
        if token not in self._known:
            self._known[token] = bool(self._accepts(token, self._text(token)))
        return self._known[token]


def _predicate(accept: Accept) -> Callable[[int, str], bool]:
    if isinstance(accept, str):
        try:
            accept = re.compile(accept)
        except re.error as error:
            raise ValueError(f"an oracle expects a regular expression, got {accept!r}: {error}; mend it.") from None
    if isinstance(accept, re.Pattern):
        pattern = accept
        return lambda _, text: pattern.fullmatch(text) is not None
    if callable(accept):
        return accept
    if not isinstance(accept, Collection):
        raise TypeError(
            f"an oracle expects a regular expression, a predicate of (id, text) or a set of ids, got "
            f"{type(accept).__name__}; pass one of them."
        )
    wanted = _ids(accept)
    return lambda token, _: token in wanted


def _ids(accept: Collection[int]) -> frozenset[int]:
    """Token ids as plain integers: entries of a tensor hash by identity, and would never be found."""
    try:
        ids = frozenset(operator.index(token) for token in accept)
    except TypeError:
        ids = None
    if ids is None or (isinstance(accept, torch.Tensor) and accept.dtype == torch.bool):
        raise TypeError(
            f"an oracle expects accepted ids as integers, got {accept!r}; list token ids, or pass a regular expression."
        )
    return ids
