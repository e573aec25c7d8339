"""Turns a program's shared angles into matrices and phases, and slopes of matrices back into slopes of angles.

Axis legend: m matrices, g shared gates in them, a shared angles, t tables of phases, d diagonals, b blocks.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from backends.statevector.program import FIXED_MATRICES, MATRIX, Program

_COMPILED = numba.njit(cache=True, nogil=True, error_model="numpy")


class Fused:
    """The numbers of a program for one set of shared angles, in one precision.

    ``planes`` (4, m, 8), rows, real and imaginary parts in turn: matrices U; their inverses; ``-i U P`` for those with
    an angle of lanes about P, so that a lane's matrix is ``cos U + sin (-i U P)``; and the inverses of that.
    ``rotations`` (m, 2): cosine and sine of those split. ``tables`` (t, 2, N): phases. ``halves`` (2, a): cosine and
    sine of half angles. ``axes`` (g, 3) and ``lane_axes`` (m, 3): the generators, as vectors of X, Y, Z, at the place
    where slopes are taken: behind the whole run, or behind the rotation of one that is split.
    """

    def __init__(self, program: Program, angles: NDArray[np.float64], kind: np.dtype) -> None:
        n_matrices = len(program.split)
        self.program, self.n_angles = program, len(angles)
        self.planes = np.zeros((4, n_matrices, 8), kind)
        self.rotations = np.zeros((n_matrices, 2), kind)
        self.tables = np.empty((len(program.tables), 2, 1 << program.n_wires), kind)
        self.halves = np.empty((2, len(angles)), kind)
        self.axes = np.zeros((len(program.factors), 3))
        self.lane_axes = np.zeros((n_matrices, 3), kind)
        sides = np.ones((2, n_matrices, 2), np.complex128)
        fuse(
            program.matrices,
            FIXED_MATRICES,
            angles,
            self.planes,
            self.rotations,
            sides,
            self.halves,
            self.axes,
            self.lane_axes,
        )
        if len(program.tables):
            tabulate(program.phases, sides, self.tables)

    def slopes(self, of_matrices: NDArray, of_words: NDArray) -> NDArray[np.float64]:
        """Slopes of the shared angles (a,), from those of matrices (b, m, 3) and of words (b, a)."""
        shared = np.zeros(self.n_angles)
        unfuse(self.program.factors, self.program.bounds, self.axes, of_matrices, of_words, shared)
        return shared


@_COMPILED
def fuse(program, fixed, angles, planes, rotations, sides, halves, axes, lane_axes):
    """Multiply each matrix of shared gates and carry each gate's generator behind it.

    A rotation about P followed by V has, behind V, the generator ``V P V^dagger = a . (X, Y, Z)``.
    """
    code, start, factors, bounds, split = program
    after = np.empty((2, 2), np.complex128)
    spare = np.empty((2, 2), np.complex128)
    gate = np.empty((2, 2), np.complex128)
    for which in range(angles.shape[0]):
        halves[0, which], halves[1, which] = np.cos(angles[which] / 2), np.sin(angles[which] / 2)
    matrices = np.empty((bounds.shape[0] - 1, 2, 2), np.complex128)
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
        write(after, planes[0, k], planes[1, k])
        if split[k]:
            take_apart(after, rotations[k], sides[0, k], sides[1, k])
            for g in range(bounds[k], bounds[k + 1]):
                turn_axis(sides[0, k], axes[g])
    for row in range(code.shape[0] + start.shape[0]):
        if row < code.shape[0]:
            is_matrix, k, lane, letter = code[row, 0] == MATRIX, code[row, 2], code[row, 3], code[row, 4]
        else:
            k, lane, letter, _ = start[row - code.shape[0]]
            is_matrix = k >= 0
        if is_matrix and lane >= 0:
            rotation(letter, 0.0, 1.0, gate)
            multiply(matrices[k], gate, spare)
            write(spare, planes[2, k], planes[3, k])
            axis(matrices[k], letter, lane_axes[k])


@_COMPILED
def multiply(left, right, out):
    """``out = left right`` for 2x2 complex matrices."""
    for row in range(2):
        for column in range(2):
            out[row, column] = left[row, 0] * right[0, column] + left[row, 1] * right[1, column]


@_COMPILED
def copy(source, target):
    """Copy a 2x2 matrix."""
    for row in range(2):
        for column in range(2):
            target[row, column] = source[row, column]


@_COMPILED
def write(matrix, plane, inverse):
    """Write a 2x2 matrix and its adjoint as 8 numbers each."""
    for row in range(2):
        for column in range(2):
            entry = matrix[row, column]
            plane[4 * row + 2 * column], plane[4 * row + 2 * column + 1] = entry.real, entry.imag
            inverse[4 * column + 2 * row], inverse[4 * column + 2 * row + 1] = entry.real, -entry.imag


@_COMPILED
def take_apart(u, rotation, left, right):
    """Write ``u = diag(left) [[cos, -sin], [sin, cos]] diag(right)``, cos and sin in ``rotation``."""
    cos, sin = abs(u[0, 0]), abs(u[1, 0])
    rotation[0], rotation[1] = cos, sin
    left[0] = u[0, 0] / cos if cos > 0 else 1
    left[1] = u[1, 0] / sin if sin > 0 else 1
    right[0] = 1
    right[1] = u[1, 1] / cos / left[1] if cos > sin else -u[0, 1] / sin / left[0]


@_COMPILED
def turn_axis(left, axis):
    """Move a generator from behind ``diag(left)`` to before it."""
    corner = np.conj(left[0]) * complex(axis[0], -axis[1]) * left[1]
    axis[0], axis[1] = corner.real, -corner.imag


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
def tabulate(phases, sides, out):
    """Write the phases of each table: those before the permutation, moved by it, its signs, and those behind it."""
    tables, diagonals, sources, signs = phases
    size = sources.shape[1]
    before, behind = np.empty(size, np.complex128), np.empty(size, np.complex128)
    for table in range(tables.shape[0]):
        double(diagonals, table, 0, sides, before)
        double(diagonals, table, 1, sides, behind)
        number = tables[table]
        for k in range(size):
            phase = before[sources[number, k]] * behind[k] * signs[number, k]
            out[table, 0, k], out[table, 1, k] = phase.real, phase.imag


@_COMPILED
def double(diagonals, table, side, sides, out):
    """The product over the wires of diagonal matrices, (N,), bit by bit from the lowest."""
    out[0] = 1
    reached = 1
    bit = 0
    while reached < out.shape[0]:
        low, high = 1 + 0j, 1 + 0j
        for d in range(diagonals.shape[0]):
            if diagonals[d, 0] == table and diagonals[d, 2] == side and diagonals[d, 3] == bit:
                low *= sides[side, diagonals[d, 1], 0]
                high *= sides[side, diagonals[d, 1], 1]
        for k in range(reached):
            out[reached + k] = out[k] * high
            out[k] *= low
        reached *= 2
        bit += 1


@_COMPILED
def unfuse(factors, bounds, axes, of_matrices, of_words, shared):
    """Add up each shared angle's slope (a,) over blocks: of words, and of matrices along the generators' axes."""
    total = np.zeros(3)
    for block in range(of_words.shape[0]):
        for which in range(of_words.shape[1]):
            shared[which] += of_words[block, which]
    for k in range(bounds.shape[0] - 1):
        total[:] = 0
        for block in range(of_matrices.shape[0]):
            for p in range(3):
                total[p] += of_matrices[block, k, p]
        for g in range(bounds[k], bounds[k + 1]):
            if factors[g, 0] > 0:
                slope = axes[g, 0] * total[0] + axes[g, 1] * total[1] + axes[g, 2] * total[2]
                shared[factors[g, 1]] += slope
