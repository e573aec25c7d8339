"""Text as a model's own tokens: windows to learn from, and bits per byte.

Axis legend: b windows, l tokens of a window, v vocabulary.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from qlm.console import quiet_transformers

_BATCH = 16


@dataclass(frozen=True)
class TokenText:
    """A text's token ids (n,) after one that begins a text, and the bytes that they spell.

    >>> TokenText(torch.tensor([256, 104, 105]), 2).n_tokens
    2
    """

    ids: Tensor = field(repr=False)
    n_bytes: int

    @property
    def n_tokens(self) -> int:
        """Tokens that can be predicted: all but the first."""
        return len(self.ids) - 1

    def windows(self, batch: int, context: int, draws: torch.Generator) -> Tensor:
        """Return windows (b, l) at places drawn uniformly; ValueError for a text shorter than one."""
        if len(self.ids) < context:
            raise ValueError(
                f"training expects a text of at least {context} tokens, got {len(self.ids)}; give more text or a "
                "shorter context."
            )
        starts = torch.randint(len(self.ids) - context + 1, (batch, 1), generator=draws)
        return self.ids[starts + torch.arange(context)]


def read_tokens(text: bytes, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> TokenText:
    """Return a UTF-8 text as tokens, after the tokenizer's beginning of a text, or its end of one where it has none.

    Raises ValueError for a tokenizer with neither, and for one whose ids the model does not have.

    >>> from qlm.tokenizer import ByteTokenizer
    >>> read_tokens(b"hi", ByteTokenizer(), 258).ids
    tensor([256, 104, 105])
    """
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not isinstance(first, int):
        raise ValueError("a text expects a tokenizer with a token for its beginning or end, got one with neither.")
    with quiet_transformers():  # it warns of texts beyond the model's own length: they are cut into windows
        ids = torch.tensor([first, *tokenizer(text.decode("utf-8"), add_special_tokens=False).input_ids])
    if int(ids.max()) >= vocab_size:
        raise ValueError(
            f"the model expects token ids below {vocab_size}, got {int(ids.max())} from its tokenizer; check that both "
            "belong together."
        )
    return TokenText(ids, len(text))


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text: ``perplexity`` is per token, bits per byte do not depend on the tokenizer.

    >>> Score(bits_per_byte=2.0, perplexity=4.0).perplexity
    4.0
    """

    bits_per_byte: float
    perplexity: float


@torch.no_grad()
def score(model: nn.Module, text: TokenText, context: int) -> Score:
    """Return ``sum nats / ln 2 / n_bytes`` and ``exp(sum nats / n_tokens)``, each token predicted once.

    Windows of ``context`` tokens overlap by one. Evaluation mode; the model's own mode comes back. Cost O(n).

    >>> class Uniform(nn.Module):
    ...     def forward(self, ids, use_cache):
    ...         return type("Output", (), {"logits": torch.zeros(*ids.shape, 4)})
    >>> round(score(Uniform(), TokenText(torch.tensor([0, 1, 2, 3]), 3), 3).bits_per_byte, 6)
    2.0
    """
    training, device = model.training, next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    nats = 0.0
    whole = (text.n_tokens // (context - 1)) * (context - 1)
    rows = text.ids[: whole + 1].unfold(0, context, context - 1) if whole else text.ids.new_zeros(0, context)
    rest = text.ids[whole:][None]
    for ids in (*rows.split(_BATCH), *([rest] if rest.shape[1] > 1 else [])):
        if len(ids):
            nats += float(_nats(model, ids.to(device)))
    model.train(training)
    return Score(nats / math.log(2) / text.n_bytes, math.exp(nats / text.n_tokens))


def _nats(model: Any, ids: Tensor) -> Tensor:
    """What a model loses on windows (b, l), their first tokens given."""
    logits = model(ids, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return losses.double().sum()
