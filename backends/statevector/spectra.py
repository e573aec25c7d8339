"""Eigenvalues of small Hermitian matrices, one per lane, by Jacobi's rotations.

All lanes turn the same pairs of axes in the same order, each by its own angle, until the last of them is diagonal; that
is after six sweeps or so. Eigenvectors are orthonormal and eigenvalues exact to rounding, at any degeneracy.
Golub & Van Loan 2013, Matrix Computations, section 8.5.

Axis legend: d dimension, V lanes; matrices (d, d, 2, V) hold real and imaginary parts.
"""

import math

import numba
import numpy as np

_FAST = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})

MAX_SWEEPS = 40
"""Never reached: convergence is quadratic, also where eigenvalues coincide."""


@_FAST
def diagonalise(h, vectors):
    """Leave eigenvalues on the diagonal of h, whose upper half alone is read; ``vectors[i]`` becomes the i-th one.

    Without rows in ``vectors`` they are left out.
    """
    size, lanes = h.shape[0], h.shape[3]
    cos, sin = np.empty(lanes, h.dtype), np.empty((2, lanes), h.dtype)
    for i in range(vectors.shape[0]):
        vectors[i] = 0
        vectors[i, i, 0] = 1
    for _ in range(MAX_SWEEPS):
        if not off_diagonal(h, cos) > np.finfo(h.dtype).eps ** 2:
            break
        for p in range(size - 1):
            for q in range(p + 1, size):
                angle(h[p, p, 0], h[q, q, 0], h[p, q, 0], h[p, q, 1], cos, sin)
                for k in range(p):
                    turn(h[k, p], h[k, q], cos, sin)
                for k in range(p + 1, q):
                    turn_conjugate(h[p, k], h[k, q], cos, sin)
                for k in range(q + 1, size):
                    turn_back(h[p, k], h[q, k], cos, sin)
                for k in range(size if vectors.shape[0] else 0):
                    turn(vectors[p, k], vectors[q, k], cos, sin)


@_FAST
def off_diagonal(h, total):
    """The largest sum of squares above the diagonal of a lane; ``total`` (V,) is overwritten."""
    total[:] = 0
    for i in range(h.shape[0] - 1):
        for j in range(i + 1, h.shape[0]):
            x, y = h[i, j, 0], h[i, j, 1]
            for v in range(h.shape[3]):
                total[v] += x[v] * x[v] + y[v] * y[v]
    return np.max(total)


@_FAST
def angle(first, second, re, im, cos, sin):
    """Diagonalise ``[[a, h], [h*, b]]``: write the rotation ``[[c, s], [-s*, c]]`` of the smaller angle.

    ``t = s / c = 2 h / (b - a +- sqrt((b - a)^2 + 4 |h|^2))``, which needs no phase of h, and no case where h is 0.
    """
    one = cos.dtype.type(1)
    for v in range(cos.shape[0]):
        x, y = re[v] + re[v], im[v] + im[v]
        gap = second[v] - first[v]
        root = math.sqrt(gap * gap + x * x + y * y)
        divisor = gap + root if gap >= 0 else gap - root
        inverse = one / (divisor if divisor != 0 else one)
        x, y = x * inverse, y * inverse
        moved = re[v] * x + im[v] * y
        c = one / math.sqrt(one + x * x + y * y)
        cos[v], sin[0, v], sin[1, v] = c, c * x, c * y
        first[v] -= moved
        second[v] += moved
        re[v], im[v] = 0, 0


@_FAST
def turn(x, y, cos, sin):
    """``x, y = c x - s* y, s x + c y``; x and y (2, V) are real and imaginary parts."""
    xr, xi, yr, yi, sr, si = x[0], x[1], y[0], y[1], sin[0], sin[1]
    for v in range(cos.shape[0]):
        a, b, c, d = xr[v], xi[v], yr[v], yi[v]
        xr[v] = cos[v] * a - sr[v] * c - si[v] * d
        xi[v] = cos[v] * b - sr[v] * d + si[v] * c
        yr[v] = cos[v] * c + sr[v] * a - si[v] * b
        yi[v] = cos[v] * d + sr[v] * b + si[v] * a


@_FAST
def turn_conjugate(x, y, cos, sin):
    """The same of x* and y."""
    xr, xi, yr, yi, sr, si = x[0], x[1], y[0], y[1], sin[0], sin[1]
    for v in range(cos.shape[0]):
        a, b, c, d = xr[v], xi[v], yr[v], yi[v]
        xr[v] = cos[v] * a - sr[v] * c - si[v] * d
        xi[v] = cos[v] * b + sr[v] * d - si[v] * c
        yr[v] = cos[v] * c + sr[v] * a + si[v] * b
        yi[v] = cos[v] * d - sr[v] * b + si[v] * a


@_FAST
def turn_back(x, y, cos, sin):
    """The same of x* and y*."""
    xr, xi, yr, yi, sr, si = x[0], x[1], y[0], y[1], sin[0], sin[1]
    for v in range(cos.shape[0]):
        a, b, c, d = xr[v], xi[v], yr[v], yi[v]
        xr[v] = cos[v] * a - sr[v] * c + si[v] * d
        xi[v] = cos[v] * b - sr[v] * d - si[v] * c
        yr[v] = cos[v] * c + sr[v] * a + si[v] * b
        yi[v] = cos[v] * d + sr[v] * b - si[v] * a


@_FAST
def function(factors, vectors, out):
    """``out = sum_i f_i |u_i><u_i|``; factors (d, V)."""
    size, lanes = factors.shape
    scaled = np.empty((size, 2, lanes), out.dtype)
    for a in range(size):
        for i in range(size):
            for part in range(2):
                f, u, w = factors[i], vectors[i, a, part], scaled[i, part]
                for v in range(lanes):
                    w[v] = f[v] * u[v]
        for b in range(a, size):
            re, im = out[a, b, 0], out[a, b, 1]
            re[:] = 0
            im[:] = 0
            for i in range(size):
                x, y, c, d = scaled[i, 0], scaled[i, 1], vectors[i, b, 0], vectors[i, b, 1]
                for v in range(lanes):
                    re[v] += x[v] * c[v] + y[v] * d[v]
                    im[v] += y[v] * c[v] - x[v] * d[v]
            mirror(out, a, b)


@_FAST
def mirror(matrix, i, j):
    """Write the entry below the diagonal, of a Hermitian matrix."""
    if i != j:
        x, y, a, b = matrix[i, j, 0], matrix[i, j, 1], matrix[j, i, 0], matrix[j, i, 1]
        for v in range(matrix.shape[3]):
            a[v], b[v] = x[v], -y[v]
