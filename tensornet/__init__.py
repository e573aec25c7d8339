"""Tensor trains (matrix product states) as values, linear layers and embeddings; Tucker decompositions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensornet.factorise import balanced_factors
    from tensornet.mps_born import BornMPS
    from tensornet.rank_schedule import RankBudget, apply_by_rank, nested_ranks, rank_straight_through
    from tensornet.tensor_train import TensorTrain, unfolding_bounds
    from tensornet.tt_embedding import TTEmbedding
    from tensornet.tt_linear import TTLinear
    from tensornet.tucker import Tucker
    from tensornet.tucker_linear import TuckerLinear

_HOME = {
    "BornMPS": "tensornet.mps_born",
    "RankBudget": "tensornet.rank_schedule",
    "apply_by_rank": "tensornet.rank_schedule",
    "TensorTrain": "tensornet.tensor_train",
    "unfolding_bounds": "tensornet.tensor_train",
    "TTLinear": "tensornet.tt_linear",
    "TTEmbedding": "tensornet.tt_embedding",
    "Tucker": "tensornet.tucker",
    "TuckerLinear": "tensornet.tucker_linear",
    "balanced_factors": "tensornet.factorise",
    "nested_ranks": "tensornet.rank_schedule",
    "rank_straight_through": "tensornet.rank_schedule",
}

__all__ = [
    "BornMPS",
    "RankBudget",
    "TTEmbedding",
    "TTLinear",
    "TensorTrain",
    "Tucker",
    "TuckerLinear",
    "apply_by_rank",
    "balanced_factors",
    "nested_ranks",
    "rank_straight_through",
    "unfolding_bounds",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tensornet' has no attribute '{name}'")
