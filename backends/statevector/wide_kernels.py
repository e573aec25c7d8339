"""What happens to a chunk of a large state: gates between rows of 16 amplitudes, in the cache.

A chunk has R rows; row r of the planes ``re`` and ``im`` starts at number 16 r. Wires are seen through masks over the
bits of r: flipping a wire's value is ``r ^ x``, its value is the parity of ``r & z`` (looked up in ``odd`` (R,)) plus
``flip``, the parity of what is the same in the whole chunk. ``signs`` (16,) is what a word's Z letters on lane bits do.

Sources: CNOTs as linear maps on amplitudes' numbers: Aaronson & Gottesman 2004, Phys. Rev. A 70, 052328, section III.
"""

import numpy as np

from backends.statevector.jit import fast
from backends.statevector.kernels import parity, power
from backends.statevector.wide_vectors import LANES, load, splat, store, total, transpose


@fast
def like(array, number):
    """A number in the kind of an array."""
    return array.dtype.type(number)


@fast
def matrix(re, im, odd, x, z, flip, u):
    """Apply a 2x2 matrix u (8: rows, real and imaginary parts in turn) to pairs of rows."""
    ar, ai, br, bi = splat(u[0]), splat(u[1]), splat(u[2]), splat(u[3])
    cr, ci, dr, di = splat(u[4]), splat(u[5]), splat(u[6]), splat(u[7])
    pivot = x & -x
    for h in range(odd.shape[0] // 2):
        low = 2 * h - (h & (pivot - 1))  # the numbers without the pivot's bit
        first, second = (low ^ x, low) if odd[low & z] != flip else (low, low ^ x)
        p, q = first * LANES, second * LANES
        xr, xi, yr, yi = load(re, p), load(im, p), load(re, q), load(im, q)
        store(re, p, ar * xr - ai * xi + br * yr - bi * yi)
        store(im, p, ar * xi + ai * xr + br * yi + bi * yr)
        store(re, q, cr * xr - ci * xi + dr * yr - di * yi)
        store(im, q, cr * xi + ci * xr + dr * yi + di * yr)


@fast
def slopes(re, im, bra_re, bra_im, odd, x, z, flip, out):
    """Imaginary parts of <bra|X|psi>, <bra|Y|psi>, <bra|Z|psi> for one wire."""
    gx, gy, gz = splat(like(re, 0)), splat(like(re, 0)), splat(like(re, 0))
    pivot = x & -x
    for h in range(odd.shape[0] // 2):
        low = 2 * h - (h & (pivot - 1))
        first, second = (low ^ x, low) if odd[low & z] != flip else (low, low ^ x)
        p, q = first * LANES, second * LANES
        a0, b0, a1, b1 = load(re, p), load(im, p), load(re, q), load(im, q)
        c0, d0, c1, d1 = load(bra_re, p), load(bra_im, p), load(bra_re, q), load(bra_im, q)
        gx = gx + (c0 * b1 - d0 * a1 + c1 * b0 - d1 * a0)
        gy = gy + (c1 * a0 + d1 * b0 - c0 * a1 - d0 * b1)
        gz = gz + (c0 * b0 - d0 * a0 - c1 * b1 + d1 * a1)
    out[0], out[1], out[2] = total(gx), total(gy), total(gz)


@fast
def diagonal(re, im, odd, z, flip, signs, cos, sin):
    """Apply ``cos - i sin P`` for a word P of Z letters."""
    c, s = splat(cos), splat(sin) * load(signs, 0)
    minus = splat(-sin) * load(signs, 0)
    for r in range(odd.shape[0]):
        p = r * LANES
        x, y = load(re, p), load(im, p)
        if odd[r & z] != flip:
            store(re, p, c * x + minus * y)
            store(im, p, c * y - minus * x)
        else:
            store(re, p, c * x + s * y)
            store(im, p, c * y - s * x)


@fast
def word(re, im, odd, x, z, flip, signs, n_y, cos, sin):
    """Apply ``cos - i sin P`` for a word P with X or Y letters.

    ``(P psi)[k] = i**n_y (-1)**((k ^ x) & z) psi[k ^ x]``.
    """
    phase_re, phase_im = power(n_y + 3)  # -i i**n_y
    c, lanes = splat(cos), load(signs, 0)
    ur, ui = splat(like(re, phase_re * sin)) * lanes, splat(like(re, phase_im * sin)) * lanes
    same, other = splat(like(re, 1)), splat(like(re, -1))
    pivot = x & -x
    for h in range(odd.shape[0] // 2):
        low = 2 * h - (h & (pivot - 1))
        p, q = low * LANES, (low ^ x) * LANES
        xr, xi, yr, yi = load(re, p), load(im, p), load(re, q), load(im, q)
        f = other if odd[(low ^ x) & z] != flip else same
        g = other if odd[low & z] != flip else same
        store(re, p, c * xr + f * (ur * yr - ui * yi))
        store(im, p, c * xi + f * (ur * yi + ui * yr))
        store(re, q, c * yr + g * (ur * xr - ui * xi))
        store(im, q, c * yi + g * (ur * xi + ui * xr))


@fast
def word_slope(re, im, bra_re, bra_im, odd, x, z, flip, signs, n_y):
    """``Im <bra|P|psi>`` for a word P, of Z letters alone (x = 0) or not."""
    phase_re, phase_im = power(n_y)
    lanes = load(signs, 0)
    even, uneven = splat(like(re, 0)), splat(like(re, 0))
    gr, gi = splat(like(re, phase_re)), splat(like(re, phase_im))
    for r in range(odd.shape[0]):
        p, q = r * LANES, (r ^ x) * LANES
        c, d, a, b = load(bra_re, p), load(bra_im, p), load(re, q), load(im, q)
        found = gr * (c * b - d * a) + gi * (c * a + d * b)
        if odd[(r ^ x) & z] != flip:
            uneven = uneven + found
        else:
            even = even + found
    return total(lanes * (even - uneven))


@fast
def cz(re, im, odd, z, flip, lanes, other_z, other_flip, other_lanes):
    """Change the sign of the amplitudes where two wires are 1; its own inverse."""
    sign = np.empty(LANES, re.dtype)
    for first in range(2):
        for second in range(2):
            differs = False
            for lane in range(LANES):
                ones = (first ^ (parity(lane & lanes) < 0)) & (second ^ (parity(lane & other_lanes) < 0))
                sign[lane] = 1 - 2 * ones
                differs |= ones != 0
            if differs:
                vector = load(sign, 0)
                for r in range(odd.shape[0]):
                    if (odd[r & z] ^ flip) == first and (odd[r & other_z] ^ other_flip) == second:
                        p = r * LANES
                        store(re, p, vector * load(re, p))
                        store(im, p, vector * load(im, p))


@fast
def gather(plane, chunk, base, addresses, places, lanes, is_turned):
    """Fill a chunk: row ``places[b] / 16`` with what lies at ``base + addresses[b] + lanes``."""
    if is_turned:
        for b in range(0, addresses.shape[0], 8):
            for lane in range(0, LANES, 8):
                transpose(plane, base + addresses[b], lanes[lane:], chunk, lane, places[b:])
    else:
        for b in range(addresses.shape[0]):
            store(chunk, places[b], load(plane, base + addresses[b]))


@fast
def scatter(plane, chunk, base, addresses, places, lanes, is_turned):
    """The inverse of ``gather``."""
    if is_turned:
        for b in range(0, addresses.shape[0], 8):
            for lane in range(0, LANES, 8):
                transpose(chunk, lane, places[b:], plane, base + addresses[b], lanes[lane:])
    else:
        for b in range(addresses.shape[0]):
            store(plane, base + addresses[b], load(chunk, places[b]))


@fast
def walsh(plane, n_rows):
    """Walsh-Hadamard transform over the rows, in place, without a factor."""
    m = 1
    while m < n_rows:
        for h in range(0, n_rows, 2 * m):
            for r in range(h, h + m):
                p, q = r * LANES, (r + m) * LANES
                x, y = load(plane, p), load(plane, q)
                store(plane, p, x + y)
                store(plane, q, x - y)
        m *= 2


@fast
def lane_signs(mask, out):
    """``(-1)**(l & mask)`` for each lane l."""
    for lane in range(LANES):
        out[lane] = parity(lane & mask)
