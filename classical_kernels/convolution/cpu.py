"""The causal convolution compiled for the CPU, as a PyTorch operator with gradients.

Axes: R batch, L sequence, D channels, K taps, S segments of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.utils.flop_counter import register_flop_formula

from classical_kernels.convolution.kernels import SEGMENT, backward_segments, forward_segments
from classical_kernels.costs import causal_convolution_cost
from classical_kernels.memory import flat_array, fresh
from classical_kernels.threads import run_blocks, thread_count


@torch.library.custom_op("classical_kernels::causal_convolution", mutates_args=(), device_types="cpu")
def convolve(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, since: Tensor) -> Tensor:
    """`y_t = bias + sum_k weight_k x_{t - K + 1 + k}`, the inputs before the first from `state`.

    Shapes: x, y (R, L, D), weight (K, D), bias (D), state (R, K - 1, D); since int64 (R, L), the steps since the
    document began, or empty. One dtype, float32 or float64, CPU, unchecked: call
    `classical_kernels.causal_convolution`, which checks.

    >>> none = torch.empty(0, dtype=torch.int64)
    >>> convolve(torch.ones(1, 3, 1), torch.ones(2, 1), torch.zeros(1), torch.zeros(1, 1, 1), none).flatten().tolist()
    [1.0, 2.0, 2.0]
    """
    y = fresh(x.shape, x.dtype)
    _run(forward_segments, x, weight, x, weight, bias, state, since, y)
    return y


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, state: Tensor, since: Tensor) -> Tensor:  # noqa: ARG001 (the operator's signature)
    return x.new_empty(x.shape)


@torch.library.custom_op("classical_kernels::causal_convolution_backward", mutates_args=(), device_types="cpu")
def _backward(
    x: Tensor, weight: Tensor, state: Tensor, since: Tensor, grad_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n_segments = -(-x.shape[1] // int(SEGMENT))
    grad_x = fresh(x.shape, x.dtype).zero_()
    grad_state = torch.zeros_like(state, memory_format=torch.contiguous_format)
    grad_weight = torch.zeros(x.shape[0] * n_segments, *weight.shape, dtype=x.dtype)
    grad_bias = torch.zeros(x.shape[0] * n_segments, x.shape[2], dtype=x.dtype)
    made = (grad_x, grad_weight, grad_bias, grad_state)
    _run(backward_segments, x, weight, x, weight, state, since, grad_y, *made)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grad_state


@_backward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    state: Tensor,
    since: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_y: Tensor,  # noqa: ARG001 (the operator's signature)
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), x.new_empty(x.shape[2]), state.new_empty(state.shape)


def _save(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001 (PyTorch's protocol)
    x, weight, _, state, since = inputs
    ctx.save_for_backward(x, weight, state, since)


def _differentiate(ctx: BackwardCFunction, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
    x, weight, state, since = iter(ctx.saved_tensors)  # PyTorch's stubs say one tensor
    return (*_backward(x, weight, state, since, grad_y), None)


def _refuse(ctx: BackwardCFunction, *grads: Tensor) -> None:
    raise NotImplementedError(
        "the compiled convolution has first derivatives only, got a request for a second one: "
        "use classical_kernels.causal_convolution_reference, which has all."
    )


convolve.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)


@register_flop_formula(torch.ops.classical_kernels.causal_convolution, get_raw=True)
def _(x: Tensor, weight: Tensor, *rest: object, out_val: object = None, **options: object) -> int:  # noqa: ARG001 (the operator's signature)
    return causal_convolution_cost(x.shape, weight.shape[0], x.dtype).flops


@register_flop_formula(torch.ops.classical_kernels.causal_convolution_backward, get_raw=True)
def _(x: Tensor, weight: Tensor, *rest: object, out_val: object = None, **options: object) -> int:  # noqa: ARG001 (the operator's signature)
    return causal_convolution_cost(x.shape, weight.shape[0], x.dtype, backward=True).flops


def _run(kernel: Callable[..., None], x: Tensor, weight: Tensor, *operands: Tensor) -> None:
    """Call `kernel` on the flattened operands; the outputs among them are contiguous and thus written in place."""
    arrays = [flat_array(operand) for operand in operands]
    batch, seq_len, n_channels = x.shape
    sizes = tuple(np.uintp(size) for size in (seq_len, n_channels, weight.shape[0]))
    n_segments = -(-seq_len // int(SEGMENT))
    run_blocks(lambda first, last: kernel(*arrays, sizes, first, last), batch * n_segments, thread_count(x.numel()))
