"""Eigenvalues and eigenvectors of small Hermitian matrices of trace 1, one matrix per lane.

Householder's reflections make all lanes' matrices tridiagonal side by side; then each lane's real tridiagonal matrix is
diagonalised by implicit QL steps. Eigenvectors are orthonormal, and eigenvalues exact, to rounding of 1, at any
degeneracy. Golub & Van Loan 2013, Matrix Computations, sections 8.3.1 and 8.3.5.

Axis legend: d dimension, V lanes; matrices (d, d, 2, V) hold real and imaginary parts, of h the upper half alone.
"""

import math

import numpy as np

from backends.statevector.jit import fast

MAX_STEPS = 60
"""QL steps for one eigenvalue; two or three are the rule."""


@fast
def diagonalise(h, vectors):
    """Leave eigenvalues on the diagonal of h; ``vectors[i]`` becomes the i-th one, where there are any."""
    size, lanes = h.shape[0], h.shape[3]
    off, factors = np.empty((size, lanes), h.dtype), np.empty((size, lanes), h.dtype)
    phases, work = np.empty((size, 2, lanes), h.dtype), np.empty((size, 2, lanes), h.dtype)
    tridiagonalise(h, off, factors, phases, work)
    diagonal, beside = np.empty(size, h.dtype), np.empty(size, h.dtype)
    z = np.empty((len(vectors), len(vectors)), h.dtype)
    for v in range(lanes):
        for i in range(size):
            diagonal[i], beside[i] = h[i, i, 0, v], off[i, v]
        for i in range(len(z)):
            z[i] = 0
            z[i, i] = 1
        solve(diagonal, beside, z)
        for i in range(size):
            h[i, i, 0, v] = diagonal[i]
        for i in range(len(z)):
            for a in range(len(z)):
                vectors[i, a, 0, v], vectors[i, a, 1, v] = phases[a, 0, v] * z[i, a], phases[a, 1, v] * z[i, a]
    for k in range(size - 3, -1, -1):
        for i in range(len(z)):
            reflect(vectors[i], h[k], factors[k], k + 1, work[0])


@fast
def tridiagonalise(h, off, factors, phases, work):
    """Make h tridiagonal by reflections ``1 - f u u^dagger``; ``conj(u)`` stays in h right of the diagonal.

    ``off`` (d, V): moduli beside the diagonal; ``phases`` (d, 2, V) make them real.
    """
    size, lanes = h.shape[0], h.shape[3]
    for v in range(lanes):
        phases[0, 0, v], phases[0, 1, v], off[size - 1, v] = 1, 0, 0
    for k in range(size - 1):
        choose(h[k], k + 1, off[k], factors[k], phases[k], phases[k + 1])
        if k < size - 2:
            multiply(h, k + 1, work)
            combine(h[k], k + 1, factors[k], work, off[size - 1])
            update(h, k + 1, work)
    for v in range(lanes):
        off[size - 1, v] = 0


@fast
def choose(row, first, off, factor, phase, next_phase):
    """The reflection that leaves the first entry alone of a row's conjugate; below rounding there is nothing to do.

    The square of its factor must not overflow, which rows 100 times below rounding keep to in single precision.
    """
    tiny = np.finfo(row.dtype).eps ** 2 * 1e-4
    for v in range(row.shape[2]):
        off[v] = 0
    for j in range(first + 1, row.shape[0]):
        x, y = row[j, 0], row[j, 1]
        for v in range(row.shape[2]):
            off[v] += x[v] * x[v] + y[v] * y[v]
    x, y = row[first, 0], row[first, 1]
    for v in range(row.shape[2]):
        square = x[v] * x[v] + y[v] * y[v]
        lead = math.sqrt(square) if square > tiny else square * 0
        real, imaginary = (x[v] / lead, -y[v] / lead) if lead > 0 else (lead + 1, lead)
        norm, factor[v] = lead, 0
        if off[v] > tiny:
            norm = math.sqrt(lead * lead + off[v])
            factor[v] = 1 / (norm * (norm + lead))
            x[v], y[v] = real * (norm + lead), -imaginary * (norm + lead)
            real, imaginary = -real, -imaginary
        off[v] = norm
        next_phase[0, v] = phase[0, v] * real - phase[1, v] * imaginary
        next_phase[1, v] = phase[0, v] * imaginary + phase[1, v] * real


@fast
def multiply(h, first, out):
    """``out = H u`` for the lower right block of h, u being the conjugate of the row above it."""
    u = h[first - 1]
    for i in range(first, h.shape[0]):
        diagonal, x, y, p, q = h[i, i, 0], u[i, 0], u[i, 1], out[i, 0], out[i, 1]
        for v in range(h.shape[3]):
            p[v], q[v] = diagonal[v] * x[v], -diagonal[v] * y[v]
    for i in range(first, h.shape[0]):
        x, y, p, q = u[i, 0], u[i, 1], out[i, 0], out[i, 1]
        for j in range(i + 1, h.shape[0]):
            a, b, c, d, s, t = h[i, j, 0], h[i, j, 1], u[j, 0], u[j, 1], out[j, 0], out[j, 1]
            for v in range(h.shape[3]):
                p[v] += a[v] * c[v] + b[v] * d[v]
                q[v] += b[v] * c[v] - a[v] * d[v]
                s[v] += a[v] * x[v] - b[v] * y[v]
                t[v] -= a[v] * y[v] + b[v] * x[v]


@fast
def combine(u, first, factor, out, total):
    """``w = f H u - (f^2 / 2) (u^dagger H u) u`` in place of ``H u``."""
    for v in range(len(factor)):
        total[v] = 0
    for i in range(first, u.shape[0]):
        x, y, p, q = u[i, 0], u[i, 1], out[i, 0], out[i, 1]
        for v in range(len(factor)):
            total[v] += x[v] * p[v] - y[v] * q[v]
    for v in range(len(factor)):
        total[v] *= factor[v] * factor[v] / 2
    for i in range(first, u.shape[0]):
        x, y, p, q = u[i, 0], u[i, 1], out[i, 0], out[i, 1]
        for v in range(len(factor)):
            p[v] = factor[v] * p[v] - total[v] * x[v]
            q[v] = factor[v] * q[v] + total[v] * y[v]


@fast
def update(h, first, w):
    """``H -= u w^dagger + w u^dagger``."""
    u = h[first - 1]
    for i in range(first, h.shape[0]):
        x, y, p, q = u[i, 0], u[i, 1], w[i, 0], w[i, 1]
        for j in range(i, h.shape[0]):
            a, b, c, d, s, t = h[i, j, 0], h[i, j, 1], u[j, 0], u[j, 1], w[j, 0], w[j, 1]
            for v in range(h.shape[3]):
                a[v] -= x[v] * s[v] - y[v] * t[v] + p[v] * c[v] - q[v] * d[v]
                b[v] += y[v] * s[v] + x[v] * t[v] - q[v] * c[v] - p[v] * d[v]


@fast
def reflect(vector, u, factor, first, work):
    """``x -= f (u^dagger x) u`` from entry ``first`` on; u is held conjugated."""
    real, imaginary = work[0], work[1]
    for v in range(len(factor)):
        real[v], imaginary[v] = 0, 0
    for a in range(first, u.shape[0]):
        x, y, c, d = u[a, 0], u[a, 1], vector[a, 0], vector[a, 1]
        for v in range(len(factor)):
            real[v] += x[v] * c[v] - y[v] * d[v]
            imaginary[v] += x[v] * d[v] + y[v] * c[v]
    for v in range(len(factor)):
        real[v] *= factor[v]
        imaginary[v] *= factor[v]
    for a in range(first, u.shape[0]):
        x, y, c, d = u[a, 0], u[a, 1], vector[a, 0], vector[a, 1]
        for v in range(len(factor)):
            c[v] -= real[v] * x[v] + imaginary[v] * y[v]
            d[v] -= imaginary[v] * x[v] - real[v] * y[v]


@fast
def solve(diagonal, beside, z):
    """Diagonalise a real tridiagonal matrix; rows of z, where there are any, turn into its eigenvectors."""
    size = len(diagonal)
    eps = np.finfo(diagonal.dtype).eps
    for low in range(size):
        for _ in range(MAX_STEPS):
            high = low
            while high < size - 1:
                scale = max(abs(diagonal[high]) + abs(diagonal[high + 1]), 1 / 64)
                if not abs(beside[high]) > eps * scale:
                    break
                high += 1
            if high == low:
                break
            step(diagonal, beside, z, low, high)


@fast
def step(diagonal, beside, z, low, high):
    """One implicit QL step on the block from ``low`` to ``high``, with the shift of Wilkinson."""
    half = (diagonal[low + 1] - diagonal[low]) / (beside[low] + beside[low])
    root = math.sqrt(half * half + 1)
    bulge = diagonal[high] - diagonal[low] + beside[low] / (half + root if half >= 0 else half - root)
    cos, sin, moved = diagonal.dtype.type(1), diagonal.dtype.type(1), diagonal.dtype.type(0)
    for i in range(high - 1, low - 1, -1):
        left, right = sin * beside[i], cos * beside[i]
        radius = math.sqrt(left * left + bulge * bulge)
        beside[i + 1] = radius
        if radius == 0:  # it split by itself
            diagonal[i + 1] -= moved
            beside[high] = 0
            return
        sin, cos = left / radius, bulge / radius
        base = diagonal[i + 1] - moved
        slope = (diagonal[i] - base) * sin + cos * right + cos * right
        moved = sin * slope
        diagonal[i + 1] = base + moved
        bulge = cos * slope - right
        for a in range(z.shape[1]):
            x, y = z[i, a], z[i + 1, a]
            z[i, a] = cos * x - sin * y
            z[i + 1, a] = sin * x + cos * y
    diagonal[low] -= moved
    beside[low], beside[high] = bulge, 0


@fast
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


@fast
def mirror(matrix, i, j):
    """Write the entry below the diagonal, of a Hermitian matrix."""
    if i != j:
        x, y, a, b = matrix[i, j, 0], matrix[i, j, 1], matrix[j, i, 0], matrix[j, i, 1]
        for v in range(matrix.shape[3]):
            a[v], b[v] = x[v], -y[v]
