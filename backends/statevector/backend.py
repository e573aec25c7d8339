"""The ``statevector`` backend: exact and differentiable.

Axis legend: b batch, o observables, t times, k wires asked for, N = 2**n amplitudes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from backends import linalg
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.statevector import narrow, reference
from backends.statevector.reference import start
from circuits import GATES, Circuit, Op, PauliSum, commuting_groups
from circuits.observables import Word

_MAX_WIRES = 24


@dataclass(frozen=True)
class Statevector(Backend):
    """Exact state-vector simulation in torch, on the inputs' device, in complex64 (complex128 for float64 angles).

    Gradients of any order by autograd; of von Neumann entropies, two. Circuits with resets run exactly as density
    matrices (4**n instead of 2**n amplitudes, at most half the wires). Cost O(b ops 2**n).

    >>> Statevector().spec
    'statevector'
    """

    kind: ClassVar[str] = "statevector"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            exact=True,
            state=True,
            density=True,
            batch=True,
            autograd=True,
            reset=True,
            max_wires=_MAX_WIRES,
            gates=frozenset(GATES),
        )

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        _refuse_shots(request)
        return Estimate(_expect(circuit, _run(circuit, angles), observables))

    def _expectations_along(
        self,
        circuit: Circuit,
        angles: Tensor,
        observables: tuple[PauliSum, ...],
        times: tuple[int, ...],
        request: Request,
    ) -> Estimate:
        _refuse_shots(request)
        vectors, reached, values = _start(circuit, angles), 0, []
        for count in times:
            vectors = _advance(circuit, reached, count, vectors, angles, not circuit.is_unitary)
            values.append(_expect(circuit, vectors, observables))
            reached = count
        return Estimate(torch.stack(values, 1))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(request)
        full = _weights(_run(circuit, angles), circuit.n_wires, not circuit.is_unitary).T
        batch = len(full)
        rest = [wire for wire in range(circuit.n_wires) if wire not in wires]
        axes = [0, *(wire + 1 for wire in (*wires, *rest))]
        split = full.reshape(batch, *[2] * circuit.n_wires).permute(axes)
        return Estimate(split.reshape(batch, 2 ** len(wires), -1).sum(-1))

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        return Estimate(_run(circuit, angles).T.contiguous())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        probabilities = self._probabilities(circuit, angles, wires, Request()).values.double().clamp(min=0).cpu()
        generator = None if seed is None else torch.Generator().manual_seed(seed)  # None: torch's own
        outcomes = torch.multinomial(probabilities, shots, replacement=True, generator=generator)
        shifts = torch.arange(len(wires) - 1, -1, -1)
        return ((outcomes[..., None] >> shifts) & 1).to(angles.device, torch.uint8)

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        _refuse_shots(request)
        _check_matrix("a density matrix", len(wires))
        vectors = _run(circuit, angles).T
        if circuit.is_unitary:
            return Estimate(linalg.reduced_density(vectors, wires))
        size = 2**circuit.n_wires
        return Estimate(linalg.partial_trace(vectors.reshape(-1, size, size), wires))

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        rest = tuple(wire for wire in range(circuit.n_wires) if wire not in wires)
        if circuit.is_unitary and len(rest) < len(wires):
            if not rest:
                return Estimate(0 * angles.square().sum(1))  # so that the second derivative is 0 too
            wires = rest  # both sides of a pure state have one spectrum: take the smaller
        return Estimate(linalg.entropy(self._density(circuit, angles, wires, request).values, kind))


def _run(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the final vectors: (2**n, b), or (4**n, b) of the density matrix for circuits with resets."""
    return _advance(circuit, 0, len(circuit.ops), _start(circuit, angles), angles, not circuit.is_unitary)


def _advance(circuit: Circuit, first: int, last: int, vectors: Tensor, angles: Tensor, density: bool) -> Tensor:
    """Apply some ops with the executor that suits the number of amplitudes."""
    executor = narrow if len(vectors) <= narrow.MAX_AMPLITUDES else reference
    return executor.advance(circuit, first, last, vectors, angles, density)


def _start(circuit: Circuit, angles: Tensor) -> Tensor:
    if not circuit.is_unitary:
        _check_matrix("a circuit with resets", circuit.n_wires)
    return start(circuit, angles, not circuit.is_unitary)


def _check_matrix(what: str, n_wires: int) -> None:
    if 2 * n_wires > _MAX_WIRES:
        raise ValueError(
            f"{what} expects at most {_MAX_WIRES // 2} wires here, got {n_wires}: a density matrix has 4**k entries; "
            "use fewer wires."
        )


def _refuse_shots(request: Request) -> None:
    if request.shots is not None:
        raise ValueError(
            f"backend 'statevector' expects shots=None, got {request.shots}: it is exact; use samples, or 'aer'."
        )


def _weights(vectors: Tensor, n_wires: int, density: bool) -> Tensor:
    """Return the basis states' probabilities (2**n, b)."""
    if not density:
        return vectors.real.square() + vectors.imag.square()
    return vectors.reshape(2**n_wires, 2**n_wires, -1).diagonal(dim1=0, dim2=1).real.T


@dataclass(frozen=True, slots=True)
class _Basis:
    """A circuit that turns commuting words into Z words, and the words."""

    turn: Circuit
    words: tuple[Word, ...]


@lru_cache(maxsize=256)
def _bases(observables: tuple[PauliSum, ...], n_wires: int) -> tuple[_Basis, ...]:
    letters = {"X": ("h",), "Y": ("sdg", "h"), "Z": ()}
    return tuple(
        _Basis(
            Circuit(n_wires, tuple(Op(g, (wire,)) for wire, letter in basis.items() for g in letters[letter])), words
        )
        for basis, words in commuting_groups(observables)
    )


@lru_cache(maxsize=256)
def _signs(words: tuple[Word, ...], n_wires: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signs of Z words in two factors, since ``(-1)**(z.x)`` is one over the first half of the wires times one over the
    rest: (words, 2**high), (distinct, 2**low) and the row of the latter for each word. Whole rows would not fit memory.
    """
    high = n_wires // 2
    halves = [([w for w, _ in word if w < high], [w - high for w, _ in word if w >= high]) for word in words]
    distinct = list(dict.fromkeys(tuple(low) for _, low in halves))
    rows = torch.tensor([distinct.index(tuple(low)) for _, low in halves])
    lows = torch.stack([_sign_row(low, n_wires - high) for low in distinct])
    return torch.stack([_sign_row(upper, high) for upper, _ in halves]), lows, rows


def _sign_row(wires: Sequence[int], n_wires: int) -> Tensor:
    states = torch.arange(2**n_wires)
    bits = sum(((states >> (n_wires - 1 - wire)) & 1 for wire in wires), torch.zeros_like(states))
    return 1.0 - 2.0 * (bits % 2)


def _expect(circuit: Circuit, vectors: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return ``<O_j>``, shape (b, o): each group of commuting words from probabilities in its own basis."""
    density, n_wires = not circuit.is_unitary, circuit.n_wires
    nothing = torch.zeros((vectors.shape[-1], 0), dtype=vectors.dtype.to_real(), device=vectors.device)
    words: list[Word] = []
    rows: list[Tensor] = []
    for basis in _bases(observables, n_wires):
        turned = _advance(basis.turn, 0, len(basis.turn.ops), vectors, nothing, density)
        weights = _weights(turned, n_wires, density)
        highs, lows, kept = (part.to(weights.device) for part in _signs(basis.words, n_wires))
        split = weights.reshape(highs.shape[1], lows.shape[1], -1)
        reduced = (lows.to(weights) @ split).index_select(1, kept)
        rows.append(torch.einsum("wh,hwb->bw", highs.to(weights), reduced))
        words += basis.words
    table = [[dict(observable.terms).get(word, 0.0) for observable in observables] for word in words]
    return torch.cat(rows, 1) @ rows[0].new_tensor(table)
