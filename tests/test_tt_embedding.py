"""TT embeddings against their dense tables."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tensornet import TTEmbedding

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = tuple(TOLERANCE)


def _input(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize(("rows", "columns"), [(None, None), ((7, 5, 3), (2, 3, 4)), ((101,), (24,))])
def test_embedding_looks_up_the_rows_of_its_table(rows: Any, columns: Any) -> None:
    table = TTEmbedding(101, 24, 5, rows, columns, dtype=torch.float64)
    dense = table.weight()
    assert dense.shape == (101, 24)
    ids = torch.randint(101, (4, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(table(ids), F.embedding(ids, dense), rtol=0, atol=1e-12)
    torch.testing.assert_close(table(torch.arange(101)), dense, rtol=0, atol=1e-12)
    assert table(ids[:, :0]).shape == (4, 0, 24)
    weight = _input(4, 9, 24)
    parameters = list(table.parameters())
    got = torch.autograd.grad((table(ids) * weight).sum(), parameters)
    expected = torch.autograd.grad((F.embedding(ids, table.weight()) * weight).sum(), parameters)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
def test_full_rank_embedding_reproduces_the_dense_one(dtype: torch.dtype) -> None:
    dense = nn.Embedding(50, 16, dtype=dtype)
    table = TTEmbedding.from_embedding(dense, max_rank=1000, rows=(4, 4, 4), columns=(2, 2, 4))
    ids = torch.arange(50).reshape(5, 10)
    torch.testing.assert_close(table(ids), dense(ids), rtol=0, atol=4 * TOLERANCE[dtype])
    assert table.n_parameters == sum(p.numel() for p in table.parameters())


def test_fresh_embeddings_have_unit_mean_square() -> None:
    table = TTEmbedding(256, 64, 4, rows=(8, 8, 4), columns=(4, 4, 4), dtype=torch.float64)
    assert table.weight().square().mean().item() == pytest.approx(1, rel=1e-10)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TTEmbedding(10, 8, rows=(3, 3), columns=(2, 4)), ValueError, "at least 10"),
        (lambda: TTEmbedding(10, 8, rows=(5, 2), columns=(2, 2, 2)), ValueError, "2 columns"),
        (lambda: TTEmbedding(10, 8)(torch.tensor([10])), IndexError, "from 0 to 9"),
        (lambda: TTEmbedding(10, 8)(torch.tensor([-1])), IndexError, "from 0 to 9"),
        (lambda: TTEmbedding(10, 8)(torch.tensor([1.0])), TypeError, "int32 or int64"),
        (lambda: TTEmbedding.from_embedding(nn.Embedding(8, 8, padding_idx=0)), ValueError, "padding_idx"),
    ],
)
def test_what_is_wrong_is_said(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
