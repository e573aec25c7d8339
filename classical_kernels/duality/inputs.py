"""What the recurrence with one decay a head accepts, and the precision in which it runs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from classical_kernels.operands import check_dtypes, check_shapes
from classical_kernels.packing import check_steps


class HeadInputs(NamedTuple):
    """Checked operands in the dtype of the state; at padding log_a, x and B are zero."""

    x: Tensor
    log_a: Tensor
    B: Tensor
    C: Tensor
    h0: Tensor


def checked_inputs(
    x: Tensor, log_a: Tensor, B: Tensor, C: Tensor, h0: Tensor | None, resets: Tensor | None, mask: Tensor | None
) -> HeadInputs:
    """Check the operands of `classical_kernels.ssd` and cast them to the dtype of its state.

    Raises TypeError for what is no tensor and for dtypes, ValueError for shapes and devices. Cost: a copy of each
    operand whose dtype changes or that a mask changes.

    >>> B = torch.ones(2, 3, 1, 6)
    >>> checked_inputs(torch.ones(2, 3, 4, 5), torch.zeros(2, 3, 4), B, B, None, None, None).h0.shape
    torch.Size([2, 4, 5, 6])
    """
    given = {"x": x, "log_a": log_a, "B": B, "C": C} | ({} if h0 is None else {"h0": h0})
    check_dtypes(given)
    if x.dim() != 4 or B.dim() != 4 or B.shape[2] < 1 or x.shape[2] % B.shape[2]:
        raise ValueError(
            "x and B must have shapes (batch, seq, heads, channels) and (batch, seq, groups, states), the groups "
            f"dividing the heads, got {tuple(x.shape)} and {tuple(B.shape)}: reshape them."
        )
    batch, seq_len, n_heads, width = x.shape
    expected = {
        "x": tuple(x.shape), "log_a": (batch, seq_len, n_heads), "B": (batch, seq_len, *B.shape[2:]),
        "C": (batch, seq_len, *B.shape[2:]), "h0": (batch, n_heads, width, B.shape[3]),
    }  # fmt: skip
    check_shapes(given, expected)
    check_steps(x, "resets", resets)
    check_steps(x, "mask", mask)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if h0 is None:
        h0 = torch.zeros(expected["h0"], dtype=dtype, device=x.device)
    if mask is not None:
        padding = ~mask.unsqueeze(-1)
        log_a = log_a.masked_fill(padding, 0)
        x, B = x.masked_fill(padding.unsqueeze(-1), 0), B.masked_fill(padding.unsqueeze(-1), 0)
    return HeadInputs(*(operand.to(dtype) for operand in (x, log_a, B, C, h0)))
