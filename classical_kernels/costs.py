"""What the kernels cost, counted from their loops: floating-point operations, and bytes moved to and from memory.

The operators report the operations to `torch.utils.flop_counter.FlopCounterMode`. Bytes are the least that must move,
each operand read once and each result written once; what stays in a cache is not counted. A product and a sum of real
numbers are one operation each (complex: 6 and 2), an exponential is counted as `EXP_FLOPS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

EXP_FLOPS = 16
"""Operations of one compiled exponential in float32: range reduction, polynomial, scaling."""


class Cost(NamedTuple):
    """Floating-point operations and bytes moved of one call."""

    flops: int
    bytes: int


def scan_cost(shape: Sequence[int], dtype: torch.dtype, backward: bool = False) -> Cost:
    """Cost of `scan` on operands (batch, seq, *channels), or of its gradient alone.

    Forward a product, a sum and 3 accesses (a, b, h) an element; backward two products, a sum and 5 accesses (a, h,
    grad_h, grad_a, grad_b).

    >>> scan_cost((1, 10, 4), torch.float32)
    Cost(flops=80, bytes=480)
    """
    n, product, total = math.prod(shape), *((6, 2) if dtype.is_complex else (1, 1))
    if backward:
        return Cost(n * (2 * product + total), 5 * n * dtype.itemsize)
    return Cost(n * (product + total), 3 * n * dtype.itemsize)


def selective_scan_cost(
    shape: Sequence[int], n_states: int, dtype: torch.dtype, gated: bool = False, backward: bool = False
) -> Cost:
    """Cost of `selective_scan` on u (batch, seq, channels) with states (channels, n_states), or of its gradient alone.

    Forward, an element of the state costs an exponential and 6 operations; backward repeats that but for the output,
    and adds 14. Memory holds u, delta, y (and z) at full width, B and C at `n_states`; the states stay in the cache.

    >>> selective_scan_cost((1, 10, 4), 16, torch.float32)
    Cost(flops=14080, bytes=1760)
    """
    batch, seq_len, n_channels = shape
    rows, wide = batch * seq_len, 3 + gated
    states = rows * n_channels * n_states
    if backward:  # reads u, delta, grad_y (and z), writes their gradients but that of y
        accesses = rows * ((2 * wide - 1) * n_channels + 4 * n_states)
        return Cost(states * (EXP_FLOPS + 20), accesses * dtype.itemsize)
    return Cost(states * (EXP_FLOPS + 6), rows * (wide * n_channels + 2 * n_states) * dtype.itemsize)


def causal_convolution_cost(shape: Sequence[int], taps: int, dtype: torch.dtype, backward: bool = False) -> Cost:
    """Cost of `causal_convolution` on x (batch, seq, channels), or of its gradient alone.

    Forward a product and a sum a tap and 2 accesses (x, y); backward twice the work and 3 accesses (x, grad_y, grad_x).

    >>> causal_convolution_cost((1, 10, 4), 4, torch.float32)
    Cost(flops=320, bytes=320)
    """
    n = math.prod(shape)
    return Cost(n * 2 * taps * (1 + backward), n * (2 + backward) * dtype.itemsize)
