"""What a linear recurrence accepts, and the precision in which it runs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_STATE_DTYPES = {
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}


class ScanInputs(NamedTuple):
    """Checked operands: a and b of one dtype, which the states get too, and h0 in the dtype of the running state."""

    a: Tensor
    b: Tensor
    h0: Tensor


def checked_inputs(a: Tensor, b: Tensor, h0: Tensor | None) -> ScanInputs:
    """Check the operands of a scan; cast h0 to the dtype of the state.

    Shapes: a, b (batch, seq, *channels); h0 (batch, *channels), or None for zeros. The state of bfloat16 and float16 is
    float32. Under `torch.autocast` a and b may differ in dtype and are promoted, as autocast leaves some results in low
    precision and others not. Raises TypeError for what is no tensor and for dtypes, ValueError for shapes and devices.
    Cost: a copy of each operand whose dtype changes.

    >>> inputs = checked_inputs(torch.ones(2, 3, 4).bfloat16(), torch.ones(2, 3, 4).bfloat16(), None)
    >>> inputs.a.dtype, inputs.h0.shape, inputs.h0.dtype
    (torch.bfloat16, torch.Size([2, 4]), torch.float32)
    """
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and (h0 is None or isinstance(h0, Tensor))):
        given = ", ".join(type(operand).__name__ for operand in (a, b, h0))
        raise TypeError(
            f"a, b and h0 must be torch tensors (h0 may be None), got {given}: pass torch.as_tensor of each."
        )
    dtype = _result_dtype(a, b)
    state = _STATE_DTYPES[dtype]
    if a.shape != b.shape or a.dim() < 3:
        raise ValueError(
            "a and b must have one shape (batch, seq, channels...), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}: expand or reshape them."
        )
    if h0 is None:
        h0 = torch.zeros(_state_shape(a), dtype=state, device=a.device)
    elif tuple(h0.shape) != _state_shape(a):
        raise ValueError(
            f"h0 must have shape (batch, channels...) = {_state_shape(a)}, got {tuple(h0.shape)}: expand or reshape it."
        )
    elif h0.dtype not in (dtype, state) and not _autocast_real(h0, dtype):
        raise TypeError(f"h0 must be {state}, the dtype of the state, got {h0.dtype}: cast it with h0.to({state}).")
    if not a.device == b.device == h0.device:
        raise ValueError(
            f"a, b and h0 must be on one device, got {a.device}, {b.device} and {h0.device}: move them with .to()."
        )
    return ScanInputs(_cast(a, dtype), _cast(b, dtype), _cast(h0, state))


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # an idle .to() costs as much as a step's product


def _state_shape(a: Tensor) -> tuple[int, ...]:
    return (a.shape[0], *a.shape[2:])


def _autocast_real(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether autocast may have chosen the dtype of `tensor`, so that it can be cast to `dtype`."""
    return torch.is_autocast_enabled(tensor.device.type) and not tensor.is_complex() and not dtype.is_complex


def _result_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    for name, operand in (("a", a), ("b", b)):
        if operand.dtype not in _STATE_DTYPES:
            raise TypeError(
                f"{name} must be floating-point or complex, got {operand.dtype}: cast it, e.g. with .float()."
            )
    if a.dtype == b.dtype:
        return a.dtype
    if _autocast_real(a, b.dtype):
        return torch.promote_types(a.dtype, b.dtype)
    raise TypeError(f"a and b must have one dtype, got {a.dtype} and {b.dtype}: cast one of them with .to().")
