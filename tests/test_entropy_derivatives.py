"""Derivatives of entropies where spectra are degenerate, against finite differences and closed forms."""

import math

import pytest
import torch
from torch import Tensor

from backends import linalg, open_backend
from circuits import Circuit, Input, Op

STATEVECTOR = open_backend("statevector")
PAIRS = Circuit(4, (Op("ry", (0,), (Input(0),)), Op("ry", (2,), (Input(1),)), Op("cx", (0, 1)), Op("cx", (2, 3))))
"""Two partly entangled pairs: cut across both, the spectrum is degenerate wherever the angles are equal."""
MIXED = Circuit(
    3,
    (
        Op("ry", (0,), (Input(0),)),
        Op("cx", (0, 1)),
        Op("ry", (1,), (Input(1),)),
        Op("cx", (1, 2)),
        Op("rx", (2,), (Input(1),)),
        Op("cx", (2, 0)),
    ),
)


def binary_slopes(angle: float) -> tuple[float, float]:
    """First and second derivative of h(cos(x/2)**2), the entropy of one pair, by h'(p) = log((1-p)/p)."""
    p, slope, bend = math.cos(angle / 2) ** 2, -math.sin(angle) / 2, -math.cos(angle) / 2
    first = math.log((1 - p) / p)
    return first * slope, -(slope**2) / (p * (1 - p)) + first * bend


@pytest.mark.parametrize("angles", [(0.4, 0.4), (math.pi / 2, math.pi / 2), (0.4, 0.9), (1.2, math.pi - 1.2)])
def test_two_pairs_have_the_derivatives_of_binary_entropies(angles: tuple[float, float]) -> None:
    x = torch.tensor([angles], dtype=torch.float64, requires_grad=True)
    entropy = STATEVECTOR.entropy(PAIRS, x, None, wires=(0, 2)).values
    (first,) = torch.autograd.grad(entropy.sum(), x, create_graph=True)
    for k, angle in enumerate(angles):
        (second,) = torch.autograd.grad(first[0, k], x, retain_graph=True)
        slope, bend = binary_slopes(angle)
        assert first[0, k].item() == pytest.approx(slope, abs=1e-12)
        assert second[0, k].item() == pytest.approx(bend, abs=1e-10)
        assert second[0, 1 - k].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("kind", ["von_neumann", "renyi2"])
@pytest.mark.parametrize("wires", [(0,), (0, 1), (0, 1, 2)])
def test_derivatives_equal_finite_differences(kind: str, wires: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)

    def entropy(x: Tensor) -> Tensor:
        return STATEVECTOR.entropy(MIXED, x, None, wires=wires, kind=kind).values

    assert torch.autograd.gradcheck(entropy, (x,))
    assert torch.autograd.gradgradcheck(entropy, (x,))


def test_a_product_state_that_turns_keeps_zero_entropy_to_second_order() -> None:
    product = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("ry", (1,), (Input(1),))))
    x = torch.tensor([[0.3, 1.1]], dtype=torch.float64, requires_grad=True)
    entropy = STATEVECTOR.entropy(product, x, None, wires=(0,)).values
    (first,) = torch.autograd.grad(entropy.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert float(first.detach().abs().max()) < 1e-12
    assert float(second.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["von_neumann", "renyi2"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_zero_has_no_sign_and_nothing_leaves_the_range(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(200, 4, dtype=dtype)
    pure = torch.einsum("bi,bj->bij", vectors, vectors.conj()) / vectors.norm(dim=1).square()[:, None, None]
    values = linalg.entropy(pure, kind)
    assert not bool(torch.signbit(values).any())
    assert float(values.max()) < 1e-4
    flat = linalg.entropy(torch.eye(4, dtype=dtype)[None] / 4, kind)
    assert flat <= torch.tensor(math.log(4), dtype=flat.dtype)
