"""Read-outs at the end of a program: from the planes of a block to probabilities, density matrices or entropies.

On the way back each of them is a Hermitian matrix on the wires that are read, the slope of the loss by their density
matrix rho: ``dL = Tr(G d rho) = 2 Re <G psi|d psi>``, so that the bra is ``G |psi>``.

Axis legend: V lanes, d basis states of the wires read, r of the others, planes (N V,); ``order`` (d, r) numbers the
amplitudes; matrices (d, d, 2, V) hold real and imaginary parts.
"""

import math

import numpy as np

from backends.statevector.jit import fast
from backends.statevector.spectra import diagonalise, function, mirror

NOTHING, PROBABILITIES, DENSITY, VON_NEUMANN, RENYI2 = range(5)
"""What is read: values (d, V), (2 d d, V) and, of both entropies, (1, V)."""


@fast
def read(kind, order, re, im, bra, values, work, lanes, is_backward):
    """Write what is read of the state to ``values``; or, for their cotangents, add ``G |psi>`` to the bra.

    ``work``: two matrices and an empty one. One function for both ways, so that each kernel is compiled in once.
    """
    size, (rho, vectors, nothing) = order.shape[0], work
    if kind == PROBABILITIES:
        if is_backward:
            weigh(re, im, bra, order, values, lanes)
        else:
            probabilities(re, im, order, values, lanes)
        return
    matrix = values.reshape((size, size, 2, lanes)) if kind == DENSITY else rho
    if kind != DENSITY or not is_backward:
        density(re, im, order, matrix, lanes)
    if kind == VON_NEUMANN:
        diagonalise(matrix, vectors if is_backward else nothing)
    if is_backward:
        slope(kind, matrix, vectors, values[0])
        apply(matrix, re, im, bra, order, lanes)
    elif kind != DENSITY:
        entropy(kind, matrix, values[0])


@fast
def slope(kind, matrix, vectors, factor):
    """Turn a cotangent, or what an entropy was read of, into the Hermitian slope G; ``factor`` (V,): its cotangent."""
    if kind == DENSITY:
        symmetrise(matrix)
    elif kind == VON_NEUMANN:
        function(slopes(matrix, factor), vectors, matrix)
    else:
        square = vectors[0, 0, 0]
        purity(matrix, square)
        for v in range(matrix.shape[3]):
            factor[v] *= -2 / square[v]
        scale(matrix, factor)


@fast
def probabilities(re, im, order, values, lanes):
    """``values[i] = sum_r |psi_ir|^2``."""
    for i in range(order.shape[0]):
        out = values[i]
        for v in range(lanes):
            out[v] = 0
        for r in range(order.shape[1]):
            at = order[i, r] * lanes
            x, y = re[at : at + lanes], im[at : at + lanes]
            for v in range(lanes):
                out[v] += x[v] * x[v] + y[v] * y[v]


@fast
def weigh(re, im, bra, order, factors, lanes):
    """``bra_ir += factors[i] psi_ir``."""
    bre, bim = bra
    for i in range(order.shape[0]):
        factor = factors[i]
        for r in range(order.shape[1]):
            at = order[i, r] * lanes
            x, y, a, b = (
                re[at : at + lanes],
                im[at : at + lanes],
                bre[at : at + lanes],
                bim[at : at + lanes],
            )
            for v in range(lanes):
                a[v] += factor[v] * x[v]
                b[v] += factor[v] * y[v]


@fast
def density(re, im, order, rho, lanes):
    """``rho_ij = sum_r psi_ir conj(psi_jr)``."""
    size, rest = order.shape
    for i in range(size):
        for j in range(i, size):
            out_re, out_im = rho[i, j, 0], rho[i, j, 1]
            for v in range(lanes):
                out_re[v], out_im[v] = 0, 0
            for r in range(rest):
                at, to = order[i, r] * lanes, order[j, r] * lanes
                x, y, a, b = (
                    re[at : at + lanes],
                    im[at : at + lanes],
                    re[to : to + lanes],
                    im[to : to + lanes],
                )
                for v in range(lanes):
                    out_re[v] += x[v] * a[v] + y[v] * b[v]
                    out_im[v] += y[v] * a[v] - x[v] * b[v]
            mirror(rho, i, j)


@fast
def apply(g, re, im, bra, order, lanes):
    """``bra_ir += sum_j G_ij psi_jr``, two j at a time."""
    bre, bim = bra
    size, rest = order.shape
    for i in range(size):
        for r in range(rest):
            at = order[i, r] * lanes
            out_re, out_im = bre[at : at + lanes], bim[at : at + lanes]
            for j in range(0, size, 2):
                p, q, s, t = g[i, j, 0], g[i, j, 1], g[i, j + 1, 0], g[i, j + 1, 1]
                at, to = order[j, r] * lanes, order[j + 1, r] * lanes
                x, y, a, b = (
                    re[at : at + lanes],
                    im[at : at + lanes],
                    re[to : to + lanes],
                    im[to : to + lanes],
                )
                for v in range(lanes):
                    out_re[v] += p[v] * x[v] - q[v] * y[v] + s[v] * a[v] - t[v] * b[v]
                    out_im[v] += p[v] * y[v] + q[v] * x[v] + s[v] * b[v] + t[v] * a[v]


@fast
def symmetrise(matrix):
    """``(C + C^dagger) / 2`` in place: the rest of a cotangent does not meet a density matrix."""
    half = matrix.dtype.type(0.5)
    for i in range(matrix.shape[0]):
        for j in range(i, matrix.shape[0]):
            x, y, a, b = (
                matrix[i, j, 0],
                matrix[i, j, 1],
                matrix[j, i, 0],
                matrix[j, i, 1],
            )
            for v in range(matrix.shape[3]):
                real, imaginary = half * (x[v] + a[v]), half * (y[v] - b[v])
                x[v], y[v] = real, imaginary
                a[v], b[v] = real, -imaginary


@fast
def purity(rho, out):
    """``Tr rho^2`` per lane."""
    for v in range(rho.shape[3]):
        out[v] = 0
    for i in range(rho.shape[0]):
        for j in range(rho.shape[0]):
            x, y = rho[i, j, 0], rho[i, j, 1]
            for v in range(rho.shape[3]):
                out[v] += x[v] * x[v] + y[v] * y[v]


@fast
def scale(matrix, factor):
    """Multiply a matrix by a factor per lane."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[0]):
            x, y = matrix[i, j, 0], matrix[i, j, 1]
            for v in range(matrix.shape[3]):
                x[v] *= factor[v]
                y[v] *= factor[v]


@fast
def entropy(kind, rho, out):
    """``-log Tr rho^2``, or ``-sum_i p_i log p_i`` of eigenvalues on the diagonal; those up to d epsilon count as 0."""
    size = rho.shape[0]
    floor, most = size * np.finfo(rho.dtype).eps, math.log(size)
    if kind == RENYI2:
        purity(rho, out)
    for v in range(rho.shape[3]):
        total = -math.log(out[v]) if kind == RENYI2 else rho.dtype.type(0)
        for i in range(size if kind == VON_NEUMANN else 0):
            p = rho[i, i, 0, v]
            if p > floor:
                total -= p * math.log(p)
        out[v] = 0.0 if total <= 0 else min(total, most)


@fast
def slopes(rho, factor):
    """``-(log p + 1)`` of each eigenvalue p on the diagonal, 0 beyond the support, times a factor: (d, V)."""
    size, lanes = rho.shape[0], rho.shape[3]
    floor = size * np.finfo(rho.dtype).eps
    out = np.empty((size, lanes), rho.dtype)
    for i in range(size):
        p = rho[i, i, 0]
        for v in range(lanes):
            out[i, v] = -factor[v] * (math.log(p[v]) + 1) if p[v] > floor else 0.0
    return out
