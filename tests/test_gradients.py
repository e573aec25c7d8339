"""Backprop, parameter shift and finite differences agree, on slots of every kind; second derivatives."""

import numpy as np
import oracles
import pytest
import torch
from gradient_cases import OBSERVABLES, SLOTS, STATEVECTOR, gradients, random_case
from torch import Tensor

from backends.statevector import narrow
from circuits import Circuit, Input, Op, Reset, Z


def differences(circuit: Circuit, inputs: Tensor, weights: Tensor) -> list[Tensor]:
    """Central differences of the dense oracle."""
    cotangent = np.linspace(-1, 2, len(inputs) * len(OBSERVABLES)).reshape(len(inputs), -1)

    def loss(x: oracles.Real, w: oracles.Real) -> float:
        return float((oracles.expectations(circuit, x, w, OBSERVABLES) * cotangent).sum())

    x, w = inputs.detach().numpy().copy(), weights.detach().numpy().copy()
    slopes = []
    for array in (x, w):
        slope = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept, ends = array[index], []
            for step in (1e-5, -1e-5):
                array[index] = kept + step
                ends.append(loss(x, w))
            array[index] = kept
            slope[index] = (ends[0] - ends[1]) / 2e-5
        slopes.append(torch.from_numpy(slope))
    return slopes


@pytest.fixture(params=["narrow", "reference"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each executor by itself, whatever the width."""
    monkeypatch.setattr(narrow, "MAX_AMPLITUDES", 0 if request.param == "reference" else 4**5)
    return request.param


@pytest.mark.parametrize("method", [None, "parameter-shift"])
@pytest.mark.parametrize("case", ["slots", "random", "resets"])
def test_backprop_and_parameter_shift_equal_finite_differences(method: str | None, case: str) -> None:
    circuit, inputs, weights = random_case(1, resets=case == "resets")
    if case == "slots":
        circuit = SLOTS
        inputs = torch.tensor([[0.4, -1.2], [2.0, 0.7], [-0.3, 0.1]], dtype=torch.float64, requires_grad=True)
        weights = torch.tensor([0.9, -0.5], dtype=torch.float64, requires_grad=True)
    assert circuit.is_unitary == (case != "resets")
    found = gradients(STATEVECTOR, circuit, inputs, weights, gradient=method)
    for got, expected in zip(found, differences(circuit, inputs, weights), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("seed", range(2, 12))
def test_backprop_equals_parameter_shift_on_random_circuits(seed: int) -> None:
    circuit, inputs, weights = random_case(seed, resets=seed % 2 == 0)
    exact = gradients(STATEVECTOR, circuit, inputs, weights)
    shifted = gradients(STATEVECTOR, circuit, inputs, weights, gradient="parameter-shift")
    for got, expected in zip(shifted, exact, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


def test_float32_gradients_of_both_methods_agree() -> None:
    circuit, inputs, weights = SLOTS, torch.tensor([[0.4, -1.2], [2.0, 0.7]]), torch.tensor([0.9, -0.5])
    inputs.requires_grad_()
    weights.requires_grad_()
    exact = gradients(STATEVECTOR, circuit, inputs.double(), weights.double())
    for method in (None, "parameter-shift"):
        for got, expected in zip(gradients(STATEVECTOR, circuit, inputs, weights, gradient=method), exact, strict=True):
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("resets", [False, True])
def test_second_derivatives_by_autograd(resets: bool) -> None:
    ops = (*SLOTS.ops[:6], *(Reset(1) if resets else ()), *SLOTS.ops[6:])
    circuit = Circuit(3, ops)

    def values(inputs: Tensor, weights: Tensor) -> Tensor:
        return STATEVECTOR.expectations(circuit, inputs, weights, OBSERVABLES).values

    inputs = torch.tensor([[0.4, -1.2]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.9, -0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(values, (inputs, weights))
    assert torch.autograd.gradgradcheck(values, (inputs, weights))


def test_second_derivative_of_a_cosine_is_its_negative() -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Input(0),)),))
    angle = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    value = STATEVECTOR.expectations(circuit, angle, None, (Z(0),)).values.sum()
    (first,) = torch.autograd.grad(value, angle, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), angle)
    assert first.item() == pytest.approx(-np.sin(0.7), abs=1e-14)
    assert second.item() == pytest.approx(-np.cos(0.7), abs=1e-14)
