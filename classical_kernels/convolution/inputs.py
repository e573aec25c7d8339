"""What a causal convolution accepts, and the precision in which it runs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from classical_kernels.operands import check_dtypes, check_shapes
from classical_kernels.packing import check_steps


class ConvolutionInputs(NamedTuple):
    """Checked operands, one dtype."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    state: Tensor


def checked_inputs(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, resets: Tensor | None
) -> ConvolutionInputs:
    """Check the operands of `classical_kernels.causal_convolution` and cast them to the dtype in which it runs.

    Raises TypeError for what is no tensor and for dtypes, ValueError for shapes and devices. Cost: a copy of each
    operand whose dtype changes.

    >>> checked_inputs(torch.ones(2, 3, 4), torch.ones(4, 3), None, None, None).state.shape
    torch.Size([2, 2, 4])
    """
    given = {"x": x, "weight": weight}
    given |= {name: one for name, one in (("bias", bias), ("state", state)) if one is not None}
    check_dtypes(given)
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[2] or weight.shape[1] < 1:
        raise ValueError(
            "x and weight must have shapes (batch, seq, channels) and (channels, taps), with a tap at least, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}: reshape them."
        )
    n_channels, taps = weight.shape
    expected = {
        "x": tuple(x.shape), "weight": (n_channels, taps), "bias": (n_channels,),
        "state": (x.shape[0], taps - 1, n_channels),
    }  # fmt: skip
    check_shapes(given, expected)
    check_steps(x, "resets", resets)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if bias is None:
        bias = torch.zeros(n_channels, dtype=dtype, device=x.device)
    if state is None:
        state = torch.zeros(expected["state"], dtype=dtype, device=x.device)
    return ConvolutionInputs(*(operand.to(dtype) for operand in (x, weight, bias, state)))
