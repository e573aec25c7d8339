"""One step of the selective scan on one row of channels, in pieces that each become SIMD loops; compiled code.

A row is a flat array and the offset of the first of its w channels, unsigned: numba lets signed indices count from the
end, and such loops do not vectorise; slices cost more than the loops. Nor does a loop vectorise where too many pairs of
rows could overlap, where a bare 1 beside float32 makes a float64, or where a division could raise. Rows of one array
with a fixed distance cannot overlap: what a step needs lies in one array `s`, `WIDTH` apart. Its first rows are those
named below, then comes a record of each state: the state (backward its adjoint), A, and the gradient for A. Backward,
`pairs` holds the decay and the state after it, for each step and state. Two states at once read and add to the rows
that they share once.
"""

from __future__ import annotations

import numba
import numpy as np

from classical_kernels.exponential import exp, growth, growth_slope

_UINT = np.uintp
WIDTH = _UINT(128)
"""Channels of a block at most: measured; narrower loops cost more than the caches save."""
DELTA, U, DRIVE, OUT, GATE, INNER, GRAD_DRIVE, GRAD_U, GRAD_DELTA, GRAD_SKIP = (_UINT(k) * WIDTH for k in range(10))
"""Rows of `s`: delta, u, their product, the output, z, y before the gate, and gradients; backward, OUT is the gradient
that comes in, behind the gate."""
FIXED, STATE = _UINT(10) * WIDTH, _UINT(3) * WIDTH
"""Where the records of states begin, and their length."""
_ROW1, _ROW2, _ROW3, _ROW4, _ROW5 = (_UINT(k) * WIDTH for k in range(1, 6))
_FAST = {"contract", "reassoc", "nsz"}
"""Fused products, and sums over channels on several lanes; NaN and infinity are kept."""
_inlined = numba.njit(forceinline=True, fastmath=_FAST, error_model="numpy")


@_inlined
def begin(u, delta, i, s, w):
    """Fetch the operands of a step."""
    for d in range(w):
        s[DELTA + d] = delta[i + d]
        s[U + d] = u[i + d]
        s[DRIVE + d] = delta[i + d] * u[i + d]


@_inlined
def advance_one(s, k, B, C, w):
    """h = exp(delta A) h + delta u B and out += C h, for the state at k."""
    for d in range(w):
        h = exp(s[DELTA + d] * s[k + _ROW1 + d]) * s[k + d] + s[DRIVE + d] * B
        s[k + d] = h
        s[OUT + d] += C * h


@_inlined
def advance_two(s, k, B0, C0, B1, C1, w):
    """`advance_one` for the state at k and the next."""
    for d in range(w):
        delta, drive = s[DELTA + d], s[DRIVE + d]
        h0 = exp(delta * s[k + _ROW1 + d]) * s[k + d] + drive * B0
        h1 = exp(delta * s[k + _ROW4 + d]) * s[k + _ROW3 + d] + drive * B1
        s[k + d] = h0
        s[k + _ROW3 + d] = h1
        s[OUT + d] += C0 * h0 + C1 * h1


@_inlined
def keep_one(s, k, pairs, before, at, B, C, w):
    """`advance_one` from the state at `before` to the decay and the state at `at`."""
    for d in range(w):
        a = exp(s[DELTA + d] * s[k + _ROW1 + d])
        h = a * pairs[before + d] + s[DRIVE + d] * B
        pairs[at + d] = a
        pairs[at + _ROW1 + d] = h
        s[OUT + d] += C * h


@_inlined
def keep_two(s, k, pairs, before, at, B0, C0, B1, C1, w):
    """`keep_one` for two states."""
    for d in range(w):
        delta, drive = s[DELTA + d], s[DRIVE + d]
        a0, a1 = exp(delta * s[k + _ROW1 + d]), exp(delta * s[k + _ROW4 + d])
        h0 = a0 * pairs[before + d] + drive * B0
        h1 = a1 * pairs[before + _ROW2 + d] + drive * B1
        pairs[at + d] = a0
        pairs[at + _ROW1 + d] = h0
        pairs[at + _ROW2 + d] = a1
        pairs[at + _ROW3 + d] = h1
        s[OUT + d] += C0 * h0 + C1 * h1


@_inlined
def begin_back(s, w):
    """No gradients yet for the operands of this step."""
    for d in range(w):
        s[GRAD_DRIVE + d] = 0
        s[GRAD_U + d] = 0
        s[GRAD_DELTA + d] = 0


@_inlined
def back_one(s, k, pairs, before, at, B, C, w):
    """One step back of the adjoint at k, whose gradients for delta u, delta and A are added; returns those for B, C."""
    to_B = s[OUT] * 0
    to_C = s[OUT] * 0
    for d in range(w):
        grad = s[OUT + d]
        p = s[k + d] + C * grad
        q = p * pairs[at + d]
        x = q * pairs[before + d]  # the gradient for delta A
        to_B += p * s[DRIVE + d]
        to_C += grad * pairs[at + _ROW1 + d]
        s[k + d] = q
        s[k + _ROW2 + d] += x * s[DELTA + d]
        s[GRAD_DRIVE + d] += p * B
        s[GRAD_DELTA + d] += x * s[k + _ROW1 + d]
    return to_B, to_C


@_inlined
def back_two(s, k, pairs, before, at, B0, C0, B1, C1, w):
    """`back_one` for two states; returns the gradients for B and C of the first, then of the second."""
    to_B0 = s[OUT] * 0
    to_C0 = s[OUT] * 0
    to_B1 = s[OUT] * 0
    to_C1 = s[OUT] * 0
    for d in range(w):
        grad, drive, delta = s[OUT + d], s[DRIVE + d], s[DELTA + d]
        p0, p1 = s[k + d] + C0 * grad, s[k + _ROW3 + d] + C1 * grad
        q0, q1 = p0 * pairs[at + d], p1 * pairs[at + _ROW2 + d]
        x0, x1 = q0 * pairs[before + d], q1 * pairs[before + _ROW2 + d]
        to_B0 += p0 * drive
        to_B1 += p1 * drive
        to_C0 += grad * pairs[at + _ROW1 + d]
        to_C1 += grad * pairs[at + _ROW3 + d]
        s[k + d] = q0
        s[k + _ROW3 + d] = q1
        s[k + _ROW2 + d] += x0 * delta
        s[k + _ROW5 + d] += x1 * delta
        s[GRAD_DRIVE + d] += p0 * B0 + p1 * B1
        s[GRAD_DELTA + d] += x0 * s[k + _ROW1 + d] + x1 * s[k + _ROW4 + d]
    return to_B0, to_C0, to_B1, to_C1


@_inlined
def end_back(s, grad_u, grad_delta, i, w):
    """The gradients for u and delta, what passes through their product included."""
    for d in range(w):
        grad_u[i + d] = s[GRAD_U + d] + s[GRAD_DRIVE + d] * s[DELTA + d]
        grad_delta[i + d] = s[GRAD_DELTA + d] + s[GRAD_DRIVE + d] * s[U + d]


@_inlined
def hold(delta, i, A, j, a, k, gain, l, w):  # noqa: E741 (the offset of `gain`)
    """a = exp(delta A) and gain = (a - 1) / A, the integral of the decay over the step."""
    for d in range(w):
        power, mean = growth(delta[i + d] * A[j + d])
        a[k + d] = power
        gain[l + d] = delta[i + d] * mean


@_inlined
def hold_slope(delta, i, A, j, a, k, gain, slope, l, w):  # noqa: E741 (the offset of `gain`)
    """The derivative of `gain` with respect to A."""
    one = gain.dtype.type(1)
    for d in range(w):
        step = delta[i + d]
        mean = gain[l + d] / step if step != 0 else one
        slope[l + d] = step * step * growth_slope(step * A[j + d], a[k + d], mean)


@_inlined
def advance(a, j, gain, k, u, i, B, before, at, after, to, w):
    """after = a before + gain u B."""
    for d in range(w):
        after[to + d] = a[j + d] * before[at + d] + gain[k + d] * u[i + d] * B


@_inlined
def add_scaled(x, i, factor, total, j, w):
    """total += factor x."""
    for d in range(w):
        total[j + d] += factor * x[i + d]


@_inlined
def add_product(x, i, y, j, total, k, w):
    """total += x y."""
    for d in range(w):
        total[k + d] += x[i + d] * y[j + d]


@_inlined
def fill(x, i, value, w):
    """x = value."""
    for d in range(w):
        x[i + d] = value


@_inlined
def copy(x, i, y, j, w):
    """y = x."""
    for d in range(w):
        y[j + d] = x[i + d]


@_inlined
def close_gate(s, w):
    """y = y silu(z)."""
    one = s.dtype.type(1)
    for d in range(w):
        s[OUT + d] = s[OUT + d] * s[GATE + d] / (one + exp(-s[GATE + d]))


@_inlined
def open_gate(s, w):
    """For out = y silu(z), with y in INNER: the gradient for y in place of that for out, that for z in place of y."""
    one = s.dtype.type(1)
    for d in range(w):
        z, grad = s[GATE + d], s[OUT + d]
        share = one / (one + exp(-z))
        s[INNER + d] = grad * s[INNER + d] * share * (one + z * (one - share))
        s[OUT + d] = grad * z * share


@_inlined
def receive(grad_y, i, h, j, C, g, k, w):
    """g += grad_y C, the adjoint of the state; returns the gradient for C."""
    total = grad_y[i] * 0
    for d in range(w):
        g[k + d] += grad_y[i + d] * C
        total += grad_y[i + d] * h[j + d]
    return total


@_inlined
def held_gradient(s, k, gain, slope, l, pairs, at, B, w):  # noqa: E741 (the offset of `gain`)
    """Adds to the gradients for u, delta and A what passes through gain u B, whose derivatives are the decay and
    `slope`; returns the gradient for B."""
    total = s[k] * 0
    for d in range(w):
        s[GRAD_U + d] += s[k + d] * B * gain[l + d]
        s[GRAD_DELTA + d] += s[k + d] * B * s[U + d] * pairs[at + d]
        s[k + _ROW2 + d] += s[k + d] * B * s[U + d] * slope[l + d]
        total += s[k + d] * gain[l + d] * s[U + d]
    return total


@_inlined
def retreat(s, k, pairs, at, before, w):
    """g = g a, one step back of the adjoint at k, with its gradients for delta and A."""
    for d in range(w):
        q = s[k + d] * pairs[at + d]
        x = q * pairs[before + d]
        s[k + d] = q
        s[k + _ROW2 + d] += x * s[DELTA + d]
        s[GRAD_DELTA + d] += x * s[k + _ROW1 + d]
