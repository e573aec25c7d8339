"""Experts of two tensor trains."""

from torch import Tensor
from torch.nn import functional

from qlm.experts.base import Expert, ExpertShape, check_rank_held
from tensornet import TTLinear


class TTExpert(Expert):
    """``W_2 gelu(W_1 x + b_1) + b_2`` with both maps tensor trains of bonds up to ``rank``, see ``TTLinear``.

    Raises ValueError for a rank that the cores cannot hold. Cost: contracted or reconstructed, whichever is cheaper.

    >>> TTExpert(ExpertShape(16, rank=2)).up.max_rank
    2
    """

    def __init__(self, shape: ExpertShape) -> None:
        super().__init__()
        self.up = TTLinear(shape.d_model, shape.inner, max_rank=shape.rank)
        self.down = TTLinear(shape.inner, shape.d_model, max_rank=shape.rank)
        check_rank_held("tt", shape, min(self.up.max_rank, self.down.max_rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))

    def flops(self, n_tokens: int) -> int:
        return self.up.plan(n_tokens).flops + self.down.plan(n_tokens).flops
