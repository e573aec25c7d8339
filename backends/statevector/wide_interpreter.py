"""Runs the passes of large circuits over chunks of one state: forwards, and backwards on state and bra together.

Nothing is saved for the way back: the state is uncomputed chunk by chunk beside the bra ``O |psi>`` (the adjoint
method), of which each generator takes its slope ``dE/dt = Im <psi|O P|psi>``.

Axis legend: N = 2**n amplitudes in planes (N,); chunks of R rows of 16; d row bits, w words, i instructions.
"""

import numpy as np

from backends.statevector import jit, kernels, program, wide_schedule, wide_vectors
from backends.statevector import wide_kernels as k
from backends.statevector.jit import fast
from backends.statevector.kernels import parity, power
from backends.statevector.wide_schedule import CZ, DIAGONAL, MATRIX
from backends.statevector.wide_vectors import LANE_BITS, LANES, load, splat, store

FORWARD, BACKWARD, MEASURE, OBSERVE = 0, 1, 2, 3
"""What ``run`` does: a pass, its inverse on state and bra; expectations of words; the bra from their cotangents."""
_SUB_BITS = 6  # rows of a part whose probabilities are transformed at once: in the L1 cache


@fast
def spread(number, bits):
    """The bits of a number, moved to the given places."""
    found = 0
    for j in range(bits.shape[0]):
        found |= ((number >> j) & 1) << bits[j]
    return found


@fast
def spans(masks, out, scale):
    """``out[k]``: the XOR of ``masks[j]`` over the ones j of k, times ``scale``."""
    out[0] = 0
    for j in range(masks.shape[0]):
        for i in range(1 << j):
            out[(1 << j) + i] = out[i] ^ (masks[j] * scale)


@fast
def prepare(re, im, odd, chunk, columns, bits):
    """Write a chunk of the product state of the bits' columns (n, 4)."""
    rows, lanes, outer = bits
    pr, pi = np.ones(odd.shape[0], re.dtype), np.zeros(odd.shape[0], re.dtype)
    lr, li = np.ones(LANES, re.dtype), np.zeros(LANES, re.dtype)
    extend(lr, li, columns, lanes)
    extend(pr, pi, columns, rows)
    for j in range(outer.shape[0]):
        at = 2 * ((chunk >> j) & 1)
        a, b = columns[outer[j], at], columns[outer[j], at + 1]
        for lane in range(LANES):
            lr[lane], li[lane] = lr[lane] * a - li[lane] * b, lr[lane] * b + li[lane] * a
    x, y = load(lr, 0), load(li, 0)
    for r in range(odd.shape[0]):
        a, b = splat(pr[r]), splat(pi[r])
        store(re, r * LANES, a * x - b * y)
        store(im, r * LANES, a * y + b * x)


@fast
def extend(re, im, columns, bits):
    """The product state of some bits, in place of ones."""
    for j in range(bits.shape[0]):
        a, b, c, d = columns[bits[j]]
        for i in range(1 << j):
            x, y = re[i], im[i]
            re[(1 << j) + i], im[(1 << j) + i] = x * c - y * d, x * d + y * c
            re[i], im[i] = x * a - y * b, x * b + y * a


@fast
def flip_of(chunk, mask):
    """1 where a chunk's number flips a parity."""
    return int(parity(chunk & mask) < 0)


@fast
def step(chunks, n_sides, odd, chunk, row, matrices, half, signs, slopes):
    """Apply one instruction to a chunk; with two sides undo it on state and bra, and write its slopes (3,)."""
    kind, x, z, outer, lanes, which, n_y, z2, outer2, lanes2 = row
    flip = flip_of(chunk, outer)
    if kind == MATRIX:
        if n_sides == 2:
            k.slopes(chunks[0, 0], chunks[0, 1], chunks[1, 0], chunks[1, 1], odd, x, z, flip, slopes)
        for side in range(n_sides):
            k.matrix(chunks[side, 0], chunks[side, 1], odd, x, z, flip, matrices[which])
    elif kind == CZ:
        for side in range(n_sides):
            k.cz(chunks[side, 0], chunks[side, 1], odd, z, flip, lanes, z2, flip_of(chunk, outer2), lanes2)
    else:
        cos, sin = half[which, 0], half[which, 1]
        k.lane_signs(lanes, signs)
        if n_sides == 2:
            sin = -sin
            slopes[0] = k.word_slope(
                chunks[0, 0], chunks[0, 1], chunks[1, 0], chunks[1, 1], odd, x, z, flip, signs, n_y
            )
        for side in range(n_sides):
            if kind == DIAGONAL:
                k.diagonal(chunks[side, 0], chunks[side, 1], odd, z, flip, signs, cos, sin)
            else:
                k.word(chunks[side, 0], chunks[side, 1], odd, x, z, flip, signs, n_y, cos, sin)


@fast
def measure(re, im, first, n_rows, plane, words, signs, values):
    """Add the words' expectations over rows ``first ...`` to values (w, 1): diagonal ones by a Walsh transform."""
    masks, n_diagonal, _ = words
    if n_diagonal:
        for r in range(n_rows):
            x, y = load(re, (first + r) * LANES), load(im, (first + r) * LANES)
            store(plane, r * LANES, x * x + y * y)
        k.walsh(plane, n_rows)
    for w in range(masks.shape[0]):
        x, z, n_y = masks[w]
        if w < n_diagonal:
            row = (z >> LANE_BITS) & (n_rows - 1)
            k.lane_signs(z & (LANES - 1), signs)
            found = plane[0] * 0
            for lane in range(LANES):
                found += signs[lane] * plane[row * LANES + lane]
            values[w, 0] += parity((first << LANE_BITS) & z) * found
        else:
            phase_re, phase_im = power(n_y)
            found = plane[0] * 0
            for a in range(first * LANES, (first + n_rows) * LANES):
                b = a ^ x
                sign = parity(b & z)
                found += sign * phase_re * (re[a] * re[b] + im[a] * im[b])
                found -= sign * phase_im * (re[a] * im[b] - im[a] * re[b])
            values[w, 0] += found


@fast
def observe(re, im, bre, bim, first, n_rows, plane, words, signs):
    """Add ``sum_w c_w P_w |psi>`` to rows ``first ...`` of the bra."""
    masks, n_diagonal, cotangents = words
    for t in range(n_rows * LANES):
        plane[t] = 0
    for w in range(n_diagonal):
        z = masks[w, 1]
        at = ((z >> LANE_BITS) & (n_rows - 1)) * LANES
        factor = cotangents[w] * parity((first << LANE_BITS) & z)
        k.lane_signs(z & (LANES - 1), signs)
        for lane in range(LANES):
            plane[at + lane] += factor * signs[lane]
    k.walsh(plane, n_rows)
    for r in range(n_rows):
        at = (first + r) * LANES
        factor = load(plane, r * LANES)
        store(bre, at, load(bre, at) + factor * load(re, at))
        store(bim, at, load(bim, at) + factor * load(im, at))
    for w in range(n_diagonal, masks.shape[0]):
        x, z, n_y = masks[w]
        phase_re, phase_im = power(n_y)
        for a in range(first * LANES, (first + n_rows) * LANES):
            b = a ^ x
            factor = cotangents[w] * parity(b & z)
            bre[a] += factor * (phase_re * re[b] - phase_im * im[b])
            bim[a] += factor * (phase_re * im[b] + phase_im * re[b])


@fast
def observables(first, last, mode, planes, n_rows, words, out):
    """What ``run`` does beside passes, to chunks of rows in place."""
    ket, bra = planes
    part = min(n_rows, 1 << _SUB_BITS)
    plane, signs = np.empty(part * LANES, ket.dtype), np.empty(LANES, ket.dtype)
    for chunk in range(first, last):
        for row in range(chunk * n_rows, (chunk + 1) * n_rows, part):
            if mode == MEASURE:
                measure(ket[0], ket[1], row, part, plane, words, signs, out[chunk])
            else:
                observe(ket[0], ket[1], bra[0], bra[1], row, part, plane, words, signs)


@fast
def execute(first, last, mode, planes, bits, code, frame, numbers, columns, words, out):
    """Do something to chunks ``first`` to ``last``: one entry for everything, since each costs seconds to compile.

    ``planes``: state and bra, (2, N) each; ``bits``: of rows, lanes and the chunks' numbers; ``frame``: where rows lie
    at the end of the pass; ``numbers``: matrices, or their inverses on the way back, and half angles; ``columns``
    (n, 4) in the pass that prepares the product state, else empty; ``words``: masks (w, 3), number of diagonal ones,
    cotangents (w,). To ``out`` go, per chunk, slopes (i, 3) or expectations (w, 1).
    """
    rows, lanes, outer = bits
    n_rows = 1 << rows.shape[0]
    if mode >= MEASURE:
        observables(first, last, mode, planes, n_rows, words, out)
        return
    places, flips = frame
    matrices, half = numbers
    kind = planes[0].dtype
    n_sides = 1 + (mode == BACKWARD)
    chunks = np.empty((n_sides, 2, n_rows * LANES), kind)
    signs = np.empty(LANES, kind)
    odd, addresses, spanned = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64), np.empty(n_rows, np.int64)
    home, away, across = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64), np.empty(LANES, np.int64)
    for r in range(n_rows):
        odd[r] = parity(r) < 0
        addresses[r] = spread(r, rows)
        home[r] = r * LANES
    for lane in range(LANES):
        across[lane] = spread(lane, lanes)
    spans(places, spanned, LANES)
    turned = lanes[0] != 0
    for chunk in range(first, last):
        base = spread(chunk, outer)
        moved = 0
        for j in range(flips.shape[0]):
            moved |= flip_of(chunk, flips[j]) << j
        for r in range(n_rows):
            away[r] = spanned[r] ^ spanned[moved]
        if columns.shape[0]:
            prepare(chunks[0, 0], chunks[0, 1], odd, chunk, columns, bits)
        else:
            places_in = home if mode == FORWARD else away
            for side in range(n_sides):
                for part in range(2):
                    k.gather(planes[side][part], chunks[side, part], base, addresses, places_in, across, turned)
        for i in range(code.shape[0]):
            at = i if mode == FORWARD else code.shape[0] - 1 - i
            step(chunks, n_sides, odd, chunk, code[at], matrices, half, signs, out[chunk, at])
        places_out = away if mode == FORWARD else home
        for side in range(n_sides):
            for part in range(2):
                k.scatter(planes[side][part], chunks[side, part], base, addresses, places_out, across, turned)


def run(first, last, mode, planes, bits, code, frame, numbers, columns, words, out):
    """``execute``, compiled and kept."""
    execute(first, last, mode, planes, bits, code, frame, numbers, columns, words, out)


run = jit.keep(run, jit, k, kernels, program, wide_schedule, wide_vectors)
