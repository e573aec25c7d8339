"""The selective scan, run by the implementation that fits the device."""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.packing import step_marks
from classical_kernels.selective.cuda import selective_scan_fused
from classical_kernels.selective.inputs import checked_inputs
from classical_kernels.selective.reference import advance, selective_scan_reference


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    h0: Tensor | None = None,
    z: Tensor | None = None,
    discretization: str = "euler",
    resets: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Selective state-space recurrence of Mamba, fused: `y, h_last = selective_scan(u, delta, A, B, C)`.

    `h_t = exp(delta_t A) h_{t-1} + b_t` with `h_{-1} = h0`, and `y_t = sum_n C_tn h_tn + D u_t`, times `silu(z_t)`
    where a gate z is given. Discretization of the input: "euler" (the default, and Mamba's) is `b_t = delta_t B_t u_t`;
    "zoh", exact for an input held over each step (zero-order hold), is `b_t = (exp(delta_t A) - 1) / A B_t u_t`, A = 0
    included. The decay `exp(delta A)` is exact in both. delta is the step itself, after softplus and bias.

    Where `resets` is true the state is zeroed before the step (documents packed in a row). Where `mask` is false the
    step is padding: delta, u and B count as 0 there, so that the state passes through.

    Shapes: u, delta, z, y (batch, seq, channels), A (channels, states), B, C (batch, seq, states), D (channels), h0 and
    h_last (batch, channels, states), resets and mask (batch, seq) bool; D, h0, z, resets and mask may be None. No axis
    needs to be contiguous; any may be empty. Feeding `h_last` to the next call continues the sequence.

    Precision: float64, if all operands are; otherwise all are cast to float32 (bfloat16, float16 and autocast
    included), y is cast back to the dtype of u, and `h_last` stays float32. On the CPU exponentials are within 1.5
    units in the last place.

    On the CPU a compiled kernel, which never holds (batch, seq, channels, states): for the gradient it keeps the states
    of every 32nd step and computes the others again. First derivatives for all operands and for `h_last`;
    `torch.compile(fullgraph=True)` is supported. On CUDA the same by Triton kernels (the extra `triton`), which keep
    the states of every 16th step and are compiled for each number of channels and of states. On every other device the
    loop `selective_scan_reference`.

    Raises TypeError for dtypes and what is no tensor, ValueError for shapes, devices and discretizations, ImportError
    for CUDA tensors where Triton is missing, NotImplementedError when a compiled gradient is differentiated again.
    Cost: O(batch seq channels states), see `classical_kernels.costs.selective_scan_cost`. Source: Gu and Dao 2023,
    arXiv:2312.00752, equations 2a, 2b and 4.

    >>> ones = torch.ones(1, 2, 1)
    >>> y, h_last = selective_scan(ones, ones, torch.zeros(1, 1), ones, ones, D=torch.ones(1))
    >>> y.flatten().tolist(), h_last.flatten().tolist()
    ([2.0, 3.0], [2.0])
    """
    if isinstance(u, Tensor) and u.device.type not in ("cpu", "cuda"):
        return selective_scan_reference(u, delta, A, B, C, D, h0, z, discretization, resets, mask)
    inputs = checked_inputs(u, delta, A, B, C, D, h0, z, discretization, mask)
    marks = step_marks(u, resets, None)
    skip, gate = (inputs.u.new_empty(0) if one is None else one for one in (inputs.D, inputs.z))
    given = (inputs.u, inputs.delta, inputs.A.mT, inputs.B, inputs.C, skip, gate, inputs.h0.mT)
    operands = tuple(operand.contiguous() for operand in given)  # once, not forward and again backward
    save = torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)
    y, h_last, _ = selective_scan_fused(*operands, marks, discretization == "zoh", save)
    return y.to(u.dtype), h_last.mT


def selective_step(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    discretization: str = "euler",
) -> tuple[Tensor, Tensor]:
    """One step of `selective_scan`, for generation token by token: `y, h = selective_step(u, delta, A, B, C, h)`.

    Shapes: u, delta, z, y (batch, channels), B, C (batch, states), h (batch, channels, states), A and D as there, and
    so are precision and errors. Any device; differentiable to any order. Cost: O(batch channels states).

    >>> one = torch.ones(1, 1)
    >>> selective_step(one, one, torch.zeros(1, 1), one, one, torch.ones(1, 1, 1))
    (tensor([[2.]]), tensor([[[2.]]]))
    """
    rows = (one.unsqueeze(1) if isinstance(one, Tensor) and one.dim() else one for one in (u, delta, B, C, z))
    u, delta, B, C, z = rows  # pyright: ignore[reportAssignmentType] (z may be None)
    inputs = checked_inputs(u, delta, A, B, C, D, h, z, discretization)
    first = (inputs.u[:, 0], inputs.delta[:, 0], inputs.A, inputs.B[:, 0], inputs.C[:, 0])
    y, h = advance(*first, inputs.h0, inputs.D, None if inputs.z is None else inputs.z[:, 0], discretization)
    return y.to(u.dtype), h
