"""The recurrence with one decay a head as the obvious loop: the oracle of the matrix form."""

from __future__ import annotations

import torch
from torch import Tensor

from classical_kernels.duality.inputs import checked_inputs


def ssd_reference(
    x: Tensor,
    log_a: Tensor,
    B: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    resets: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence of `classical_kernels.ssd` one step at a time; its arguments, results and errors.

    >>> ones = torch.ones(1, 2, 1, 1)
    >>> ssd_reference(ones, torch.zeros(1, 2, 1), ones, ones)[0].flatten().tolist()
    [1.0, 2.0]
    """
    inputs = checked_inputs(x, log_a, B, C, h0, resets, mask)
    h, outputs = inputs.h0, []
    # Unbound, since the gradient of an indexed step would be a whole sequence.
    steps = zip(*(rows.unbind(1) for rows in (inputs.x, inputs.log_a, inputs.B, inputs.C)), strict=True)
    for t, (x_t, log_a_t, B_t, C_t) in enumerate(steps):
        if resets is not None:
            h = torch.where(resets[:, t, None, None, None], torch.zeros_like(h), h)
        y, h = advance(x_t, log_a_t, B_t, C_t, h)
        outputs.append(y)
    y = torch.stack(outputs, 1) if outputs else inputs.x * inputs.log_a.unsqueeze(-1)  # empty, and known to autograd
    return y.to(x.dtype), h.clone()


def advance(x: Tensor, log_a: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step on checked rows: x (batch, heads, channels), log_a (batch, heads), B, C (batch, groups, states).

    >>> one = torch.ones(1, 1, 1)
    >>> advance(one, torch.zeros(1, 1), one, one, torch.ones(1, 1, 1, 1))[1].item()
    2.0
    """
    per_group = x.shape[1] // B.shape[1]
    B, C = (rows.repeat_interleave(per_group, 1) for rows in (B, C))
    h = torch.exp(log_a)[..., None, None] * h + x.unsqueeze(-1) * B.unsqueeze(-2)
    return (h @ C.unsqueeze(-1)).squeeze(-1), h
