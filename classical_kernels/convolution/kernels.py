"""The loops of the causal convolution, compiled for the CPU.

Axes: R batch, L sequence, D channels, K taps; S segments of `SEGMENT` steps. Flat arrays of x, y (R, L, D), weight (K,
D), bias (D), state (R, K - 1, D), since (R, L) or empty: steps since the document began, which taps must not cross.

SIMD runs over the channels; a row of y stays in the first cache while the taps are added. Gradients for weight and bias
are summed by segment, so that no two threads write to one place and results do not depend on the number of threads.
Offsets are unsigned, of 64 bits: no array is too long.
"""

from __future__ import annotations

import numba
import numpy as np

# A signed number beside an unsigned one would make a float of both.
_UINT = np.uintp
_ONE = _UINT(1)
SEGMENT = _UINT(256)


@numba.njit(forceinline=True, fastmath={"contract"})
def _add_product(x, i, y, j, total, k, w):
    for d in range(w):
        total[k + d] += x[i + d] * y[j + d]


@numba.njit(cache=True, nogil=True)
def forward_segments(x, weight, bias, state, since, y, sizes, first, last):
    """Run segments `first` to `last` of all documents; sizes: L, D, K, unsigned."""
    L, D, K = sizes
    per_row, reach = (L + SEGMENT - _ONE) // SEGMENT, K - _ONE
    for job in range(_UINT(first), _UINT(last)):
        row, begin = job // per_row, job % per_row * SEGMENT
        for t in range(begin, min(begin + SEGMENT, L)):
            at = (row * L + t) * D
            for d in range(D):
                y[at + d] = bias[d]
            for k in range(K):
                back = reach - k
                if since.size and _UINT(since[row * L + t]) < back:
                    continue
                if t >= back:
                    _add_product(weight, k * D, x, at - back * D, y, at, D)
                else:
                    _add_product(weight, k * D, state, (row * reach + t + k) * D, y, at, D)


@numba.njit(cache=True, nogil=True)
def backward_segments(
    x, weight, state, since, grad_y, grad_x, grad_weight, grad_bias, grad_state, sizes, first, last
):  # fmt: skip
    """Adjoint of `forward_segments`; grad_weight (R, S, K, D), grad_bias (R, S, D) and the other two come as zeros."""
    L, D, K = sizes
    per_row, reach = (L + SEGMENT - _ONE) // SEGMENT, K - _ONE
    for job in range(_UINT(first), _UINT(last)):
        row, begin = job // per_row, job % per_row * SEGMENT
        end = min(begin + SEGMENT, L)
        for t in range(begin, end):
            at = (row * L + t) * D
            for d in range(D):
                grad_bias[job * D + d] += grad_y[at + d]
            for k in range(K):
                back = reach - k
                if since.size and _UINT(since[row * L + t]) < back:
                    continue
                into = (job * K + k) * D
                if t >= back:
                    _add_product(grad_y, at, x, at - back * D, grad_weight, into, D)
                else:
                    source = (row * reach + t + k) * D
                    _add_product(grad_y, at, state, source, grad_weight, into, D)
                    _add_product(grad_y, at, weight, k * D, grad_state, source, D)
            # What later steps read of this one, so that each segment writes its own steps alone.
            for k in range(K):
                later = t + reach - k
                if later < L and not (since.size and _UINT(since[row * L + later]) < reach - k):
                    _add_product(grad_y, (row * L + later) * D, weight, k * D, grad_x, at, D)
