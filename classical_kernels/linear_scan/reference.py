"""The linear recurrence as the obvious loop: the oracle of every faster version."""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.linear_scan.inputs import checked_inputs
from classical_kernels.packing import check_steps


def scan_reference(
    a: Tensor,
    b: Tensor,
    h0: Tensor | None = None,
    reverse: bool = False,
    resets: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Linear recurrence over a sequence, one step at a time, in plain PyTorch.

    `h_t = a_t h_{t-1} + b_t`, elementwise over the channels, with `h_{-1} = h0`.

    Shapes, dtypes, results and errors are those of `classical_kernels.scan`. It runs on any device and is
    differentiable to any order, forward mode included. Cost: `seq` steps of two tensor operations each, all kept
    for the gradient.

    >>> a, b = torch.full((1, 3, 1), 0.5), torch.ones(1, 3, 1)
    >>> h, h_last = scan_reference(a, b)
    >>> h.flatten().tolist(), h_last.item()
    ([1.0, 1.5, 1.75], 1.75)
    """
    a, b, state = checked_inputs(a, b, h0)
    check_steps(a, "resets", resets)
    check_steps(a, "mask", mask)
    trailing = (-1, *(1,) * (a.dim() - 2))
    rows = list(zip(a.unbind(1), b.unbind(1), strict=True))  # indexing would make each step's gradient a whole sequence
    states = []
    for t in range(len(rows) - 1, -1, -1) if reverse else range(len(rows)):
        a_t, b_t = rows[t]
        if resets is not None:
            state = torch.where(resets[:, t].view(trailing), torch.zeros_like(state), state)
        following = a_t.to(state.dtype) * state + b_t.to(state.dtype)
        state = following if mask is None else torch.where(mask[:, t].view(trailing), following, state)
        states.append(state)
    if reverse:
        states.reverse()
    h = torch.stack(states, dim=1) if states else a * b  # empty, and known to autograd
    return h.to(a.dtype), state.clone()
