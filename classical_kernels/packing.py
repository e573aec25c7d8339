"""Marks of single steps: where a packed sequence starts anew, and where it is padding.

Axes: B batch, L sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

RESET, HOLD = 1, 2
"""Bits of a mark: the state is zeroed before the step; the step is padding and the state passes through it."""


def step_marks(like: Tensor, resets: Tensor | None, mask: Tensor | None) -> Tensor:
    """Return the marks of all steps, uint8 (B, L), or an empty tensor where neither argument is given.

    `resets` (B, L) bool is true where a document begins, `mask` (B, L) bool is false at padding, `like` (B, L, ...) is
    an operand. Raises TypeError for what is no tensor of bool, ValueError for other shapes and devices.

    >>> step_marks(torch.zeros(1, 3, 1), torch.tensor([[True, False, False]]), torch.tensor([[True, False, True]]))
    tensor([[1, 2, 0]], dtype=torch.uint8)
    """
    for name, given in (("resets", resets), ("mask", mask)):
        check_steps(like, name, given)
    if resets is None and mask is None:
        return torch.empty(0, dtype=torch.uint8, device=like.device)
    marks = torch.zeros(like.shape[:2], dtype=torch.uint8, device=like.device)
    if resets is not None:
        marks = marks + RESET * resets.to(torch.uint8)
    return marks if mask is None else marks + HOLD * (~mask).to(torch.uint8)


def check_steps(like: Tensor, name: str, given: Tensor | None) -> None:
    """Check that `given` is None or bool (B, L) on the device of `like` (B, L, ...).

    Raises TypeError and ValueError as `step_marks`.

    >>> check_steps(torch.zeros(1, 3, 1), "mask", torch.ones(1, 3, dtype=torch.bool))
    """
    if given is None:
        return
    if not isinstance(given, Tensor) or given.dtype != torch.bool:
        found = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"{name} must be a tensor of torch.bool, got {found}: cast it with .bool().")
    if given.shape != like.shape[:2]:
        raise ValueError(
            f"{name} must have shape (batch, seq) = {tuple(like.shape[:2])}, got {tuple(given.shape)}: expand it."
        )
    if given.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, got {given.device}: move it with .to().")
