"""The selective scan as the obvious loop: the oracle of every faster version."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from classical_kernels.packing import check_steps
from classical_kernels.selective.inputs import checked_inputs


def selective_scan_reference(
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
    """Selective scan one step at a time, in plain PyTorch; arguments, results and errors of `selective_scan`.

    It runs on any device and is differentiable to any order. Cost: `seq` steps on tensors (batch, channels, states),
    all kept for the gradient.

    >>> ones = torch.ones(1, 2, 1)
    >>> y, h_last = selective_scan_reference(ones, ones, torch.zeros(1, 1), ones, ones)
    >>> y.flatten().tolist(), h_last.flatten().tolist()
    ([1.0, 2.0], [2.0])
    """
    inputs = checked_inputs(u, delta, A, B, C, D, h0, z, discretization, mask)
    check_steps(u, "resets", resets)
    h, outputs = inputs.h0, []
    gates = (None,) * u.shape[1] if inputs.z is None else inputs.z.unbind(1)
    # Unbound, since the gradient of an indexed step would be a whole sequence.
    steps = zip(*(rows.unbind(1) for rows in (inputs.u, inputs.delta, inputs.B, inputs.C)), gates, strict=True)
    for t, (u_t, delta_t, B_t, C_t, z_t) in enumerate(steps):
        if resets is not None:
            h = torch.where(resets[:, t, None, None], torch.zeros_like(h), h)
        y, h = advance(u_t, delta_t, inputs.A, B_t, C_t, h, inputs.D, z_t, discretization)
        outputs.append(y)
    y = torch.stack(outputs, 1) if outputs else inputs.u * inputs.delta  # empty, and known to autograd
    return y.to(u.dtype), h.clone()


def advance(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    discretization: str,
) -> tuple[Tensor, Tensor]:
    """One step on checked rows: u, delta, z (batch, channels), B, C (batch, states); returns y and the new state.

    >>> one = torch.ones(1, 1)
    >>> advance(one, one, torch.zeros(1, 1), one, one, torch.ones(1, 1, 1), None, None, "zoh")
    (tensor([[2.]]), tensor([[[2.]]]))
    """
    exponent = delta.unsqueeze(-1) * A
    gain = delta.unsqueeze(-1) if discretization == "euler" else delta.unsqueeze(-1) * _mean_growth(exponent)
    h = torch.exp(exponent) * h + gain * (u.unsqueeze(-1) * B.unsqueeze(1))
    y = torch.einsum("bdn,bn->bd", h, C)
    if D is not None:
        y = y + D * u
    return (y if z is None else y * functional.silu(z)), h


def _mean_growth(x: Tensor) -> Tensor:
    """(e^x - 1) / x, by its series around 0, where the quotient has no derivative."""
    near = x.abs() < 1e-2
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6))))
    away = torch.where(near, torch.ones_like(x), x)
    return torch.where(near, series, torch.expm1(away) / away)
