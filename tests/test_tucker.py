"""Tucker decompositions: exact where they should be, errors that are what is discarded, one answer in both forms."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tensornet import Tucker, TuckerLinear
from tensornet.contraction import Work
from tensornet.tucker import mode_ranks
from tensornet.tucker_linear import TuckerPlan

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=4)
FACTORS = st.integers(1, 3).flatmap(
    lambda d: st.tuples(*(st.lists(st.integers(1, 4), min_size=d, max_size=d).map(tuple) for _ in range(2)))
)


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tails(tensor: Tensor, ranks: tuple[int, ...]) -> list[float]:
    """For each mode the sum of squared singular values of the tensor's unfolding beyond that mode's rank."""
    spectra = [torch.linalg.svdvals(tensor.movedim(k, 0).reshape(tensor.shape[k], -1)) for k in range(tensor.ndim)]
    return [float(spectrum[rank:].square().sum()) for spectrum, rank in zip(spectra, ranks, strict=True)]


@given(SIZES, st.sampled_from(list(TOLERANCE)))
@settings(max_examples=40)
def test_full_rank_is_exact(sizes: list[int], dtype: torch.dtype) -> None:
    tensor = randn(*sizes, dtype=dtype)
    parts = Tucker.from_tensor(tensor, max_rank=5)
    torch.testing.assert_close(parts.to_tensor(), tensor, rtol=0, atol=10 * TOLERANCE[dtype])
    assert parts.error_bound < 10 * TOLERANCE[dtype]
    for factor in parts.factors:
        eye = torch.eye(factor.shape[1], dtype=dtype)
        torch.testing.assert_close(factor.T @ factor, eye, rtol=0, atol=10 * TOLERANCE[dtype])


@given(SIZES, st.integers(1, 4), st.integers(0, 5))
@settings(max_examples=60)
def test_error_is_the_root_of_what_is_discarded(sizes: list[int], max_rank: int, seed: int) -> None:
    tensor = randn(*sizes, seed=seed)
    parts = Tucker.from_tensor(tensor, max_rank)
    assert parts.ranks == mode_ranks(sizes, max_rank)
    error = float(torch.linalg.vector_norm(parts.to_tensor() - tensor))
    assert parts.error_bound == pytest.approx(error, abs=1e-12)
    discarded = tails(tensor, parts.ranks)
    assert error**2 <= sum(discarded) + 1e-12  # the higher-order SVD's own bound
    assert error**2 >= max(discarded) - 1e-12  # nothing of these ranks is nearer than the best cut of one unfolding


def test_a_tensor_of_low_rank_is_found() -> None:
    core, factors = randn(2, 1, 3), [randn(6, 2, seed=1), randn(5, 1, seed=2), randn(7, 3, seed=3)]
    tensor = torch.einsum("abc,ia,jb,kc->ijk", core, *factors)
    parts = Tucker.from_tensor(tensor, max_rank=3)
    torch.testing.assert_close(parts.to_tensor(), tensor, rtol=0, atol=1e-12)
    assert parts.error_bound < 1e-12
    torch.testing.assert_close(Tucker(core, tuple(factors)).to_tensor(), tensor, rtol=0, atol=1e-12)


def test_two_modes_are_the_singular_values() -> None:
    matrix = randn(7, 5)
    for rank in range(1, 6):
        parts = Tucker.from_tensor(matrix, max_rank=rank)
        spectrum = torch.linalg.svdvals(matrix)
        assert parts.error_bound == pytest.approx(float(torch.linalg.vector_norm(spectrum[rank:])), abs=1e-12)
        torch.testing.assert_close(torch.linalg.svdvals(parts.core), spectrum[:rank], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
def test_full_rank_reproduces_the_dense_layer(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(24, 30, bias=bias, dtype=dtype)
    layer = TuckerLinear.from_linear(dense, max_rank=30)
    assert (layer.rows, layer.columns, layer.max_ranks, layer.max_rank) == ((6, 5), (4, 6), (6, 5, 4, 6), 6)
    torch.testing.assert_close(layer.to_matrix(), dense.weight, rtol=0, atol=TOLERANCE[dtype])
    x = randn(5, 24, dtype=dtype)
    torch.testing.assert_close(layer(x), dense(x), rtol=0, atol=5 * TOLERANCE[dtype])
    assert layer.core.dtype == dtype
    assert (layer.bias is not None) == bias


def test_rank_cuts_the_dense_layer_by_what_is_discarded() -> None:
    dense = nn.Linear(16, 24, dtype=torch.float64)
    tensor = dense.weight.detach().reshape(6, 4, 4, 4)
    errors = []
    for rank in range(1, 7):
        layer = TuckerLinear.from_linear(dense, rank)
        errors.append(float(torch.linalg.vector_norm((layer.to_matrix() - dense.weight).detach())))
        assert errors[-1] == pytest.approx(Tucker.from_tensor(tensor, rank).error_bound, abs=1e-12)
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1
    assert errors[-1] < 1e-12


def test_128_by_128_at_rank_4_has_448_parameters() -> None:
    layer = TuckerLinear(128, 128, 4, bias=False)
    assert (layer.rows, layer.columns) == ((16, 8), (8, 16))
    assert layer.n_parameters == 4**4 + 4 * (16 + 8 + 8 + 16) == 448
    assert TuckerLinear(128, 128, 4).n_parameters == 448 + 128


@given(FACTORS, st.integers(1, 4), st.integers(0, 4), st.sampled_from(list(TOLERANCE)))
@settings(max_examples=40)
def test_both_forms_are_the_dense_product_at_the_counted_flops(
    factors: tuple[tuple[int, ...], tuple[int, ...]], max_rank: int, n_tokens: int, dtype: torch.dtype
) -> None:
    rows, columns = factors
    layer = TuckerLinear(math.prod(columns), math.prod(rows), max_rank, rows, columns, dtype=dtype)
    x, plan = randn(n_tokens, layer.in_features, dtype=dtype), layer.plan(n_tokens)
    factored = Tucker(layer.core, tuple(layer.factors)).to_tensor().reshape(layer.out_features, layer.in_features)
    torch.testing.assert_close(layer.to_matrix(), factored, rtol=0, atol=TOLERANCE[dtype])
    expected = F.linear(x, factored, layer.bias)
    with FlopCounterMode(display=False) as built, torch.no_grad():
        reconstructed = F.linear(x, layer.to_matrix(), layer.bias)
    with FlopCounterMode(display=False) as chained, torch.no_grad():
        contracted = layer._contract(x)
    with FlopCounterMode(display=False) as picked, torch.no_grad():
        found = layer(x)
    assert built.get_total_flops() == plan.reconstruct.flops
    assert chained.get_total_flops() == plan.contract.flops
    assert picked.get_total_flops() == plan.flops
    for y in (reconstructed, contracted, found):
        torch.testing.assert_close(y, expected, rtol=0, atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("n_tokens", [1, 4096])
def test_gradients_are_those_of_the_dense_product(n_tokens: int) -> None:
    torch.manual_seed(0)
    layer = TuckerLinear(16, 24, 3, dtype=torch.float64)
    assert layer.plan(n_tokens).form == {1: "contract", 4096: "reconstruct"}[n_tokens]
    x = randn(n_tokens, 16).requires_grad_()
    cotangent = randn(n_tokens, 24, seed=1)
    watched = (x, layer.core, *layer.factors)
    found = torch.autograd.grad((layer(x) * cotangent).sum(), watched)
    weight = Tucker(layer.core, tuple(layer.factors)).to_tensor().reshape(24, 16)
    expected = torch.autograd.grad((F.linear(x, weight, layer.bias) * cotangent).sum(), watched)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_without_tokens_the_weights_are_touched_and_nothing_is_computed() -> None:
    layer = TuckerLinear(16, 16, 2)
    assert layer.plan(0).flops == 0
    layer(torch.zeros(0, 16)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


@pytest.mark.parametrize("sizes", [(128, 128), (24, 30), (7, 128)])
def test_fresh_weights_have_the_mean_square_of_a_dense_layer(sizes: tuple[int, int]) -> None:
    layer = TuckerLinear(*sizes, max_rank=4, dtype=torch.float64)
    assert float(layer.to_matrix().square().mean().detach()) == pytest.approx(1 / (3 * sizes[0]), rel=1e-10)
    for factor in layer.factors:
        gram = factor.T @ factor
        torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_cheaper_form_is_picked() -> None:
    assert TuckerPlan(Work(flops=10), Work(flops=9)).form == "contract"
    assert TuckerPlan(Work(flops=10), Work(flops=9)).flops == 9
    assert TuckerPlan(Work(flops=10), Work(flops=0, bytes=1)).form == "reconstruct"


def test_layers_copy_and_pickle() -> None:
    layer = TuckerLinear(16, 24, 3)
    x = randn(3, 16, dtype=torch.float32)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
    assert "ranks=(3, 3, 3, 3)" in repr(layer)
    assert layer(x.reshape(3, 1, 16)).shape == (3, 1, 24)


loose_layer: Any = TuckerLinear
loose_tucker: Any = Tucker


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TuckerLinear(16, 16, 0), ValueError, "max_rank of at least 1, got 0"),
        (lambda: loose_layer(16, 16, 2.0), TypeError, "max_rank to be an integer, got 2.0"),
        (lambda: TuckerLinear(16, 16, rows=(4, 3)), ValueError, r"rows whose product is 16, got \(4, 3\)"),
        (lambda: TuckerLinear(16, 16, rows=(4, 4), columns=(16,)), ValueError, "as many rows as columns"),
        (lambda: TuckerLinear(16, 16)(torch.ones(2, 15)), ValueError, r"shape \(..., 16\), got \(2, 15\)"),
        (lambda: loose_layer(16, 16)([1.0]), TypeError, "a torch tensor x, got list"),
        (lambda: TuckerLinear(16, 16).plan(-1), ValueError, "at least 0, got -1"),
        (lambda: loose_layer.from_linear(torch.ones(2, 2)), TypeError, "an nn.Linear, got Tensor"),
        (lambda: loose_tucker.from_tensor(np.ones((2, 2))), TypeError, "a torch tensor, got ndarray"),
        (lambda: Tucker.from_tensor(torch.ones(2, 2).long()), TypeError, "float32 or float64, got torch.int64"),
        (lambda: Tucker.from_tensor(torch.ones(())), ValueError, "at least one axis"),
        (lambda: Tucker.from_tensor(torch.tensor([1.0, math.nan])), ValueError, "a finite tensor"),
        (lambda: Tucker(torch.ones(2, 2), (torch.ones(3, 2),)), ValueError, "one factor"),
        (lambda: Tucker(torch.ones(2, 2), (torch.ones(3, 2), torch.ones(3, 1))), ValueError, "one factor"),
    ],
)
def test_what_is_wrong_is_said(call: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
