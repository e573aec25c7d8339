"""Functions that torch.func looks into: whether one is at work, and the numbers beneath its tensors."""

from typing import Any, NoReturn

import torch
from torch import Tensor


def transformed() -> bool:
    """Whether a transform of torch.func (vmap, grad, jacrev, jvp) is at work.

    >>> transformed(), torch.vmap(lambda row: row * transformed())(torch.ones(2)).tolist()
    (False, [1.0, 1.0])
    """
    return torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]


def numbers(tensor: Tensor) -> Tensor:
    """Return what a transform's tensor stands for, all mapped axes included; others as they are.

    >>> torch.vmap(lambda row: row * len(numbers(row)))(torch.ones(3)).tolist()
    [3.0, 3.0, 3.0]
    """
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue] -- PyTorch's stubs lack it
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def refuse_forward_mode(ctx: Any, *tangents: Any) -> NoReturn:
    """Stand as ``jvp`` of an autograd function that has none, with a remedy in its message."""
    raise NotImplementedError(
        "circuits expect differentiation in reverse mode, got forward mode; use torch.func.jacrev or torch.autograd."
    )
