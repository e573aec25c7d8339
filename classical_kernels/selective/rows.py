"""One step of the selective scan on one row of channels, in pieces that each become SIMD loops; compiled code.

A row is a flat array and the offset of the first of its w channels, unsigned: numba lets signed indices count from the
end, and such loops do not vectorise; slices cost more than the loops. A loop that writes more than two or three rows
does not vectorise either (too many pairs could overlap): hence the pieces.
"""

from __future__ import annotations

import numba

from classical_kernels.exponential import exp, growth, growth_slope

_FAST = {"contract", "reassoc", "nsz"}
"""Fused products, and sums over channels on several lanes; NaN and infinity are kept."""
_inlined = numba.njit(forceinline=True, fastmath=_FAST)


@_inlined
def decay(delta, i, A, j, a, k, w):
    """a = exp(delta A)."""
    for d in range(w):
        a[k + d] = exp(delta[i + d] * A[j + d])


@_inlined
def hold(delta, i, A, j, a, k, gain, l, w):  # noqa: E741 (the offset of `gain`)
    """a = exp(delta A) and gain = (a - 1) / A, the integral of the decay over the step."""
    for d in range(w):
        power, mean = growth(delta[i + d] * A[j + d])
        a[k + d] = power
        gain[l + d] = delta[i + d] * mean


@_inlined
def hold_slope(delta, i, A, j, a, gain, slope, k, w):
    """The derivative of `gain` with respect to A."""
    for d in range(w):
        step = delta[i + d]
        mean = gain[k + d] / step if step != 0 else step + 1
        slope[k + d] = step * step * growth_slope(step * A[j + d], a[k + d], mean)


@_inlined
def advance(a, j, gain, k, u, i, B, before, at, after, to, w):
    """after = a before + gain u B."""
    for d in range(w):
        after[to + d] = a[j + d] * before[at + d] + gain[k + d] * u[i + d] * B


@_inlined
def decay_advance_read(delta, i, A, j, u, B, C, h, k, y, w):
    """h = exp(delta A) h + delta u B and y += C h."""
    for d in range(w):
        value = exp(delta[i + d] * A[j + d]) * h[k + d] + delta[i + d] * u[i + d] * B
        h[k + d] = value
        y[i + d] += C * value


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
def close_gate(z, y, i, w):
    """y = y silu(z)."""
    for d in range(w):
        y[i + d] = y[i + d] * z[i + d] / (1 + exp(-z[i + d]))


@_inlined
def gate_gradient(z, grad_y, grad_z, i, y, j, grad_inner, k, w):
    """For out = y silu(z): grad_z = grad_y y silu'(z) and grad_inner = grad_y silu(z)."""
    for d in range(w):
        share = 1 / (1 + exp(-z[i + d]))
        grad_z[i + d] = grad_y[i + d] * y[j + d] * share * (1 + z[i + d] * (1 - share))
        grad_inner[k + d] = grad_y[i + d] * z[i + d] * share


@_inlined
def receive(grad_y, i, h, j, C, g, k, w):
    """g += grad_y C, the adjoint of the state; returns the gradient for C."""
    total = grad_y[i] * 0
    for d in range(w):
        g[k + d] += grad_y[i + d] * C
        total += grad_y[i + d] * h[j + d]
    return total


@_inlined
def drive_gradient(g, k, gain, j, u, i, B, grad_drive, to, w):
    """grad_drive += g B, where drive = gain u; returns the gradient for B."""
    total = g[k] * 0
    for d in range(w):
        grad_drive[to + d] += g[k + d] * B
        total += g[k + d] * gain[j + d] * u[i + d]
    return total


@_inlined
def held_gradient(g, k, gain, a, slope, j, u, i, B, grad_u, grad_delta, grad_A, to, w):
    """Adds to the gradients for u, delta and A what passes through gain u B, whose derivatives are a and `slope`."""
    for d in range(w):
        grad_u[i + d] += g[k + d] * B * gain[j + d]
    for d in range(w):
        grad_delta[i + d] += g[k + d] * B * u[i + d] * a[j + d]
    for d in range(w):
        grad_A[to + d] += g[k + d] * B * u[i + d] * slope[j + d]


@_inlined
def retreat(a, j, before, at, g, k, grad_power, to, w):
    """grad_power = g a before, the gradient for delta A, and g = g a, one step back."""
    for d in range(w):
        value = g[k + d] * a[j + d]
        g[k + d] = value
        grad_power[to + d] = value * before[at + d]


@_inlined
def spread(grad_power, k, delta, i, A, j, grad_delta, grad_A, to, w):
    """grad_delta += grad_power A and grad_A += grad_power delta."""
    for d in range(w):
        grad_delta[i + d] += grad_power[k + d] * A[j + d]
        grad_A[to + d] += grad_power[k + d] * delta[i + d]
