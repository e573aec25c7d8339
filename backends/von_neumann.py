"""The von Neumann entropy as a function of density matrices, twice differentiable at any spectrum.

Differentiating eigenvectors divides by differences of eigenvalues and fails where they are equal. The entropy is a
function of the matrix, and those have derivatives in closed form.

Axis legend: b batch, d dimension; matrices (b, d, d), Hermitian.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class VonNeumann(torch.autograd.Function):
    """``S = -Tr rho log rho`` in nats, shape (b,); eigenvalues up to d epsilon count as 0.

    Gradient ``-(log rho + 1)`` on the support; its own derivative is that of a matrix function (Daletskii and Krein
    1965): entry (i, j) in the eigenbasis times the divided difference of ``-(log p + 1)``.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(density: Tensor) -> Tensor:
        eigenvalues = torch.linalg.eigvalsh(density)
        kept = torch.where(eigenvalues > _floor(eigenvalues), eigenvalues, torch.ones_like(eigenvalues))
        return torch.special.entr(kept).sum(-1).clamp(0.0, math.log(density.shape[-1])) + 0.0  # -0 becomes 0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        (density,) = ctx.saved_tensors
        slope: Any = _Slope.apply(density)
        return cotangents[0][..., None, None] * slope


class _Slope(torch.autograd.Function):
    """``-(log rho + 1)`` on the support of rho, 0 beyond."""

    generate_vmap_rule = True

    @staticmethod
    def forward(density: Tensor) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(density)
        return (vectors * _slopes(eigenvalues)[..., None, :].to(vectors)) @ vectors.mH

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] -- the decorator hides the parameters' names
        ctx: Any, *cotangents: Tensor
    ) -> Tensor:
        (density,) = ctx.saved_tensors
        eigenvalues, vectors = torch.linalg.eigh(density)
        inner = vectors.mH @ cotangents[0] @ vectors
        return vectors @ (_divided_differences(eigenvalues).to(inner) * inner) @ vectors.mH


def _floor(eigenvalues: Tensor) -> float:
    return eigenvalues.shape[-1] * torch.finfo(eigenvalues.dtype).eps


def _slopes(eigenvalues: Tensor) -> Tensor:
    kept = eigenvalues > _floor(eigenvalues)
    return torch.where(kept, -torch.log(torch.where(kept, eigenvalues, 1.0)) - 1, 0.0)


def _divided_differences(eigenvalues: Tensor) -> Tensor:
    """``(f(p) - f(q)) / (p - q)`` of f(p) = -(log p + 1) on the support and 0 beyond, -1/p where p = q."""
    floor, slopes = _floor(eigenvalues), _slopes(eigenvalues)
    p, q = eigenvalues[..., :, None], eigenvalues[..., None, :]
    low, high = torch.minimum(p, q), torch.maximum(p, q)
    both, none = low > floor, high <= floor
    safe = torch.where(both, low, 1.0)
    x = torch.where(both, (high - low) / safe, 0.0)
    ratio = torch.where(x > 0, torch.log1p(x) / torch.where(x > 0, x, 1.0), 1.0)
    gap = torch.where(both | none, 1.0, p - q)
    across = (slopes[..., :, None] - slopes[..., None, :]) / gap
    return torch.where(both, -ratio / safe, torch.where(none, 0.0, across))
