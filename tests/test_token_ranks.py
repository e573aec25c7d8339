"""Per-token ranks of TT layers: masks against groups, counted flops, ordered bonds, the gradient of the choice."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from tensornet import TTLinear, nested_ranks, rank_straight_through

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
DTYPES = tuple(TOLERANCE)
FACTORS = st.integers(1, 4).flatmap(
    lambda d: st.tuples(*(st.lists(st.integers(1, 4), min_size=d, max_size=d).map(tuple) for _ in range(2)))
)


def _layer(max_rank: int = 4, dtype: torch.dtype = torch.float64, bias: bool = True) -> TTLinear:
    torch.manual_seed(7)
    return TTLinear(24, 30, max_rank, rows=(5, 3, 2), columns=(2, 3, 4), bias=bias, dtype=dtype)


def _input(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@given(
    FACTORS,
    st.integers(1, 5),
    st.lists(st.integers(1, 5), min_size=0, max_size=12),
    st.sampled_from(DTYPES),
)
@settings(max_examples=40)
def test_masked_equals_grouped_with_gradients(
    factors: tuple[tuple[int, ...], tuple[int, ...]], max_rank: int, wanted: list[int], dtype: torch.dtype
) -> None:
    rows, columns = factors
    layer = TTLinear(math.prod(columns), math.prod(rows), max_rank, rows, columns, dtype=dtype)
    ranks = torch.tensor(wanted, dtype=torch.int64).clamp_max(layer.max_rank)
    results = []
    for forward in (layer.forward_masked, lambda x, r: layer.forward_grouped(x, r, max_groups=5)):
        x = _input(len(wanted), layer.in_features, dtype=dtype).requires_grad_()
        y = forward(x, ranks)
        assert y.shape == (len(wanted), layer.out_features)
        results.append((y, *torch.autograd.grad(y.square().sum() / max(1, y.numel()), [x, *layer.parameters()])))
    for masked, grouped in zip(*results, strict=True):
        scale = max(1.0, masked.abs().max().item() if masked.numel() else 1.0)
        torch.testing.assert_close(masked / scale, grouped / scale, rtol=0, atol=TOLERANCE[dtype])


def test_ranks_follow_their_tokens() -> None:
    """Each token's output is that of the layer cut at its rank, whatever its neighbours' ranks and the axes."""
    layer, x = _layer(), _input(2, 5, 24)
    ranks = torch.tensor([[1, 4, 2, 1, 3], [3, 3, 4, 2, 1]], dtype=torch.int32)
    for forward in (layer.forward_masked, layer.forward_grouped):
        y = forward(x, ranks)
        for b in range(2):
            for t in range(5):
                rank = int(ranks[b, t])
                torch.testing.assert_close(y[b, t], layer(x[b, t], rank), rtol=0, atol=1e-13)
                torch.testing.assert_close(layer(x[b, t], rank), F.linear(x[b, t], layer.weight(rank), layer.bias))
    assert (layer(x[0, 0], 1) - layer(x[0, 0], 2)).abs().max() > 1e-3
    full = torch.full((2, 5), 4)
    torch.testing.assert_close(layer.forward_grouped(x, full), layer(x), rtol=0, atol=1e-13)


def test_counted_flops_of_a_grouped_call_are_the_flops_it_does() -> None:
    layer = TTLinear(128, 128, 8)
    x, ranks = torch.randn(64, 128), torch.tensor([2, 4, 8, 2] * 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.forward_grouped(x, ranks)
    assert counter.get_total_flops() == layer.flops(ranks)
    assert layer.flops(ranks) == layer.plan(32, 2).flops + layer.plan(16, 4).flops + layer.plan(16, 8).flops
    assert layer.flops(torch.full((64,), 2)) < layer.flops(ranks)
    assert layer.flops(torch.zeros(0, dtype=torch.int64)) == 0


def test_prefixes_of_a_layer_made_from_a_dense_one_improve_with_rank() -> None:
    """Within the sum of discarded tails for all bonds at once, and close to a fresh TT-SVD of that rank."""
    torch.manual_seed(3)
    dense = nn.Linear(27, 27, dtype=torch.float64)
    layer = TTLinear.from_linear(dense, max_rank=81, rows=(3, 3, 3), columns=(3, 3, 3))
    errors = []
    for rank in range(1, layer.max_rank + 1):
        error = torch.linalg.vector_norm(layer.weight(rank) - dense.weight).item()
        tails = [torch.linalg.vector_norm(s[rank:]).item() for s in layer.train_at().singular_values()]
        assert max(tails) - 1e-12 <= error <= math.hypot(*tails) + 1e-12
        errors.append(error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12


def test_no_tokens_still_touch_the_weights() -> None:
    layer = _layer()
    none = torch.zeros(2, 0, dtype=torch.int64)
    for forward in (layer.forward_grouped, layer.forward_masked):
        y = forward(torch.zeros(2, 0, 24, dtype=torch.float64), none)
        assert y.shape == (2, 0, 30)
        gradients = torch.autograd.grad(y.sum(), list(layer.parameters()))
        assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_nested_ranks_are_drawn_evenly_and_repeatably() -> None:
    draws = nested_ranks(30_000, (1, 4, 8), torch.Generator().manual_seed(0))
    assert torch.equal(draws, nested_ranks(30_000, (1, 4, 8), torch.Generator().manual_seed(0)))
    counts = torch.stack([(draws == rank).sum() for rank in (1, 4, 8)])
    assert counts.sum() == 30_000
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(30_000 * 2 / 9)
    assert nested_ranks(0, (3,)).shape == (0,)


def test_nested_training_orders_the_bonds() -> None:
    """Under random ranks each prefix comes near the best of its rank; trained at full rank alone, rank 1 does not."""
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(16, 16), full_matrices=False)
    s = torch.tensor([1.0, 0.8, 0.6, 0.4])
    target = (u[:, :4] * s @ vh[:4]).reshape(4, 4, 4, 4).permute(0, 2, 1, 3).reshape(16, 16)

    def squared_errors(choices: tuple[int, ...]) -> list[float]:
        torch.manual_seed(1)
        layer = TTLinear(16, 16, 4, (4, 4), (4, 4), bias=False)
        optimizer, generator = torch.optim.Adam(layer.parameters(), 0.02), torch.Generator().manual_seed(2)
        for _ in range(200):
            ranks = nested_ranks(48, choices, generator)
            tokens = torch.eye(16).repeat(3, 1)
            optimizer.zero_grad()
            (layer.forward_grouped(tokens, ranks) - tokens @ target.T).square().sum().backward()
            optimizer.step()
        return [(layer.weight(rank) - target).square().sum().item() for rank in (1, 2, 4)]

    best = [s[rank:].square().sum().item() for rank in (1, 2, 4)]
    nested, full = squared_errors((1, 2, 4)), squared_errors((4,))
    assert all(error < least + 0.02 for error, least in zip(nested, best, strict=True))
    assert full[2] < 1e-3
    assert full[0] > 1.5 * best[0]


def test_straight_through_gradient_of_the_rank() -> None:
    layer, x = _layer(), _input(3, 24)
    soft = torch.tensor([1.2, 1.5, 1.9], dtype=torch.float64, requires_grad=True)
    low, high = layer(x, 1), layer(x, 2)
    y = rank_straight_through(low, high, soft)
    assert torch.equal(y, low)
    upstream = _input(3, 30)
    gradient, core = torch.autograd.grad(y, [soft, layer.cores[0]], upstream)
    torch.testing.assert_close(gradient, (upstream * (high - low)).sum(-1))
    torch.testing.assert_close(core, torch.autograd.grad(layer(x, 1), layer.cores[0], upstream)[0])


def test_more_than_four_ranks_in_one_call_are_refused_by_default() -> None:
    layer, ranks = _layer(max_rank=6), torch.arange(1, 6)
    with pytest.raises(ValueError, match="at most 4 distinct ranks, got 5"):
        layer.forward_grouped(_input(5, 24), ranks)
    y = layer.forward_grouped(_input(5, 24), ranks, max_groups=5)
    torch.testing.assert_close(y, layer.forward_masked(_input(5, 24), ranks), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda layer, x: layer.forward_grouped(x, torch.tensor([0, 1])), ValueError, "got 0"),
        (lambda layer, x: layer.forward_masked(x, torch.tensor([1, 5])), ValueError, "got 5"),
        (lambda layer, x: layer.forward_grouped(x, torch.tensor([1])), ValueError, r"one rank per token"),
        (lambda layer, x: layer.forward_masked(x, torch.tensor([1.0, 2.0])), TypeError, "integer ranks"),
        (lambda layer, x: layer.forward_grouped(x, torch.tensor([1, 2]), 1), ValueError, "at most 1 distinct ranks"),
        (lambda layer, x: layer.flops(torch.tensor([7])), ValueError, "got 7"),
        (lambda layer, x: nested_ranks(4, ()), ValueError, "at least one rank"),
        (lambda layer, x: nested_ranks(4, (0, 2)), ValueError, "at least 1"),
        (lambda layer, x: rank_straight_through(x, x, x), ValueError, "expected y_low and y_high"),
    ],
)
def test_what_is_wrong_is_said(call: Any, error: type[Exception], words: str) -> None:
    layer = _layer()
    with pytest.raises(error, match=words):
        call(layer, _input(2, 24))
