"""Arguments of the wrong type to tensor trains and their layers: one sentence, before anything is computed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tensornet import TensorTrain, TTEmbedding, TTLinear, balanced_factors, unfolding_bounds
from tensornet.factorise import bond_ranks

# What a caller without a type checker can write.
LooseTTLinear: Any = TTLinear
LooseTTEmbedding: Any = TTEmbedding
LooseTensorTrain: Any = TensorTrain
loose_factors: Any = balanced_factors
loose_bounds: Any = unfolding_bounds
loose_ranks: Any = bond_ranks
LAYER: Any = TTLinear(24, 30, 4)
X = torch.ones(2, 24)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: LooseTTLinear(24, 30, -2), ValueError, "max_rank of at least 1, got -2"),
        (lambda: LooseTTLinear(24, 30, 2.0), TypeError, "max_rank to be an integer, got 2.0"),
        (lambda: LooseTTLinear(24, 30, True), TypeError, "max_rank to be an integer, got True"),
        (lambda: LooseTTLinear(24, 30, None), TypeError, "max_rank to be an integer, got None"),
        (lambda: LooseTTLinear(24.0, 30), TypeError, "as integers, got 24.0"),
        (lambda: LooseTTLinear(24, 30, rows=(True, 30)), ValueError, "integers of at least 1"),
        (lambda: LooseTTLinear.from_linear(X), TypeError, "expected an nn.Linear, got Tensor; a matrix alone goes"),
        (lambda: LooseTTLinear.from_linear(LAYER), TypeError, "expected an nn.Linear, got TTLinear"),
        (lambda: LooseTTLinear.from_linear(nn.Linear(4, 4), "8"), TypeError, "integer, got '8'"),
        (lambda: LAYER(X.tolist()), TypeError, "a torch tensor x, got list"),
        (lambda: LAYER.forward_grouped(X.tolist(), torch.ones(2).long()), TypeError, "tensor x, got list"),
        (lambda: LAYER.forward_masked(X, [1, 1]), TypeError, "ranks as a torch tensor, got list"),
        (lambda: LAYER(X, 2.5), TypeError, "a rank as an integer, got 2.5"),
        (lambda: LAYER(X, True), TypeError, "a rank as an integer, got True"),
        (lambda: LooseTensorTrain.from_tensor(torch.ones(2, 2), max_rank=1.5), TypeError, "an integer, got 1.5"),
        (lambda: LooseTensorTrain.from_tensor(torch.ones(2, 2), max_rank=True), TypeError, "an integer, got True"),
        (lambda: LooseTensorTrain.from_tensor(torch.ones(2, 2)).truncate("2"), TypeError, "an integer, got '2'"),
        (
            lambda: LooseTensorTrain.from_tensor(np.ones((2, 2))),
            TypeError,
            "a torch tensor, got ndarray; pass torch.as",
        ),
        (lambda: LooseTensorTrain.from_matrix([[1.0]]), TypeError, "a torch tensor, got list"),
        (lambda: LooseTensorTrain((np.ones((1, 2, 1)),)), TypeError, "a torch tensor, got ndarray"),
        (lambda: loose_bounds(np.ones((2, 2)), (1,)), TypeError, "a torch tensor, got ndarray"),
        (lambda: loose_factors(4.0, 3), TypeError, "as integers, got 4.0"),
        (lambda: loose_ranks((4, 4), True), TypeError, "an integer, got True"),
        (lambda: LooseTTEmbedding(10, 8)([1, 2]), TypeError, "a torch tensor of ids, got list"),
        (lambda: LooseTTEmbedding(10, 8, 0.5), TypeError, "max_rank to be an integer, got 0.5"),
        (lambda: LooseTTEmbedding.from_embedding(torch.ones(8, 8)), TypeError, "expected an nn.Embedding, got Tensor"),
    ],
)
def test_what_is_wrong_is_said(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
