"""Experts: what they compute and cost, orthogonal maps, the choice of experts, and the balance of their load.

Axis legend: n tokens, e experts, k places of a token, d model width.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from qlm.experts.base import EXPERTS, ExpertShape, expert_class
from qlm.experts.cayley import CayleyLinear, cayley
from qlm.experts.choice import Choice, LoadBalance, apply_chosen, choose
from qlm.experts.dense import DenseExpert
from qlm.experts.router import SoftmaxRouter, renormalise, route_first
from qlm.experts.tensor_train import TTExpert
from qlm.experts.tucker import TuckerExpert

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}
SHAPE = ExpertShape(16, rank=2)


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def skew(width: int, dtype: torch.dtype, seed: int = 0, scale: float = 1.0) -> Tensor:
    square = scale * randn(width, width, dtype=dtype, seed=seed)
    return square - square.T


# Every kind of expert


@pytest.mark.parametrize("n_tokens", [0, 1, 300])
@pytest.mark.parametrize("kind", EXPERTS)
def test_counted_flops_are_what_torch_counts(kind: str, n_tokens: int) -> None:
    """Torch's counter sees products alone; a solve of two orthogonal maps is counted by its formula."""
    expert = expert_class(kind)(SHAPE)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        expert(torch.randn(n_tokens, 16))
    solves = 2 * (8 * 16**3 // 3) if kind == "cayley" and n_tokens else 0
    assert expert.flops(n_tokens) == counter.get_total_flops() + solves
    assert (expert.flops(n_tokens) > 0) == (n_tokens > 0)


@pytest.mark.parametrize("kind", EXPERTS)
def test_an_expert_without_tokens_touches_its_parameters(kind: str) -> None:
    expert = expert_class(kind)(SHAPE)
    out = expert(torch.zeros(0, 16))
    assert out.shape == (0, 16)
    out.sum().backward()
    for name, parameter in expert.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", EXPERTS)
def test_an_expert_maps_each_token_by_itself(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    expert, x = expert_class(kind)(SHAPE).to(dtype), randn(5, 16, dtype=dtype)
    whole = expert(x)
    torch.testing.assert_close(torch.cat([expert(row[None]) for row in x]), whole, rtol=0, atol=10 * TOLERANCE[dtype])
    assert whole.dtype == dtype
    assert 0.05 < float(whole.detach().norm() / x.norm()) < 1


@pytest.mark.parametrize("make", [TTExpert, TuckerExpert])
def test_factorised_experts_are_the_dense_one_at_full_rank(make: Callable[[ExpertShape], Any]) -> None:
    torch.manual_seed(0)
    dense, factored = DenseExpert(SHAPE).double(), make(ExpertShape(16, rank=4)).double()
    for name in ("up", "down"):
        kind = type(getattr(factored, name))
        setattr(factored, name, kind.from_linear(getattr(dense, name), 256))
    x = randn(7, 16)
    torch.testing.assert_close(factored(x), dense(x), rtol=0, atol=1e-12)


def test_unknown_kinds_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown expert 'tuker': did you mean 'tucker'"):
        expert_class("tuker")
    with pytest.raises(ValueError, match="cayley experts expect expansion 1, got 2"):
        expert_class("cayley")(ExpertShape(8, expansion=2))
    with pytest.raises(ValueError, match=r"tt experts expect a rank up to the 4 .* d_model=8 .* got 5; lower the rank"):
        expert_class("tt")(ExpertShape(8, rank=5))
    with pytest.raises(ValueError, match=r"tucker experts expect a rank up to the 4 .* got 5"):
        expert_class("tucker")(ExpertShape(8, rank=5))


# Orthogonal maps


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_cayley_is_orthogonal(width: int, scale: float, dtype: torch.dtype) -> None:
    u = cayley(skew(width, dtype, scale=scale))
    torch.testing.assert_close(
        u @ u.T, torch.eye(width, dtype=dtype), rtol=0, atol={torch.float32: 1e-6, torch.float64: 1e-10}[dtype]
    )
    assert float(torch.linalg.det(u.double())) == pytest.approx(1, abs=1e-5)


def test_cayley_is_its_definition_and_a_rotation_in_the_plane() -> None:
    a, eye = skew(6, torch.float64), torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(cayley(a), (eye - a) @ torch.linalg.inv(eye + a), rtol=0, atol=1e-12)
    torch.testing.assert_close(cayley(torch.zeros(6, 6)), torch.eye(6))
    t = 0.3  # tan of half the angle
    plane = cayley(torch.tensor([[0.0, t], [-t, 0.0]], dtype=torch.float64))
    angle = 2 * math.atan(t)
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    torch.testing.assert_close(plane, rotation.double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_orthogonal_layers_keep_norms_of_vectors_and_gradients(dtype: torch.dtype) -> None:
    """Through 20 layers, where dense ones of the usual start lose five digits."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(CayleyLinear(32, bias=False) for _ in range(20))).to(dtype)
    x, cotangent = randn(9, 32, dtype=dtype).requires_grad_(), randn(9, 32, dtype=dtype, seed=1)
    y = layers(x)
    (gradient,) = torch.autograd.grad((y * cotangent).sum(), x)
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=20 * TOLERANCE[dtype], atol=0)
    torch.testing.assert_close(gradient.norm(dim=1), cotangent.norm(dim=1), rtol=20 * TOLERANCE[dtype], atol=0)
    dense = nn.Sequential(*(nn.Linear(32, 32, bias=False) for _ in range(20))).to(dtype)
    assert float(dense(x).detach().norm() / x.detach().norm()) < 1e-3


def test_gradients_of_the_angles_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    layer = CayleyLinear(4).double()
    x = randn(3, 4)

    def out(angles: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"angles": angles}, (x,))

    assert torch.autograd.gradcheck(out, (layer.angles.detach().clone().requires_grad_(),))


def test_fresh_eigenvalues_spread_over_the_circle() -> None:
    torch.manual_seed(0)
    phases = torch.linalg.eigvals(CayleyLinear(200).matrix().detach()).angle().abs()
    assert float(phases.max()) > 2
    assert float((phases < 1).float().mean()) == pytest.approx(0.35, abs=0.1)


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


def test_balance_follows_its_formula_and_ignores_an_empty_batch() -> None:
    balance = LoadBalance(4, step=0.5).double()
    counts = torch.tensor([6, 2, 0, 0])
    balance.update(counts)
    load = 0.9 * torch.full((4,), 0.25).double() + 0.1 * counts.double() / 8
    torch.testing.assert_close(balance.load, load)
    torch.testing.assert_close(balance.bias, 0.5 * (0.25 - load))
    before = balance.state_dict()
    balance.update(torch.zeros(4, dtype=torch.long))
    assert all(torch.equal(before[name], value) for name, value in balance.state_dict().items())
    assert set(before) == {"bias", "load"}


@pytest.mark.parametrize(("e", "k", "spread"), [(8, 2, 0.5), (8, 1, 0.5), (16, 2, 1.0), (64, 4, 1.0)])
def test_balance_evens_a_skewed_router(e: int, k: int, spread: float) -> None:
    """200 steps of 2048 tokens whose probabilities favour the first experts by up to e**4."""
    generator = torch.Generator().manual_seed(0)
    balance, excess = LoadBalance(e, step=0.05), []
    for _ in range(200):
        logits = torch.linspace(2, -2, e) + spread * torch.randn(2048, e, generator=generator)
        counts = choose(torch.softmax(logits, -1), balance.bias, k, 1.0).load(e)
        balance.update(counts)
        excess.append(float((counts * e / counts.sum()).max()) - 1)
    assert excess[0] > 2.5
    assert sum(excess[-20:]) / 20 < 0.3
