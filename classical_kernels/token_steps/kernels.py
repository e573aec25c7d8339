"""What a recurrent block does with one token, compiled for the CPU: its pieces, and a whole Harmonic block.

Axes: R batch, D channels, T taps, K levels; numbers of a row, row after row. SIMD runs over the channels.

Arrays come as their addresses, with a 1 of their type, `one`: to make a numpy array of a tensor costs as much as a
kernel takes. The kernels of one row, with a leading underscore, take pointers or arrays, and offsets. Offsets are
unsigned, of 64 bits: numba lets signed ones count from the end, and such loops do not vectorise.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from classical_kernels.exponential import exp

_ZERO, _ONE, _TWO = np.uintp(0), np.uintp(1), np.uintp(2)
_inlined = numba.njit(forceinline=True, fastmath={"contract"}, error_model="numpy")
_summing = numba.njit(forceinline=True, fastmath={"contract", "reassoc"}, error_model="numpy")


def _pointing(context, address, one):  # noqa: ARG001 (the context comes first by numba's protocol)
    """A pointer to numbers of the type of `one`."""

    def generate(context, builder, signature, arguments) -> ir.Value:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(one)(address, one), generate


_at: Any = intrinsic(_pointing)


@_inlined
def _sigmoid(x, one):
    return one / (one + exp(-x))


@_summing
def _normalise(x, i, weight, eps, y, k, D, one):
    """y = weight x / sqrt(mean(x^2) + eps)."""
    total = one - one
    for d in range(D):
        total += x[i + d] * x[i + d]
    scale = one / np.sqrt(total / type(one)(D) + type(one)(eps))
    for d in range(D):
        y[k + d] = x[i + d] * scale * weight[d]


@_inlined
def _convolve(x, i, weight, bias, state, j, after, y, k, T, D, one):
    """y = silu(bias + sum_t weight_t input_t), the inputs those of the state (T - 1, D) and x; after: the last of them.

    weight (D, T).
    """
    reach = T - _ONE
    for d in range(D):
        y[k + d] = bias[d] + weight[d * T + reach] * x[i + d]
    for t in range(reach):
        old = j + t * D
        for d in range(D):
            y[k + d] += weight[d * T + t] * state[old + d]
        if t + _ONE < reach:
            for d in range(D):
                after[old + d] = state[old + D + d]
        else:
            for d in range(D):
                after[old + d] = x[i + d]
    for d in range(D):
        y[k + d] *= _sigmoid(y[k + d], one)


@_inlined
def _advance(logits, i, value_gate, v, prediction, levels, j, after, y, k, P, K, D, one):
    """One step of the levels (K, D), and y, their gated sum; logits (K, D), value_gate (2, D), prediction (P, D)."""
    for d in range(D):
        decay = _sigmoid(logits[i + d], one)
        level = decay * levels[j + d] + (one - decay) * value_gate[v + d]
        after[j + d] = level
        y[k + d] = level
    for upper in range(_ONE, K):
        gain, low, below = (upper - _ONE) * D, upper * D, j + (upper - _ONE) * D
        for d in range(D):
            decay, signal = _sigmoid(logits[i + low + d], one), after[below + d]
            if P:
                signal -= _sigmoid(prediction[gain + d], one) * levels[j + low + d]
            level = decay * levels[j + low + d] + (one - decay) * signal
            after[j + low + d] = level
            y[k + d] += level
    for d in range(D):
        gate = value_gate[v + D + d]
        y[k + d] *= gate * _sigmoid(gate, one)


@_summing
def _multiply(matrix, x, y, k, n_rows, D, one):
    """y += matrix x; matrix (n_rows, D)."""
    for n in range(n_rows):
        row, total = n * D, one - one
        for d in range(D):
            total += matrix[row + d] * x[d]
        y[k + n] += total


@numba.njit(cache=True, nogil=True)
def normalise_rows(one, eps, x, weight, y, sizes, first, last):
    """`_normalise` for rows; sizes: D."""
    x, weight, y = _at(x, one), _at(weight, one), _at(y, one)
    D = np.uintp(sizes[0])
    for row in range(np.uintp(first), np.uintp(last)):
        _normalise(x, row * D, weight, eps, y, row * D, D, one)


@numba.njit(cache=True, nogil=True)
def convolve_rows(one, x, weight, bias, state, after, y, sizes, first, last):
    """`_convolve` for rows; sizes: T, D."""
    x, weight, bias, state = _at(x, one), _at(weight, one), _at(bias, one), _at(state, one)
    after, y = _at(after, one), _at(y, one)
    T, D = np.uintp(sizes[0]), np.uintp(sizes[1])
    for row in range(np.uintp(first), np.uintp(last)):
        _convolve(x, row * D, weight, bias, state, row * (T - _ONE) * D, after, y, row * D, T, D, one)


@numba.njit(cache=True, nogil=True)
def advance_rows(one, logits, value_gate, prediction, levels, after, y, sizes, first, last):
    """`_advance` for rows; sizes: P, K, D."""
    logits, value_gate, prediction = _at(logits, one), _at(value_gate, one), _at(prediction, one)
    levels, after, y = _at(levels, one), _at(after, one), _at(y, one)
    P, K, D = sizes[0], np.uintp(sizes[1]), np.uintp(sizes[2])
    for row in range(np.uintp(first), np.uintp(last)):
        i, v, k = row * K * D, row * D * _TWO, row * D
        _advance(logits, i, value_gate, v, prediction, levels, i, after, y, k, P, K, D, one)


@numba.njit(cache=True, nogil=True)
def harmonic_rows(
    one, eps, x, norm, taps, bias, value_gate, decay, decay_bias, prediction, out, levels, tail,
    levels_after, tail_after, y, sizes, first, last,
):  # fmt: skip
    """A whole block: y = x + out(gated sum of the levels), and the new levels and inputs; sizes: T, P, K, D.

    value_gate (2 D, D), decay (K D, D), out (D, D), the others as in the pieces.
    """
    x, norm, taps, bias, prediction = _at(x, one), _at(norm, one), _at(taps, one), _at(bias, one), _at(prediction, one)
    value_gate, decay, decay_bias, out = _at(value_gate, one), _at(decay, one), _at(decay_bias, one), _at(out, one)
    levels, tail = _at(levels, one), _at(tail, one)
    levels_after, tail_after, y = _at(levels_after, one), _at(tail_after, one), _at(y, one)
    T, P, K, D = np.uintp(sizes[0]), sizes[1], np.uintp(sizes[2]), np.uintp(sizes[3])
    given, u, mixed = np.full(D, one), np.full(D, one), np.full((K + _TWO) * D, one)
    for row in range(np.uintp(first), np.uintp(last)):
        i, j = row * D, row * K * D
        _normalise(x, i, norm, eps, given, _ZERO, D, one)
        _convolve(given, _ZERO, taps, bias, tail, row * (T - _ONE) * D, tail_after, u, _ZERO, T, D, one)
        for d in range(_TWO * D):
            mixed[d] = 0
        for d in range(K * D):
            mixed[_TWO * D + d] = decay_bias[d]
        _multiply(value_gate, u, mixed, _ZERO, _TWO * D, D, one)
        _multiply(decay, u, mixed, _TWO * D, K * D, D, one)
        _advance(mixed, _TWO * D, mixed, _ZERO, prediction, levels, j, levels_after, given, _ZERO, P, K, D, one)
        for d in range(D):
            y[i + d] = x[i + d]
        _multiply(out, given, y, i, D, D, one)
