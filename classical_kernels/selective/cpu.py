"""The selective scan compiled for the CPU, as a PyTorch operator with gradients.

Axes: R batch, L sequence, D channels, N states of a channel, K chunks of a sequence, G groups of channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.utils.flop_counter import register_flop_formula

from classical_kernels.costs import selective_scan_cost
from classical_kernels.memory import flat_array, fresh
from classical_kernels.selective.kernels import CHUNK, GROUP, backward_groups, forward_groups
from classical_kernels.selective.rows import WIDTH
from classical_kernels.threads import run_blocks, thread_count

CHUNKS = {"cpu": int(CHUNK), "cuda": 16}
"""Steps from one state kept for the gradient to the next, by device: what a cache or the registers of a thread hold."""


@torch.library.custom_op("classical_kernels::selective_scan", mutates_args=(), device_types="cpu")
def selective_scan_fused(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    h0: Tensor,
    marks: Tensor,
    held: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, last state, and (if `save`, otherwise empty) the states before each chunk, which the gradient needs.

    Shapes: u, delta, z, y (R, L, D), A (N, D), B, C (R, L, N), D (D), h0, h_last (R, N, D), saved (R, K, N, D); marks
    uint8 (R, L), see `classical_kernels.packing`; D, z and marks may be empty. One dtype, float32 or float64, CPU,
    unchecked: call `classical_kernels.selective_scan`, which checks.

    >>> one, none = torch.ones(1, 2, 1), torch.empty(0)
    >>> operands = (one, one, torch.zeros(1, 1), one, one, none, none, torch.zeros(1, 1, 1), none.byte())
    >>> selective_scan_fused(*operands, False, False)[0].flatten().tolist()
    [1.0, 2.0]
    """
    y, h_last = fresh(u.shape, u.dtype), fresh(h0.shape, h0.dtype)
    saved = fresh(saved_shape(u, h0, CHUNKS["cpu"] if save else None), u.dtype)
    _run(forward_groups, u, h0, held, u, delta, A, B, C, D, z, marks, h0, y, h_last, saved)
    return y, h_last, saved


@selective_scan_fused.register_fake
def _(
    u: Tensor,
    delta: Tensor,  # noqa: ARG001 (the operator's signature)
    A: Tensor,  # noqa: ARG001 (the operator's signature)
    B: Tensor,  # noqa: ARG001 (the operator's signature)
    C: Tensor,  # noqa: ARG001 (the operator's signature)
    D: Tensor,  # noqa: ARG001 (the operator's signature)
    z: Tensor,  # noqa: ARG001 (the operator's signature)
    h0: Tensor,
    marks: Tensor,  # noqa: ARG001 (the operator's signature)
    held: bool,  # noqa: ARG001 (the operator's signature)
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    chunk = CHUNKS["cuda" if u.device.type == "cuda" else "cpu"] if save else None
    return u.new_empty(u.shape), h0.new_empty(h0.shape), u.new_empty(saved_shape(u, h0, chunk))


@torch.library.custom_op("classical_kernels::selective_scan_backward", mutates_args=(), device_types="cpu")
def _backward(
    operands: list[Tensor], marks: Tensor, saved: Tensor, grad_y: Tensor, grad_last: Tensor, held: bool
) -> list[Tensor]:
    """Gradients for the operands u, delta, A, B, C, D, z, h0 of the operator above."""
    u, delta, A, B, C, D, z, h0 = operands
    n_rows, n_groups = u.shape[0], _sizes(u, h0)[1]
    grad_u, grad_delta, grad_z, grad_h0 = (fresh(one.shape, one.dtype) for one in (u, delta, z, h0))
    grad_A, grad_skip = (fresh((n_rows, *one.shape), u.dtype) for one in (A, D))
    grad_B, grad_C = (torch.zeros(n_rows, n_groups, *B.shape[1:], dtype=u.dtype) for _ in range(2))
    given = (u, delta, A, B, C, D, z, marks, saved, grad_y, grad_last)
    made = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_skip, grad_z, grad_h0)
    _run(backward_groups, u, h0, held, *given, *made)
    return [grad_u, grad_delta, grad_A.sum(0), grad_B.sum(1), grad_C.sum(1), grad_skip.sum(0), grad_z, grad_h0]


@_backward.register_fake
def _(
    operands: list[Tensor],
    marks: Tensor,  # noqa: ARG001 (the operator's signature)
    saved: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_y: Tensor,  # noqa: ARG001 (the operator's signature)
    grad_last: Tensor,  # noqa: ARG001 (the operator's signature)
    held: bool,  # noqa: ARG001 (the operator's signature)
) -> list[Tensor]:
    return [operand.new_empty(operand.shape) for operand in operands]


def _save(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    *operands, held, _ = inputs
    ctx.save_for_backward(*operands, output[2])
    ctx.held = held  # pyright: ignore[reportAttributeAccessIssue] (how PyTorch keeps what is no tensor)


def _differentiate(ctx: BackwardCFunction, grad_y: Tensor, grad_last: Tensor, grad_saved: Tensor) -> tuple:  # noqa: ARG001 (saved is no result)
    *operands, marks, saved = iter(ctx.saved_tensors)
    held: bool = ctx.held  # pyright: ignore[reportAttributeAccessIssue] (set in `_save`)
    return (*_backward(operands, marks, saved, grad_y, grad_last, held), None, None, None)


def _refuse(ctx: BackwardCFunction, *grads: object) -> None:
    raise NotImplementedError(
        "the compiled selective scan has first derivatives only, got a request for a second one: "
        "use classical_kernels.selective_scan_reference, which has all."
    )


selective_scan_fused.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)


@register_flop_formula(torch.ops.classical_kernels.selective_scan, get_raw=True)
def _(u: Tensor, delta: Tensor, A: Tensor, *rest: object, out_val: object = None, **options: object) -> int:  # noqa: ARG001 (the operator's signature)
    return selective_scan_cost(u.shape, A.shape[0], u.dtype).flops


@register_flop_formula(torch.ops.classical_kernels.selective_scan_backward, get_raw=True)
def _(operands: list[Tensor], *rest: object, out_val: object = None, **options: object) -> int:  # noqa: ARG001 (the operator's signature)
    return selective_scan_cost(operands[0].shape, operands[2].shape[0], operands[0].dtype, backward=True).flops


def _run(kernel: Callable[..., None], u: Tensor, h0: Tensor, held: bool, *operands: Tensor) -> None:
    """Call `kernel` on the flattened operands; the outputs among them are contiguous and thus written in place."""
    arrays = [flat_array(operand) for operand in operands]
    sizes, n_groups = _sizes(u, h0)
    run_blocks(
        lambda first, last: kernel(*arrays, sizes, held, first, last),
        u.shape[0] * n_groups,
        thread_count(u.numel() * h0.shape[1]),
    )


def saved_shape(u: Tensor, h0: Tensor, chunk: int | None) -> tuple[int, ...]:
    """The shape (R, K, N, D) of the states before chunks of `chunk` steps; no chunk for None.

    >>> saved_shape(torch.ones(2, 33, 4), torch.ones(2, 16, 4), 32)
    (2, 2, 16, 4)
    """
    return (u.shape[0], 0 if chunk is None else -(-u.shape[1] // chunk), *h0.shape[1:])


def _sizes(u: Tensor, h0: Tensor) -> tuple[tuple[np.uintp, ...], int]:
    """L, D and N for the kernels, and the number of groups."""
    _, seq_len, n_channels = u.shape
    sizes = tuple(np.uintp(size) for size in (seq_len, n_channels, h0.shape[1]))
    return sizes, math.ceil(n_channels / int(WIDTH * GROUP))
