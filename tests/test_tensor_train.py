"""Tensor trains: TT-SVD and its errors, canonical form, truncation, factorisations."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tensornet import TensorTrain, balanced_factors, unfolding_bounds
from tensornet.factorise import bond_ranks, padded_factors, split_sizes

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)


def _precision(dtype: torch.dtype) -> float:
    return 1e-12 if dtype in (torch.float64, torch.complex128) else 1e-5


def _random(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _decaying(shape: tuple[int, ...]) -> Tensor:
    """A smooth tensor, 1 / (1 + i + 2 j + 3 k + ...): singular values that fall fast at every bond."""
    total = torch.ones(shape, dtype=torch.float64)
    for axis, size in enumerate(shape):
        view = [1] * len(shape)
        view[axis] = size
        total = total + (axis + 1) * torch.arange(size, dtype=torch.float64).reshape(view)
    return 1 / total


def _distance(a: Tensor, b: Tensor) -> float:
    return torch.linalg.vector_norm(a - b).item()


@given(SHAPES, st.integers(0, 10**6), st.sampled_from(DTYPES))
def test_all_ranks_reproduce_the_tensor(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> None:
    tensor = _random(shape, seed, dtype)
    train = TensorTrain.from_tensor(tensor, max_rank=None)
    assert train.shape == shape
    assert train.error_bound == 0
    scale = max(1.0, tensor.abs().max().item())
    torch.testing.assert_close(train.to_tensor() / scale, tensor / scale, rtol=0, atol=_precision(dtype))
    torch.testing.assert_close(train.norm, torch.linalg.vector_norm(tensor), rtol=_precision(dtype), atol=1e-30)


@given(SHAPES, st.integers(0, 10**6), st.integers(1, 4))
def test_error_is_exact_and_within_the_bounds_of_the_unfoldings(
    shape: tuple[int, ...], seed: int, max_rank: int
) -> None:
    """Theorem 2.2, and the root of the discarded squares itself, which is not only a bound."""
    tensor = _random(shape, seed)
    train = TensorTrain.from_tensor(tensor, max_rank=max_rank)
    error = _distance(train.to_tensor(), tensor)
    assert error == pytest.approx(train.error_bound, rel=1e-9, abs=1e-11)
    lower, upper = unfolding_bounds(tensor, train.ranks)
    assert lower - 1e-11 <= error <= upper + 1e-11
    assert error <= math.sqrt(max(1, len(shape) - 1)) * lower * (1 + 1e-9) + 1e-11
    assert train.ranks == bond_ranks(shape, max_rank)[1:-1]


@pytest.mark.parametrize("rank", [1, 2, 5, 7])
def test_two_cores_are_the_best_low_rank_matrix(rank: int) -> None:
    """Eckart-Young: for d = 2 both bounds meet, and the error is the root of the discarded squares."""
    matrix = _random((7, 9), 3)
    train = TensorTrain.from_tensor(matrix, max_rank=rank)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    best = u[:, :rank] * s[:rank] @ vh[:rank]
    torch.testing.assert_close(train.to_tensor(), best, rtol=0, atol=1e-12)
    tail = torch.linalg.vector_norm(s[rank:]).item()
    assert train.error_bound == pytest.approx(tail, abs=1e-12)
    assert unfolding_bounds(matrix, (rank,)) == pytest.approx((tail, tail), abs=1e-12)


@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-4, 1e-8, 0.0])
def test_tolerance_is_kept_with_no_more_rank_than_needed(tolerance: float) -> None:
    tensor = _decaying((6, 6, 6, 6))
    norm = torch.linalg.vector_norm(tensor).item()
    train = TensorTrain.from_tensor(tensor, max_rank=None, tolerance=tolerance)
    assert _distance(train.to_tensor(), tensor) <= tolerance * norm + 1e-13
    rounded = TensorTrain.from_tensor(tensor, max_rank=None).truncate(tolerance=tolerance)
    assert _distance(rounded.to_tensor(), tensor) <= tolerance * norm + 1e-13
    if tolerance:
        budget = tolerance * norm / math.sqrt(3)
        first = torch.linalg.svdvals(tensor.reshape(6, -1))
        assert torch.linalg.vector_norm(first[train.ranks[0] - 1 :]) > budget  # one rank less would not do
        assert max(train.ranks) < 36  # the middle bond of a tensor without structure


def test_exact_low_rank_is_found() -> None:
    """sin(x_1 + x_2 + x_3 + x_4) has rank 2 at every bond: the addition theorem."""
    x = torch.linspace(0, 1, 5, dtype=torch.float64)
    tensor = torch.sin(x[:, None, None, None] + x[:, None, None] + x[:, None] + x)
    train = TensorTrain.from_tensor(tensor, max_rank=2)
    assert train.ranks == (2, 2, 2)
    assert train.n_parameters == 10 + 20 + 20 + 10
    torch.testing.assert_close(train.to_tensor(), tensor, rtol=0, atol=1e-14)
    assert TensorTrain.from_tensor(tensor, tolerance=1e-10).ranks == (2, 2, 2)


@given(SHAPES, st.integers(0, 10**6), st.sampled_from(DTYPES))
@settings(max_examples=50)
def test_canonical_form(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> None:
    """Same tensor; isometries but for the last core; bond spectra are those of the unfoldings, descending."""
    bonds = bond_ranks(shape, 3)
    cores = [_random((bonds[k], n, bonds[k + 1]), seed + k, dtype) for k, n in enumerate(shape)]
    train = TensorTrain(tuple(cores))
    canonical = train.canonical()
    dense, atol = train.to_tensor(), 1e-11 if _precision(dtype) < 1e-10 else 1e-4
    scale = dense.abs().max()
    torch.testing.assert_close(canonical.to_tensor() / scale, dense / scale, rtol=0, atol=atol)
    for core in canonical.cores[:-1]:
        matrix = core.reshape(-1, core.shape[-1])
        identity = torch.eye(matrix.shape[1], dtype=dtype)
        torch.testing.assert_close(matrix.mH @ matrix, identity, rtol=0, atol=atol)
    for k, spectrum in enumerate(train.singular_values(), start=1):
        assert (spectrum.diff() <= 0).all()
        expected = torch.linalg.svdvals(dense.reshape(math.prod(shape[:k]), -1))
        top = expected[0]
        torch.testing.assert_close(spectrum / top, expected[: len(spectrum)] / top, rtol=0, atol=atol)
        right = TensorTrain((torch.eye(len(spectrum), dtype=dtype)[None], *canonical.cores[k:])).to_tensor()
        right = right.reshape(len(spectrum), -1) / top  # Schmidt basis: rows orthogonal, squared norms s_j^2
        torch.testing.assert_close((right @ right.mH), torch.diag((spectrum / top) ** 2).to(dtype), rtol=0, atol=atol)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_prefixes_of_canonical_bonds_truncate_well(rank: int) -> None:
    """One bond cut: the best approximation. All bonds of three cores: within the root of the summed squares."""
    tensor = _random((4, 5, 4), 11)
    canonical = TensorTrain.from_tensor(tensor, max_rank=None).canonical()
    spectra = canonical.singular_values()
    tails = [torch.linalg.vector_norm(s[rank:]).item() for s in spectra]
    a, b, c = canonical.cores
    one = TensorTrain((a[..., :rank], b[:rank], c)).to_tensor()
    assert _distance(one, tensor) == pytest.approx(tails[0], abs=1e-12)
    other = TensorTrain((a, b[..., :rank], c[:rank])).to_tensor()
    assert _distance(other, tensor) == pytest.approx(tails[1], abs=1e-12)
    both = TensorTrain((a[..., :rank], b[:rank, :, :rank], c[:rank])).to_tensor()
    assert max(tails) - 1e-12 <= _distance(both, tensor) <= math.hypot(*tails) + 1e-12


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=30)
def test_truncation_is_exact_about_itself_and_adds_up(seed: int, rank: int) -> None:
    tensor = _random((3, 4, 4, 3), seed)
    train = TensorTrain.from_tensor(tensor, max_rank=6)
    cut = train.truncate(max_rank=rank)
    assert max(cut.ranks) <= rank
    own = cut.error_bound - train.error_bound
    assert _distance(cut.to_tensor(), train.to_tensor()) == pytest.approx(own, rel=1e-9, abs=1e-11)
    assert _distance(cut.to_tensor(), tensor) <= cut.error_bound + 1e-11


@pytest.mark.parametrize("dtype", DTYPES)
def test_operator_of_full_rank_is_the_matrix(dtype: torch.dtype) -> None:
    matrix = _random((24, 36), 5, dtype)
    train = TensorTrain.from_matrix(matrix, (4, 3, 2), (2, 3, 6), max_rank=None)
    assert [tuple(core.shape) for core in train.cores] == [(1, 4, 2, 8), (8, 3, 3, 12), (12, 2, 6, 1)]
    torch.testing.assert_close(train.to_matrix(), matrix, rtol=0, atol=_precision(dtype))
    assert train.shape == (4, 3, 2, 2, 3, 6)
    assert torch.equal(train.to_tensor().reshape(24, 36), train.to_matrix())
    torch.testing.assert_close(train.canonical().to_matrix(), matrix, rtol=0, atol=_precision(dtype))


def test_kronecker_product_has_rank_one() -> None:
    """Rows and columns are split the same way, most significant factor first, as in kron."""
    a, b, c = _random((2, 3), 0), _random((4, 2), 1), _random((3, 5), 2)
    matrix = torch.kron(a, torch.kron(b, c))
    train = TensorTrain.from_matrix(matrix, (2, 4, 3), (3, 2, 5), max_rank=1)
    torch.testing.assert_close(train.to_matrix(), matrix, rtol=0, atol=1e-13)
    assert train.n_parameters == 6 + 8 + 15


def test_a_128_by_128_matrix_at_rank_4_is_512_numbers() -> None:
    train = TensorTrain.from_matrix(_random((128, 128), 0), (8, 4, 4), (4, 4, 8), max_rank=4)
    assert [tuple(core.shape) for core in train.cores] == [(1, 8, 4, 4), (4, 4, 4, 4), (4, 4, 8, 1)]
    assert train.n_parameters == 512


def test_trains_copy_and_pickle() -> None:
    train = TensorTrain.from_tensor(_random((3, 4), 0), max_rank=2)
    for twin in (copy.deepcopy(train), pickle.loads(pickle.dumps(train))):
        assert twin.error_bound == train.error_bound
        assert torch.equal(twin.to_tensor(), train.to_tensor())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2), max_rank=0), ValueError, "max_rank of at least 1, got 0"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2), tolerance=-1.0), ValueError, "tolerance of at least 0"),
        (lambda: TensorTrain.from_tensor(torch.tensor(1.0)), ValueError, "at least one axis"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 0)), ValueError, "no empty one"),
        (lambda: TensorTrain.from_tensor(torch.tensor([1.0, math.nan])), ValueError, "finite numbers"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2, dtype=torch.int64)), TypeError, "convert it first"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2, dtype=torch.bfloat16)), TypeError, "got torch.bfloat16"),
        (lambda: TensorTrain.from_matrix(torch.ones(4, 4, 4)), ValueError, "expected a matrix"),
        (lambda: TensorTrain.from_matrix(torch.ones(8, 8), (2, 2, 3), (2, 2, 2)), ValueError, "product is 8"),
        (lambda: TensorTrain.from_matrix(torch.ones(8, 8), (2, 4), (2, 2, 2)), ValueError, "as many rows as columns"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2)).truncate(), ValueError, "max_rank or tolerance"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2)).truncate(0), ValueError, "at least 1"),
        (lambda: TensorTrain.from_tensor(torch.ones(2, 2)).to_matrix(), ValueError, "operator"),
        (lambda: TensorTrain((torch.ones(1, 2, 3), torch.ones(2, 2, 1))), ValueError, "equal bonds"),
        (lambda: TensorTrain((torch.ones(1, 2, 3),)), ValueError, "1 at both ends"),
        (lambda: TensorTrain(()), ValueError, "expected cores"),
        (lambda: TensorTrain((torch.ones(1, 2, 2), torch.ones(2, 2, 2, 1))), ValueError, "expected cores"),
        (lambda: unfolding_bounds(torch.ones(2, 2), (1, 1)), ValueError, "one rank for each of 1 bonds"),
        (lambda: balanced_factors(0, 3), ValueError, "at least 1"),
        (lambda: bond_ranks((4, 4), 0), ValueError, "at least 1"),
    ],
)
def test_what_is_wrong_is_said(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@given(st.integers(1, 3000), st.integers(1, 4))
def test_factorisations(size: int, n_factors: int) -> None:
    exact = balanced_factors(size, n_factors)
    assert math.prod(exact) == size
    assert len(exact) == n_factors
    assert list(exact) == sorted(exact, reverse=True)
    padded = padded_factors(size, n_factors)
    assert size <= math.prod(padded)
    assert len(padded) == n_factors
    share = size ** (1 / n_factors)
    assert max(padded) <= 2 * math.ceil(share + 1e-9)
    assert math.prod(padded) <= max(size, math.ceil(share + 1e-9) ** n_factors)


@pytest.mark.parametrize(
    ("size", "n_factors", "expected"),
    [
        (128, 3, (8, 4, 4)),
        (512, 3, (8, 8, 8)),
        (127, 3, (127, 1, 1)),
        (36, 2, (6, 6)),
        (72, 3, (6, 4, 3)),
        (5, 1, (5,)),
    ],
)
def test_balanced_factors(size: int, n_factors: int, expected: tuple[int, ...]) -> None:
    assert balanced_factors(size, n_factors) == expected


def test_chosen_factors_mirror_each_other() -> None:
    assert split_sizes(128, 128, None, None) == ((8, 4, 4), (4, 4, 8))
    assert split_sizes(128, 64, (16, 8), None) == ((16, 8), (8, 8))
    assert split_sizes(128, 64, None, (2, 4, 8)) == ((8, 4, 4), (2, 4, 8))
