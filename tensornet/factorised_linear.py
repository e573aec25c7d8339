"""What linear layers of a factorised weight share: sizes, bias, fresh weights, and how one is made of a dense layer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn


class FactorisedLinear(nn.Module, ABC):
    """`y = x W^T + bias` with W `(out_features, in_features)` held as factors; a subclass says which.

    `rows` factorise `out_features`, `columns` `in_features`; where not given the subclass chooses them.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_rank: int = 8,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self._allocate(max_rank, rows, columns, device, dtype)
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @abstractmethod
    def _allocate(
        self,
        max_rank: int,
        rows: Sequence[int] | None,
        columns: Sequence[int] | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Set `rows`, `columns` and zero factors."""

    @abstractmethod
    def _draw(self) -> None:
        """Fill the factors afresh, W of mean square `1 / (3 in_features)`."""

    @abstractmethod
    def _fit(self, weight: Tensor, max_rank: int) -> None:
        """Fill the factors with those nearest to a float64 weight."""

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        max_rank: int = 8,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
    ) -> Self:
        """The layer that approximates `linear` by SVDs (done in float64), on its device and in its dtype.

        Raises as the constructor, and TypeError for another kind of layer. Cost: one SVD of the dense weight for each
        of d - 1 bonds, or of 2 d modes.

        >>> from tensornet import TTLinear
        >>> dense = nn.Linear(16, 16)
        >>> full = TTLinear.from_linear(dense, max_rank=256, rows=(4, 4), columns=(4, 4))
        >>> torch.allclose(full.weight(), dense.weight, atol=1e-6)
        True
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(
                f"expected an nn.Linear, got {type(linear).__name__}; a matrix alone goes to TensorTrain.from_matrix "
                "or Tucker.from_tensor"
            )
        weight, bias = linear.weight.detach(), linear.bias is not None
        sizes = (linear.in_features, linear.out_features)
        layer = cls(*sizes, max_rank, rows, columns, bias, weight.device, weight.dtype)
        with torch.no_grad():
            layer._fit(weight.double(), max_rank)
            if layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights and bias (bias uniform in +-1/sqrt(in_features), as nn.Linear's)."""
        self._draw()
        if self.bias is not None:
            self.bias.uniform_(-1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    @property
    def n_parameters(self) -> int:
        """Numbers in the factors and the bias."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _flatten(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a torch tensor x, got {type(x).__name__}; pass torch.as_tensor of it")
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"expected x of shape (..., {self.in_features}), got {tuple(x.shape)}")
        return x.reshape(math.prod(x.shape[:-1]), self.in_features)
