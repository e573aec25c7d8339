"""Fuses the gates of each run on one wire to a 2x2 matrix, and tells where their generators went.

Axis legend: m matrices, g shared gates in them.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from backends.statevector.lowering import FIXED_MATRICES, MATRIX, Program

_COMPILED = numba.njit(cache=True, nogil=True, error_model="numpy")


class Fused:
    """The numbers of a program's matrices for one set of shared angles.

    ``matrices`` and ``inverses`` (m, 8): rows, real and imaginary parts in turn. ``turned``: ``-i U P`` for those with
    an angle of lanes about P, so that a lane's matrix is ``cos U + sin turned``; ``turned_inverses`` its adjoint.
    ``axes`` (g, 3) and ``lane_axes`` (m, 3): the generators behind the whole run, as vectors of X, Y, Z.
    """

    def __init__(self, program: Program, angles: NDArray[np.float64], dtype: np.dtype) -> None:
        n_matrices = len(program.bounds) - 1
        matrices = np.empty((n_matrices, 2, 2), np.complex128)
        turned = np.zeros((n_matrices, 2, 2), np.complex128)
        self.axes = np.zeros((len(program.factors), 3))
        lane_axes = np.zeros((n_matrices, 3))
        fuse(program.factors, program.bounds, FIXED_MATRICES, angles, matrices, self.axes)
        turn(program.code, program.start, matrices, turned, lane_axes)
        self.matrices = _planes(matrices, dtype)
        self.inverses = _planes(matrices.conj().swapaxes(1, 2), dtype)
        self.turned = _planes(turned, dtype)
        self.turned_inverses = _planes(turned.conj().swapaxes(1, 2), dtype)
        self.lane_axes = lane_axes.astype(dtype)


def _planes(matrices: NDArray[np.complex128], dtype: np.dtype) -> NDArray[np.floating]:
    """Complex (m, 2, 2) as reals (m, 8)."""
    return np.ascontiguousarray(matrices).view(np.float64).reshape(-1, 8).astype(dtype)


@_COMPILED
def multiply(left, right, out):
    """``out = left right`` for 2x2 complex matrices."""
    for row in range(2):
        for column in range(2):
            out[row, column] = left[row, 0] * right[0, column] + left[row, 1] * right[1, column]


@_COMPILED
def fuse(factors, bounds, fixed, angles, matrices, axes):
    """Multiply each matrix of shared gates, (m, 2, 2), and carry each gate's generator behind it: axes (g, 3).

    A rotation about P followed by V has, behind V, the generator ``V P V^dagger = a . (X, Y, Z)``.
    """
    after = np.empty((2, 2), np.complex128)
    spare = np.empty((2, 2), np.complex128)
    gate = np.empty((2, 2), np.complex128)
    for k in range(bounds.shape[0] - 1):
        after[0, 0], after[0, 1], after[1, 0], after[1, 1] = 1, 0, 0, 1
        for g in range(bounds[k + 1] - 1, bounds[k] - 1, -1):
            letter, which = factors[g, 0], factors[g, 1]
            if letter == 0:
                copy(fixed[which], gate)
            else:
                axis(after, letter, axes[g])
                rotation(letter, np.cos(angles[which] / 2), np.sin(angles[which] / 2), gate)
            multiply(after, gate, spare)
            copy(spare, after)
        copy(after, matrices[k])


@_COMPILED
def copy(source, target):
    """Copy a 2x2 matrix."""
    for row in range(2):
        for column in range(2):
            target[row, column] = source[row, column]


@_COMPILED
def axis(after, letter, out):
    """``V P V^dagger`` as a vector of X, Y, Z."""
    a, b, c, d = after[0, 0], after[0, 1], after[1, 0], after[1, 1]
    if letter == 1:  # the first row of V X
        low, high = b, a
    elif letter == 2:  # of V Y
        low, high = 1j * b, -1j * a
    else:  # of V Z
        low, high = a, -b
    corner = low * np.conj(c) + high * np.conj(d)  # entry (0, 1) of V P V^dagger: x - i y
    out[0] = corner.real
    out[1] = -corner.imag
    out[2] = (low * np.conj(a) + high * np.conj(b)).real


@_COMPILED
def rotation(letter, cos, sin, out):
    """``cos - i sin P``."""
    out[0, 0], out[0, 1], out[1, 0], out[1, 1] = cos, 0, 0, cos
    if letter == 1:
        out[0, 1], out[1, 0] = -1j * sin, -1j * sin
    elif letter == 2:
        out[0, 1], out[1, 0] = -sin, sin
    else:
        out[0, 0], out[1, 1] = cos - 1j * sin, cos + 1j * sin


@_COMPILED
def turn(code, start, matrices, turned, lane_axes):
    """Fill in what belongs to angles of lanes."""
    gate = np.empty((2, 2), np.complex128)
    for row in range(code.shape[0] + start.shape[0]):
        if row < code.shape[0]:
            is_matrix, k, lane, letter = code[row, 0] == MATRIX, code[row, 2], code[row, 3], code[row, 4]
        else:
            k, lane, letter = start[row - code.shape[0]]
            is_matrix = k >= 0
        if is_matrix and lane >= 0:
            rotation(letter, 0.0, 1.0, gate)
            multiply(matrices[k], gate, turned[k])
            axis(matrices[k], letter, lane_axes[k])
