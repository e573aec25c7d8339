"""Lowers a circuit's structure to the program that the compiled executor interprets.

What depends on numbers (angles, and constants, which are angles too) stays out, so that circuits which differ in
numbers alone share one program. Passes: ops outside the light cone of what is observed are dropped; gates on one wire
are fused to one 2x2 matrix per run; the first matrices of each wire prepare a product state; runs of CNOT, CZ, SWAP
(and X, Z between them) become one permutation of amplitudes with signs, and the last of them moves onto the
observables; permutations take up the diagonal sides of the matrices around them (``phases``).

Axis legend: N = 2**n amplitudes; wire w owns bit n - 1 - w of an amplitude's number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from backends.statevector.keeping import bytes_of, keep
from backends.statevector.phases import split
from backends.statevector.program import (
    CNOT,
    CZ,
    FIXED_NAMES,
    MATRIX,
    MEASURE,
    PERMUTE,
    WORD,
    Factor,
    Program,
    permutation,
)
from backends.statevector.structure import Angle, Gate, Structure
from circuits import GATES

_FEW = 2
"""Gates that are run one by one: each of them moves half of the amplitudes, a permutation copies them all."""
SWEEP = frozenset(("cx", "cz", "swap"))
_LETTERS = {"X": 1, "Y": 2, "Z": 3}
CONTROLLED = {"cy": ("sdg", "cx", "s"), "ch": ("ry_minus", "cz", "ry_plus")}
"""Gates on two wires as gates on the second one around a CNOT or CZ: exact, phases included."""


@dataclass
class _Lowering:
    """State of the pass over the ops: open permutation, pending factors per wire, what was emitted."""

    n_wires: int
    code: list[tuple[int, ...]] = field(default_factory=list)
    matrices: list[list[Factor]] = field(default_factory=list)
    sweeps: dict[tuple[Gate, ...], int] = field(default_factory=dict)
    open: list[Gate] = field(default_factory=list)
    pending: dict[int, list[Factor]] = field(default_factory=dict)
    start: list[tuple[int, int, int, int]] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)
    n_times: int = 0

    def bit(self, wire: int) -> int:
        return self.n_wires - 1 - wire

    @property
    def swept(self) -> set[int]:
        """Wires of the open permutation."""
        return {wire for _, wires in self.open for wire in wires}

    def flush_wires(self, wires: Iterable[int]) -> None:
        """Emit the pending matrices of wires, and before them the open permutation where it comes before them."""
        waiting = [wire for wire in wires if self.pending.get(wire)]
        if not self.swept.isdisjoint(waiting):
            self.flush_sweep()
        for wire in waiting:
            for run in _runs(self.pending.pop(wire)):
                self._matrix(wire, run)

    def flush(self) -> None:
        """Emit everything."""
        self.flush_wires(range(self.n_wires))
        self.flush_sweep()

    def flush_sweep(self) -> None:
        """Emit the open permutation: few gates as they are, more of them as a table, equal ones as one."""
        gates, self.open = tuple(self.open), []
        if len(gates) <= _FEW and all(name in ("cx", "cz") for name, _ in gates):
            for name, (first, second) in gates:
                self.code.append((CNOT if name == "cx" else CZ, 1 << self.bit(first), 1 << self.bit(second), 0, 0, 0))
            return
        number = self.sweeps.setdefault(gates, len(self.sweeps))
        self.code.append((PERMUTE, number, int(any(name in ("z", "cz") for name, _ in gates)), 0, 0, 0))

    def _matrix(self, wire: int, run: list[Factor]) -> None:
        lane, letter = -1, 0
        if run[0].lane:
            lane, letter = run[0].which, run[0].letter
            run = run[1:]
        number = len(self.matrices)
        self.matrices.append(run)
        if wire not in self.touched and not self.n_times:
            self.start.append((number, lane, letter, wire))
        else:
            self.code.append((MATRIX, self.bit(wire), number, lane, letter, 0))

    def measure(self) -> None:
        self.code.append((MEASURE, self.n_times, 0, 0, 0, 0))
        self.n_times += 1

    def one_wire(self, wire: int, factor: Factor) -> None:
        self.pending.setdefault(wire, []).append(factor)

    def sweep(self, name: str, wires: tuple[int, ...]) -> None:
        self.flush_wires(wires)
        self.open.append((name, wires))
        self.touched.update(wires)

    def word(self, letters: str, wires: tuple[int, ...], angle: Angle) -> None:
        self.flush_wires(wires)
        if not self.swept.isdisjoint(wires):
            self.flush_sweep()
        x = sum(1 << self.bit(wire) for letter, wire in zip(letters, wires, strict=True) if letter in "XY")
        z = sum(1 << self.bit(wire) for letter, wire in zip(letters, wires, strict=True) if letter in "YZ")
        self.code.append((WORD, x, z, angle.which, int(angle.lane), letters.count("Y") % 4))
        self.touched.update(wires)


def _runs(factors: list[Factor]) -> Iterable[list[Factor]]:
    """Parts of a run on one wire that are one matrix each: at most one angle of lanes, and that one first."""
    part: list[Factor] = []
    for factor in factors:
        if factor.lane and part:
            yield part
            part = []
        part.append(factor)
    yield part


@keep(bytes_of, count=64)
def lower(given: Structure) -> Program:
    """Return the program that prepares the state. Cost O(ops + permutations N), as for the other two."""
    state = _lowered(given, _gates(given))
    state.flush()
    return _assemble(state)


@keep(bytes_of, count=64)
def lower_observed(given: Structure, cone: frozenset[int], diagonal: bool) -> Program:
    """Return the program that measures observables on the wires of ``cone`` at the end, ``diagonal`` ones or any.

    Ops that cannot influence them are left out, and the last permutation becomes ``sweep``, through which the
    observables must be pulled back.
    """
    state = _lowered(given, _in_cone(_gates(given), cone))
    sweep = _last_sweep(state)
    state.flush()
    state.measure()
    return _assemble(state, sweep, diagonal)


def lower_read(given: Structure, wires: tuple[int, ...], diagonal: bool, spectrum: bool) -> Program:
    """Return the program before a read-out of wires: of their density matrix, its diagonal, or its ``spectrum``.

    Ops that cannot influence it are left out: those outside the light cone, and for a spectrum the last ones within
    either side. The last permutation becomes ``sweep`` where the read-out cannot tell its signs, or it has none.
    """
    gates = _gates(given)
    state = _lowered(given, _across(gates, frozenset(wires)) if spectrum else _in_cone(gates, frozenset(wires)))
    signed = any(name in ("z", "cz") for name, _ in state.open)
    sweep = () if signed and not diagonal else _last_sweep(state)
    state.flush()
    return _assemble(state, sweep, diagonal)


def _last_sweep(state: _Lowering) -> tuple[Gate, ...]:
    """Take the open permutation out, where nothing comes behind it."""
    state.flush_wires(wire for wire in range(state.n_wires) if wire not in state.swept)
    if any(state.pending.values()):
        return ()
    sweep, state.open = tuple(state.open), []
    return sweep


@keep(bytes_of, count=64)
def lower_along(given: Structure, times: tuple[int, ...]) -> Program:
    """Return the program that measures after each of the given numbers of ops, ascending."""
    gates, state = _gates(given), _Lowering(given.n_wires)
    for first, last in pairwise((0, *times)):
        for name, wires, angle in gates[first:last]:
            _lower_op(state, name, wires, angle)
        state.flush()
        state.measure()
    return _assemble(state)


_Placed = tuple[str, tuple[int, ...], Angle | None]


def _gates(given: Structure) -> list[_Placed]:
    """The ops with their angles."""
    angles = iter(given.angles)
    return [(name, wires, next(angles) if GATES[name].generator else None) for name, wires in given.ops]


def _lowered(given: Structure, gates: Iterable[_Placed]) -> _Lowering:
    state = _Lowering(given.n_wires)
    for name, wires, angle in gates:
        _lower_op(state, name, wires, angle)
    return state


def _in_cone(gates: Sequence[_Placed], cone: frozenset[int]) -> list[_Placed]:
    """The gates that can influence the wires of the cone."""
    reached, kept = set(cone), []
    for gate in reversed(gates):
        if not reached.isdisjoint(gate[1]):
            reached.update(gate[1])
            kept.append(gate)
    return kept[::-1]


def _across(gates: Sequence[_Placed], side: frozenset[int]) -> list[_Placed]:
    """The gates that can influence the spectrum on one side of a cut: not those behind the last ones that cross it."""
    reached: set[int] = set()
    kept = []
    for gate in reversed(gates):
        inside = len(side.intersection(gate[1]))
        if 0 < inside < len(gate[1]) or not reached.isdisjoint(gate[1]):
            reached.update(gate[1])
            kept.append(gate)
    return kept[::-1]


def _lower_op(state: _Lowering, name: str, wires: tuple[int, ...], angle: Angle | None) -> None:
    gate = GATES[name]
    if angle is not None and gate.n_wires == 1:
        state.one_wire(wires[0], Factor(_LETTERS[gate.generator], angle.which, angle.lane))
    elif angle is not None:
        state.word(gate.generator, wires, angle)
    elif gate.n_wires == 1:
        if name in ("x", "z") and state.open and not state.pending.get(wires[0]):
            state.sweep(name, wires)
        elif name != "id":
            state.one_wire(wires[0], Factor(0, FIXED_NAMES.index(name), False))
    elif name in SWEEP:
        state.sweep(name, wires)
    else:
        before, middle, after = CONTROLLED[name]
        state.one_wire(wires[1], Factor(0, FIXED_NAMES.index(before), False))
        state.sweep(middle, wires)
        state.one_wire(wires[1], Factor(0, FIXED_NAMES.index(after), False))


def _assemble(state: _Lowering, sweep: tuple[Gate, ...] = (), diagonal: bool = False) -> Program:
    counts = np.cumsum([0, *(len(run) for run in state.matrices)])
    factors = [(factor.letter, factor.which) for run in state.matrices for factor in run]
    start = sorted(state.start, key=lambda row: row[3])
    moved = [permutation(gates, state.n_wires) for gates in state.sweeps]
    size = 2**state.n_wires
    code, diagonals, tables = split(state.code, diagonal)
    is_split = np.zeros(len(state.matrices), dtype=np.bool_)
    is_split[[entry.matrix for entry in diagonals]] = True
    return Program(
        state.n_wires,
        np.array(code, dtype=np.int64).reshape(-1, 6),
        np.array(start, dtype=np.int64).reshape(-1, 4),
        np.array(factors, dtype=np.int64).reshape(-1, 2),
        counts.astype(np.int64),
        is_split,
        np.array([parts[0] for parts in moved], dtype=np.int32).reshape(-1, size),
        np.array([parts[1] for parts in moved], dtype=np.int32).reshape(-1, size),
        np.array([parts[2] for parts in moved], dtype=np.int8).reshape(-1, size),
        np.array(tables, dtype=np.int64),
        np.array(diagonals, dtype=np.int64).reshape(-1, 4),
        sweep,
        state.n_times,
    )
