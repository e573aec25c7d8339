"""Experts: what they compute and cost, and orthogonal maps."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from qlm.experts.base import EXPERTS, ExpertShape, expert_class
from qlm.experts.cayley import CayleyLinear, cayley
from qlm.experts.dense import DenseExpert
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
