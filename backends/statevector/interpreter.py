"""Runs programs on blocks of lanes: forwards to expectations or states, and backwards for all gradients at once.

Nothing is saved per gate: on the way back the final state, kept where there is room and else computed again, is
uncomputed gate by gate beside the bra ``O |psi>`` (the adjoint method), of which each gate's generator takes its slope:
``dE/dt = Im <psi|O P|psi>``.

Axis legend: B samples in blocks of V lanes (b blocks, the last one filled up), N amplitudes, w words, m matrices,
a shared angles, l lane angles, t times; planes (N V,); data of lanes are laid out (l, V) and (t w, V) for a block.
"""

import numpy as np

from backends.statevector import jit, lane_matrices, layout, program, readouts, spectra
from backends.statevector import kernels as k
from backends.statevector.jit import fast
from backends.statevector.lane_matrices import lane_matrix, lane_slopes, matrix_of, turn_slopes
from backends.statevector.layout import keep, load, read_bra, recall, store, write_states
from backends.statevector.program import CNOT, CZ, MATRIX, PERMUTE, ROTATE, WORD
from backends.statevector.readouts import DENSITY, NOTHING, read


@fast
def prepare(re, im, start, matrices, turned, lane_cos, lane_sin, columns, u, lanes):
    """Write the product state after the first matrices of each wire."""
    columns[:] = 0
    columns[:, 0] = 1
    flat = columns.reshape(-1)
    for row in start:
        matrix_of(row, matrices, turned, lane_cos, lane_sin, lanes, u)
        at = 4 * lanes * row[3]
        k.matrix_lanes(flat[at : at + 2 * lanes], flat[at + 2 * lanes : at + 4 * lanes], 2 * lanes, lanes, lanes, u)
    k.product(re, im, columns, columns.shape[0], lanes)


@fast
def forward(planes, code, start, moves, fused, lane_cos, lane_sin, scratch, lanes, words, values):
    """Run a program on a block; ``planes`` (re, im, spare, spare) come back in their new order.

    Expectations of the words go to ``values`` (t w, V), one time after the other; nowhere without words.
    """
    re, im, sre, sim = planes
    sources, _ = moves
    matrices, turned, (rotations, tables, halves) = fused[0][0], fused[0][2], fused[1:4]
    columns, u, cos, sin, _ = scratch
    n_amplitudes = 1 << columns.shape[0]
    size = n_amplitudes * lanes
    prepare(re, im, start, matrices, turned, lane_cos, lane_sin, columns, u, lanes)
    for i in range(code.shape[0]):
        operation, a, b, c, d, e = code[i]
        if operation == MATRIX:
            m = lanes << a
            if c < 0:
                k.matrix(re, im, size, m, matrices[b])
            else:
                lane_matrix(matrices[b], turned[b], lane_cos[c], lane_sin[c], lanes, u)
                k.matrix_lanes(re, im, size, m, lanes, u)
        elif operation == ROTATE:
            k.rotate(re, im, size, lanes << a, rotations[b, 0], rotations[b, 1])
        elif operation == PERMUTE:
            k.gather(sre, sim, re, im, sources[a], tables, b, False, lanes)
            re, im, sre, sim = sre, sim, re, im
        elif operation == CNOT:
            k.cnot(re, im, n_amplitudes, lanes, a, b)
        elif operation == CZ:
            k.cz(re, im, n_amplitudes, lanes, a | b)
        elif operation == WORD:
            word_angle(halves, lane_cos, lane_sin, c, d, cos, sin)
            k.word(re, im, n_amplitudes, lanes, a, b, e, cos, sin)
        else:
            measure(re, im, sre, words, values, a * words[0].shape[0], lanes)
    return re, im, sre, sim


@fast
def word_angle(halves, lane_cos, lane_sin, which, of_lanes, cos, sin):
    """The half angle's cosine and sine per lane."""
    for v in range(cos.shape[0]):
        cos[v] = lane_cos[which, v] if of_lanes else halves[0, which]
        sin[v] = lane_sin[which, v] if of_lanes else halves[1, which]


@fast
def backward(
    planes, bra, code, start, moves, fused, lane_cos, lane_sin, scratch, lanes, words, cotangents, slopes, out, by_angle
):
    """Uncompute a program on state and bra; add to ``slopes`` (m, 3) of matrices, ``out`` (l, V), ``by_angle`` (a,)."""
    re, im, sre, sim = planes
    bre, bim = bra
    _, targets = moves
    inverses, turned_inverses, (rotations, tables, halves, lane_axes) = fused[0][1], fused[0][3], fused[1:]
    columns, u, cos, sin, three = scratch
    n_wires = columns.shape[0]
    n_amplitudes = 1 << n_wires
    size = n_amplitudes * lanes
    for i in range(code.shape[0] - 1, -1, -1):
        operation, a, b, c, d, e = code[i]
        if operation == MATRIX:
            m = lanes << a
            if c < 0:
                gx, gy, gz = k.slopes(re, im, bre, bim, size, m)
                slopes[b, 0], slopes[b, 1], slopes[b, 2] = gx, gy, gz
                k.matrix(re, im, size, m, inverses[b])
                k.matrix(bre, bim, size, m, inverses[b])
            else:
                k.slopes_lanes(re, im, bre, bim, size, m, lanes, three)
                lane_slopes(three, lane_axes[b], slopes[b], out[c])
                lane_matrix(inverses[b], turned_inverses[b], lane_cos[c], lane_sin[c], lanes, u)
                k.matrix_lanes(re, im, size, m, lanes, u)
                k.matrix_lanes(bre, bim, size, m, lanes, u)
        elif operation == ROTATE:
            gx, gy, gz = k.unrotate(re, im, bre, bim, size, lanes << a, rotations[b, 0], rotations[b, 1])
            slopes[b, 0], slopes[b, 1], slopes[b, 2] = gx, gy, gz
        elif operation == PERMUTE:
            k.gather(sre, sim, re, im, targets[a], tables, b, True, lanes)
            re, im, sre, sim = sre, sim, re, im
            k.gather(sre, sim, bre, bim, targets[a], tables, b, True, lanes)
            bre, bim, sre, sim = sre, sim, bre, bim
        elif operation == CNOT:
            k.cnot(re, im, n_amplitudes, lanes, a, b)
            k.cnot(bre, bim, n_amplitudes, lanes, a, b)
        elif operation == CZ:
            k.cz(re, im, n_amplitudes, lanes, a | b)
            k.cz(bre, bim, n_amplitudes, lanes, a | b)
        elif operation == WORD:
            k.overlap_word(three[0], bre, bim, re, im, n_amplitudes, lanes, a, b, e + 3)
            for v in range(lanes):
                if d:
                    out[c, v] += three[0, v]
                else:
                    by_angle[c] += three[0, v]
            word_angle(halves, lane_cos, lane_sin, c, d, cos, sin)
            k.word(re, im, n_amplitudes, lanes, a, b, e + 2, cos, sin)
            k.word(bre, bim, n_amplitudes, lanes, a, b, e + 2, cos, sin)
        else:
            observe(re, im, bre, bim, sre, words, cotangents, a * words[0].shape[0], lanes)
    for row in range(start.shape[0] - 1, -1, -1):
        number, lane, _, wire = start[row]
        m = lanes << (n_wires - 1 - wire)
        is_first = row == 0 or start[row - 1, 3] != wire
        is_last = row == start.shape[0] - 1 or start[row + 1, 3] != wire
        if lane < 0 and is_first and is_last:
            gx, gy, gz = k.slopes(re, im, bre, bim, size, m)
            slopes[number, 0], slopes[number, 1], slopes[number, 2] = gx, gy, gz
            continue
        if is_last:
            k.slopes_lanes(re, im, bre, bim, size, m, lanes, three)
        if lane >= 0:
            lane_slopes(three, lane_axes[number], slopes[number], out[lane])
        else:
            for p in range(3):
                slopes[number, p] = np.sum(three[p])
        if not is_first:
            matrix_of(start[row], fused[0][0], fused[0][2], lane_cos, lane_sin, lanes, u)
            turn_slopes(three, u)


@fast
def measure(re, im, plane, words, values, first, lanes):
    """Write expectations of words to rows ``first ...``: diagonal ones by a Walsh transform of the probabilities."""
    masks, n_diagonal = words
    size = re.shape[0]
    if n_diagonal:
        for t in range(size):
            plane[t] = re[t] * re[t] + im[t] * im[t]
        k.walsh(plane, size, lanes)
    for w in range(masks.shape[0]):
        x, z, n_y = masks[w]
        if w < n_diagonal:
            for v in range(lanes):
                values[first + w, v] = plane[z * lanes + v]
        else:
            k.overlap_word(values[first + w], re, im, re, im, size // lanes, lanes, x, z, n_y)


@fast
def observe(re, im, bre, bim, plane, words, cotangents, first, lanes):
    """Add ``sum_w c_w P_w |psi>`` to the bra, for cotangents in rows ``first ...``."""
    masks, n_diagonal = words
    size = re.shape[0]
    for t in range(size):
        plane[t] = 0
    for w in range(n_diagonal):
        at = masks[w, 1] * lanes
        for v in range(lanes):
            plane[at + v] += cotangents[first + w, v]
    k.walsh(plane, size, lanes)
    for t in range(size):
        bre[t] += plane[t] * re[t]
        bim[t] += plane[t] * im[t]
    for w in range(n_diagonal, masks.shape[0]):
        x, z, n_y = masks[w]
        k.add_word(bre, bim, re, im, size // lanes, lanes, x, z, n_y, cotangents[first + w])


@fast
def execute(first, last, program, fused, lane_angles, words, reading, values, states, kept, slopes, lanes, is_backward):
    """Run blocks ``first`` to ``last``: one function for everything, since each entry costs seconds to compile.

    ``lane_angles``: cosine and sine of half angles, (B, l) each. ``values``: (B, t w) of ``words`` (masks, number of
    diagonal ones) at each MEASURE, or of ``reading`` (kind, order) at the end; final ``states`` (B, N, 2); all but one
    of them empty: results on the way forth, cotangents on the way back. There ``slopes`` are added up: of matrices
    (b, m, 3), of lanes (B, l), of shared angles (b, a). ``kept`` (b, 2, N V): the final states, from forth to back,
    or empty.
    """
    code, start, moves, n_wires = program
    of_matrices, of_lanes, of_angles = slopes
    size = lanes << n_wires
    planes = (empty(values, size), empty(values, size), empty(values, size), empty(values, size))
    bra = (empty(values, size * is_backward), empty(values, size * is_backward))
    scratch = (
        np.empty((n_wires, 4, lanes), values.dtype),
        np.empty((8, lanes), values.dtype),
        empty(values, lanes),
        empty(values, lanes),
        np.empty((3, lanes), values.dtype),
    )
    shape = (lane_angles[0].shape[1], lanes)
    cos, sin, out = np.empty(shape, values.dtype), np.empty(shape, values.dtype), np.empty(shape, values.dtype)
    columns = np.empty((values.shape[1], lanes), values.dtype)
    nothing = (words[0][:0], 0)
    kind, order = reading
    size = order.shape[0] if kind > DENSITY else 0
    work = matrices(values, size, lanes), matrices(values, size, lanes), matrices(values, 0, lanes)
    for block in range(first, last):
        at = block * lanes
        load(lane_angles[0], at, cos, 1.0)
        load(lane_angles[1], at, sin, 0.0)
        if is_backward and kept.shape[0]:
            recall(kept[block], planes)
        else:
            asked = nothing if is_backward else words
            planes = forward(planes, code, start, moves, fused, cos, sin, scratch, lanes, asked, columns)
            if kept.shape[0]:
                keep(planes, kept[block])
        if is_backward:
            load(values, at, columns, 0.0)
            read_bra(bra, states, at, lanes)
        if kind != NOTHING:
            read(kind, order, planes[0], planes[1], bra, columns, work, lanes, is_backward)
        if is_backward:
            out[:] = 0
            backward(
                planes,
                bra,
                code,
                start,
                moves,
                fused,
                cos,
                sin,
                scratch,
                lanes,
                words,
                columns,
                of_matrices[block],
                out,
                of_angles[block],
            )
            store(out, of_lanes, at)
        else:
            store(columns, values, at)
            write_states(planes, states, at, lanes)


@fast
def empty(like, size):
    """A plane."""
    return np.empty(size, like.dtype)


@fast
def matrices(like, size, lanes):
    """One complex matrix per lane, (d, d, 2, V)."""
    return np.empty((size, size, 2, lanes), like.dtype)


def run(first, last, program, fused, lane_angles, words, reading, values, states, kept, slopes, lanes, is_backward):
    """``execute``, compiled and kept."""
    execute(first, last, program, fused, lane_angles, words, reading, values, states, kept, slopes, lanes, is_backward)


run = jit.keep(run, jit, k, lane_matrices, layout, program, readouts, spectra)
