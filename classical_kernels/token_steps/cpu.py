"""The compiled steps of one token, for tensors that nobody records, transforms or traces.

Each returns None where PyTorch's own operations are to be called instead, which give the same: with gradients on
(forward mode included), within torch.func, in a compiled or traced graph, under autocast or another mode of PyTorch,
away from the CPU, for subclasses of Tensor, for tensors that are not contiguous, for other dtypes than float32 and
float64, for two of them, and for other shapes than stated, which PyTorch broadcasts or refuses. Tensors given are never
written to.

Axes: b batch, d channels, c taps, k levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from classical_kernels.threads import run_blocks, thread_count
from classical_kernels.token_steps.kernels import advance_rows, convolve_rows, harmonic_rows, normalise_rows

_PLAIN = (Tensor, nn.Parameter)
_ONES = {torch.float32: np.float32(1), torch.float64: np.float64(1)}
_MOST_PRODUCTS = 1 << 20
"""Beyond, at some tenths of a millisecond, PyTorch's products (in blocks, on threads) gain more than a call costs."""


class HarmonicWeights(NamedTuple):
    """The parameters of a Harmonic block: norm (d), filters (d, 1, c) and bias (d) of the convolution, value_gate (2 d,
    d), decay (k d, d) and its bias (k d), prediction (k - 1, d) or (0, d), out (d, d)."""

    norm: Tensor
    filters: Tensor
    bias: Tensor
    value_gate: Tensor
    decay: Tensor
    decay_bias: Tensor
    prediction: Tensor
    out: Tensor


def normalise(x: Tensor, weight: Tensor, eps: float) -> Tensor | None:
    """`weight x / sqrt(mean(x^2) + eps)`, the mean over the channels of x (b, 1, d). Cost: O(b d).

    >>> with torch.no_grad():
    ...     print(normalise(torch.full((1, 1, 2), 4.0), torch.ones(2), 0.0))
    tensor([[[1., 1.]]])
    """
    b, _, d = x.shape
    if not _are_bare((x, (b, 1, d)), (weight, (d,))):
        return None
    y = torch.empty_like(x)
    _run(normalise_rows, (_ONES[x.dtype], eps), (x, weight, y), (d,), b)
    return y


def convolve(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor) -> tuple[Tensor, Tensor] | None:
    """`silu(bias + sum_c weight_c input_c)` and the new state: the last c - 1 of the inputs, those of `state` and x.

    Shapes: x (b, 1, d), weight (d, 1, c), bias (d), state (b, c - 1, d). Cost: O(b d c).

    >>> with torch.no_grad():
    ...     y, state = convolve(*(torch.zeros(s) for s in ((1, 1, 2), (2, 1, 4), (2,), (1, 3, 2))))
    >>> y.shape, state.shape
    (torch.Size([1, 1, 2]), torch.Size([1, 3, 2]))
    """
    b, _, d = x.shape
    c = weight.shape[-1]
    if not _are_bare((x, (b, 1, d)), (weight, (d, 1, c)), (bias, (d,)), (state, (b, c - 1, d))):
        return None
    y, after = torch.empty_like(x), torch.empty_like(state)
    _run(convolve_rows, (_ONES[x.dtype],), (x, weight, bias, state, after, y), (c, d), b)
    return y, after


def advance(logits: Tensor, value_gate: Tensor, prediction: Tensor, levels: Tensor) -> tuple[Tensor, Tensor] | None:
    """The gated sum of a hierarchy's levels (b, 1, d), and the levels, one step on.

    `h_k = a_k h_k + (1 - a_k) (s_k - p_k h_k)` with `a_k = sigmoid(logits_k)`, the signal s_1 the value and s_k the new
    h_{k-1}, and `p_k = sigmoid(prediction_{k-1})`, but 0 for the first and where there is none; silu(gate) multiplies
    the sum. Shapes: logits (b, 1, k d), value_gate (b, 1, 2 d), prediction (k - 1, d) or (0, d), levels (b, k, d).
    Cost: O(b k d).

    >>> with torch.no_grad():
    ...     y, levels = advance(*(torch.zeros(s) for s in ((1, 1, 6), (1, 1, 4), (2, 2), (1, 3, 2))))
    >>> y.shape, levels.shape
    (torch.Size([1, 1, 2]), torch.Size([1, 3, 2]))
    """
    b, k, d = levels.shape
    p = k - 1 if len(prediction) else 0
    shaped = ((logits, (b, 1, k * d)), (value_gate, (b, 1, 2 * d)), (prediction, (p, d)), (levels, (b, k, d)))
    if not _are_bare(*shaped):
        return None
    y, after = torch.empty((b, 1, d), dtype=levels.dtype), torch.empty_like(levels)
    _run(advance_rows, (_ONES[levels.dtype],), (logits, value_gate, prediction, levels, after, y), (p, k, d), b)
    return y, after


def step_harmonic(
    x: Tensor, weights: HarmonicWeights, eps: float, levels: Tensor, tail: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """A Harmonic block whole, its products of matrices included: the stream (b, 1, d), its levels and its tail.

    `normalise`, `convolve`, two products, `advance`, a third, whose result is added to x. Shapes: x (b, 1, d), levels
    (b, k, d), tail (b, c - 1, d). None also for so many rows or channels that PyTorch's products are faster. Cost: O(b
    d^2 k).

    >>> shapes = ((2,), (2, 1, 4), (2,), (4, 2), (6, 2), (6,), (2, 2), (2, 2))
    >>> weights = HarmonicWeights(*(torch.zeros(shape) for shape in shapes))
    >>> with torch.no_grad():
    ...     y, *_ = step_harmonic(torch.ones(1, 1, 2), weights, 1e-6, torch.zeros(1, 3, 2), torch.zeros(1, 3, 2))
    >>> y
    tensor([[[1., 1.]]])
    """
    b, _, d = x.shape
    k, c, p = levels.shape[1], weights.filters.shape[-1], len(weights.prediction)
    tensors = (x, *weights, levels, tail)
    shapes = ((d,), (d, 1, c), (d,), (2 * d, d), (k * d, d), (k * d,), (p, d), (d, d), (b, k, d), (b, c - 1, d))
    if not _are_bare(*zip(tensors, ((b, 1, d), *shapes), strict=True)):
        return None
    if b * d * d * (k + 3) > _MOST_PRODUCTS or p not in (0, k - 1):
        return None
    levels_after, tail_after, y = torch.empty_like(levels), torch.empty_like(tail), torch.empty_like(x)
    _run(harmonic_rows, (_ONES[x.dtype], eps), (*tensors, levels_after, tail_after, y), (c, p, k, d), b)
    return y, levels_after, tail_after


def _are_bare(*shaped: tuple[Tensor, tuple[int, ...]]) -> bool:
    """Whether all tensors are numbers in memory, of these shapes and one dtype, that may be read behind PyTorch."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._get_tracing_state():
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    if modes or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    dtype = shaped[0][0].dtype
    return dtype in _ONES and all(
        type(tensor) in _PLAIN
        and tensor.dtype == dtype
        and tensor.shape == shape
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and (tensor.data_ptr() or not tensor.numel())
        for tensor, shape in shaped
    )


def _run(
    kernel: Callable[..., None],
    scalars: tuple[object, ...],
    tensors: tuple[Tensor, ...],
    sizes: tuple[int, ...],
    n_rows: int,
) -> None:
    """Call `kernel` for all rows; `tensors` keeps alive what it reads and writes."""
    addresses = [tensor.data_ptr() for tensor in tensors]
    work = tensors[-1].numel()
    run_blocks(lambda first, last: kernel(*scalars, *addresses, sizes, first, last), n_rows, thread_count(work))
