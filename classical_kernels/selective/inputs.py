"""What a selective scan accepts, and the precision in which it runs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from classical_kernels.operands import check_dtypes, check_shapes
from classical_kernels.packing import check_steps

DISCRETIZATIONS = ("euler", "zoh")
"""How the input enters: Euler's rule, b = delta B u, or held over the step, b = (exp(delta A) - 1) / A B u."""


class SelectiveInputs(NamedTuple):
    """Checked operands in the dtype of the state; delta, u and B are zero at padding."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    h0: Tensor


def checked_inputs(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    h0: Tensor | None = None,
    z: Tensor | None = None,
    discretization: str = "euler",
    mask: Tensor | None = None,
) -> SelectiveInputs:
    """Check the operands of a selective scan and cast them to the dtype of its state.

    Shapes: u, delta, z (batch, seq, channels), A (channels, states), B, C (batch, seq, states), D (channels), h0
    (batch, channels, states), or None for zeros; mask (batch, seq) bool. Raises TypeError for what is no tensor and for
    dtypes, ValueError for shapes, devices and discretizations. Cost: a copy of each operand whose dtype changes or
    that a mask changes.

    >>> row = torch.ones(2, 3, 4).bfloat16()
    >>> inputs = checked_inputs(row, row, -torch.ones(4, 5), torch.ones(2, 3, 5), torch.ones(2, 3, 5))
    >>> inputs.u.dtype, inputs.h0.shape
    (torch.float32, torch.Size([2, 4, 5]))
    """
    if discretization not in DISCRETIZATIONS:
        raise ValueError(
            f"discretization must be one of {', '.join(DISCRETIZATIONS)}, got {discretization!r}: name one."
        )
    optional = {name: operand for name, operand in (("D", D), ("z", z), ("h0", h0)) if operand is not None}
    given = {"u": u, "delta": delta, "A": A, "B": B, "C": C} | optional
    check_dtypes(given)
    _check_shapes(given)
    check_steps(u, "mask", mask)
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    if h0 is None:
        h0 = torch.zeros((u.shape[0], *A.shape), dtype=dtype, device=u.device)
    if mask is not None:
        padding = ~mask.unsqueeze(-1)
        u, delta, B = (operand.masked_fill(padding, 0) for operand in (u, delta, B))
    u, delta, A, B, C, h0 = (operand.to(dtype) for operand in (u, delta, A, B, C, h0))
    return SelectiveInputs(
        u, delta, A, B, C, None if D is None else D.to(dtype), None if z is None else z.to(dtype), h0
    )


def _check_shapes(given: dict[str, Tensor]) -> None:
    u, A = given["u"], given["A"]
    if u.dim() != 3 or A.dim() != 2 or A.shape[0] != u.shape[2]:
        raise ValueError(
            "u and A must have shapes (batch, seq, channels) and (channels, states), "
            f"got {tuple(u.shape)} and {tuple(A.shape)}: reshape them."
        )
    (batch, seq_len, n_channels), n_states = u.shape, A.shape[1]
    wide, narrow = (batch, seq_len, n_channels), (batch, seq_len, n_states)
    expected = {
        "u": wide, "delta": wide, "z": wide, "A": (n_channels, n_states), "B": narrow, "C": narrow, "D": (n_channels,),
        "h0": (batch, n_channels, n_states),
    }  # fmt: skip
    check_shapes(given, expected)
