"""Feature maps: a row x stands for a vector f(x), and attention weighs by inner products <f(q), f(k)>.

Axes: i queries, j keys, C numbers of a row, N amplitudes, F features; ... any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Similarity(Protocol):
    """What the quadratic form asks of a pair of rows."""

    def inner(self, q: Tensor, k: Tensor) -> Tensor:
        """Similarities (..., i, j) of rows (..., i, C) and (..., j, C)."""
        ...


class FeatureMap(Similarity, Protocol):
    """A similarity that is an inner product of finitely many features, so that it has a linear form."""

    def features(self, x: Tensor) -> Tensor:
        """f(x), shape (..., F), of rows (..., C), with `<f(q), f(k)>` the similarity."""
        ...


@dataclass(frozen=True)
class Plain:
    """Rows are their own features: `f(x) = x`, F = C.

    >>> Plain().inner(torch.ones(2, 3), torch.ones(1, 3)).tolist()
    [[3.0], [3.0]]
    """

    def features(self, x: Tensor) -> Tensor:
        return x

    def inner(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.mT


@dataclass(frozen=True)
class ScaledDot:
    """`q . k / sqrt(C)`: the logits of ordinary attention, which have no finite features once a softmax follows.

    >>> ScaledDot().inner(torch.ones(1, 4), torch.ones(1, 4)).tolist()
    [[2.0]]
    """

    def inner(self, q: Tensor, k: Tensor) -> Tensor:
        return (q * q.shape[-1] ** -0.5) @ k.mT


@dataclass(frozen=True)
class Overlap:
    """`(q . k)^2` of real rows, C = N: the fidelity of real state vectors; `f(x) = vec x x^T`, F = N^2.

    >>> Overlap().inner(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])).item() == torch.tensor(0.6).square()
    tensor(True)
    """

    def features(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)

    def inner(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.mT).square()


@dataclass(frozen=True)
class Fidelity:
    """`|<q|k>|^2 = Tr rho_q rho_k` of complex state vectors as rows `[Re psi | Im psi]`, C = 2 N.

    `f(psi) = vec(Re rho + Im rho)` with `rho = |psi><psi|`, F = N^2 = 4^n real features. Re rho is symmetric and Im rho
    antisymmetric, hence orthogonal to each other, so that the inner product is exactly `<Re, Re'> + <Im, Im'> = Tr rho
    rho'`: the same as that of the diagonal and sqrt(2) times real and imaginary part above it, without a gather.

    >>> state = torch.tensor([[0.6, 0.0, 0.0, 0.8]])  # 0.6 |0> + 0.8i |1>
    >>> Fidelity().inner(state, torch.tensor([[1.0, 0.0, 0.0, 0.0]])).item() == torch.tensor(0.6).square()
    tensor(True)
    >>> Fidelity().features(state).shape
    torch.Size([1, 4])
    """

    def features(self, x: Tensor) -> Tensor:
        return _HermitianFeatures.apply(x)  # pyright: ignore[reportReturnType] -- torch leaves apply untyped

    def inner(self, q: Tensor, k: Tensor) -> Tensor:
        re, im = k.chunk(2, -1)
        along, across = q @ k.mT, q @ torch.cat((im, -re), -1).mT
        return torch.addcmul(along.square(), across, across)


class _HermitianFeatures(torch.autograd.Function):
    """`G = (a + b) a^T + (b - a) b^T` flattened, for rows [a | b]; outer products forward, matrix products backward.

    Autograd would sum over outer products in the backward pass, which is slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        a, b = x.chunk(2, -1)
        first = (a + b).unsqueeze(-1) * a.unsqueeze(-2)
        return torch.addcmul(first, (b - a).unsqueeze(-1), b.unsqueeze(-2)).flatten(-2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        a, b = x.chunk(2, -1)
        slope = gradients[0].unflatten(-1, (a.shape[-1], a.shape[-1]))
        sum_slope, difference_slope = (slope @ torch.stack((a, b), -1)).unbind(-1)
        a_slope, b_slope = (torch.stack((a + b, b - a), -2) @ slope).unbind(-2)
        return torch.cat((a_slope + sum_slope - difference_slope, b_slope + sum_slope + difference_slope), -1)
