"""Checks that operands of different kernels share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_NARROW = (torch.bfloat16, torch.float16, torch.float32)


def check_dtypes(given: Mapping[str, object]) -> None:
    """Raise TypeError for what is no real floating-point tensor, and where some operands are float64 and some not.

    >>> check_dtypes({"x": torch.ones(1), "weight": torch.ones(1).bfloat16()})
    """
    doubles = []
    for name, operand in given.items():
        if not isinstance(operand, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(operand).__name__}: pass torch.as_tensor of it.")
        if operand.dtype == torch.float64:
            doubles.append(name)
        elif operand.dtype not in _NARROW:
            raise TypeError(
                f"{name} must be real and floating-point, got {operand.dtype}: cast it, e.g. with .float()."
            )
    if doubles and len(doubles) < len(given):
        raise TypeError(
            "operands must be float64 all or none (other dtypes mix, and run in float32), "
            f"got float64 for {', '.join(doubles)} alone: cast the others with .double()."
        )


def check_shapes(given: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError for another shape than expected, and for another device than the first operand's.

    >>> check_shapes({"x": torch.ones(2)}, {"x": (2,)})
    """
    first = next(iter(given))
    device = given[first].device
    for name, operand in given.items():
        if tuple(operand.shape) != tuple(expected[name]):
            raise ValueError(
                f"{name} must have shape {tuple(expected[name])}, got {tuple(operand.shape)}: expand or reshape it."
            )
        if operand.device != device:
            raise ValueError(
                f"{name} must be on the device of {first}, {device}, got {operand.device}: move it with .to()."
            )
