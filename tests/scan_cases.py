"""Operands and oracles that the tests of the linear recurrence share."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

REAL = (torch.float32, torch.float64)
COMPLEX = (torch.complex64, torch.complex128)
LOW = (torch.bfloat16, torch.float16)
Operands = tuple[Tensor, Tensor, Tensor]
Scan = Callable[..., tuple[Tensor, Tensor]]


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Operands:
    """a with |a| < 1, b and h0, for `shape` = (batch, seq, *channels)."""
    generator = torch.Generator().manual_seed(seed)
    state = (shape[0], *shape[2:])
    a, b, h0 = (torch.randn(size, dtype=dtype, generator=generator) for size in (shape, shape, state))
    return a / (1 + a.abs()), b, h0


def loop(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """The states in double precision, by numpy, independent of the package."""
    wide = np.complex128 if a.is_complex() else np.float64
    a_, b_, state = a.numpy().astype(wide), b.numpy().astype(wide), h0.numpy().astype(wide)
    states = []
    for t in range(a_.shape[1]):
        state = a_[:, t] * state + b_[:, t]
        states.append(state)
    return torch.from_numpy(np.stack(states, axis=1))


def gradients(function: Scan, operands: tuple[Tensor, ...], create_graph: bool = False) -> tuple[Tensor, ...]:
    """Gradients for all operands of fixed random weights on all states and on the last one."""
    leaves = tuple(operand.clone().requires_grad_() for operand in operands)
    outputs = function(*leaves)
    return torch.autograd.grad(outputs, leaves, weights_like(outputs), create_graph=create_graph)


def leaves(a: Tensor, b: Tensor, h0: Tensor) -> Operands:
    """Copies that want gradients."""
    return a.clone().requires_grad_(), b.clone().requires_grad_(), h0.clone().requires_grad_()


def weights_like(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(out.shape, dtype=out.dtype, generator=generator) for out in outputs)


def close(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """Assert equality to the rounding of `dtype`, after a few thousand steps."""
    double = dtype in (torch.float64, torch.complex128)
    tolerance = 1e-13 if double else 1e-5
    torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=tolerance, atol=tolerance)
