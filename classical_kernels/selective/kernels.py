"""The selective scan compiled for the CPU: loops over documents, blocks of channels, time and states.

Axes: R batch, L sequence, D channels, N states of a channel; K chunks of `CHUNK` steps; G groups of `GROUP` blocks of w
channels. Flat arrays of u, delta, z, y (R, L, D); A (N, D); B, C (R, L, N); states (R, N, D); marks (R, L) or empty.

SIMD runs over the channels of a block, whose states (N, w) stay in the first cache (for N = 16). Backward, the states
at the beginning of each chunk are there from the forward pass; those within are computed again, with their decays, into
scratch memory that stays in the second or third cache. Gradients for B and C sum over channels, each group into its own
slice, so that no two threads write to one place and results do not depend on the number of threads. Offsets are
unsigned, of 64 bits: no array is too long.
"""

from __future__ import annotations

import numba
import numpy as np

from classical_kernels.packing import RESET
from classical_kernels.selective import rows

# A signed number beside an unsigned one would make a float of both.
_UINT = np.uintp
_ZERO, _ONE = _UINT(0), _UINT(1)
CHUNK, GROUP = _UINT(32), _UINT(2)


@numba.njit(cache=True, nogil=True)
def forward_groups(u, delta, A, B, C, skip, z, marks, h0, y, h_last, saved, sizes, held, first, last):
    """Run groups `first` to `last`.

    `skip` (D), `z`, and `saved` (R, K, N, D), which receives the states before the chunks, may be empty. sizes: L, D,
    N, w, unsigned.
    """
    L, D, N, width = sizes
    per_row, n_chunks = ((D + width * GROUP - _ONE) // (width * GROUP), (L + CHUNK - _ONE) // CHUNK)
    h, a, gain = (np.empty(N * width, y.dtype), np.empty(width, y.dtype), np.empty(width, y.dtype))
    for job in range(_UINT(first), _UINT(last)):
        row, group = job // per_row, job % per_row
        for low in range(group * GROUP * width, min((group + _ONE) * GROUP * width, D), width):
            w = min(width, D - low)
            for n in range(N):
                rows.copy(h0, (row * N + n) * D + low, h, n * w, w)
            for t in range(L):
                step = row * L + t
                i = step * D + low
                if saved.size and t % CHUNK == _ZERO:
                    for n in range(N):
                        rows.copy(h, n * w, saved, ((row * n_chunks + t // CHUNK) * N + n) * D + low, w)
                if marks.size and marks[step] & RESET:
                    h[:] = 0
                rows.fill(y, i, 0, w)
                if skip.size:
                    rows.add_product(skip, low, u, i, y, i, w)
                for n in range(N):
                    B_t, C_t = B[step * N + n], C[step * N + n]
                    if held:
                        rows.hold(delta, i, A, n * D + low, a, _ZERO, gain, _ZERO, w)
                        rows.advance(a, _ZERO, gain, _ZERO, u, i, B_t, h, n * w, h, n * w, w)
                        rows.add_scaled(h, n * w, C_t, y, i, w)
                    else:
                        rows.decay_advance_read(delta, i, A, n * D + low, u, B_t, C_t, h, n * w, y, w)
                if z.size:
                    rows.close_gate(z, y, i, w)
            for n in range(N):
                rows.copy(h, n * w, h_last, (row * N + n) * D + low, w)


@numba.njit(nogil=True)
def _recompute(u, delta, A, B, C, gated, marks, saved, sizes, held, row, chunk, low, w, h, a, gain, slope, inner):
    """States h (steps + 1, N, w), decays, gains, slopes (steps, N, w) of a chunk, and its outputs before the gate."""
    L, D, N, _ = sizes
    n_chunks = (L + CHUNK - _ONE) // CHUNK
    zeros = _UINT(h.size) - w  # a row that stays zero
    for n in range(N):
        rows.copy(saved, ((row * n_chunks + chunk) * N + n) * D + low, h, n * w, w)
    for s in range(min(CHUNK, L - chunk * CHUNK)):
        step = row * L + chunk * CHUNK + s
        i = step * D + low
        rows.fill(inner, s * w, 0, w)
        for n in range(N):
            at, to, j = (s * N + n) * w, ((s + _ONE) * N + n) * w, n * D + low
            before = zeros if marks.size and marks[step] & RESET else at
            if held:
                rows.hold(delta, i, A, j, a, at, gain, at, w)
                rows.hold_slope(delta, i, A, j, a, gain, slope, at, w)
                rows.advance(a, at, gain, at, u, i, B[step * N + n], h, before, h, to, w)
            else:
                rows.decay(delta, i, A, j, a, at, w)
                rows.advance(a, at, delta, i, u, i, B[step * N + n], h, before, h, to, w)
            if gated:
                rows.add_scaled(h, to, C[step * N + n], inner, s * w, w)


@numba.njit(nogil=True)
def _step_back(
    u, delta, A, B, C, grad_inner, grad_u, grad_delta, grad_A, grad_B, grad_C, sizes, held, reset,
    step, into, row, low, w, s, h, a, gain, slope, g, scratch,
):  # fmt: skip
    """One step of the adjoint of a block; gradients for B and C are added at `into`."""
    _, D, N, width = sizes
    i, zeros = step * D + low, _UINT(h.size) - w
    rows.fill(scratch, _ZERO, 0, w)
    for n in range(N):
        at, to, k, j = (s * N + n) * w, ((s + _ONE) * N + n) * w, n * w, n * D + low
        own = (row * N + n) * D + low
        B_t = B[step * N + n]
        grad_C[into + n] += rows.receive(grad_inner, _ZERO, h, to, C[step * N + n], g, k, w)
        if held:
            grad_B[into + n] += rows.drive_gradient(g, k, gain, at, u, i, B_t, scratch, _ZERO, w)
            rows.held_gradient(g, k, gain, a, slope, at, u, i, B_t, grad_u, grad_delta, grad_A, own, w)
        else:
            grad_B[into + n] += rows.drive_gradient(g, k, delta, i, u, i, B_t, scratch, _ZERO, w)
        rows.retreat(a, at, h, zeros if reset else at, g, k, scratch, width, w)
        rows.spread(scratch, width, delta, i, A, j, grad_delta, grad_A, own, w)
    if not held:
        rows.add_product(scratch, _ZERO, delta, i, grad_u, i, w)
        rows.add_product(scratch, _ZERO, u, i, grad_delta, i, w)
    if reset:
        g[:] = 0


@numba.njit(cache=True, nogil=True)
def backward_groups(
    u, delta, A, B, C, skip, z, marks, saved, grad_y, grad_last,
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_z, grad_h0, sizes, held, first, last,
):  # fmt: skip
    """Adjoint of `forward_groups`, chunk by chunk from the end.

    grad_A (R, N, D) and grad_skip (R, D) are for each document, grad_B and grad_C (R, G, L, N) for each group; these
    four come as zeros.
    """
    L, D, N, width = sizes
    per_row, n_chunks = ((D + width * GROUP - _ONE) // (width * GROUP), (L + CHUNK - _ONE) // CHUNK)
    size = N * min(width, D)
    h, a = (np.zeros((CHUNK + _ONE) * size + width, grad_u.dtype), np.empty(CHUNK * size, grad_u.dtype))
    gain, slope = (np.empty(CHUNK * size * held, grad_u.dtype), np.empty(CHUNK * size * held, grad_u.dtype))
    inner, grad_inner = (np.empty(CHUNK * width, grad_u.dtype), np.empty(width, grad_u.dtype))
    g, scratch = np.empty(size, grad_u.dtype), np.empty(2 * width, grad_u.dtype)
    for job in range(_UINT(first), _UINT(last)):
        row, group = job // per_row, job % per_row
        for low in range(group * GROUP * width, min((group + _ONE) * GROUP * width, D), width):
            w = min(width, D - low)
            for n in range(N):
                rows.copy(grad_last, (row * N + n) * D + low, g, n * w, w)
            for back in range(n_chunks):
                chunk = n_chunks - back - _ONE
                _recompute(
                    u, delta, A, B, C, z.size > 0, marks, saved, sizes, held, row, chunk, low, w, h, a, gain, slope,
                    inner,
                )  # fmt: skip
                n_steps = min(CHUNK, L - chunk * CHUNK)
                for remaining in range(n_steps):
                    s = n_steps - remaining - _ONE
                    t = chunk * CHUNK + s
                    step = row * L + t
                    i = step * D + low
                    rows.fill(grad_u, i, 0, w)
                    rows.fill(grad_delta, i, 0, w)
                    if z.size:
                        if skip.size:
                            rows.add_product(skip, low, u, i, inner, s * w, w)
                        rows.gate_gradient(z, grad_y, grad_z, i, inner, s * w, grad_inner, _ZERO, w)
                    else:
                        rows.copy(grad_y, i, grad_inner, _ZERO, w)
                    if skip.size:
                        rows.add_product(skip, low, grad_inner, _ZERO, grad_u, i, w)
                        rows.add_product(u, i, grad_inner, _ZERO, grad_skip, row * D + low, w)
                    reset = marks.size > 0 and marks[step] & RESET > 0
                    _step_back(
                        u, delta, A, B, C, grad_inner, grad_u, grad_delta, grad_A, grad_B, grad_C, sizes, held, reset,
                        step, ((row * per_row + group) * L + t) * N, row, low, w, s, h, a, gain, slope, g, scratch,
                    )  # fmt: skip
            for n in range(N):
                rows.copy(g, n * w, grad_h0, (row * N + n) * D + low, w)
