"""What is read of a state at the end of a program, other than expectations.

Axis legend: N amplitudes, d basis states of the wires read, r of the others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.statevector.keeping import bytes_of, keep
from backends.statevector.lowering import lower_read
from backends.statevector.program import Program, permutation
from backends.statevector.readouts import DENSITY, NOTHING, PROBABILITIES, RENYI2, VON_NEUMANN
from backends.statevector.structure import Structure

ENTROPIES = {"von_neumann": VON_NEUMANN, "renyi2": RENYI2}
MAX_ENTROPY_WIRES = 6
"""Wires of the smaller side: beyond, LAPACK's eigenvalues of one large matrix are faster than rotations of several."""


@dataclass(frozen=True, eq=False)
class Reading:
    """``kind``, of ``readouts``; ``order`` (d, r): the number of each amplitude, as the program leaves them."""

    kind: int
    order: NDArray[np.int64]

    @property
    def n_values(self) -> int:
        """Real numbers of a sample."""
        size = len(self.order)
        return {PROBABILITIES: size, DENSITY: 2 * size * size}.get(self.kind, 1)


NO_READING = Reading(NOTHING, np.empty((0, 0), np.int64))


def _weight(made: tuple[Program, Reading]) -> int:
    program, reading = made
    return bytes_of(program) + reading.order.nbytes


@keep(_weight, count=64)
def lower_reading(given: Structure, kind: int, wires: tuple[int, ...]) -> tuple[Program, Reading]:
    """Return the program, and what is read behind it of the wires, the first most significant.

    >>> from backends.statevector.structure import structure
    >>> from circuits import Circuit, Op
    >>> swapped = Circuit(2, (Op("h", (0,)), Op("swap", (0, 1))))
    >>> lower_reading(structure(swapped)[0], PROBABILITIES, (0,))[1].order.tolist()  # rows: wire 1 before the swap
    [[0, 2], [1, 3]]
    """
    program = lower_read(given, wires, kind == PROBABILITIES, kind in ENTROPIES.values())
    sources, _, _ = permutation(program.sweep, given.n_wires)
    rest = [wire for wire in range(given.n_wires) if wire not in wires]
    order = sources.reshape([2] * given.n_wires).transpose(*wires, *rest).reshape(2 ** len(wires), -1)
    return program, Reading(kind, np.ascontiguousarray(order, dtype=np.int64))
