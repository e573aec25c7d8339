"""The numbers of a program's matrices for one sample, and the slopes of those that prepare its first state.

Axis legend: m matrices, g gates in them, a angles, n bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backends.statevector.fusing import fuse
from backends.statevector.program import FIXED_MATRICES
from backends.statevector.wide_lowering import WideProgram
from circuits.gates import PAULI

_PAULIS = np.stack([PAULI[letter] for letter in "XYZ"])
_NO_CODE = np.empty((0, 6), np.int64), np.empty((0, 4), np.int64)
"""No matrix holds an angle of lanes."""


@dataclass(frozen=True, eq=False)
class WideNumbers:
    """``matrices`` and ``inverses`` (m, 8): rows, real and imaginary parts in turn. ``half`` (a, 2): cosine and sine of
    half the angles. ``axes`` (g, 3): the gates' generators behind the whole run, as vectors of X, Y, Z. ``columns``
    (n, 2): what each bit's first matrix makes of |0>."""

    matrices: NDArray[np.floating]
    inverses: NDArray[np.floating]
    half: NDArray[np.floating]
    axes: NDArray[np.float64]
    columns: NDArray[np.complex128]


def numbers_of(program: WideProgram, angles: NDArray[np.float64], kind: np.dtype) -> WideNumbers:
    """Multiply the gates of each run. Cost O(gates)."""
    n_matrices, n_factors = len(program.bounds) - 1, len(program.factors)
    planes = np.zeros((4, n_matrices, 8), kind)
    halves, axes = np.empty((2, len(angles)), kind), np.zeros((n_factors, 3))
    whole = np.zeros(n_matrices, np.bool_)  # none is taken apart
    unused = np.empty((0, 2), kind), np.empty((2, 0, 2), np.complex128), np.empty((0, 3), kind)
    factors = (*_NO_CODE, program.factors, program.bounds, whole)
    fuse(factors, FIXED_MATRICES, angles, planes, *unused[:2], halves, axes, unused[2])
    columns = np.tile(np.array([1, 0], np.complex128), (program.n_wires, 1))
    started = program.start >= 0
    first = planes[0, program.start[started]].astype(np.float64)
    columns[started] = first[:, 0::4] + 1j * first[:, 1::4]
    return WideNumbers(planes[0], planes[1], np.ascontiguousarray(halves.T), axes, columns)


def start_slopes(columns: NDArray[np.complex128], bra: NDArray[np.floating]) -> NDArray[np.float64]:
    """Imaginary parts of ``<bra|P|psi>``, shape (n, 3), for P = X, Y, Z on each bit of the product state of columns.

    The bra's planes (2, N) are contracted with the columns of one half of the bits for the wires of the other half: two
    passes over memory for all wires.
    """
    low = len(columns) // 2
    lower, upper = _above(columns[:low]), _above(columns[low:])
    re, im = (plane.reshape(len(upper[-1]), len(lower[-1])) for plane in bra)
    sides = [np.stack((found[-1].real, found[-1].imag), 1).astype(bra.dtype) for found in (lower, upper)]
    of_upper = _conjugate_times(re @ sides[0], im @ sides[0])
    of_lower = _conjugate_times(re.T @ sides[1], im.T @ sides[1])
    pairs = np.concatenate((_pairs(columns[:low], lower, of_lower), _pairs(columns[low:], upper, of_upper)))
    return np.einsum("nb,pbc,nc->np", pairs, _PAULIS, columns).imag


def _conjugate_times(re: NDArray[np.floating], im: NDArray[np.floating]) -> NDArray[np.complex128]:
    """``(re - i im) (a + i b)`` from the products with a and b in columns."""
    return (re[:, 0] + im[:, 1]).astype(np.float64) + 1j * (re[:, 1] - im[:, 0])


def _above(columns: NDArray[np.complex128]) -> list[NDArray[np.complex128]]:
    """Product states of the highest 0, 1, 2, ... bits; the first column is the lowest bit's."""
    states = [np.ones(1, np.complex128)]
    for column in columns[::-1]:
        states.append(np.multiply.outer(states[-1], column).reshape(-1))
    return states


def _pairs(
    columns: NDArray[np.complex128], above: list[NDArray[np.complex128]], rest: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """For each bit (n, 2) of ``rest`` (2**n,), all other bits contracted with their columns."""
    found = np.empty((len(columns), 2), np.complex128)
    for bit, column in enumerate(columns):  # the bits below are contracted already
        split = rest.reshape(-1, 2)
        found[bit] = above[len(columns) - 1 - bit] @ split
        rest = split @ column
    return found
