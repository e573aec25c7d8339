"""What the compiled executor interprets: a program of few instructions, with its tables, and no numbers in it.

Axis legend: N = 2**n amplitudes; wire w owns bit n - 1 - w of an amplitude's number.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.statevector.structure import Gate
from circuits import GATES

MATRIX, PERMUTE, WORD, MEASURE, CNOT, CZ, ROTATE = range(7)
"""Instructions: a 2x2 matrix on a wire, a permutation of amplitudes with phases, a rotation about a Pauli word, the
observables' expectations here, single gates where a permutation would cost more, and a real rotation of a wire."""
_FIXED = {
    **{name: gate.matrix() for name, gate in GATES.items() if gate.n_wires == 1 and not gate.generator},
    "ry_plus": GATES["ry"].matrix(np.pi / 4),
    "ry_minus": GATES["ry"].matrix(-np.pi / 4),
}
FIXED_NAMES = tuple(_FIXED)
FIXED_MATRICES = np.stack([_FIXED[name] for name in FIXED_NAMES])
"""Matrices of the gates without angle on one wire, by their number."""


class Factor(NamedTuple):
    """One gate on one wire: a fixed one by number, or a rotation about a letter (1, 2, 3 for X, Y, Z) by an angle."""

    letter: int  # 0: fixed
    which: int  # number of the fixed matrix, or of the angle
    lane: bool  # the angle differs between samples


class Diagonal(NamedTuple):
    """One side of a matrix ``left RY right`` that went into a permutation: left ones before it, right ones behind."""

    table: int
    matrix: int
    right: int
    bit: int


@dataclass(frozen=True, eq=False)
class Program:
    """What the interpreter reads. ``code`` (i, 6): instruction, then

    - MATRIX: bit of the wire, matrix, lane angle or -1, its letter, 0;
    - ROTATE: bit of the wire, matrix, 0, 0, 0;
    - PERMUTE: number of the permutation, of its table of phases or -1, 0, 0, 0;
    - WORD: x mask, z mask, angle, whether of lanes, number of Y letters;
    - MEASURE: number of the time, 0, 0, 0, 0;
    - CNOT, CZ: masks of the control and of the target, 0, 0, 0.

    ``start`` (c, 4): matrices that act on |0>, in order wire by wire: lane angle (or -1), letter and wire. ``factors``
    (g, 2): letter and which, of the shared gates in a matrix, ``bounds`` (m + 1,) where each matrix's begin. ``split``
    (m,): whether a matrix became a ROTATE, whose ``diagonals`` (d, 4) went into tables. ``sources`` and ``targets``
    (p, N): amplitude k comes from ``sources[k]``, amplitude k goes to ``targets[k]``; ``signs`` (p, N) of amplitude k
    after it. ``tables`` (t,): the permutation of each table of phases. ``sweep``: the gates that moved onto the
    observables. ``n_times`` counts MEASURE.
    """

    n_wires: int
    code: NDArray[np.int64]
    start: NDArray[np.int64]
    factors: NDArray[np.int64]
    bounds: NDArray[np.int64]
    split: NDArray[np.bool_]
    sources: NDArray[np.int32]
    targets: NDArray[np.int32]
    signs: NDArray[np.int8]
    tables: NDArray[np.int64]
    diagonals: NDArray[np.int64]
    sweep: tuple[Gate, ...]
    n_times: int

    @cached_property
    def moves(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Permutations as the interpreter takes them."""
        return self.sources, self.targets

    @cached_property
    def matrices(self) -> tuple[NDArray[Any], ...]:
        """What tells how numbers become matrices and tables, as ``fusing.fuse`` takes it."""
        return self.code, self.start, self.factors, self.bounds, self.split

    @cached_property
    def phases(self) -> tuple[NDArray[Any], ...]:
        """What tells how diagonals become tables, as ``fusing.fuse`` takes it."""
        return self.tables, self.diagonals, self.sources, self.signs


def permutation(gates: Iterable[Gate], n_wires: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """Return sources, targets, and the sign of each amplitude after CNOT, X, SWAP, Z and CZ gates.

    >>> permutation([("cx", (0, 1))], 2)[0].tolist()
    [0, 1, 3, 2]
    """
    places = np.arange(2**n_wires)  # where amplitude k is by now
    flips = np.zeros_like(places)

    def bit(wire: int) -> NDArray[np.int64]:
        return (places >> (n_wires - 1 - wire)) & 1

    for name, wires in gates:
        if name == "cx":
            places = places ^ (bit(wires[0]) << (n_wires - 1 - wires[1]))
        elif name == "x":
            places = places ^ (1 << (n_wires - 1 - wires[0]))
        elif name == "swap":
            differ = bit(wires[0]) ^ bit(wires[1])
            places = places ^ (differ << (n_wires - 1 - wires[0])) ^ (differ << (n_wires - 1 - wires[1]))
        else:  # z and cz
            flips ^= bit(wires[0]) & bit(wires[-1])
    sources = np.empty_like(places)
    sources[places] = np.arange(2**n_wires)
    return sources, places, (1 - 2 * flips[sources]).astype(np.int8)
