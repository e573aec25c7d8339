"""Groups items into passes over memory: each pass gathers chunks that fit the cache and applies many items to them.

A chunk has a bit for each of its rows' numbers (any bits of the amplitudes' numbers), four lane bits inside a row, and
the outer bits are the chunk's own number. Items change the values of row bits alone; controls of CNOT may be outer bits
too, and what is diagonal may read every bit. A CNOT moves nothing: it changes what the rows mean, which is a linear map
over GF(2), and rows go back to their places at the end of the pass.

Axis legend: d row bits, i instructions; masks ``x`` and ``z`` are over row bits, ``outer`` over the chunk's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MATRIX, WORD, DIAGONAL, CZ, CNOT = 0, 1, 2, 3, 4
"""Items and instructions: a 2x2 matrix on a bit, a rotation about a Pauli word, about a word of Z alone, and gates."""
LANE_BITS = 4
"""Bits within a row of 16 numbers."""


class Item(NamedTuple):
    """What happens to bits (masks): MATRIX on x; WORD with X and Y letters at x, Y and Z letters at z; CZ on z; CNOT
    from z to x. ``which``: number of the matrix or of the angle."""

    kind: int
    x: int
    z: int
    which: int


class _Parity(NamedTuple):
    """A mask over row bits, over outer bits and over lane bits."""

    rows: int
    outer: int
    lanes: int


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass over memory. ``rows`` (d,), ``lanes`` (4,), ``outer`` (n - d - 4,): the bits, ascending; without the
    lowest four among the rows, these are the lanes, else the pass transposes.

    ``code`` (i, 10): kind; x; z over rows, outer bits, lanes; matrix or angle; number of Y letters; and for CZ the z of
    its second bit. The amplitude whose row bits have the values v lies, at the end, in the row that is the XOR of
    ``places[j]`` over the ones of v, where value j itself is flipped by the parity of the chunk's number and
    ``flips[j]``.
    """

    rows: NDArray[np.int64]
    lanes: NDArray[np.int64]
    outer: NDArray[np.int64]
    code: NDArray[np.int64]
    places: NDArray[np.int64]
    flips: NDArray[np.int64]

    @property
    def is_turned(self) -> bool:
        """Whether rows are gathered across lanes."""
        return bool(self.lanes[0] != 0)


class _Attempt:
    """Takes items in order as long as their bits fit one chunk."""

    def __init__(self, n_wires: int, row_bits: int, turned: bool) -> None:
        self.n_wires, self.row_bits = n_wires, row_bits
        low = (1 << LANE_BITS) - 1
        self.rows = low if turned else 0
        self.lanes = 0 if turned else low  # known beforehand, or chosen from what is left
        self.controls = 0
        self.taken: list[Item] = []
        self.left: list[Item] = []

    def run(self, items: Sequence[Item]) -> None:
        blocked, everything = 0, (1 << self.n_wires) - 1
        for number, item in enumerate(items):
            if (item.x | item.z) & blocked or not self._fits(item):
                blocked |= item.x | item.z
                self.left.append(item)
                if blocked == everything:
                    self.left += items[number + 1 :]
                    return
            else:
                self.taken.append(item)

    def _fits(self, item: Item) -> bool:
        """Make room for an item where there is room."""
        rows = self.rows | item.x
        controls = self.controls | (item.z if item.kind == CNOT else 0)
        held = rows | controls
        if held & self.lanes or rows.bit_count() > self.row_bits or held.bit_count() > self.n_wires - LANE_BITS:
            return False
        self.rows, self.controls = rows, controls
        return True

    def made(self) -> Pass:
        """The pass, its chunk filled up with low bits."""
        bits = range(self.n_wires)
        lanes = [bit for bit in bits if self.lanes >> bit & 1]
        if not lanes:
            lanes = [bit for bit in bits if not (self.rows | self.controls) >> bit & 1][:LANE_BITS]
        rows = [bit for bit in bits if self.rows >> bit & 1]
        spare = [bit for bit in bits if bit not in rows and bit not in lanes]
        rows = sorted(rows + spare[: self.row_bits - len(rows)])
        return _encoded(self.taken, rows, lanes, [bit for bit in bits if bit not in rows and bit not in lanes])


def schedule(items: Sequence[Item], n_wires: int, row_bits: int) -> list[Pass]:
    """Return passes that apply the items in an order with the same effect; at least one, be it empty.

    Greedy: of a pass with rows in place and one that transposes, the one that does more comes next. Cost O(items
    passes).

    >>> matrix, cnot = Item(MATRIX, 1 << 9, 0, 0), Item(CNOT, 1, 1 << 9, 0)  # on bit 9; from there to bit 0
    >>> [(passed.is_turned, len(passed.code)) for passed in schedule([matrix, cnot], n_wires=10, row_bits=5)]
    [(True, 1)]
    """
    left, passes = list(items), []
    while left or not passes:
        tries = [_Attempt(n_wires, row_bits, turned) for turned in (False, True)]
        for attempt in tries:
            attempt.run(left)
        best = max(tries, key=lambda attempt: len(attempt.taken))
        passes.append(best.made())
        left = best.left
    return passes


def _encoded(items: Sequence[Item], rows: list[int], lanes: list[int], outer: list[int]) -> Pass:
    """Items as instructions, CNOTs as changes of what the rows mean."""

    def part(mask: int, bits: list[int]) -> int:
        return sum((mask >> bit & 1) << j for j, bit in enumerate(bits))

    flips = {bit: 1 << j for j, bit in enumerate(rows)}  # rows between amplitudes that differ in the bit's value alone
    values = {
        bit: _Parity(part(1 << bit, rows), part(1 << bit, outer), part(1 << bit, lanes))
        for bit in (*rows, *lanes, *outer)
    }

    def read(mask: int) -> _Parity:
        found = _Parity(0, 0, 0)
        for bit in _ones(mask):
            found = _Parity(*(a ^ b for a, b in zip(found, values[bit], strict=True)))
        return found

    code: list[tuple[int, ...]] = []
    for kind, x, z, which in items:
        if kind == CNOT:
            control, target = _ones(z)[0], _ones(x)[0]
            values[target] = read(x | z)
            if control in flips:
                flips[control] ^= flips[target]
            continue
        moved = 0
        for bit in _ones(x):
            moved ^= flips[bit]
        bits = _ones(z)
        if kind == CZ:
            code.append((CZ, 0, *values[bits[0]], 0, 0, *values[bits[1]]))
        elif kind == MATRIX:
            code.append((MATRIX, moved, *read(x), which, 0, 0, 0, 0))
        else:
            code.append((WORD if x else DIAGONAL, moved, *read(z), which, (x & z).bit_count() & 3, 0, 0, 0))
    return Pass(
        rows=_array(rows),
        lanes=_array(lanes),
        outer=_array(outer),
        code=_array(code).reshape(-1, 10),
        places=_array([flips[bit] for bit in rows]),
        flips=_array([values[bit].outer for bit in rows]),
    )


def _array(numbers: Sequence[int] | Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def _ones(mask: int) -> list[int]:
    """The bits of a mask."""
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
