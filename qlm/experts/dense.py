"""Experts of two dense maps."""

from torch import Tensor, nn
from torch.nn import functional

from qlm.experts.base import Expert, ExpertShape


class DenseExpert(Expert):
    """``W_2 gelu(W_1 x + b_1) + b_2``. Cost: ``4 m d`` times the inner width, in flops.

    >>> DenseExpert(ExpertShape(8, expansion=4)).flops(10)
    10240
    """

    def __init__(self, shape: ExpertShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.d_model, shape.inner)
        self.down = nn.Linear(shape.inner, shape.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))

    def flops(self, n_tokens: int) -> int:
        return 4 * n_tokens * self.up.in_features * self.up.out_features
