"""The executor in torch: any device, any order of derivatives, resets as density matrices.

Axis legend: b batch, o observables, t times, N = 2**n amplitudes (4**n of a density matrix); vectors are (N, b).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from backends.statevector import narrow, reference
from backends.statevector.keeping import plain
from circuits import Circuit, Op, PauliSum, commuting_groups
from circuits.observables import Word

MAX_WIRES = 24
"""Of a state vector; a density matrix takes twice as many."""
DEVICES = ("cpu", "cuda")
"""What it runs on: other devices of torch lack complex numbers, or some operation on them."""


def run(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return the final vectors: (2**n, b), or (4**n, b) of the density matrix for circuits with resets."""
    return advance(circuit, 0, len(circuit.ops), start(circuit, angles), angles, not circuit.is_unitary)


def advance(circuit: Circuit, first: int, last: int, vectors: Tensor, angles: Tensor, density: bool) -> Tensor:
    """Apply some ops with the executor that suits the number of amplitudes."""
    executor = narrow if len(vectors) <= narrow.MAX_AMPLITUDES else reference
    return executor.advance(circuit, first, last, vectors, angles, density)


def start(circuit: Circuit, angles: Tensor) -> Tensor:
    """Return |0...0> as vectors; ValueError on a device, or of a size, that is not run."""
    if angles.device.type not in DEVICES:
        raise ValueError(
            f"backend 'statevector' expects inputs on one of the devices {DEVICES}, got {angles.device}; move them."
        )
    if not circuit.is_unitary:
        check_matrix("a circuit with resets", circuit.n_wires)
    return reference.start(circuit, angles, not circuit.is_unitary)


def check_matrix(what: str, n_wires: int) -> None:
    """Raise ValueError where a matrix on so many wires would not fit."""
    if 2 * n_wires > MAX_WIRES:
        raise ValueError(
            f"{what} expects at most {MAX_WIRES // 2} wires here, got {n_wires}: a density matrix has 4**k entries; "
            "use fewer wires."
        )


def chances(vectors: Tensor, n_wires: int, density: bool) -> Tensor:
    """Return the basis states' probabilities (2**n, b)."""
    if not density:
        return vectors.real.square() + vectors.imag.square()
    return vectors.reshape(2**n_wires, 2**n_wires, -1).diagonal(dim1=0, dim2=1).real.T


def marginals(full: Tensor, wires: Sequence[int]) -> Tensor:
    """Return the probabilities (b, 2**k) of some wires' basis states, in the order asked, of all wires' (b, 2**n)."""
    n_wires = full.shape[1].bit_length() - 1
    rest = [wire for wire in range(n_wires) if wire not in wires]
    axes = [0, *(wire + 1 for wire in (*wires, *rest))]
    split = full.reshape(len(full), *[2] * n_wires).permute(axes)
    return split.reshape(len(full), 2 ** len(wires), -1).sum(-1)


def expect_along(circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], times: tuple[int, ...]) -> Tensor:
    """Return ``<O_j>`` after each of the given numbers of ops, shape (b, t, o)."""
    vectors, reached, values = start(circuit, angles), 0, []
    for count in times:
        vectors = advance(circuit, reached, count, vectors, angles, not circuit.is_unitary)
        values.append(expect(circuit, vectors, observables))
        reached = count
    return torch.stack(values, 1)


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
@plain
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


def expect(circuit: Circuit, vectors: Tensor, observables: tuple[PauliSum, ...]) -> Tensor:
    """Return ``<O_j>``, shape (b, o): each group of commuting words from probabilities in its own basis."""
    density, n_wires = not circuit.is_unitary, circuit.n_wires
    nothing = torch.zeros((vectors.shape[-1], 0), dtype=vectors.dtype.to_real(), device=vectors.device)
    words: list[Word] = []
    rows: list[Tensor] = []
    for basis in _bases(observables, n_wires):
        turned = advance(basis.turn, 0, len(basis.turn.ops), vectors, nothing, density)
        weights = chances(turned, n_wires, density)
        highs, lows, kept = (part.to(weights.device) for part in _signs(basis.words, n_wires))
        split = weights.reshape(highs.shape[1], lows.shape[1], -1)
        reduced = (lows.to(weights) @ split).index_select(1, kept)
        rows.append(torch.einsum("wh,hwb->bw", highs.to(weights), reduced))
        words += basis.words
    if not words:  # observables that cancelled to nothing; still a function of the state, for whoever differentiates
        return 0 * vectors.real.sum(0)[:, None].expand(-1, len(observables))
    table = [[dict(observable.terms).get(word, 0.0) for observable in observables] for word in words]
    return torch.cat(rows, 1) @ rows[0].new_tensor(table)
