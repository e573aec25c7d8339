"""Lowers a circuit to items on the bits of an amplitude's number, for states too large for permutations as tables.

Gates on one wire are fused to one 2x2 matrix per run; the first matrix of each wire prepares a product state; SWAPs
rename wires; CNOT and CZ at the end move onto the observables. Numbers (angles, and constants, which are angles too)
stay out, so that circuits which differ in numbers alone share one program.

Axis legend: N = 2**n amplitudes; wire w owns bit n - 1 - w of an amplitude's number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.statevector.lowering import CONTROLLED
from backends.statevector.program import FIXED_NAMES
from backends.statevector.structure import Gate
from backends.statevector.wide_schedule import CNOT, CZ, MATRIX, WORD, Item, Pass, schedule
from circuits import GATES

_LETTERS = {"X": 1, "Y": 2, "Z": 3}
ROW_BITS = 10
"""Bits of a chunk beside those of a row: 128 KiB of amplitudes in single precision, which an L2 cache holds with the
bra. Measured."""


class Factor(NamedTuple):
    """One gate on one wire: a fixed one by number, or a rotation about a letter (1, 2, 3 for X, Y, Z) by an angle."""

    letter: int  # 0: fixed
    which: int  # number of the fixed matrix, or of the angle


@dataclass(frozen=True, eq=False)
class WideProgram:
    """What the kernels read: per stretch between two measurements the passes over memory.

    ``start`` (n,): per bit the matrix that acts on |0>, or -1. ``factors`` (g, 2): letter and number of the gates in
    matrices, ``bounds`` (m + 1,) where each matrix's begin. ``sweeps``: per stretch the gates left to the
    observables.
    """

    n_wires: int
    row_bits: int
    stretches: tuple[tuple[Pass, ...], ...]
    start: NDArray[np.int64]
    factors: NDArray[np.int64]
    bounds: NDArray[np.int64]
    sweeps: tuple[tuple[Gate, ...], ...]


@dataclass
class _Lowering:
    """State of the pass over the ops."""

    n_wires: int
    bits: list[int]  # of each wire: SWAPs exchange them
    items: list[Item] = field(default_factory=list)
    matrices: list[list[Factor]] = field(default_factory=list)
    pending: dict[int, list[Factor]] = field(default_factory=dict)
    start: dict[int, int] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    n_angles: int = 0

    def one_wire(self, bit: int, factor: Factor) -> None:
        self.pending.setdefault(bit, []).append(factor)

    def flush(self, bits: Iterable[int]) -> None:
        """Emit the pending matrices of bits."""
        for bit in bits:
            run = self.pending.pop(bit, None)
            if run:
                number = len(self.matrices)
                self.matrices.append(run)
                if bit in self.touched:
                    self.items.append(Item(MATRIX, 1 << bit, 0, number))
                else:
                    self.start[bit] = number
                self.touched.add(bit)

    def two_wires(self, item: Item) -> None:
        bits = [bit for bit in range(self.n_wires) if (item.x | item.z) >> bit & 1]
        self.flush(bits)
        self.items.append(item)
        self.touched.update(bits)

    def op(self, name: str, wires: tuple[int, ...]) -> None:
        gate, bits = GATES[name], [self.bits[wire] for wire in wires]
        if gate.generator:
            self._rotation(gate.generator, bits)
        elif name == "swap":
            first, second = wires
            self.bits[first], self.bits[second] = self.bits[second], self.bits[first]
        elif name == "cx":
            self.two_wires(Item(CNOT, 1 << bits[1], 1 << bits[0], 0))
        elif name == "cz":
            self.two_wires(Item(CZ, 0, 1 << bits[0] | 1 << bits[1], 0))
        elif gate.n_wires == 1:
            if name != "id":
                self.one_wire(bits[0], Factor(0, FIXED_NAMES.index(name)))
        else:
            before, middle, after = CONTROLLED[name]
            self.one_wire(bits[1], Factor(0, FIXED_NAMES.index(before)))
            self.op(middle, wires)
            self.one_wire(bits[1], Factor(0, FIXED_NAMES.index(after)))

    def _rotation(self, letters: str, bits: Sequence[int]) -> None:
        which, self.n_angles = self.n_angles, self.n_angles + 1
        if len(bits) == 1:
            self.one_wire(bits[0], Factor(_LETTERS[letters], which))
            return
        x = sum(1 << bit for letter, bit in zip(letters, bits, strict=True) if letter in "XY")
        z = sum(1 << bit for letter, bit in zip(letters, bits, strict=True) if letter in "YZ")
        self.two_wires(Item(WORD, x, z, which))

    def take_sweep(self) -> list[Gate]:
        """Remove the CNOT and CZ that nothing follows, and return them in order."""
        busy, kept, moved = 0, [], []
        for item in reversed(self.items):
            if item.kind in (CNOT, CZ) and not busy & (item.x | item.z):
                moved.append(self._gate(item))
            else:
                busy |= item.x | item.z
                kept.append(item)
        self.items = kept[::-1]
        return moved[::-1]

    def _gate(self, item: Item) -> Gate:
        low, high = item.z & -item.z, item.x if item.kind == CNOT else item.z & (item.z - 1)
        return "cx" if item.kind == CNOT else "cz", (self._wire(low), self._wire(high))

    def _wire(self, mask: int) -> int:
        return self.n_wires - mask.bit_length()

    def swaps(self) -> list[Gate]:
        """Swaps that put each wire back on its own bit."""
        bits, found = list(self.bits), []
        for wire in range(self.n_wires):
            place = self.n_wires - 1 - bits[wire]  # the wire that stands for the bit
            if place != wire:
                found.append(("swap", (wire, place)))
                other = bits.index(self.n_wires - 1 - wire)
                bits[other], bits[wire] = bits[wire], bits[other]
        return found


@lru_cache(maxsize=64)
def lower_states(n_wires: int, ops: tuple[Gate, ...], row_bits: int = ROW_BITS) -> WideProgram:
    """Return the program that prepares the state, each wire on its own bit. Cost O(ops passes)."""
    state = _new(n_wires)
    for name, wires in ops:
        state.op(name, wires)
    state.flush(range(n_wires))
    for _, (first, second) in state.swaps():
        a, b = (1 << (n_wires - 1 - wire) for wire in (first, second))
        state.items += [Item(CNOT, x, z, 0) for x, z in ((a, b), (b, a), (a, b))]
    return _assemble(state, [state.items], [[]], row_bits)


@lru_cache(maxsize=64)
def lower_observed(
    n_wires: int, ops: tuple[Gate, ...], times: tuple[int, ...], cone: frozenset[int], row_bits: int = ROW_BITS
) -> WideProgram:
    """Return the program that measures observables on the wires of ``cone`` after each of the given numbers of ops.

    The times ascend. With one time, ops that cannot influence the cone are left out.
    """
    state = _new(n_wires)
    stretches: list[list[Item]] = []
    sweeps: list[list[Gate]] = []
    kept = in_cone(ops[: times[0]], cone) if len(times) == 1 else [True] * times[-1]
    for first, last in pairwise((0, *times)):
        for (name, wires), matters in zip(ops[first:last], kept[first:last], strict=True):
            if matters:
                state.op(name, wires)
            else:
                state.n_angles += bool(GATES[name].generator)
        state.flush(range(n_wires))
        state.touched.update(range(n_wires))  # what comes first now must not change what was measured
        moved = state.take_sweep() if last == times[-1] else []
        stretches.append(state.items)
        sweeps.append([*moved, *state.swaps()])
        state.items = []
    return _assemble(state, stretches, sweeps, row_bits)


def in_cone(ops: Sequence[Gate], cone: frozenset[int]) -> list[bool]:
    """Whether each op can influence the wires of the cone."""
    reached, kept = set(cone), []
    for _, wires in reversed(ops):
        kept.append(not reached.isdisjoint(wires))
        if kept[-1]:
            reached.update(wires)
    return kept[::-1]


def _new(n_wires: int) -> _Lowering:
    return _Lowering(n_wires, [n_wires - 1 - wire for wire in range(n_wires)])


def _assemble(
    state: _Lowering, stretches: Sequence[Sequence[Item]], sweeps: Sequence[Sequence[Gate]], row_bits: int
) -> WideProgram:
    counts = np.cumsum([0, *(len(run) for run in state.matrices)])
    factors = [factor for run in state.matrices for factor in run]
    return WideProgram(
        state.n_wires,
        row_bits,
        tuple(
            tuple(schedule(items, state.n_wires, row_bits)) if items or not number else ()
            for number, items in enumerate(stretches)
        ),
        np.array([state.start.get(bit, -1) for bit in range(state.n_wires)], dtype=np.int64),
        np.array(factors, dtype=np.int64).reshape(-1, 2),
        counts.astype(np.int64),
        tuple(tuple(gates) for gates in sweeps),
    )
