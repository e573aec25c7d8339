"""What causal attention accepts.

Axes: B batch, L queries, S keys, C numbers of a row, E numbers of a value, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor


def checked_inputs(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, with_past: bool = False
) -> Tensor | None:
    """Check the operands of causal attention; return the mask as numbers (B, S) in their dtype, None without padding.

    Shapes: q (B, L, C), k (B, S, C), v (B, S, E), mask (B, S) bool, true at real tokens, bias (B, L); S = L, or more
    `with_past`. One dtype, float32 or float64. Raises TypeError for what is no tensor and for dtypes, ValueError for
    shapes and devices.

    >>> x = torch.ones(1, 2, 3)
    >>> checked_inputs(x, x, x, torch.tensor([[False, True]]), None)
    tensor([[0., 1.]])
    """
    operands = {"q": q, "k": k, "v": v} | ({} if bias is None else {"bias": bias})
    for name, operand in operands.items():
        if not isinstance(operand, Tensor):
            raise TypeError(f"{name} expects a torch tensor, got {type(operand).__name__}; pass torch.as_tensor of it.")
        if operand.dtype not in (torch.float32, torch.float64) or operand.dtype != q.dtype:
            raise TypeError(
                f"q, k, v and bias expect one dtype, float32 or float64, got {name} of {operand.dtype}; cast it."
            )
        if operand.device != q.device:
            raise ValueError(f"q, k, v and bias expect one device, got {name} on {operand.device}; move it.")
    fits = q.ndim == k.ndim == v.ndim == 3 and k.shape[:2] == v.shape[:2] and k.shape[::2] == q.shape[::2]
    if not fits or k.shape[1] < q.shape[1] or (k.shape[1] > q.shape[1] and not with_past):
        raise ValueError(
            "causal attention expects q, k (batch, seq, c) and v (batch, seq, e), got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}; reshape them."
        )
    if bias is not None and bias.shape != q.shape[:2]:
        raise ValueError(
            f"bias expects one number per query, {tuple(q.shape[:2])}, got {tuple(bias.shape)}; expand it."
        )
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != k.shape[:2]:
        given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"mask expects booleans {tuple(k.shape[:2])}, true at real tokens, got {given}; attention is causal and "
            "takes a padding mask alone."
        )
    return mask.to(q.dtype)


def checked_state(state: Tensor, batch: int, n_features: int, n_values: int) -> Tensor:
    """Check a carried state: (B, F + 1, E + 1), else ValueError.

    >>> checked_state(torch.zeros(1, 3, 2), 1, 2, 1).shape
    torch.Size([1, 3, 2])
    """
    expected = (batch, n_features + 1, n_values + 1)
    if tuple(state.shape) != expected:
        raise ValueError(
            f"state expects shape (batch, features + 1, values + 1) = {expected}, got {tuple(state.shape)}; continue "
            "with what an earlier call returned."
        )
    return state
