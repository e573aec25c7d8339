"""The causal convolution on GPUs, in Triton, forward and backward.

Axes: R batch, L sequence, D channels, K taps; T steps of a tile, W channels of a tile, M tiles of a sequence.

A program owns T steps of W channels of one document. Taps read the same rows of x again, from the cache. Gradients for
weight and bias are summed by tile, each program into its own slice, so that results do not depend on the order of
programs. `since` (R, L) int64 holds the steps since the document began, which taps must not cross. The number of a row
of memory is an int64, hence so is every offset: no array is too long.

There is no example to run here: without a GPU these functions run in Triton's interpreter alone.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load(x, row, d, D, inside):
    """A tile of x (rows, D), zero outside."""
    return tl.load(x + (row[:, None] * D + d[None, :]), mask=inside[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def _store(x, row, d, D, inside, value):
    """Write a tile of x (rows, D)."""
    tl.store(x + (row[:, None] * D + d[None, :]), value, mask=inside[:, None] & (d < D)[None, :])


@triton.jit
def _reached(since, row, inside, back, MARKED: tl.constexpr):
    """Whether the step at each row may read the one `back` steps earlier."""
    if MARKED:
        inside = inside & (tl.load(since + row, mask=inside, other=0) >= back)
    return inside


@triton.jit
def _place(L, D, T: tl.constexpr, W: tl.constexpr):
    """The document, the tile of its steps, those steps, and the channels of this program."""
    per_tile, tiles = tl.cdiv(D, W), tl.cdiv(L, T)
    program = tl.program_id(0)
    tile, block = program // per_tile, program % per_tile
    return (tile // tiles).to(tl.int64), tile, tile % tiles * T + tl.arange(0, T), block * W + tl.arange(0, W)


@triton.jit
def _input(x, state, document, t, L, D, d, back, K: tl.constexpr, allowed):
    """x at t - back, which lies in `state` (R, K - 1, D) where it is negative."""
    from_x = _load(x, document * L + t - back, d, D, allowed & (t >= back))
    return from_x + _load(state, document * (K - 1) + t - back + K - 1, d, D, allowed & (t < back))


@triton.jit
def forward_tiles(
    x, weight, bias, state, since, y, L, D, K: tl.constexpr, MARKED: tl.constexpr, T: tl.constexpr, W: tl.constexpr
):
    """`y_t = bias + sum_k weight_k x_{t - K + 1 + k}`; weight is (K, D)."""
    document, _, t, d = _place(L, D, T, W)
    inside, row = t < L, document * L + t
    total = tl.zeros((T, W), y.dtype.element_ty) + tl.load(bias + d, mask=d < D, other=0.0)[None, :]
    for k in tl.static_range(K):
        back = K - 1 - k
        allowed = _reached(since, row, inside, back, MARKED)
        tap = tl.load(weight + k * D + d, mask=d < D, other=0.0)
        total += tap[None, :] * _input(x, state, document, t, L, D, d, back, K, allowed)
    _store(y, row, d, D, inside, total)


@triton.jit
def backward_tiles(
    x, weight, state, since, grad_y, grad_x, grad_weight, grad_bias, grad_state, L, D,
    K: tl.constexpr, MARKED: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """Adjoint of `forward_tiles`; grad_weight (R M, K, D) and grad_bias (R M, D) are for each tile of steps."""
    document, tile, t, d = _place(L, D, T, W)
    inside, row = t < L, document * L + t
    grad = _load(grad_y, row, d, D, inside)
    total = tl.zeros((T, W), grad_x.dtype.element_ty)
    tl.store(grad_bias + tile.to(tl.int64) * D + d, tl.sum(grad, axis=0), mask=d < D)
    for k in tl.static_range(K):
        back = K - 1 - k
        tap = tl.load(weight + k * D + d, mask=d < D, other=0.0)
        allowed = _reached(since, row, inside, back, MARKED)
        share = tl.sum(grad * _input(x, state, document, t, L, D, d, back, K, allowed), axis=0)
        tl.store(grad_weight + (tile.to(tl.int64) * K + k) * D + d, share, mask=d < D)
        later = _reached(since, row + back, t + back < L, back, MARKED)
        total += tap[None, :] * _load(grad_y, row + back, d, D, later)
    _store(grad_x, row, d, D, inside, total)
    for i in tl.static_range(K - 1):  # the program of a document's first steps also writes the gradient of row i
        total = tl.zeros((1, W), grad_x.dtype.element_ty)
        for k in tl.static_range(i + 1):  # step i - k reads that row with tap k
            step = i - k + tl.arange(0, 1)
            reads = _reached(since, document * L + step, step < L, K - 1 - k, MARKED)
            tap = tl.load(weight + k * D + d, mask=d < D, other=0.0)
            total += tap[None, :] * _load(grad_y, document * L + step, d, D, reads)
        first = (tl.min(t, axis=0) + tl.arange(0, 1)) == 0
        _store(grad_state, document * (K - 1) + i + tl.arange(0, 1), d, D, first, total)
