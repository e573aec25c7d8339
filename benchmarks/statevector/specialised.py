"""W compiled by hand: what the general executor's speed is held against.

Nothing here is read from a circuit: product state, ring, three rotations and their slopes are written out, the ring as
one permutation and the last one moved onto the probabilities; adjoint gradient, nothing saved. Single precision.

Axis legend: B samples in blocks of V lanes (b blocks), n wires, N = 2**n amplitudes, k layers; planes (N V,).
"""

from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.statevector.work import LAYERS, Step, Work

_FAST = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
_LANES = {4: 128, 8: 32, 12: 16, 16: 4}
"""Samples of a block by number of wires: measured."""
Reals = NDArray[np.float32]


@_FAST
def rotate(re, im, m, u):
    """A 2x2 matrix u (8: rows, real and imaginary parts in turn) on the bit that changes every m numbers."""
    ar, ai, br, bi, cr, ci, dr, di = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
    for h in range(0, re.shape[0], 2 * m):
        r0, r1, i0, i1 = re[h : h + m], re[h + m : h + 2 * m], im[h : h + m], im[h + m : h + 2 * m]
        for t in range(m):
            xr, xi, yr, yi = r0[t], i0[t], r1[t], i1[t]
            r0[t] = ar * xr - ai * xi + br * yr - bi * yi
            i0[t] = ar * xi + ai * xr + br * yi + bi * yr
            r1[t] = cr * xr - ci * xi + dr * yr - di * yi
            i1[t] = cr * xi + ci * xr + dr * yi + di * yr


@_FAST
def slopes(re, im, bre, bim, m):
    """Im <bra|P|psi> for P = X, Y, Z, summed over lanes."""
    gx, gy, gz = np.float32(0), np.float32(0), np.float32(0)
    for h in range(0, re.shape[0], 2 * m):
        a0, a1, b0, b1 = re[h : h + m], re[h + m : h + 2 * m], im[h : h + m], im[h + m : h + 2 * m]
        c0, c1, d0, d1 = bre[h : h + m], bre[h + m : h + 2 * m], bim[h : h + m], bim[h + m : h + 2 * m]
        for t in range(m):
            gx += c0[t] * b1[t] - d0[t] * a1[t] + c1[t] * b0[t] - d1[t] * a0[t]
            gy += c1[t] * a0[t] + d1[t] * b0[t] - c0[t] * a1[t] - d0[t] * b1[t]
            gz += c0[t] * b0[t] - d0[t] * a0[t] - c1[t] * b1[t] + d1[t] * a1[t]
    return gx, gy, gz


@_FAST
def lane_slopes(re, im, bre, bim, m, lanes, out):
    """The same per lane, out (3, V)."""
    ox, oy, oz = out[0], out[1], out[2]
    ox[:], oy[:], oz[:] = 0, 0, 0
    for h in range(0, re.shape[0], 2 * m):
        for j in range(h, h + m, lanes):
            a0, a1, b0, b1 = re[j : j + lanes], re[j + m : j + m + lanes], im[j : j + lanes], im[j + m : j + m + lanes]
            c0, c1 = bre[j : j + lanes], bre[j + m : j + m + lanes]
            d0, d1 = bim[j : j + lanes], bim[j + m : j + m + lanes]
            for v in range(lanes):
                ox[v] += c0[v] * b1[v] - d0[v] * a1[v] + c1[v] * b0[v] - d1[v] * a0[v]
                oy[v] += c1[v] * a0[v] + d1[v] * b0[v] - c0[v] * a1[v] - d0[v] * b1[v]
                oz[v] += c0[v] * b0[v] - d0[v] * a0[v] - c1[v] * b1[v] + d1[v] * a1[v]


@_FAST
def move(target, source, order, lanes):
    """``target[k] = source[order[k]]``, amplitude by amplitude."""
    for k in range(order.shape[0]):
        d, s = target[k * lanes : (k + 1) * lanes], source[order[k] * lanes : (order[k] + 1) * lanes]
        for v in range(lanes):
            d[v] = s[v]


@_FAST
def prepare(re, im, u, cos, sin, column, lanes):
    """The product of the first layer's matrices u (n, 8) after RY, its half angle as cos and sin (n, V)."""
    re[:lanes], im[:lanes] = 1, 0
    e, f, g, h = column[0], column[1], column[2], column[3]
    size = 1
    for wire in range(u.shape[0]):
        a, c, s = u[wire], cos[wire], sin[wire]
        for v in range(lanes):
            e[v], f[v] = a[0] * c[v] + a[2] * s[v], a[1] * c[v] + a[3] * s[v]
            g[v], h[v] = a[4] * c[v] + a[6] * s[v], a[5] * c[v] + a[7] * s[v]
        for k in range(size - 1, -1, -1):
            zero, one, two = 2 * k * lanes, (2 * k + 1) * lanes, (2 * k + 2) * lanes
            sr, si = re[k * lanes : (k + 1) * lanes], im[k * lanes : (k + 1) * lanes]
            r0, i0, r1, i1 = re[zero:one], im[zero:one], re[one:two], im[one:two]
            for v in range(lanes):
                x, y = sr[v], si[v]
                r1[v], i1[v] = x * g[v] - y * h[v], x * h[v] + y * g[v]
                r0[v], i0[v] = x * e[v] - y * f[v], x * f[v] + y * e[v]
        size *= 2


@_FAST
def measure(re, im, squares, work, before, values, lanes):
    """<Z_i> after the last ring, (n, V): probabilities moved by it, folded one wire after the other."""
    half = before.shape[0]
    for t in range(re.shape[0]):
        squares[t] = re[t] * re[t] + im[t] * im[t]
    move(work, squares, before, lanes)
    for wire in range(values.shape[0]):
        half //= 2
        out = values[wire]
        out[:] = 0
        for k in range(half):
            low, high = work[k * lanes : (k + 1) * lanes], work[(k + half) * lanes : (k + half + 1) * lanes]
            for v in range(lanes):
                out[v] += low[v] - high[v]
                low[v] += high[v]


@_FAST
def observe(re, im, bre, bim, work, after, cotangents, lanes):
    """The bra ``sum_i c_i Z_i |psi>``, Z_i after the last ring, for cotangents (n, V)."""
    work[:lanes] = 0
    size = 1
    for wire in range(cotangents.shape[0]):
        c = cotangents[wire]
        for k in range(size - 1, -1, -1):
            s = work[k * lanes : (k + 1) * lanes]
            d0, d1 = work[2 * k * lanes : (2 * k + 1) * lanes], work[(2 * k + 1) * lanes : (2 * k + 2) * lanes]
            for v in range(lanes):
                old = s[v]
                d1[v] = old - c[v]
                d0[v] = old + c[v]
        size *= 2
    for k in range(size):
        at, to = k * lanes, after[k] * lanes
        factor = work[to : to + lanes]
        r, i, p, q = re[at : at + lanes], im[at : at + lanes], bre[at : at + lanes], bim[at : at + lanes]
        for v in range(lanes):
            p[v] = factor[v] * r[v]
            q[v] = factor[v] * i[v]


@_FAST
def forward(planes, u, cos, sin, before, column, lanes):
    """The state before the last ring, as planes in their new order."""
    re, im, sre, sim = planes
    n_wires = u.shape[1]
    prepare(re, im, u[0], cos, sin, column, lanes)
    for layer in range(1, u.shape[0]):
        move(sre, re, before, lanes)
        move(sim, im, before, lanes)
        re, im, sre, sim = sre, sim, re, im
        for wire in range(n_wires):
            rotate(re, im, lanes << (n_wires - 1 - wire), u[layer, wire])
    return re, im, sre, sim


@_FAST
def run(u, inverse, axes, cos, sin, before, after, values, of_inputs, of_matrices, lanes, is_backward):
    """All blocks: ``values`` (b, n, V) are results, or on the way back cotangents.

    There slopes go to ``of_inputs`` (b, n, V) and, of each matrix about X, Y, Z, to ``of_matrices`` (b, k, n, 3).
    """
    n_wires, size = u.shape[1], before.shape[0] * lanes
    planes = (np.empty(size, u.dtype), np.empty(size, u.dtype), np.empty(size, u.dtype), np.empty(size, u.dtype))
    bra = (np.empty(size * is_backward, u.dtype), np.empty(size * is_backward, u.dtype))
    three, column = np.empty((3, lanes), u.dtype), np.empty((4, lanes), u.dtype)
    for block in range(values.shape[0]):
        planes = forward(planes, u, cos[block], sin[block], before, column, lanes)
        re, im, sre, sim = planes
        if not is_backward:
            measure(re, im, sre, sim, before, values[block], lanes)
            continue
        bre, bim = bra
        observe(re, im, bre, bim, sre, after, values[block], lanes)
        found = of_matrices[block]
        for layer in range(u.shape[0] - 1, 0, -1):
            for wire in range(n_wires):
                m = lanes << (n_wires - 1 - wire)
                found[layer, wire, 0], found[layer, wire, 1], found[layer, wire, 2] = slopes(re, im, bre, bim, m)
                rotate(re, im, m, inverse[layer, wire])
                rotate(bre, bim, m, inverse[layer, wire])
            move(sre, re, after, lanes)
            move(sim, im, after, lanes)
            re, im, sre, sim = sre, sim, re, im
            move(sre, bre, after, lanes)
            move(sim, bim, after, lanes)
            bre, bim, sre, sim = sre, sim, bre, bim
        for wire in range(n_wires):
            lane_slopes(re, im, bre, bim, lanes << (n_wires - 1 - wire), lanes, three)
            of_inputs[block, wire] = axes[wire, 0] * three[0] + axes[wire, 1] * three[1] + axes[wire, 2] * three[2]
            for letter in range(3):
                found[0, wire, letter] = three[letter].sum()
        planes, bra = (re, im, sre, sim), (bre, bim)


@lru_cache(maxsize=8)
def ring(n_wires: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Where each amplitude comes from in a ring of CNOTs, and where it goes."""
    places = np.arange(2**n_wires)
    for wire in range(n_wires):
        control, target = n_wires - 1 - wire, n_wires - 1 - (wire + 1) % n_wires
        places ^= ((places >> control) & 1) << target
    return np.argsort(places).astype(np.int32), places.astype(np.int32)


def matrices(weights: NDArray[np.float64]) -> NDArray[np.complex128]:
    """``RZ(c) RY(b) RX(a)`` for weights (k, n, 3): (k, n, 2, 2)."""
    cos, sin = np.cos(weights / 2), np.sin(weights / 2)
    (ca, cb, cc), (sa, sb, sc) = np.moveaxis(cos, -1, 0), np.moveaxis(sin, -1, 0)
    turn = cc - 1j * sc
    top = turn * (cb * ca + 1j * sb * sa), turn * (-sb * ca - 1j * cb * sa)
    return np.stack((np.stack(top, -1), np.stack((-top[1].conj(), top[0].conj()), -1)), -2)


def generators(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The axes of RX, RY, RZ behind their layer's rotations, (k, n, 3, 3), and that of a RY before them, (k, n, 3)."""
    (ca, cb, cc), (sa, sb, sc) = (np.moveaxis(part(weights), -1, 0) for part in (np.cos, np.sin))
    zero, one = np.zeros_like(ca), np.ones_like(ca)
    rows = ((cb * cc, cb * sc, -sb), (-sc, cc, zero), (zero, zero, one))
    x, y, z = sa * sb, ca, sa * cb  # RY's axis behind RX and RY
    return np.stack([np.stack(row, -1) for row in rows], -2), np.stack((x * cc - y * sc, x * sc + y * cc, z), -1)


def _planes(complexes: NDArray[np.complex128]) -> Reals:
    return np.ascontiguousarray(complexes).view(np.float64).reshape(*complexes.shape[:2], 8).astype(np.float32)


def _blocks(rows: Tensor, lanes: int) -> Reals:
    """Rows (B, n) as blocks (b, n, V), the last one filled up with zeros."""
    n_blocks = -(-len(rows) // lanes)
    filled = np.zeros((n_blocks * lanes, rows.shape[1]), np.float32)
    filled[: len(rows)] = rows.detach().numpy()
    return np.ascontiguousarray(filled.reshape(n_blocks, lanes, -1).swapaxes(1, 2))


def call(inputs: Tensor, weights: Tensor, cotangent: Tensor | None) -> tuple[Tensor, ...]:
    """``(values,)``, or with a cotangent the gradients of inputs and weights."""
    (batch, n_wires), lanes = inputs.shape, min(_LANES[inputs.shape[1]], 1 << (len(inputs) - 1).bit_length())
    numbers = weights.detach().numpy().astype(np.float64).reshape(LAYERS, n_wires, 3)
    unitary, half = matrices(numbers), _blocks(inputs, lanes) / np.float32(2)
    axes, before_axes = generators(numbers)
    values = np.empty_like(half) if cotangent is None else _blocks(cotangent, lanes)
    of_inputs = np.empty_like(half)
    of_matrices = np.empty((len(half), LAYERS, n_wires, 3), np.float32)
    given = _planes(unitary), _planes(unitary.conj().swapaxes(2, 3)), before_axes[0].astype(np.float32)
    run(
        *given, np.cos(half), np.sin(half), *ring(n_wires), values, of_inputs, of_matrices, lanes, cotangent is not None
    )

    def rows(blocks: Reals) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(blocks.swapaxes(1, 2)).reshape(-1, n_wires)[:batch])

    if cotangent is None:
        return (rows(values),)
    total = of_matrices.sum(0, dtype=np.float64)
    of_weights = (axes * total[:, :, None]).sum(-1).astype(np.float32)
    return rows(of_inputs), torch.from_numpy(of_weights.reshape(-1))


class Specialised(torch.autograd.Function):
    """All <Z_i> of W, for inputs (B, n) and weights (3 n k,)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weights)
        return call(inputs, weights, None)[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, ...]:
        return call(*ctx.saved_tensors, cotangents[0])


def specialised(work: Work) -> Step:
    """The step that is measured."""
    return lambda: work.finish(Specialised.apply(work.inputs, work.weights))  # pyright: ignore[reportArgumentType] -- torch types apply as Any
