"""The loops of the linear recurrence, compiled for the CPU.

Axes: B batch, L sequence, N channels (all state axes flattened).

Both kernels walk the sequence in order and let SIMD run over the channels, with the running state in a scratch row.
They read and write each element once: 3 memory accesses forward (a, b, h), 5 backward (a, h, grad_h, grad_a, grad_b).
No fast-math: products and sums round as in the plain loop, so results do not depend on the number of threads, and NaN
and infinity propagate. Indices are numba's intp, 64 bits: no array is too long.
"""

from __future__ import annotations

import numba
import numpy as np

from classical_kernels.packing import HOLD, RESET
from classical_kernels.storage import load, store


# Slices of flat arrays keep the index arithmetic out of the inner loops; with three signed indices the loops do not
# vectorise. On a change of the decorator's options, delete the on-disk cache: it looks at the source alone.
@numba.njit(cache=True, nogil=True)
def forward_blocks(a, b, h0, marks, h, h_last, seq_len, n_channels, reverse, width, first, last):
    """Run blocks `first` to `last` of `width` channels; every array is flat, `marks` (B L) or empty."""
    per_row = (n_channels + width - 1) // width
    for block in range(first, last):
        row = block // per_row
        low = (block % per_row) * width
        n = min(width, n_channels - low)
        edge = row * n_channels + low
        state = h0[edge : edge + n].copy()
        for step in range(seq_len):
            t = row * seq_len + (seq_len - 1 - step if reverse else step)
            mark = marks[t] if marks.size else 0
            at = t * n_channels + low
            a_t, b_t, h_t = a[at : at + n], b[at : at + n], h[at : at + n]
            if mark & RESET:
                state[:] = 0
            if mark & HOLD:
                for d in range(n):
                    store(h_t, d, state[d])
            else:
                for d in range(n):
                    value = load(a_t, d) * state[d] + load(b_t, d)
                    state[d] = value
                    store(h_t, d, value)
        h_last[edge : edge + n] = state


@numba.njit(cache=True, nogil=True)
def backward_blocks(
    a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0, seq_len, n_channels, reverse, width, first, last
):
    """Adjoint of `forward_blocks`, from the end: p_t = grad_h_t + s, s = p_t conj(a_t), starting with s = grad_last.

    grad_b_t = p_t, grad_a_t = p_t conj(h_{t-1}), grad_h0 = the s of the first step; conj as PyTorch defines gradients.
    """
    per_row = (n_channels + width - 1) // width
    for block in range(first, last):
        row = block // per_row
        low = (block % per_row) * width
        n = min(width, n_channels - low)
        edge = row * n_channels + low
        state = grad_last[edge : edge + n].copy()
        total = np.empty_like(state)
        back = n_channels if reverse else -n_channels  # from a step to the one before it
        for step in range(seq_len - 1, -1, -1):
            t = row * seq_len + (seq_len - 1 - step if reverse else step)
            mark = marks[t] if marks.size else 0
            at = t * n_channels + low
            a_t, g_t = a[at : at + n], grad_h[at : at + n]
            ga_t, gb_t = grad_a[at : at + n], grad_b[at : at + n]
            if mark & HOLD:
                for d in range(n):
                    state[d] += load(g_t, d)
                ga_t[:] = 0
                gb_t[:] = 0
            else:
                for d in range(n):
                    p = load(g_t, d) + state[d]
                    total[d] = p
                    store(gb_t, d, p)
                    state[d] = p * np.conj(load(a_t, d))
                # A loop of its own: one loop over all six arrays does not vectorise.
                if mark & RESET:
                    ga_t[:] = 0
                elif step > 0:
                    before = h[at + back : at + back + n]
                    for d in range(n):
                        store(ga_t, d, total[d] * np.conj(load(before, d)))
                else:
                    for d in range(n):
                        store(ga_t, d, total[d] * np.conj(h0[edge + d]))
            if mark & RESET:
                state[:] = 0
        grad_h0[edge : edge + n] = state
