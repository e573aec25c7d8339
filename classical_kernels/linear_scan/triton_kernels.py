"""The linear recurrence on GPUs, in Triton: one kernel for all dtypes, forward and backward, in two variants.

Axes: B batch, L sequence, N channels (all state axes flattened); P planes, 2 for complex numbers (real and imaginary
part, interleaved in memory as PyTorch keeps them) and 1 for real ones; T steps of a tile, W channels of a tile.

A program owns W channels of one document and walks its sequence. `*_steps` goes step by step, with the state in
registers. `*_tiles` takes T steps at once by an associative scan, so that T times as many bytes are under way, and
carries the state from tile to tile. Both touch each element once: 3 memory accesses forward (a, b, h), 5 backward (a,
h, grad_h, grad_a, grad_b). Elements are widened to the dtype of h0 as they are read and rounded as they are written.
The number of a row of memory is an int64, hence so is every offset: no array is too long.

`marks` (B, L) holds the bits of `classical_kernels.packing`. In tiles a reset is a flag that travels with the scan
rather than a decay of zero, which would let NaN through from the document before.

There is no example to run here: without a GPU these functions run in Triton's interpreter alone.
"""

from __future__ import annotations

import triton
import triton.language as tl

from classical_kernels import packing

RESET, HOLD = tl.constexpr(packing.RESET), tl.constexpr(packing.HOLD)


@triton.jit
def _load(x, row, low, N, inside, STATE: tl.constexpr, COMPLEX: tl.constexpr, W: tl.constexpr):
    """Both planes of a tile (T, W) of x (rows, N, P), zero outside; of real numbers the first one, twice."""
    P: tl.constexpr = 2 if COMPLEX else 1
    column = low * P + tl.arange(0, W * P)
    mask = inside[:, None] & (column < N * P)[None, :]
    tile = tl.load(x + (row[:, None] * (N * P) + column[None, :]), mask=mask, other=0.0).to(STATE)
    if COMPLEX:
        real, imaginary = tl.split(tl.reshape(tile, (row.shape[0], W, 2)))
    else:
        real, imaginary = tile, tile
    return real, imaginary


@triton.jit
def _store(x, row, low, N, inside, real, imaginary, COMPLEX: tl.constexpr, W: tl.constexpr):
    """Write both planes of a tile, rounded to what x holds."""
    P: tl.constexpr = 2 if COMPLEX else 1
    column = low * P + tl.arange(0, W * P)
    mask = inside[:, None] & (column < N * P)[None, :]
    tile = tl.reshape(tl.join(real, imaginary), (row.shape[0], W * P)) if COMPLEX else real
    tl.store(x + (row[:, None] * (N * P) + column[None, :]), tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _multiply(ar, ai, br, bi, COMPLEX: tl.constexpr):
    if COMPLEX:
        return ar * br - ai * bi, ar * bi + ai * br
    return ar * br, ar * br


@triton.jit
def _conj(ar, ai, COMPLEX: tl.constexpr):
    if COMPLEX:
        return ar, -ai
    return ar, ai


@triton.jit
def _place(N, W: tl.constexpr):
    """The document and the first channel of this program."""
    per_document = tl.cdiv(N, W)
    program = tl.program_id(0)
    return (program // per_document).to(tl.int64), program % per_document * W


@triton.jit
def _row(document, t, L, REVERSE: tl.constexpr):
    """The row of memory of step t."""
    if REVERSE:
        return document * L + (L - 1 - t)
    return document * L + t


@triton.jit
def _join_real(a1, b1, a2, b2):
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _join_complex(ar1, ai1, br1, bi1, ar2, ai2, br2, bi2):
    ar, ai = ar1 * ar2 - ai1 * ai2, ar1 * ai2 + ai1 * ar2
    return ar, ai, ar2 * br1 - ai2 * bi1 + br2, ar2 * bi1 + ai2 * br1 + bi2


@triton.jit
def _join_real_cut(a1, b1, cut1, a2, b2, cut2):
    return a1 * a2, tl.where(cut2 != 0, b2, a2 * b1 + b2), cut1 | cut2


@triton.jit
def _join_complex_cut(ar1, ai1, br1, bi1, cut1, ar2, ai2, br2, bi2, cut2):
    ar, ai, br, bi = _join_complex(ar1, ai1, br1, bi1, ar2, ai2, br2, bi2)
    return ar, ai, tl.where(cut2 != 0, br2, br), tl.where(cut2 != 0, bi2, bi), cut1 | cut2


@triton.jit
def _advance(ar, ai, br, bi, cut, hr, hi, COMPLEX: tl.constexpr, MARKED: tl.constexpr, BACK: tl.constexpr):
    """The states of a tile, from the one (1, W) before it (BACK: after it); `cut` (T, 1) forgets what came before."""
    if MARKED:
        cut = tl.broadcast_to(cut.to(tl.int32), ar.shape)
    if COMPLEX and MARKED:
        ar, ai, br, bi, cut = tl.associative_scan((ar, ai, br, bi, cut), 0, _join_complex_cut, reverse=BACK)
    elif COMPLEX:
        ar, ai, br, bi = tl.associative_scan((ar, ai, br, bi), 0, _join_complex, reverse=BACK)
    elif MARKED:
        ar, br, cut = tl.associative_scan((ar, br, cut), 0, _join_real_cut, reverse=BACK)
    else:
        ar, br = tl.associative_scan((ar, br), 0, _join_real, reverse=BACK)
    hr, hi = _multiply(ar, ai, hr, hi, COMPLEX)
    if MARKED:
        hr, hi = tl.where(cut != 0, 0.0, hr), tl.where(cut != 0, 0.0, hi)
    return hr + br, hi + bi


@triton.jit
def _pick(x, one):
    """The row (1, W) of the tile x where `one` (T) is true."""
    return tl.sum(tl.where(one[:, None], x, 0.0), axis=0)[None, :]


@triton.jit
def forward_steps(
    a, b, h0, marks, h, h_last, L, N,
    REVERSE: tl.constexpr, COMPLEX: tl.constexpr, MARKED: tl.constexpr, W: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """`h_t = a_t h_{t-1} + b_t`, step by step."""
    STATE: tl.constexpr = h0.dtype.element_ty
    document, low = _place(N, W)
    own = document + tl.arange(0, 1)
    yes = own >= 0
    hr, hi = _load(h0, own, low, N, yes, STATE, COMPLEX, W)
    for t in tl.range(0, L, num_stages=STAGES):
        row = _row(document, t, L, REVERSE) + tl.arange(0, 1)
        ar, ai = _load(a, row, low, N, yes, STATE, COMPLEX, W)
        br, bi = _load(b, row, low, N, yes, STATE, COMPLEX, W)
        if MARKED:
            mark = tl.load(marks + row)[:, None]
            hr, hi = tl.where(mark & RESET != 0, 0.0, hr), tl.where(mark & RESET != 0, 0.0, hi)
            gr, gi = _multiply(ar, ai, hr, hi, COMPLEX)
            hr, hi = tl.where(mark & HOLD != 0, hr, gr + br), tl.where(mark & HOLD != 0, hi, gi + bi)
        else:
            gr, gi = _multiply(ar, ai, hr, hi, COMPLEX)
            hr, hi = gr + br, gi + bi
        _store(h, row, low, N, yes, hr, hi, COMPLEX, W)
    _store(h_last, own, low, N, yes, hr, hi, COMPLEX, W)


@triton.jit
def backward_steps(
    a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0, L, N,
    REVERSE: tl.constexpr, COMPLEX: tl.constexpr, MARKED: tl.constexpr, W: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Adjoint of `forward_steps`: p_t = grad_h_t + s, s = p_t conj(a_t) from the end, starting with s = grad_last.

    grad_b_t = p_t, grad_a_t = p_t conj(h_{t-1}), grad_h0 = the s of the first step.
    """
    STATE: tl.constexpr = h0.dtype.element_ty
    document, low = _place(N, W)
    own = document + tl.arange(0, 1)
    yes = own >= 0
    sr, si = _load(grad_last, own, low, N, yes, STATE, COMPLEX, W)
    first_r, first_i = _load(h0, own, low, N, yes, STATE, COMPLEX, W)
    for back in tl.range(0, L, num_stages=STAGES):
        t = L - 1 - back
        row, before = _row(document, t, L, REVERSE) + tl.arange(0, 1), _row(document, t - 1, L, REVERSE)
        ar, ai = _load(a, row, low, N, yes, STATE, COMPLEX, W)
        pr, pi = _load(grad_h, row, low, N, yes, STATE, COMPLEX, W)
        later = t + tl.arange(0, 1) > 0
        hr, hi = _load(h, before + tl.arange(0, 1), low, N, later, STATE, COMPLEX, W)
        hr, hi = tl.where(later[:, None], hr, first_r), tl.where(later[:, None], hi, first_i)
        pr, pi = pr + sr, pi + si
        ar, ai = _conj(ar, ai, COMPLEX)
        hr, hi = _conj(hr, hi, COMPLEX)
        gr, gi = _multiply(pr, pi, hr, hi, COMPLEX)
        sr, si = _multiply(pr, pi, ar, ai, COMPLEX)
        if MARKED:
            mark = tl.load(marks + row)[:, None]
            sr, si = tl.where(mark & HOLD != 0, pr, sr), tl.where(mark & HOLD != 0, pi, si)
            sr, si = tl.where(mark & RESET != 0, 0.0, sr), tl.where(mark & RESET != 0, 0.0, si)
            gr, gi = tl.where(mark != 0, 0.0, gr), tl.where(mark != 0, 0.0, gi)
            pr, pi = tl.where(mark & HOLD != 0, 0.0, pr), tl.where(mark & HOLD != 0, 0.0, pi)
        _store(grad_a, row, low, N, yes, gr, gi, COMPLEX, W)
        _store(grad_b, row, low, N, yes, pr, pi, COMPLEX, W)
    _store(grad_h0, own, low, N, yes, sr, si, COMPLEX, W)


@triton.jit
def forward_tiles(
    a, b, h0, marks, h, h_last, L, N, REVERSE: tl.constexpr, COMPLEX: tl.constexpr, MARKED: tl.constexpr,
    T: tl.constexpr, W: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """`h_t = a_t h_{t-1} + b_t`, T steps at a time."""
    STATE: tl.constexpr = h0.dtype.element_ty
    document, low = _place(N, W)
    own = document + tl.arange(0, 1)
    hr, hi = _load(h0, own, low, N, own >= 0, STATE, COMPLEX, W)
    for start in tl.range(0, L, T, num_stages=STAGES):
        t = start + tl.arange(0, T)
        row, inside = _row(document, t, L, REVERSE), t < L
        ar, ai = _load(a, row, low, N, inside, STATE, COMPLEX, W)
        br, bi = _load(b, row, low, N, inside, STATE, COMPLEX, W)
        passing, cut = (t >= L)[:, None], (t < 0)[:, None]
        if MARKED:
            mark = tl.load(marks + row, mask=inside, other=HOLD)[:, None]
            passing, cut = mark & HOLD != 0, mark & RESET != 0
            br, bi = tl.where(passing, 0.0, br), tl.where(passing, 0.0, bi)
        ar, ai = tl.where(passing, 1.0, ar), tl.where(passing, 0.0, ai)
        hr, hi = _advance(ar, ai, br, bi, cut, hr, hi, COMPLEX, MARKED, False)
        _store(h, row, low, N, inside, hr, hi, COMPLEX, W)
        hr, hi = _pick(hr, tl.arange(0, T) == T - 1), _pick(hi, tl.arange(0, T) == T - 1)
    _store(h_last, own, low, N, own >= 0, hr, hi, COMPLEX, W)


@triton.jit
def backward_tiles(
    a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0, L, N,
    REVERSE: tl.constexpr, COMPLEX: tl.constexpr, MARKED: tl.constexpr, T: tl.constexpr, W: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Adjoint of `forward_tiles`: p_t = grad_h_t + conj(a_{t+1}) p_{t+1}, T steps at a time from the end."""
    STATE: tl.constexpr = h0.dtype.element_ty
    document, low = _place(N, W)
    own = document + tl.arange(0, 1)
    pr, pi = _load(grad_last, own, low, N, own >= 0, STATE, COMPLEX, W)
    first_r, first_i = _load(h0, own, low, N, own >= 0, STATE, COMPLEX, W)
    n_tiles = tl.cdiv(L, T)
    for back in tl.range(0, n_tiles, num_stages=STAGES):
        t = (n_tiles - 1 - back) * T + tl.arange(0, T)
        row, inside, follows = _row(document, t, L, REVERSE), t < L, t + 1 < L
        gr, gi = _load(grad_h, row, low, N, inside, STATE, COMPLEX, W)
        following = _row(document, t + 1, L, REVERSE)
        ar, ai = _load(a, following, low, N, follows, STATE, COMPLEX, W)
        hr, hi = _load(h, _row(document, t - 1, L, REVERSE), low, N, inside & (t > 0), STATE, COMPLEX, W)
        hr, hi = tl.where((t == 0)[:, None], first_r, hr), tl.where((t == 0)[:, None], first_i, hi)
        passing, cut = (t + 1 >= L)[:, None], (t < 0)[:, None]
        if MARKED:
            mark = tl.load(marks + following, mask=follows, other=HOLD)[:, None]
            passing, cut = mark & HOLD != 0, mark & RESET != 0
        ar, ai = _conj(tl.where(passing, 1.0, ar), tl.where(passing, 0.0, ai), COMPLEX)
        # A cut at t + 1 leaves p_t = grad_h_t: the reversed scan takes the later step first.
        tile_r, tile_i = _advance(ar, ai, gr, gi, cut, pr, pi, COMPLEX, MARKED, True)
        pr, pi = _pick(tile_r, tl.arange(0, T) == 0), _pick(tile_i, tl.arange(0, T) == 0)
        hr, hi = _conj(hr, hi, COMPLEX)
        gr, gi = _multiply(tile_r, tile_i, hr, hi, COMPLEX)
        if MARKED:
            mark = tl.load(marks + row, mask=inside, other=0)[:, None]
            gr, gi = tl.where(mark != 0, 0.0, gr), tl.where(mark != 0, 0.0, gi)
            tile_r, tile_i = tl.where(mark & HOLD != 0, 0.0, tile_r), tl.where(mark & HOLD != 0, 0.0, tile_i)
        _store(grad_a, row, low, N, inside, gr, gi, COMPLEX, W)
        _store(grad_b, row, low, N, inside, tile_r, tile_i, COMPLEX, W)
    # One step further back, from p_0 to the state before it.
    zero = _row(document, 0, L, REVERSE) + tl.arange(0, 1)
    some = (L + tl.arange(0, 1)) > 0
    ar, ai = _load(a, zero, low, N, some, STATE, COMPLEX, W)
    ar, ai = _conj(ar, ai, COMPLEX)
    sr, si = _multiply(pr, pi, ar, ai, COMPLEX)
    passing = (some == 0)[:, None]
    if MARKED:
        mark = tl.load(marks + zero, mask=some, other=HOLD)[:, None]
        passing = mark & HOLD != 0
    sr, si = tl.where(passing, pr, sr), tl.where(passing, pi, si)
    if MARKED:
        sr, si = tl.where(mark & RESET != 0, 0.0, sr), tl.where(mark & RESET != 0, 0.0, si)
    _store(grad_h0, own, low, N, own >= 0, sr, si, COMPLEX, W)
