"""The selective scan on GPUs, in Triton: discretised, run, read out and gated in one pass, forward and backward.

Axes: R batch, L sequence, D channels, N states of a channel, K chunks of T steps; W channels and S states of a tile.

A program owns W channels of one document. It walks the sequence chunk by chunk with T x S x W states at a time in
registers, by an associative scan along the chunk; memory sees (R, L, D) and (R, L, N) alone. More than S states take
several sweeps, which add up in y; backward, in the gradients. Backward, the states before each chunk are there from the
forward pass; those within are computed again. Gradients for B and C sum over channels, each program into its own slice,
so that results do not depend on the order of programs. The number of a row of memory is an int64, hence so is every
offset: no array is too long.

There is no example to run here: without a GPU these functions run in Triton's interpreter alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from classical_kernels import packing

RESET = tl.constexpr(packing.RESET)


@triton.jit
def _growth(x, power, TERMS: tl.constexpr):
    """(e^x - 1) / x, where power = e^x: by its series up to |x| = 1, where the quotient cancels."""
    series = x * 0 + 1
    for k in tl.static_range(TERMS, 1, -1):
        series = 1 + x * (1 / k) * series
    near = tl.abs(x) < 1
    return tl.where(near, series, (power - 1) / tl.where(near, 1.0, x))


@triton.jit
def _growth_slope(x, power, mean, TERMS: tl.constexpr):
    """The derivative of `_growth`, (e^x - mean) / x or the series sum_k x^k / (k! (k + 2))."""
    series = x * 0 + 1
    for k in tl.static_range(TERMS, 0, -1):
        series = 1 + x * ((k + 1) / (k * (k + 2))) * series
    near = tl.abs(x) < 1
    return tl.where(near, series / 2, (power - mean) / tl.where(near, 1.0, x))


@triton.jit
def _join(a1, b1, a2, b2):
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _join_cut(a1, b1, cut1, a2, b2, cut2):
    return a1 * a2, tl.where(cut2 != 0, b2, a2 * b1 + b2), cut1 | cut2


@triton.jit
def _join_before(a1, b1, p1, q1, a2, b2, p2, q2):  # noqa: ARG001 (a scan passes all)
    """Both maps h -> a h + b, joined; (p, q) is the same without the last step."""
    return a1 * a2, a2 * b1 + b2, a1 * p2, p2 * b1 + q2


@triton.jit
def _join_before_cut(a1, b1, p1, q1, cut1, r1, a2, b2, p2, q2, cut2, r2):  # noqa: ARG001 (a scan passes all)
    return (
        a1 * a2, tl.where(cut2 != 0, b2, a2 * b1 + b2), a1 * p2, tl.where(r2 != 0, q2, p2 * b1 + q2),
        cut1 | cut2, cut1 | r2,
    )  # fmt: skip


@triton.jit
def _after(a, b, cut, h, MARKED: tl.constexpr):
    """The states after each step of a tile, from the one before it; `cut` forgets what came before."""
    if MARKED:
        a, b, cut = tl.associative_scan((a, b, cut), 0, _join_cut)
        carried = tl.where(cut != 0, 0.0, a * h)
    else:
        a, b = tl.associative_scan((a, b), 0, _join)
        carried = a * h
    return carried + b


@triton.jit
def _before(a, b, cut, h, MARKED: tl.constexpr, BACK: tl.constexpr):
    """The states before each step of a tile (BACK: after it), from the one before the tile (BACK: after it)."""
    one, zero = tl.full(a.shape, 1, a.dtype), tl.full(a.shape, 0, a.dtype)
    if MARKED:
        none = tl.full(a.shape, 0, tl.int32)
        _, _, p, q, _, cut = tl.associative_scan((a, b, one, zero, cut, none), 0, _join_before_cut, reverse=BACK)
        carried = tl.where(cut != 0, 0.0, p * h)
    else:
        _, _, p, q = tl.associative_scan((a, b, one, zero), 0, _join_before, reverse=BACK)
        carried = p * h
    return carried + q


@triton.jit
def _wide(x, row, d, D, inside):
    """A tile (T, W) of x (rows, D), zero outside."""
    return tl.load(x + (row[:, None] * D + d[None, :]), mask=inside[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def _put(x, row, d, D, inside, value):
    """Write a tile of x (rows, D)."""
    tl.store(x + (row[:, None] * D + d[None, :]), value, mask=inside[:, None] & (d < D)[None, :])


@triton.jit
def _cut(marks, row, inside, like, MARKED: tl.constexpr):
    """Whether the state is zeroed before each step, spread over the tile `like` (T, S, W)."""
    mark = tl.load(marks + row, mask=inside, other=0) & RESET if MARKED else row < 0
    return tl.broadcast_to(mark.to(tl.int32)[:, None, None], like.shape)


@triton.jit
def _place(D, W: tl.constexpr):
    """The document, the block of channels, and the channels of this program."""
    per_document = tl.cdiv(D, W)
    program = tl.program_id(0)
    block = program % per_document
    return (program // per_document).to(tl.int64), block, block * W + tl.arange(0, W)


@triton.jit
def forward_chunks(
    u, delta, A, B, C, skip, z, marks, h0, y, h_last, saved, L, D: tl.constexpr, N: tl.constexpr,
    HELD: tl.constexpr, SKIP: tl.constexpr, GATED: tl.constexpr, MARKED: tl.constexpr, SAVE: tl.constexpr,
    TERMS: tl.constexpr, T: tl.constexpr, S: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """y (R, L, D), h_last (R, N, D) and, if SAVE, the states before the chunks, saved (R, K, N, D)."""
    document, _, d = _place(D, W)
    n_chunks = tl.cdiv(L, T)
    for low in range(0, tl.maximum(N, 1), S):  # without states, one sweep for the skip and the gate
        n = low + tl.arange(0, S)
        inner = n < N
        A_tile = _wide(A, n.to(tl.int64), d, D, inner)
        h = _wide(h0, document * N + n, d, D, inner)
        for chunk in range(n_chunks):
            if SAVE:
                _put(saved, (document * n_chunks + chunk) * N + n, d, D, inner, h)
            t = chunk * T + tl.arange(0, T)
            row, inside = document * L + chunk * T + tl.arange(0, T), t < L
            u_t, delta_t = _wide(u, row, d, D, inside), _wide(delta, row, d, D, inside)
            B_t, C_t = _wide(B, row, n, N, inside), _wide(C, row, n, N, inside)
            x = delta_t[:, None, :] * A_tile[None, :, :]
            a = tl.exp(x)
            drive = u_t * delta_t
            b = drive[:, None, :] * B_t[:, :, None]
            if HELD:
                b = b * _growth(x, a, TERMS)
            states = _after(a, b, _cut(marks, row, inside, a, MARKED), h[None, :, :], MARKED)
            h = tl.sum(tl.where((tl.arange(0, T) == T - 1)[:, None, None], states, 0.0), axis=0)
            out = tl.sum(states * C_t[:, :, None], axis=1)
            if N > S:  # what earlier sweeps left
                out += _wide(y, row, d, D, inside & (low + 0 * t > 0))
            if SKIP:
                D_tile = tl.load(skip + d, mask=d < D, other=0.0)
                out += tl.where(low == 0, 1.0, 0.0).to(out.dtype) * D_tile[None, :] * u_t
            if GATED:
                gate = _wide(z, row, d, D, inside)
                out *= tl.where(low + S >= N, gate / (1 + tl.exp(-gate)), 1.0)
            _put(y, row, d, D, inside, out)
        _put(h_last, document * N + n, d, D, inner, h)
        tl.debug_barrier()  # the next sweep reads y


@triton.jit
def backward_chunks(
    u, delta, A, B, C, skip, z, marks, saved, grad_y, grad_last,
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_z, grad_h0, L, D: tl.constexpr, N: tl.constexpr,
    HELD: tl.constexpr, SKIP: tl.constexpr, GATED: tl.constexpr, MARKED: tl.constexpr,
    TERMS: tl.constexpr, T: tl.constexpr, S: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Adjoint of `forward_chunks`, chunk by chunk from the end.

    grad_A (R, N, D) and grad_skip (R, D) are for each document, grad_B and grad_C (R, G, L, N) for each of the G blocks
    of channels. s_t is the adjoint of the state after step t as later steps leave it: p = s + C grad_inner enters step
    t, and a p is the s of the step before.
    """
    document, block, d = _place(D, W)
    n_chunks, n_blocks = tl.cdiv(L, T), tl.cdiv(D, W)
    for low in range(0, tl.maximum(N, 1), S):
        n = low + tl.arange(0, S)
        inner = n < N
        A_tile = _wide(A, n.to(tl.int64), d, D, inner)
        s = _wide(grad_last, document * N + n, d, D, inner)
        sum_A = tl.zeros_like(s)
        sum_skip = tl.sum(sum_A, axis=0)
        for back in range(n_chunks):
            chunk = n_chunks - 1 - back
            t = chunk * T + tl.arange(0, T)
            row, inside = document * L + chunk * T + tl.arange(0, T), t < L
            u_t, delta_t = _wide(u, row, d, D, inside), _wide(delta, row, d, D, inside)
            B_t, C_t = _wide(B, row, n, N, inside), _wide(C, row, n, N, inside)
            x = delta_t[:, None, :] * A_tile[None, :, :]
            a = tl.exp(x)
            gain = tl.broadcast_to(delta_t[:, None, :], a.shape)
            if HELD:
                mean = _growth(x, a, TERMS)
                gain = gain * mean
            b = gain * u_t[:, None, :] * B_t[:, :, None]
            cut = _cut(marks, row, inside, a, MARKED)
            h = _wide(saved, (document * n_chunks + chunk) * N + n, d, D, inner)
            before = _before(a, b, cut, h[None, :, :], MARKED, False)
            if MARKED:
                before = tl.where(cut != 0, 0.0, before)
            states = a * before + b
            grad = _wide(grad_y, row, d, D, inside)
            if GATED:
                gate = _wide(z, row, d, D, inside)
                share = 1 / (1 + tl.exp(-gate))
                out = tl.sum(states * C_t[:, :, None], axis=1)
                if N > S:  # what earlier sweeps left
                    out += _wide(grad_z, row, d, D, inside & (low + 0 * t > 0))
                last = low + S >= N
                if SKIP:
                    out += tl.where(last, 1.0, 0.0).to(out.dtype) * u_t * tl.load(skip + d, mask=d < D, other=0.0)
                _put(grad_z, row, d, D, inside, tl.where(last, grad * out * share * (1 + gate * (1 - share)), out))
                grad = grad * gate * share
            to_u, to_delta = tl.zeros_like(u_t), tl.zeros_like(u_t)
            if N > S:
                to_u = _wide(grad_u, row, d, D, inside & (low + 0 * t > 0))
                to_delta = _wide(grad_delta, row, d, D, inside & (low + 0 * t > 0))
            if SKIP:
                to_u += tl.where(low == 0, 1.0, 0.0).to(grad.dtype) * grad * tl.load(skip + d, mask=d < D, other=0.0)
                sum_skip += tl.sum(grad * u_t, axis=0)
            own = (document * n_blocks + block) * L + chunk * T + tl.arange(0, T)
            _put(grad_C, own, n, N, inside, tl.sum(states * grad[:, None, :], axis=2))
            received = C_t[:, :, None] * grad[:, None, :]
            left = a * received
            if MARKED:
                left = tl.where(cut != 0, 0.0, left)  # a reset lets nothing pass to the step before
            p = _before(a, left, cut, s[None, :, :], MARKED, True) + received
            _put(grad_B, own, n, N, inside, tl.sum(p * gain * u_t[:, None, :], axis=2))
            passed = p * a
            if MARKED:
                passed = tl.where(cut != 0, 0.0, passed)
            s = tl.sum(tl.where((tl.arange(0, T) == 0)[:, None, None], passed, 0.0), axis=0)
            p *= B_t[:, :, None]  # from here on the adjoint of gain u
            to_u += tl.sum(p * gain, axis=1)
            grad_x = passed * before
            if HELD:
                slope = (delta_t * delta_t)[:, None, :] * _growth_slope(x, a, mean, TERMS)
                sum_A += tl.sum(grad_x * delta_t[:, None, :] + p * u_t[:, None, :] * slope, axis=0)
                to_delta += tl.sum(grad_x * A_tile[None, :, :] + p * u_t[:, None, :] * a, axis=1)
            else:
                sum_A += tl.sum(grad_x * delta_t[:, None, :], axis=0)
                to_delta += tl.sum(grad_x * A_tile[None, :, :] + p * u_t[:, None, :], axis=1)
            _put(grad_u, row, d, D, inside, to_u)
            _put(grad_delta, row, d, D, inside, to_delta)
        _put(grad_h0, document * N + n, d, D, inner, s)
        _put(grad_A, document * N + n, d, D, inner, sum_A)
        if SKIP:
            tl.store(grad_skip + document * D + d, sum_skip, mask=d < D)  # each sweep finds the same
        tl.debug_barrier()  # the next sweep reads what this one wrote
