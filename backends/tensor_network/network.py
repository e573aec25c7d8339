"""Circuits as tensor networks: what each tensor is and which legs it shares, and their contraction in torch.

Axis legend: b batch (leg ``BATCH``), c second batch (``OTHER``), w Pauli words (``WORD``); all other legs have size 2.
A network's structure is hashable and holds no number; ``tensors`` fills it with those of some angles.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits import GATES, Circuit, Input
from circuits.gates import PAULI, pauli_matrix

BATCH, OTHER, WORD = 0, 1, 2
_FIRST = 3
Path = Sequence[tuple[int, int]]
"""Pairs of positions: both tensors are taken out, their product goes to the end."""


@dataclass(frozen=True, slots=True)
class GateTensor:
    """A gate (out legs, in legs) or its conjugate; ``column`` of the angles, ``closed``: in-legs that hold |0>."""

    name: str
    column: int | None
    leg: int | None
    closed: tuple[bool, ...]
    conjugate: bool


@dataclass(frozen=True, slots=True)
class ZeroTensor:
    """|0>."""


@dataclass(frozen=True, slots=True)
class LetterTensor:
    """One wire's letters of some words: (w, 2, 2), rows for the bra."""

    letters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """Tensors, the legs of each, and the legs that stay open, in order."""

    pieces: tuple[GateTensor | ZeroTensor | LetterTensor, ...]
    legs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]

    def renamed(self, new: dict[int, int]) -> "Network":
        """Return the network with some legs joined to others."""
        legs = tuple(tuple(new.get(leg, leg) for leg in each) for each in self.legs)
        return Network(self.pieces, legs, tuple(new.get(leg, leg) for leg in self.output))

    def __add__(self, other: "Network") -> "Network":
        return Network(self.pieces + other.pieces, self.legs + other.legs, self.output + other.output)


def state(
    circuit: Circuit, shared: Sequence[bool], first: int = _FIRST, batch: int = BATCH, bra: bool = False
) -> Network:
    """Return ``U |0...0>`` of a lifted circuit, or its conjugate, the wires' legs open; legs count from ``first``.

    ``shared``: the columns of angles that do not differ between samples.
    """
    open_legs: list[int | None] = [None] * circuit.n_wires  # None: |0>, no tensor yet
    pieces: list[GateTensor | ZeroTensor | LetterTensor] = []
    legs: list[tuple[int, ...]] = []
    fresh = first
    for op in circuit.ops:
        column = next((slot.index for slot in op.slots if isinstance(slot, Input)), None)
        leg = None if column is None or shared[column] else batch
        before = [open_legs[wire] for wire in op.wires]
        after = range(fresh, fresh + len(op.wires))
        fresh += len(op.wires)
        for wire, new in zip(op.wires, after, strict=True):
            open_legs[wire] = new
        pieces.append(GateTensor(op.name, column, leg, tuple(old is None for old in before), bra))
        legs.append((*([] if leg is None else [leg]), *after, *(old for old in before if old is not None)))
    output: list[int] = []
    for old in open_legs:
        if old is None:
            pieces.append(ZeroTensor())
            legs.append((fresh,))
        output.append(fresh if old is None else old)
        fresh += old is None
    return Network(tuple(pieces), tuple(legs), tuple(output))


def _sandwich(
    circuit: Circuit, shared: Sequence[bool], wires: Sequence[int]
) -> tuple[Network, tuple[int, ...], tuple[int, ...]]:
    """Ket and bra joined on all wires but some, and these wires' ket and bra legs."""
    ket = state(circuit, shared)
    bra = state(circuit, shared, 1 + max((leg for each in ket.legs for leg in each), default=_FIRST), bra=True)
    traced = {bra.output[w]: ket.output[w] for w in range(circuit.n_wires) if w not in wires}
    return ket + bra.renamed(traced), tuple(ket.output[w] for w in wires), tuple(bra.output[w] for w in wires)


def density(circuit: Circuit, shared: Sequence[bool], wires: Sequence[int]) -> Network:
    """Return the wires' reduced density matrix: output (b, ket legs, bra legs)."""
    both, kets, bras = _sandwich(circuit, shared, wires)
    return Network(both.pieces, both.legs, (*_batch(both), *kets, *bras))


def probabilities(circuit: Circuit, shared: Sequence[bool], wires: Sequence[int]) -> Network:
    """Return the diagonal of the reduced density matrix: output (b, legs)."""
    both, kets, bras = _sandwich(circuit, shared, wires)
    joined = both.renamed(dict(zip(bras, kets, strict=True)))
    return Network(joined.pieces, joined.legs, (*_batch(joined), *kets))


def expectations(circuit: Circuit, shared: Sequence[bool], wires: Sequence[int], words: Sequence[str]) -> Network:
    """Return ``<W>`` of words given letter by letter on the wires: output (b, w)."""
    both, kets, bras = _sandwich(circuit, shared, wires)
    letters = tuple(LetterTensor(tuple(word[k] for word in words)) for k in range(len(wires)))
    legs = tuple((WORD, bra, ket) for bra, ket in zip(bras, kets, strict=True))
    return Network(both.pieces + letters, both.legs + legs, (*_batch(both), WORD))


def amplitude(a: Circuit, b: Circuit, shared_a: Sequence[bool], shared_b: Sequence[bool], gram: bool) -> Network:
    """Return ``<b|a>``: output (b,), or (b, c) with ``gram``."""
    ket = state(a, shared_a)
    first = 1 + max(leg for each in ket.legs for leg in each)
    bra = state(b, shared_b, first, OTHER if gram else BATCH, bra=True)
    both = ket + bra.renamed(dict(zip(bra.output, ket.output, strict=True)))
    return Network(
        both.pieces, both.legs, tuple(leg for leg in (BATCH, OTHER) if any(leg in each for each in both.legs))
    )


def _batch(network: Network) -> tuple[int, ...]:
    """The batch leg, if any tensor differs between samples."""
    return (BATCH,) if any(BATCH in legs for legs in network.legs) else ()


def tensors(network: Network, angles: Tensor, other: Tensor | None = None) -> list[Tensor]:
    """Return the network's tensors at angles (b, a); conjugate gates read ``other`` (c, a) where it is given."""
    dtype, device = angles.dtype.to_complex(), angles.device
    gates: dict[tuple[str, int | None, bool], Tensor] = {}
    found = []
    for piece in network.pieces:
        if isinstance(piece, ZeroTensor):
            found.append(torch.tensor([1, 0], dtype=dtype, device=device))
        elif isinstance(piece, LetterTensor):
            stack = [torch.from_numpy(PAULI[letter].copy()) for letter in piece.letters]
            found.append(torch.stack(stack).to(device, dtype))
        else:
            source = other if piece.conjugate and other is not None else angles
            key = (piece.name, piece.column, source is other)
            if key not in gates:
                gates[key] = _gate(piece, source, dtype)
            found.append(_closed(gates[key], piece))
    return found


def _gate(piece: GateTensor, angles: Tensor, dtype: torch.dtype) -> Tensor:
    """``exp(i phase t) (cos(t/2) - i sin(t/2) P)``, (b, 2**k, 2**k) or without b where all samples agree."""
    gate = GATES[piece.name]
    if piece.column is None:
        return torch.from_numpy(gate.matrix()).to(angles.device, dtype)
    angle = angles[0, piece.column] if piece.leg is None else angles[:, piece.column]
    angle = angle[..., None, None]
    word = torch.from_numpy(pauli_matrix(gate.generator).copy()).to(angles.device, dtype)
    eye = torch.eye(len(word), dtype=dtype, device=angles.device)
    turn = torch.cos(angle / 2) * eye - 1j * torch.sin(angle / 2) * word
    return torch.polar(torch.ones_like(angle), gate.phase * angle) * turn if gate.phase else turn


def _closed(matrix: Tensor, piece: GateTensor) -> Tensor:
    """The matrix with one axis per leg, in-legs on |0> taken out, conjugated for a bra."""
    n_wires = len(piece.closed)
    split = matrix.reshape(*matrix.shape[:-2], *(2,) * (2 * n_wires))
    first = split.ndim - n_wires  # in-legs come last
    for wire in reversed([k for k, closed in enumerate(piece.closed) if closed]):
        split = split.select(first + wire, 0)  # from the back, so that the axes before stay
    return split.conj() if piece.conjugate else split


def sizes(network: Network, batch: int, other: int = 1) -> dict[int, int]:
    """Return the size of each leg."""
    words = next((len(p.letters) for p in network.pieces if isinstance(p, LetterTensor)), 1)
    known = {BATCH: batch, OTHER: other, WORD: words}
    return {leg: known.get(leg, 2) for each in network.legs for leg in each}


def contract(arrays: Iterable[Tensor], network: Network, path: Path) -> Tensor:
    """Contract the tensors pair by pair along a path; differentiable. A leg is summed once nothing else has it."""
    terms = list(zip(arrays, network.legs, strict=True))
    uses = Counter(leg for legs in (*network.legs, network.output) for leg in legs)
    for pair in path:
        (a, left), (b, right) = (terms.pop(k) for k in sorted(pair, reverse=True))
        for leg in (*left, *right):
            uses[leg] -= 1
        kept = tuple(leg for leg in dict.fromkeys(left + right) if uses[leg])
        for leg in kept:
            uses[leg] += 1
        terms.append((_einsum(((a, left), (b, right)), kept), kept))
    ((last, legs),) = terms
    return _einsum(((last, legs),), network.output)


def _einsum(operands: Sequence[tuple[Tensor, tuple[int, ...]]], kept: tuple[int, ...]) -> Tensor:
    """torch.einsum, which numbers at most 52 legs, with numbers of its own."""
    names = {leg: k for k, leg in enumerate(dict.fromkeys(leg for _, legs in operands for leg in legs))}
    arguments = [part for tensor, legs in operands for part in (tensor, [names[leg] for leg in legs])]
    return torch.einsum(*arguments, [names[leg] for leg in kept])
