"""The linear recurrence compiled for the CPU, as a PyTorch operator with gradients.

Axes: B batch, L sequence, N channels (all state axes flattened).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.utils.flop_counter import register_flop_formula

from classical_kernels.costs import scan_cost
from classical_kernels.linear_scan.kernels import backward_blocks, forward_blocks
from classical_kernels.memory import flat_array, fresh
from classical_kernels.threads import run_blocks, thread_count

_MIN_CHANNELS = 64  # narrower blocks waste memory bandwidth
_CACHE_LINE = 16  # float32 elements


@torch.library.custom_op("classical_kernels::scan", mutates_args=(), device_types="cpu")
def scan_channels(a: Tensor, b: Tensor, h0: Tensor, marks: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """All states and the last one of `h_t = a_t h_{t-1} + b_t`, computed by the compiled kernel.

    Shapes: a, b, h (B, L, N), one floating or complex dtype; h0, h_last (B, N) of the same, or float32 where that is
    bfloat16 or float16; marks uint8 (B, L), see `classical_kernels.packing`, or empty. CPU, unchecked: call
    `classical_kernels.scan`, which checks.

    >>> marks = torch.zeros(0, dtype=torch.uint8)
    >>> h, h_last = scan_channels(torch.ones(1, 3, 2), torch.ones(1, 3, 2), torch.zeros(1, 2), marks, False)
    >>> h[0, :, 0].tolist(), h_last.tolist()
    ([1.0, 2.0, 3.0], [[3.0, 3.0]])
    """
    h, h_last = fresh(b.shape, b.dtype), fresh(h0.shape, h0.dtype)
    _run(forward_blocks, b.shape, reverse, a, b, h0, marks, h, h_last)
    return h, h_last


@scan_channels.register_fake
def _(a: Tensor, b: Tensor, h0: Tensor, marks: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG001 (the operator's signature)
    return b.new_empty(b.shape), h0.new_empty(h0.shape)


@torch.library.custom_op("classical_kernels::scan_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    a: Tensor, h0: Tensor, marks: Tensor, h: Tensor, grad_h: Tensor, grad_last: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    grad_a, grad_b, grad_h0 = fresh(a.shape, a.dtype), fresh(a.shape, a.dtype), fresh(h0.shape, h0.dtype)
    _run(backward_blocks, a.shape, reverse, a, h0, marks, h, grad_h, grad_last, grad_a, grad_b, grad_h0)
    return grad_a, grad_b, grad_h0


@_scan_backward.register_fake
def _(
    a: Tensor,
    h0: Tensor,
    marks: Tensor,  # noqa: ARG001 (the operator's signature)
    h: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_h: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_last: Tensor,  # noqa: ARG001 (the operator's signature)
    reverse: bool,  # noqa: ARG001 (the operator's signature)
) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape), h0.new_empty(h0.shape)


def _save(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor, Tensor, bool], output: tuple[Tensor, Tensor]) -> None:
    a, _, h0, marks, reverse = inputs
    ctx.save_for_backward(a, h0, marks, output[0])
    ctx.reverse = reverse  # pyright: ignore[reportAttributeAccessIssue] (how PyTorch keeps what is no tensor)


def _differentiate(
    ctx: BackwardCFunction, grad_h: Tensor, grad_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, None, None]:
    a, h0, marks, h = iter(ctx.saved_tensors)  # PyTorch's stubs say one tensor
    reverse: bool = ctx.reverse  # pyright: ignore[reportAttributeAccessIssue] (set in `_save`)
    return (*_scan_backward(a, h0, marks, h, grad_h, grad_last, reverse), None, None)


def _refuse(ctx: BackwardCFunction, *grads: Tensor) -> None:
    raise NotImplementedError(
        "the compiled scan has first derivatives only, got a request for a second one: "
        "use classical_kernels.scan_reference, which has all."
    )


scan_channels.register_autograd(_differentiate, setup_context=_save)
_scan_backward.register_autograd(_refuse)


@register_flop_formula(torch.ops.classical_kernels.scan, get_raw=True)
def _(a: Tensor, *operands: object, out_val: object = None, **options: object) -> int:  # noqa: ARG001 (the operator's signature)
    return scan_cost(a.shape, a.dtype).flops


@register_flop_formula(torch.ops.classical_kernels.scan_backward, get_raw=True)
def _(a: Tensor, *operands: object, out_val: object = None, **options: object) -> int:  # noqa: ARG001 (the operator's signature)
    return scan_cost(a.shape, a.dtype, backward=True).flops


def _run(kernel: Callable[..., None], shape: torch.Size, reverse: bool, *operands: Tensor) -> None:
    """Call `kernel` on the flattened operands; the outputs among them are contiguous and thus written in place."""
    batch, seq_len, n_channels = shape
    n_threads = thread_count(shape.numel())
    # Split over the batch, and over channels only where the batch does not divide evenly among the threads.
    per_row = max(1, min(n_threads // math.gcd(batch, n_threads), n_channels // _MIN_CHANNELS))
    width = max(1, math.ceil(n_channels / (per_row * _CACHE_LINE)) * _CACHE_LINE)
    arrays = [flat_array(operand) for operand in operands]
    run_blocks(
        lambda first, last: kernel(*arrays, seq_len, n_channels, reverse, width, first, last),
        batch * math.ceil(n_channels / width),
        n_threads,
    )
