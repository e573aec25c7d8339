"""A circuit as a list of steps on a batch of vectors, worked out once per circuit.

Axis legend: N = 2**m amplitudes on m wires, b batch, k wires of one gate, K = 2**k. Vectors are stored (N, b), batch
last, so that an amplitude of one gate is a block of rows. A density matrix on n wires is a vector on m = 2n wires (rows
first), on which U acts twice: U on the row wires and its conjugate on the column wires.
"""

from dataclasses import dataclass
from functools import lru_cache

from circuits import GATES, Circuit, Op
from circuits.gates import Matrix, pauli_matrix
from circuits.ir import RESET

Row = tuple[tuple[int, complex], ...]
"""The non-zero entries of one row of a gate's matrix: (column, entry)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a gate's K amplitudes stand: in vectors reshaped to (*shape, b), amplitude r is the block ``at[r]``."""

    shape: tuple[int, ...]
    at: tuple[tuple[int | slice, ...], ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A gate without angle, and the rows of its adjoint, which is what its gradient takes."""

    frame: Frame
    rows: tuple[Row, ...]
    adjoint: tuple[Row, ...]

    def inverse(self) -> "Fixed":
        """The adjoint gate."""
        return Fixed(self.frame, self.adjoint, self.rows)


@dataclass(frozen=True, slots=True)
class Rotation:
    """``exp(i phase t) exp(-i t sign P / 2)`` for the angle t in ``column``; (source, entry) per row of the word P."""

    frame: Frame
    word: Row
    column: int
    sign: float
    phase: float
    shared: bool


@dataclass(frozen=True, slots=True)
class Discard:
    """A reset on a density matrix: the trace over a wire, (row, column) in the frame, times |0><0|."""

    frame: Frame


Step = Fixed | Rotation | Discard


def frame(wires: tuple[int, ...], width: int) -> Frame:
    """Return the frame of a gate on some of ``width`` wires; the gate's first wire is its most significant bit.

    >>> frame((1,), 3).shape, frame((1,), 3).at[1]
    ((2, 2, 2), (slice(None, None, None), 1))
    """
    ascending = sorted(wires)
    shape: list[int] = []
    for before, wire in zip((-1, *ascending), ascending, strict=False):
        shape += [2 ** (wire - before - 1), 2]
    shape.append(2 ** (width - 1 - ascending[-1]))

    def block(state: int) -> tuple[int | slice, ...]:
        bits = {wire: (state >> (len(wires) - 1 - k)) & 1 for k, wire in enumerate(wires)}
        return tuple(part for wire in ascending for part in (slice(None), bits[wire]))

    return Frame(tuple(shape), tuple(block(state) for state in range(2 ** len(wires))))


def _rows(matrix: Matrix) -> tuple[Row, ...]:
    return tuple(tuple((c, complex(entry)) for c, entry in enumerate(row) if entry != 0) for row in matrix)


def _gate(op: Op, column: int, shared: bool, wires: tuple[int, ...], width: int, conjugate: bool) -> Step:
    gate = GATES[op.name]
    matrix = pauli_matrix(gate.generator) if gate.generator else gate.matrix()
    if conjugate:
        matrix = matrix.conj()
    where = frame(wires, width)
    if not gate.generator:
        return Fixed(where, _rows(matrix), _rows(matrix.conj().T))
    sign = -1.0 if conjugate else 1.0
    return Rotation(where, tuple(row[0] for row in _rows(matrix)), column, sign, sign * gate.phase, shared)


@lru_cache(maxsize=256)
def steps(circuit: Circuit, density: bool) -> tuple[tuple[Step, ...], ...]:
    """Return one tuple of steps per op, on n wires, or on 2n for a density matrix; cached per circuit.

    >>> from circuits import Reset
    >>> [len(listed) for listed in steps(Circuit(1, (Op("h", (0,)), *Reset(0))), density=True)]
    [2, 1]
    """
    n_wires = circuit.n_wires
    width = 2 * n_wires if density else n_wires
    column = 0
    listed: list[tuple[Step, ...]] = []
    for op in circuit.ops:
        columns = tuple(wire + n_wires for wire in op.wires)
        if op.name == RESET:
            listed.append((Discard(frame((*op.wires, *columns), width)),))
            continue
        shared = bool(op.slots) and circuit.shared[column]
        step = [_gate(op, column, shared, op.wires, width, conjugate=False)]
        if density:
            step.append(_gate(op, column, shared, columns, width, conjugate=True))
        listed.append(tuple(step))
        column += len(op.slots)
    return tuple(listed)
