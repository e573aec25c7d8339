"""A circuit as a list of steps on a batch of vectors: every gate is a sum of permutations with phases.

Axis legend: N = 2**m amplitudes on m wires, b batch. Vectors are stored (N, b), batch last, so that a permutation moves
whole rows. A density matrix on n wires is a vector on m = 2n wires (rows first), on which U acts twice: U on the row
wires and its conjugate on the column wires.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from circuits import GATES, Circuit, Op
from circuits.gates import Matrix, pauli_matrix
from circuits.ir import RESET

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Monomial:
    """The map ``out[r] = phase[r] * in[index[r]]``; ``index`` None for the identity, ``inverse`` undoes the index."""

    phase: NDArray[np.complex128]
    index: Indices | None = None
    inverse: Indices | None = None


@dataclass(frozen=True)
class Fixed:
    """A gate without angle: the sum of its monomials."""

    terms: tuple[Monomial, ...]


@dataclass(frozen=True)
class Rotation:
    """``exp(i g t) (cos(t/2) - i s sin(t/2) P)`` for the angle in ``column``; s = -1 for the conjugate, g the phase."""

    word: Monomial
    column: int
    sign: float
    phase: float
    shared: bool


@dataclass(frozen=True)
class Discard:
    """A reset on a density matrix: the trace over the wire, times |0><0|."""

    stride: int
    column_stride: int


Step = Fixed | Rotation | Discard


def _bits(n_wires: int, wires: tuple[int, ...]) -> Indices:
    """The number that the wires' bits form, for each basis state: first wire most significant."""
    states = np.arange(2**n_wires)
    value = np.zeros_like(states)
    for wire in wires:
        value = 2 * value + ((states >> (n_wires - 1 - wire)) & 1)
    return value


def monomials(matrix: Matrix, wires: tuple[int, ...], n_wires: int) -> tuple[Monomial, ...]:
    """Return a gate matrix on some of n wires as monomials on all 2**n amplitudes; zero ones are left out.

    Entry (r, r xor s) of the small matrix goes to the monomial of shift s, so there are at most 2**k. Cost 2**(n+k).
    """
    size = len(matrix)
    local = _bits(n_wires, wires)
    states = np.arange(2**n_wires)
    rows = np.arange(size)
    if np.all((matrix != 0).sum(1) == 1) and not np.all(matrix == np.diag(matrix.diagonal())):
        source = np.argmax(matrix != 0, axis=1)
        index = states ^ _spread(local ^ source[local], wires, n_wires)
        return (Monomial(matrix[rows, source][local], index, np.argsort(index)),)
    found: list[Monomial] = []
    for shift in range(size):
        entries = matrix[rows, rows ^ shift]
        if np.any(entries != 0):
            index = None if shift == 0 else states ^ _spread(np.full_like(local, shift), wires, n_wires)
            found.append(Monomial(entries[local], index, index))
    return tuple(found)


def _spread(value: Indices, wires: tuple[int, ...], n_wires: int) -> Indices:
    """Put the bits of ``value`` back on the wires."""
    out = np.zeros_like(value)
    for position, wire in enumerate(reversed(wires)):
        out |= ((value >> position) & 1) << (n_wires - 1 - wire)
    return out


def _step(op: Op, column: int, shared: bool, wires: tuple[int, ...], n_wires: int, conjugate: bool) -> Step:
    gate = GATES[op.name]
    if not gate.generator:
        matrix = gate.matrix()
        return Fixed(monomials(matrix.conj() if conjugate else matrix, wires, n_wires))
    word = pauli_matrix(gate.generator)
    (monomial,) = monomials(word.conj() if conjugate else word, wires, n_wires)
    sign = -1.0 if conjugate else 1.0
    return Rotation(monomial, column, sign, sign * gate.phase, shared)


@lru_cache(maxsize=256)
def steps(circuit: Circuit, density: bool) -> tuple[tuple[Step, ...], ...]:
    """Return one tuple of steps per op, on 2**n amplitudes, or on 4**n of a density matrix; cached per circuit."""
    n_wires = circuit.n_wires
    width = 2 * n_wires if density else n_wires
    column = 0
    listed: list[tuple[Step, ...]] = []
    for op in circuit.ops:
        if op.name == RESET:
            (wire,) = op.wires
            listed.append((Discard(2 ** (width - 1 - wire), 2 ** (n_wires - 1 - wire)),))
            continue
        shared = bool(op.slots) and circuit.shared[column]
        step = [_step(op, column, shared, op.wires, width, conjugate=False)]
        if density:
            columns = tuple(wire + n_wires for wire in op.wires)
            step.append(_step(op, column, shared, columns, width, conjugate=True))
        listed.append(tuple(step))
        column += len(op.slots)
    return tuple(listed)
