"""The selective scan compiled for the CPU: loops over documents, blocks of channels, time and states.

Axes: R batch, L sequence, D channels, N states of a channel; K chunks of `CHUNK` steps; G groups of `GROUP` blocks of
`WIDTH` channels. Flat arrays of u, delta, z, y (R, L, D); A (N, D); B, C (R, L, N); states (R, N, D); marks (R, L) or
empty.

SIMD runs over the channels of a block, whose states stay in the first cache (for N = 16), beside what else a step reads
and adds to: one array of rows, `WIDTH` apart, see `classical_kernels.selective.rows`. Backward, the states at the
beginning of each chunk are there from the forward pass; those within are computed again, with their decays, into
scratch memory that stays in the second cache. Gradients for B and C sum over channels, each group into its own slice,
so that no two threads write to one place and results do not depend on the number of threads. Offsets are unsigned, of
64 bits: no array is too long.
"""

from __future__ import annotations

import numba
import numpy as np

from classical_kernels.packing import RESET
from classical_kernels.selective import rows
from classical_kernels.selective.rows import DELTA, FIXED, GATE, GRAD_SKIP, INNER, OUT, STATE, WIDTH, U

# A signed number beside an unsigned one would make a float of both.
_UINT = np.uintp
_ZERO, _ONE, _TWO = _UINT(0), _UINT(1), _UINT(2)
CHUNK, GROUP = _UINT(32), _UINT(256) // WIDTH
_PAIR = _TWO * WIDTH  # from one decay and state of a chunk to the next


@numba.njit(nogil=True)
def _enter(A, start, s, sizes, row, low, w):
    """The records of all states: what `start` (R, N, D) says, A, and no gradient."""
    _, D, N = sizes
    for n in range(N):
        k = FIXED + n * STATE
        rows.copy(start, (row * N + n) * D + low, s, k, w)
        rows.copy(A, n * D + low, s, k + WIDTH, w)
        rows.fill(s, k + _TWO * WIDTH, 0, w)


@numba.njit(nogil=True)
def _leave(s, out, sizes, row, low, which, w):
    """Row `which` of all records into (R, N, D)."""
    _, D, N = sizes
    for n in range(N):
        rows.copy(s, FIXED + n * STATE + which * WIDTH, out, (row * N + n) * D + low, w)


@numba.njit(cache=True, nogil=True)
def forward_groups(u, delta, A, B, C, skip, z, marks, h0, y, h_last, saved, sizes, held, first, last):
    """Run groups `first` to `last`.

    `skip` (D), `z`, and `saved` (R, K, N, D), which receives the states before the chunks, may be empty. sizes: L, D,
    N, unsigned.
    """
    L, D, N = sizes
    per_row, n_chunks = ((D + WIDTH * GROUP - _ONE) // (WIDTH * GROUP), (L + CHUNK - _ONE) // CHUNK)
    s, a, gain = (np.empty(FIXED + N * STATE, y.dtype), np.empty(WIDTH, y.dtype), np.empty(WIDTH, y.dtype))
    for job in range(_UINT(first), _UINT(last)):
        row, group = job // per_row, job % per_row
        for low in range(group * GROUP * WIDTH, min((group + _ONE) * GROUP * WIDTH, D), WIDTH):
            w = min(WIDTH, D - low)
            _enter(A, h0, s, sizes, row, low, w)
            for t in range(L):
                step = row * L + t
                i = step * D + low
                if saved.size and t % CHUNK == _ZERO:
                    _leave(s, saved, sizes, row * n_chunks + t // CHUNK, low, _ZERO, w)
                if marks.size and marks[step] & RESET:
                    for n in range(N):
                        rows.fill(s, FIXED + n * STATE, 0, w)
                rows.begin(u, delta, i, s, w)
                rows.fill(s, OUT, 0, w)
                if skip.size:
                    rows.add_product(skip, low, s, U, s, OUT, w)
                if held:
                    for n in range(N):
                        k, B_t = FIXED + n * STATE, B[step * N + n]
                        rows.hold(s, DELTA, s, k + WIDTH, a, _ZERO, gain, _ZERO, w)
                        rows.advance(a, _ZERO, gain, _ZERO, s, U, B_t, s, k, s, k, w)
                        rows.add_scaled(s, k, C[step * N + n], s, OUT, w)
                else:
                    for n in range(_ZERO, N - N % _TWO, _TWO):
                        j = step * N + n
                        rows.advance_two(s, FIXED + n * STATE, B[j], C[j], B[j + _ONE], C[j + _ONE], w)
                    if N % _TWO:
                        j = step * N + N - _ONE
                        rows.advance_one(s, FIXED + (N - _ONE) * STATE, B[j], C[j], w)
                if z.size:
                    rows.copy(z, i, s, GATE, w)
                    rows.close_gate(s, w)
                rows.copy(s, OUT, y, i, w)
            _leave(s, h_last, sizes, row, low, _ZERO, w)


@numba.njit(nogil=True)
def _recompute(u, delta, B, C, marks, saved, sizes, held, row, chunk, low, w, s, pairs, gain, slope, inner):
    """The chunk's decays and states, `pairs` (1 + steps, N, 2, WIDTH), where the first holds the state before it and
    the last is zero; gains, slopes (steps, N, WIDTH), and outputs (steps, WIDTH) before the gate."""
    L, D, N = sizes
    n_chunks = (L + CHUNK - _ONE) // CHUNK
    for n in range(N):
        rows.copy(saved, ((row * n_chunks + chunk) * N + n) * D + low, pairs, n * _PAIR + WIDTH, w)
    for t in range(min(CHUNK, L - chunk * CHUNK)):
        step = row * L + chunk * CHUNK + t
        rows.begin(u, delta, step * D + low, s, w)
        rows.fill(s, OUT, 0, w)
        reset = marks.size > 0 and marks[step] & RESET > 0
        if held:
            for n in range(N):
                l, k = (t * N + n) * WIDTH, FIXED + n * STATE  # noqa: E741 (the offset of `gain`)
                at = ((t + _ONE) * N + n) * _PAIR
                before = _before(pairs, reset, t, n, N)
                rows.hold(s, DELTA, s, k + WIDTH, pairs, at, gain, l, w)
                rows.hold_slope(s, DELTA, s, k + WIDTH, pairs, at, gain, slope, l, w)
                rows.advance(pairs, at, gain, l, s, U, B[step * N + n], pairs, before, pairs, at + WIDTH, w)
                rows.add_scaled(pairs, at + WIDTH, C[step * N + n], s, OUT, w)
        else:
            for n in range(_ZERO, N - N % _TWO, _TWO):
                j, at = step * N + n, ((t + _ONE) * N + n) * _PAIR
                before = _before(pairs, reset, t, n, N)
                rows.keep_two(s, FIXED + n * STATE, pairs, before, at, B[j], C[j], B[j + _ONE], C[j + _ONE], w)
            if N % _TWO:
                n = N - _ONE
                j, at = step * N + n, ((t + _ONE) * N + n) * _PAIR
                before = _before(pairs, reset, t, n, N)
                rows.keep_one(s, FIXED + n * STATE, pairs, before, at, B[j], C[j], w)
        rows.copy(s, OUT, inner, t * WIDTH, w)


@numba.njit(forceinline=True)
def _before(pairs, reset, t, n, N):
    """Where the state before step t of a chunk is: among the zeros at the end of `pairs` after a reset."""
    return _UINT(pairs.size) - _PAIR - WIDTH if reset else (t * N + n) * _PAIR + WIDTH


@numba.njit(nogil=True)
def _step_back(B, C, grad_B, grad_C, N, held, reset, step, into, w, t, s, pairs, gain, slope):
    """One step of the adjoint of a block; gradients for B and C are added at `into`."""
    if held:
        for n in range(N):
            k, l, j = FIXED + n * STATE, (t * N + n) * WIDTH, step * N + n  # noqa: E741 (the offset of `gain`)
            at = ((t + _ONE) * N + n) * _PAIR
            grad_C[into + n] += rows.receive(s, OUT, pairs, at + WIDTH, C[j], s, k, w)
            grad_B[into + n] += rows.held_gradient(s, k, gain, slope, l, pairs, at, B[j], w)
            rows.retreat(s, k, pairs, at, _before(pairs, reset, t, n, N), w)
    else:
        for n in range(_ZERO, N - N % _TWO, _TWO):
            j, at = step * N + n, ((t + _ONE) * N + n) * _PAIR
            before = _before(pairs, reset, t, n, N)
            sums = rows.back_two(s, FIXED + n * STATE, pairs, before, at, B[j], C[j], B[j + _ONE], C[j + _ONE], w)
            grad_B[into + n] += sums[0]
            grad_C[into + n] += sums[1]
            grad_B[into + n + _ONE] += sums[2]
            grad_C[into + n + _ONE] += sums[3]
        if N % _TWO:
            n = N - _ONE
            j, at = step * N + n, ((t + _ONE) * N + n) * _PAIR
            before = _before(pairs, reset, t, n, N)
            sums = rows.back_one(s, FIXED + n * STATE, pairs, before, at, B[j], C[j], w)
            grad_B[into + n] += sums[0]
            grad_C[into + n] += sums[1]
    if reset:
        for n in range(N):
            rows.fill(s, FIXED + n * STATE, 0, w)


@numba.njit(cache=True, nogil=True)
def backward_groups(
    u, delta, A, B, C, skip, z, marks, saved, grad_y, grad_last,
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_z, grad_h0, sizes, held, first, last,
):  # fmt: skip
    """Adjoint of `forward_groups`, chunk by chunk from the end.

    grad_A (R, N, D) and grad_skip (R, D) are for each document, grad_B and grad_C (R, G, L, N) for each group; these
    two come as zeros.
    """
    L, D, N = sizes
    per_row, n_chunks = ((D + WIDTH * GROUP - _ONE) // (WIDTH * GROUP), (L + CHUNK - _ONE) // CHUNK)
    kept = CHUNK * N * WIDTH
    s, pairs = (np.empty(FIXED + N * STATE, u.dtype), np.empty(((CHUNK + _ONE) * N + _TWO) * _PAIR, u.dtype))
    pairs[pairs.size - 2 * _PAIR :] = 0
    gain, slope = np.empty(kept * held, u.dtype), np.empty(kept * held, u.dtype)
    inner = np.empty(CHUNK * WIDTH, u.dtype)
    for job in range(_UINT(first), _UINT(last)):
        row, group = job // per_row, job % per_row
        for low in range(group * GROUP * WIDTH, min((group + _ONE) * GROUP * WIDTH, D), WIDTH):
            w = min(WIDTH, D - low)
            _enter(A, grad_last, s, sizes, row, low, w)
            rows.fill(s, GRAD_SKIP, 0, w)
            for back in range(n_chunks):
                chunk = n_chunks - back - _ONE
                _recompute(u, delta, B, C, marks, saved, sizes, held, row, chunk, low, w, s, pairs, gain, slope, inner)
                n_steps = min(CHUNK, L - chunk * CHUNK)
                for remaining in range(n_steps):
                    t = n_steps - remaining - _ONE
                    step = row * L + chunk * CHUNK + t
                    i = step * D + low
                    rows.begin(u, delta, i, s, w)
                    rows.copy(grad_y, i, s, OUT, w)
                    if z.size:
                        rows.copy(z, i, s, GATE, w)
                        rows.copy(inner, t * WIDTH, s, INNER, w)
                        if skip.size:
                            rows.add_product(skip, low, s, U, s, INNER, w)
                        rows.open_gate(s, w)
                        rows.copy(s, INNER, grad_z, i, w)
                    rows.begin_back(s, w)
                    reset = marks.size > 0 and marks[step] & RESET > 0
                    into = ((row * per_row + group) * L + chunk * CHUNK + t) * N
                    _step_back(B, C, grad_B, grad_C, N, held, reset, step, into, w, t, s, pairs, gain, slope)
                    rows.end_back(s, grad_u, grad_delta, i, w)
                    if skip.size:
                        rows.add_product(skip, low, s, OUT, grad_u, i, w)
                        rows.add_product(s, U, s, OUT, s, GRAD_SKIP, w)
            _leave(s, grad_h0, sizes, row, low, _ZERO, w)
            _leave(s, grad_A, sizes, row, low, _TWO, w)
            if skip.size:
                rows.copy(s, GRAD_SKIP, grad_skip, row * D + low, w)
