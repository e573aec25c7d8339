"""Experts of two Tucker decompositions."""

from torch import Tensor
from torch.nn import functional

from qlm.experts.base import Expert, ExpertShape, check_rank_held
from tensornet import TuckerLinear


class TuckerExpert(Expert):
    """``W_2 gelu(W_1 x + b_1) + b_2`` with both maps of mode ranks up to ``rank``, see ``TuckerLinear``.

    Raises ValueError for a rank that no mode holds. Cost: contracted or reconstructed, whichever is cheaper.

    >>> TuckerExpert(ExpertShape(16, rank=2)).up.max_ranks
    (2, 2, 2, 2)
    """

    def __init__(self, shape: ExpertShape) -> None:
        super().__init__()
        self.up = TuckerLinear(shape.d_model, shape.inner, max_rank=shape.rank)
        self.down = TuckerLinear(shape.inner, shape.d_model, max_rank=shape.rank)
        check_rank_held("tucker", shape, min(self.up.max_rank, self.down.max_rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))

    def flops(self, n_tokens: int) -> int:
        return self.up.plan(n_tokens).flops + self.down.plan(n_tokens).flops
