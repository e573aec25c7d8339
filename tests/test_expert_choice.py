"""The choice of experts: routing distributions, who is chosen and how much it weighs, and the balance of the load.

Axis legend: n tokens, e experts, k places of a token.
"""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from qlm.experts.choice import Choice, LoadBalance, apply_chosen, choose
from qlm.experts.router import SoftmaxRouter, renormalise, route_first

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}
SIGNS = torch.tensor([[1.0, -0.5, -0.5, 0.0], [-1.0, 0.5, 0.5, 0.0]])
"""Two tokens' probabilities about their mean: the first expert's spread is 1.0, the largest."""


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Routing distributions


@given(st.integers(1, 5), st.integers(2, 6), st.floats(0.01, 1), st.sampled_from(list(TOLERANCE)))
@settings(max_examples=30)
def test_renormalised_chances_sum_to_one(n: int, e: int, held: float, dtype: torch.dtype) -> None:
    chances = held * torch.softmax(randn(n, e, dtype=dtype), -1)
    routing = renormalise(chances)
    torch.testing.assert_close(routing.g.sum(-1), torch.ones(n, dtype=dtype), rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(routing.g * chances.sum(-1, keepdim=True), chances, rtol=0, atol=TOLERANCE[dtype])
    torch.testing.assert_close(routing.leaked, 1 - chances.sum(-1), rtol=0, atol=TOLERANCE[dtype])
    assert not routing.lost.any()


def test_a_token_whose_mass_leaks_is_routed_as_if_uniform_and_teaches_nothing() -> None:
    chances = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.1, 0.1], [-0.1, 0.3, 0.0]], requires_grad=True)
    routing = renormalise(chances)
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(routing.g.detach(), expected)
    torch.testing.assert_close(routing.leaked, torch.tensor([1.0, 0.6, 0.7]))
    assert routing.lost.tolist() == [True, False, False]
    routing.g[:, 0].sum().backward()
    assert chances.grad is not None
    torch.testing.assert_close(chances.grad[0], torch.zeros(3))
    torch.testing.assert_close(chances.grad[1], torch.tensor([1.25, -1.25, -1.25]))


def test_routing_without_a_router_is_the_first_experts_alike() -> None:
    routing = route_first(3, 4, 2, torch.zeros(0, dtype=torch.float64))
    assert torch.equal(routing.g, torch.tensor([[0.5, 0.5, 0.0, 0.0]] * 3, dtype=torch.float64))
    assert not routing.leaked.any()
    assert not routing.lost.any()


@pytest.mark.parametrize("n_inputs", [1, 3, 6])
@pytest.mark.parametrize("n_experts", [2, 8, 64])
@pytest.mark.parametrize("n_parameters", [3, 27, 180])
def test_softmax_twin_has_the_circuits_size(n_inputs: int, n_experts: int, n_parameters: int) -> None:
    """Equal to the larger of 2 % and one hidden unit."""
    twin = SoftmaxRouter(n_inputs, n_experts, n_parameters)
    unit = n_inputs + 1 + n_experts
    assert twin.n_parameters == sum(parameter.numel() for parameter in twin.parameters())
    assert abs(twin.n_parameters - n_parameters) <= max(0.02 * n_parameters, unit)
    assert twin.is_twin
    angles = math.pi * (2 * torch.rand(5, n_inputs) - 1)
    g = twin(angles).detach()
    torch.testing.assert_close(g.sum(-1), torch.ones(5))
    hidden = torch.tanh(angles / math.pi @ twin.inner.weight.T + twin.inner.bias).detach()
    torch.testing.assert_close(g, torch.softmax(hidden @ twin.outer.weight.T.detach(), -1))


# Choice


def chosen_sets(choice: Choice) -> list[list[int]]:
    return [row[kept].tolist() for row, kept in zip(choice.experts, choice.kept, strict=True)]


def test_mass_decides_how_many_are_chosen() -> None:
    g = torch.tensor([[0.1, 0.6, 0.3], [0.34, 0.33, 0.33], [0.0, 0.0, 1.0]])
    none = torch.zeros(3)
    assert chosen_sets(choose(g, none, 3, 0.5)) == [[1], [0, 1], [2]]
    assert chosen_sets(choose(g, none, 3, 0.85)) == [[1, 2], [0, 1, 2], [2]]
    assert chosen_sets(choose(g, none, 2, 0.85)) == [[1, 2], [0, 1], [2]]
    assert chosen_sets(choose(g, none, 2, 1.0)) == [[1, 2], [0, 1], [2]]
    assert chosen_sets(choose(g, none, 1, 1.0)) == [[1], [0], [2]]
    weights = choose(g, none, 3, 0.85).weights
    torch.testing.assert_close(weights, torch.tensor([[2 / 3, 1 / 3, 0.0], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]]))


@given(st.integers(2, 6), st.floats(0.05, 1), st.integers(0, 99))
@settings(max_examples=50)
def test_the_fewest_experts_that_hold_the_mass(e: int, mass: float, seed: int) -> None:
    g = torch.softmax(2 * randn(1, e, seed=seed), -1)
    (chosen,) = chosen_sets(choose(g, torch.zeros(e), e, mass))
    held = g[0, chosen].sum()
    assert held >= mass - 1e-12
    assert held - g[0, chosen[-1]] < mass
    assert set(chosen) == set(g[0].topk(len(chosen)).indices.tolist())


def test_bias_decides_who_is_chosen_and_never_how_much_it_weighs() -> None:
    g = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    bias = torch.tensor([-0.4, 0.0, 0.0], requires_grad=True)
    choice = choose(g, bias, 2, 1.0)
    assert chosen_sets(choice) == [[1, 2]]
    torch.testing.assert_close(choice.weights.detach(), torch.tensor([[0.6, 0.4]]))
    choice.weights.sum().backward()
    assert bias.grad is None
    assert g.grad is not None
    assert g.grad.tolist() == [[0.0, 1.0, 1.0]]


def test_a_chosen_expert_without_probability_is_used_whole() -> None:
    choice = choose(torch.tensor([[1.0, 0.0]]), torch.tensor([-2.0, 0.0]), 1, 1.0)
    assert chosen_sets(choice) == [[1]]
    assert choice.weights.tolist() == [[1.0]]


def test_ties_fall_to_the_first_in_any_batch() -> None:
    g = torch.full((300, 33), 1 / 33)
    assert torch.equal(choose(g, torch.zeros(33), 2, 1.0).experts, torch.tensor([[0, 1]]).expand(300, 2))


def test_chosen_experts_are_applied_to_their_tokens_alone() -> None:
    """Against a loop over tokens; with experts that write down what they are given."""
    torch.manual_seed(0)
    maps, seen = [nn.Linear(4, 4).double() for _ in range(5)], [0] * 5

    def counted(number: int) -> Callable[[Tensor], Tensor]:
        def apply(x: Tensor) -> Tensor:
            seen[number] += len(x)
            return maps[number](x)

        return apply

    x, g = randn(30, 4), torch.softmax(3 * randn(30, 5, seed=1), -1)
    choice = choose(g, torch.tensor([0.0, 0.0, 0.0, 0.0, -9.0]), 3, 0.9)
    found = apply_chosen([counted(number) for number in range(5)], x, choice)
    for t in range(30):
        (chosen,) = chosen_sets(choose(g[t : t + 1], torch.tensor([0.0, 0.0, 0.0, 0.0, -9.0]), 3, 0.9))
        weights = g[t, chosen] / g[t, chosen].sum()
        expected = sum(
            w * functional.linear(x[t], maps[i].weight, maps[i].bias) for i, w in zip(chosen, weights, strict=True)
        )
        torch.testing.assert_close(found[t], expected, rtol=0, atol=1e-12)
    assert seen == choice.load(5).tolist()
    assert seen[4] == 0
    assert sum(seen) == int(choice.kept.sum()) < 90


# Balance


@pytest.mark.parametrize(("spread", "step"), [(0.5, 0.3), (0.02, 0.16), (0.0, 0.0)])
def test_balance_follows_its_formula_and_ignores_an_empty_batch(spread: float, step: float) -> None:
    """Its step is 0.3, or 8 times the largest spread of an expert's g."""
    balance = LoadBalance(4, step=0.3).double()
    counts, g = torch.tensor([6, 2, 0, 0]), torch.tensor([[0.4, 0.3, 0.2, 0.1]] * 2) + spread * SIGNS
    balance.update(counts, g)
    load = 0.9 * torch.full((4,), 0.25).double() + 0.1 * counts.double() / 8
    torch.testing.assert_close(balance.load, load)
    torch.testing.assert_close(balance.bias, step * (0.25 - load))
    before = balance.state_dict()
    balance.update(torch.zeros(4, dtype=torch.long), g[:0])
    assert all(torch.equal(before[name], value) for name, value in balance.state_dict().items())
    assert set(before) == {"bias", "load"}


@pytest.mark.parametrize(("spread", "skew"), [(1e-4, 0.0), (1e-5, 0.0), (1e-4, 1e-3)])
def test_bias_of_a_nearly_uniform_router_settles(spread: float, skew: float) -> None:
    """8 experts whose probabilities hardly depend on the token: a step of 0.02 would send all tokens to and fro."""
    generator = torch.Generator().manual_seed(0)
    balance, biases, excess = LoadBalance(8, step=0.02), [], []
    for _ in range(200):
        g = torch.softmax(8 * (torch.linspace(skew, -skew, 8) + spread * torch.randn(512, 8, generator=generator)), -1)
        counts = choose(g, balance.bias, 2, 1.0).load(8)
        balance.update(counts, g)
        biases.append(balance.bias.clone())
        excess.append(float((counts * 8 / counts.sum()).max()) - 1)
    late = torch.stack(biases[-50:])
    assert float((late.amax(0) - late.amin(0)).max()) < 0.4 * spread
    assert max(excess[-50:]) < 0.45  # 128 +- 10 tokens for each expert


@pytest.mark.parametrize(("e", "k", "spread"), [(8, 2, 0.5), (8, 1, 0.5), (16, 2, 1.0), (64, 4, 1.0)])
def test_balance_evens_a_skewed_router(e: int, k: int, spread: float) -> None:
    """200 steps of 2048 tokens whose probabilities favour the first experts by up to e**4."""
    generator = torch.Generator().manual_seed(0)
    balance, excess = LoadBalance(e, step=0.05), []
    for _ in range(200):
        logits = torch.linspace(2, -2, e) + spread * torch.randn(2048, e, generator=generator)
        g = torch.softmax(logits, -1)
        counts = choose(g, balance.bias, k, 1.0).load(e)
        balance.update(counts, g)
        excess.append(float((counts * e / counts.sum()).max()) - 1)
    assert excess[0] > 2.5
    assert sum(excess[-20:]) / 20 < 0.3
