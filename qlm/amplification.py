"""Constrained sampling as amplitude amplification: a logits processor for ``generate()``.

Axis legend: b rows, v vocabulary, s = 2**n kept tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from backends.base import Backend
from backends.registry import open_backend
from circuits import Circuit
from circuits._suggest import unknown
from circuits.library import amplification, amplitude_loading, loading_angles
from circuits.library.diagonal import checked_width
from qlm.amplification_cost import KnownShare, Phases, Search
from qlm.token_oracle import Accept, TokenOracle

METHODS = ("mask", "circuit")
"""How the accepted tokens' distribution is made."""


@dataclass(frozen=True)
class AmplificationStep:
    """What one step did for one row of the batch.

    ``p_good``: the accepted tokens' share of the kept ones. ``dropped_mass``: the model's probability of tokens that
    were not kept. ``oracle_calls``: iterations of one execution (0 for the mask). ``executions``: circuits run here, 0
    for the mask, 1 on an exact backend, the shots on others. ``success_probability``: to measure an accepted token (1
    for the mask); a measurement that fails is repeated, so that ``expected_attempts`` is 1 / success_probability.
    ``rejection_attempts``: what classical rejection sampling takes on average, 1 / p_good.
    """

    position: int
    row: int
    p_good: float
    dropped_mass: float
    oracle_calls: int
    executions: int
    success_probability: float

    @property
    def expected_attempts(self) -> float:
        """Mean number of executions until an accepted token is measured."""
        return 1 / self.success_probability

    @property
    def rejection_attempts(self) -> float:
        """Mean number of draws from the model until one is accepted."""
        return 1 / self.p_good


@dataclass(frozen=True)
class _Row:
    """The kept tokens of one row, the accepted ones last, and the basis states that stand for them.

    ``chances``: probabilities of the basis states, 0 at those without a token; the last ``n_accepted`` are accepted.
    """

    tokens: Tensor
    states: Tensor
    chances: Tensor
    n_accepted: int
    dropped: float

    def good(self, chances: Tensor) -> float:
        """The accepted states' share of a distribution."""
        return min(1.0, float(chances[-self.n_accepted :].sum()))


class AmplifiedLogits(LogitsProcessor):
    """Keeps the 2**n likeliest tokens and lets only accepted ones through, in the proportions of the model.

    ``accept``: a regular expression for a token's whole text, a predicate ``(id, text) -> bool``, or a set of ids;
    ``decode``: see ``TokenOracle``. The kept tokens' probabilities are renormalised. Which basis state stands for which
    token changes no result: accepted tokens get the last ones, so that steps which accept equally many share a circuit.

    ``method="mask"``, the default, is the classical twin: accepted tokens keep their probabilities, the others get 0,
    and the rest is renormalised. This *is* the distribution that amplification aims at, exactly, at no oracle call: a
    simulator holds the whole table of amplitudes and of accepted states, so that no circuit can beat it there. Only a
    quantum computer whose oracle is a circuit, not a table, would save calls: about pi / (4 sqrt p_good) instead of
    1 / p_good draws.

    ``method="circuit"`` runs the quantum way on ``backend``: amplitudes are loaded, amplified by ``search``
    (``KnownShare()``: the best k for p_good; ``FixedPoint()``: p_good unknown) and measured. A measured token that is
    not accepted is thrown away and the circuit run again: what is handed on are the Born probabilities given
    acceptance, and ``steps`` counts the attempts. On a backend with shots they are relative frequencies, so that
    ``generate(do_sample=True)`` draws one of the accepted shots.

    Where every kept token is accepted there is nothing to amplify, and the model's distribution is handed on. A token
    of probability 0 stays out, even where noise measures it. ``steps`` lists what each call did, row by row; ``clear``
    empties it. Raises ValueError when it is built for more than 12 wires or an unknown method; when called, for NaN
    or +inf scores, when none of the kept tokens is accepted (raise n_wires or accept more), and when no shot is.

    >>> from transformers import LogitsProcessorList
    >>> only_letters = AmplifiedLogits("[a-z]", n_wires=3)
    >>> scores = torch.zeros(1, 258).index_fill(1, torch.arange(96, 104), 5.0)  # '`' and 'a' to 'g'
    >>> found = LogitsProcessorList([only_letters])(torch.zeros(1, 4, dtype=torch.long), scores)
    >>> found.softmax(-1)[0, 96:99], round(only_letters.steps[0].p_good, 3)
    (tensor([0.0000, 0.1429, 0.1429]), 0.875)
    """

    def __init__(
        self,
        accept: Accept,
        n_wires: int = 4,
        method: str = "mask",
        backend: str | Backend = "statevector",
        search: Search | None = None,
        decode: PreTrainedTokenizerBase | Callable[[int], str] | None = None,
    ) -> None:
        if method not in METHODS:
            raise ValueError(unknown("method", method, METHODS))
        self.oracle = TokenOracle(accept, decode)
        self.n_wires = checked_width("AmplifiedLogits", n_wires)
        self.method = method
        self.backend = open_backend(backend)
        self.search = _checked_search(search)
        self.steps: list[AmplificationStep] = []

    def clear(self) -> None:
        """Forget the steps so far."""
        self.steps.clear()

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] -- the parent names subclasses of Tensor
        """Return log-probabilities (b, v) of the accepted tokens, -inf elsewhere, from scores (b, v)."""
        if not bool((scores < torch.inf).all() and (scores > -torch.inf).any(-1).all()):  # NaN is not below inf
            raise ValueError(
                "AmplifiedLogits expects scores below +inf with a finite entry in each row, got NaN, +inf or -inf "
                "alone; correct the model or the processor that made them."
            )
        position = input_ids.shape[-1]
        rows = [self._keep(index, row, position) for index, row in enumerate(scores.detach().double().cpu())]
        found = self._masked(rows) if self.method == "mask" else self._amplified(rows)
        processed = torch.full(scores.shape, -torch.inf, dtype=torch.float64)
        for index, (row, (chances, calls, executions)) in enumerate(zip(rows, found, strict=True)):
            possible = torch.where(row.chances > 0, chances, 0.0)  # noise measures what an earlier processor ruled out
            success = row.good(possible)
            if success == 0:
                raise ValueError(
                    f"AmplifiedLogits expects an accepted shot, got none of {executions} in row {index} at position "
                    f"{position}; raise shots, or allow more iterations."
                )
            accepted = slice(len(row.tokens) - row.n_accepted, None)
            processed[index, row.tokens[accepted]] = (possible[row.states[accepted]] / success).log()
            self.steps.append(
                AmplificationStep(position, index, row.good(row.chances), row.dropped, calls, executions, success)
            )
        return processed.to(scores.device, scores.dtype)

    def _keep(self, index: int, scores: Tensor, position: int) -> _Row:
        size = 2**self.n_wires
        top = torch.softmax(scores, -1).topk(min(size, len(scores)))
        wanted = torch.tensor(self.oracle(top.indices.tolist()))
        if not bool((top.values[wanted] > 0).any()):
            raise ValueError(
                f"AmplifiedLogits expects an accepted token among the {len(wanted)} likeliest, got none in row "
                f"{index} at position {position}; raise n_wires (now {self.n_wires}) or accept more tokens."
            )
        kept, order, n_accepted = float(top.values.sum()), wanted.int().argsort(stable=True), int(wanted.sum())
        states = torch.arange(len(wanted))
        states[len(wanted) - n_accepted :] += size - len(wanted)
        chances = torch.zeros(size, dtype=torch.float64).index_copy(0, states, top.values[order] / kept)
        return _Row(top.indices[order], states, chances, n_accepted, max(0.0, 1 - kept))

    def _masked(self, rows: list[_Row]) -> list[tuple[Tensor, int, int]]:
        """The twin: chances (s,), oracle calls and executions per row."""
        rest = [len(row.chances) - row.n_accepted for row in rows]
        given = [row.chances.index_fill(0, torch.arange(n), 0.0) for row, n in zip(rows, rest, strict=True)]
        return [(chances / chances.sum(), 0, 0) for chances in given]

    def _amplified(self, rows: list[_Row]) -> list[tuple[Tensor, int, int]]:
        """Born probabilities (s,), oracle calls and executions per row, from one batch per distinct search."""
        groups: dict[tuple[int, Phases], list[int]] = {}
        for index, row in enumerate(rows):
            everything = row.n_accepted == len(row.chances)
            phases = () if everything else self.search.phases(row.good(row.chances))  # nothing to be told apart
            groups.setdefault((row.n_accepted, phases), []).append(index)
        found: dict[int, tuple[Tensor, int, int]] = {}
        for (n_accepted, phases), members in groups.items():
            circuit = _circuit(self.n_wires, n_accepted, len(phases))
            angles = loading_angles(torch.stack([rows[index].chances for index in members]))
            weights = torch.tensor(phases, dtype=torch.float64).flatten()
            estimate = self.backend.probabilities(circuit, angles, weights, seed=self._seed())
            for index, chances in zip(members, estimate.values.double().cpu(), strict=True):
                found[index] = (chances, len(phases), estimate.shots or 1)
        return [found[index] for index in range(len(rows))]

    def _seed(self) -> int | None:
        return int(torch.randint(2**31, ()).item()) if self.backend.capabilities.shots else None


def _checked_search(search: object) -> Search:
    if search is None:
        return KnownShare()
    if isinstance(search, type) or not isinstance(search, Search):
        raise TypeError(
            f"AmplifiedLogits expects search as an object such as KnownShare() or FixedPoint(), got {search!r}; pass "
            "one of the two."
        )
    return search


@lru_cache(maxsize=256)
def _circuit(n_wires: int, n_accepted: int, iterations: int) -> Circuit:
    """The family's circuit, kept because it takes longer to build and to compile than to run."""
    size = 2**n_wires
    if not iterations:
        return amplitude_loading(n_wires)
    return amplification(n_wires, range(size - n_accepted, size), iterations)
