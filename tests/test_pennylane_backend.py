"""The pennylane backend: agreement with the state vector, gradients of each kind, shots, resets, strings."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data
from torch import Tensor

from backends import Backend, expectations_with_gradient, open_backend
from backends.deferred import deferred
from circuits import Circuit, I, Input, Op, PauliSum, Product, Reset, Weight, X, Y, Z

pytest.importorskip("pennylane", reason="the extra pennylane is not installed")

from backends.pennylane_device import PennyLane

DEVICES = ("default.qubit", "lightning.qubit", "default.mixed", "reference.qubit")
NATIVE = ("default.qubit", "lightning.qubit")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
ALPHA_1E_6 = 4.9
"""Standard errors beyond which a normal deviate lies with probability 1e-6."""
EXACT = open_backend("statevector")
# RY on wire 0, X on wire 2, and wire 1 entangled with wire 0: no two wires and no reversal look alike.
LOPSIDED = Circuit(3, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1)), Op("x", (2,)), Op("ry", (1,), (Weight(0),))))
# Every rotation, scaled and shared slots, a product of them.
ROTATIONS = Circuit(
    3,
    (
        *(Op("h", (wire,)) for wire in range(3)),
        Op("rx", (0,), (Input(0),)),
        Op("p", (1,), (Weight(0, scale=0.7),)),
        Op("ryy", (2, 0), (Product(Input(1), Weight(1)),)),
        Op("rz", (2,), (0.4,)),
        Op("rxx", (0, 1), (Weight(0),)),
        Op("rzz", (1, 2), (Input(0, scale=-1.3, shift=0.2),)),
        Op("ry", (1,), (Input(1),)),
        Op("ch", (2, 1)),
    ),
)


def _observables(n_wires: int) -> tuple[PauliSum, ...]:
    last = n_wires - 1
    return Z(0), X(last) @ Y(0), 0.5 * Z(0) @ X(1) + 0.3 * Y(1) - 0.2, Z(last) - Z(0) @ Z(1), I()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shots", [None, 2000])
def test_wire_order(device: str, shots: int | None) -> None:
    backend = PennyLane(device=device, shots=shots)
    inputs, weights = torch.tensor([[1.2], [0.4]]), torch.tensor([0.3])
    found = backend.expectations(LOPSIDED, inputs, weights, (Z(0), Z(1), Z(2), X(0) @ X(1)), seed=1)
    expected = torch.tensor(
        [[math.cos(a), math.cos(a) * math.cos(0.3), -1.0, math.sin(a) * math.cos(0.3)] for a in (1.2, 0.4)]
    )
    assert ((found.values - expected).abs() <= ALPHA_1E_6 * found.stderr + 1e-6).all()
    bits = backend.samples(LOPSIDED, inputs, weights, wires=(2, 0), shots=2000, seed=1).values
    one = torch.sin(torch.tensor([0.6, 0.2])).square()
    assert bits.shape == (2, 2000, 2)
    assert (bits[..., 0] == 1).all()
    assert ((bits[..., 1].double().mean(1) - one).abs() < ALPHA_1E_6 * (one * (1 - one) / 2000).sqrt()).all()


def _results(backend: Backend, asked: tuple[Circuit, Tensor, Tensor], wires: tuple[int, ...]) -> list[Tensor]:
    circuit, inputs, weights = asked
    estimates = [
        backend.expectations(circuit, inputs, weights, _observables(circuit.n_wires)),
        backend.probabilities(circuit, inputs, weights, wires),
        backend.density(circuit, inputs, weights, wires),
        backend.entropy(circuit, inputs, weights, wires, "renyi2"),
        backend.entropy(circuit, inputs, weights, tuple(range(1, circuit.n_wires))),
    ]
    if backend.capabilities.state:
        pairs = backend.fidelity(circuit, inputs, inputs_b=inputs, weights_a=weights, weights_b=weights, gram=True)
        estimates += [backend.state(circuit, inputs, weights), pairs]
    assert all((estimate.stderr == 0).all() for estimate in estimates)
    return [estimate.values for estimate in estimates]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_state_vector(device: str, dtype: torch.dtype) -> None:
    backend = PennyLane(device=device)
    for case in range(5):
        rng = np.random.default_rng(case)
        n_wires = int(rng.integers(2, 5))
        circuit = random_circuit(rng, n_wires, int(rng.integers(1, 7)))
        inputs, weights = (torch.tensor(data, dtype=dtype) for data in random_data(rng, circuit, 3))
        wires = tuple(int(wire) for wire in rng.permutation(n_wires)[:2])
        asked = (circuit, inputs, weights)
        for ours, theirs in zip(_results(backend, asked, wires), _results(EXACT, asked, wires), strict=False):
            torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("device", NATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_every_result(device: str, dtype: torch.dtype) -> None:
    """Native gradients of a batch, inputs and weights alike, against those of the state vector."""
    torch.manual_seed(0)
    rows, shared = torch.rand(4, 2, dtype=dtype) * 3, torch.rand(2, dtype=dtype) * 3

    def gradients(backend: Backend) -> list[Tensor]:
        found: list[Tensor] = []
        inputs, weights = rows.clone().requires_grad_(), shared.clone().requires_grad_()
        for values in _results(backend, (ROTATIONS, inputs, weights), (2, 0)):
            loss = (torch.view_as_real(values) if values.is_complex() else values).flatten()
            mixed = (loss * torch.linspace(-1, 2, len(loss), dtype=dtype)).sum()
            found += torch.autograd.grad(mixed, (inputs, weights))
        return found

    for ours, theirs in zip(gradients(PennyLane(device=device)), gradients(EXACT), strict=False):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, atol=30 * TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("device", NATIVE)
def test_gradients_with_resets(device: str) -> None:
    circuit = ROTATIONS + Circuit(3, (*Reset(1), Op("rx", (1,), (Weight(1),)), Op("cx", (1, 2)), *Reset(0)))
    inputs = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in (PennyLane(device=device), EXACT):
        values = backend.expectations(circuit, inputs, weights, (Z(2), X(1) @ Z(2), Z(0))).values
        found.append((values, *torch.autograd.grad((values * torch.tensor([1.0, -2.0, 3.0])).sum(), (inputs, weights))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_batched_inputs_by_one_parameter_shift_call(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    run = PennyLane._run

    def counted(self: PennyLane, circuit: Circuit, angles: Tensor, *rest: Any) -> list[Tensor]:
        calls.append(len(angles))
        return run(self, circuit, angles, *rest)

    monkeypatch.setattr(PennyLane, "_run", counted)
    inputs = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in (PennyLane(device=device), EXACT):
        values = expectations_with_gradient(
            backend, ROTATIONS, inputs, weights, (Z(0), Y(1)), gradient="parameter-shift"
        ).values
        found.append(torch.autograd.grad(values.sum(), (inputs, weights)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert len(calls) == 2
    assert calls[1] > 10 * calls[0]


def test_gradients_of_shots_are_unbiased() -> None:
    inputs = torch.full((2, 1), 0.7, dtype=torch.float64, requires_grad=True)
    circuit = Circuit(1, (Op("ry", (0,), (Input(0),)),))
    backend = PennyLane(device="lightning.qubit", shots=5000)
    estimate = expectations_with_gradient(backend, circuit, inputs, None, (Z(0),), seed=3)
    (slope,) = torch.autograd.grad(estimate.values.sum(), inputs)
    assert (slope + math.sin(0.7)).abs().max() < ALPHA_1E_6 / math.sqrt(2 * 5000)


def test_derivatives_of_higher_order() -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Weight(0),)),))
    weights = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    values = PennyLane().expectations(circuit, None, weights, (Z(0),)).values
    (first,) = torch.autograd.grad(values.sum(), weights, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), weights)
    assert second.item() == pytest.approx(-math.cos(0.4))
    values = PennyLane(device="lightning.qubit").expectations(circuit, None, weights, (Z(0),)).values
    (first,) = torch.autograd.grad(values.sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        first.sum().backward()


def test_resets_take_wires() -> None:
    assert deferred(Circuit(2, (*Reset(0), Op("x", (0,)), *Reset((0, 1)))), 3)[1] == (2, 1)
    busy = Circuit(2, tuple(op for _ in range(9) for op in (Op("h", (0,)), *Reset(0))))
    with pytest.raises(ValueError, match="2 and 9 resets"):
        PennyLane(device="default.mixed").expectations(busy, observables=(Z(0),))
    sampled = PennyLane(shots=500).samples(busy, seed=0).values
    assert sampled.shape == (1, 500, 2)
    assert (sampled == 0).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("shots", [None, 64])
def test_batches(device: str, batch: int, shots: int | None) -> None:
    backend = PennyLane(device=device, shots=shots)
    circuit = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1))))
    inputs = torch.full((batch, 1), math.pi)
    found = backend.expectations(circuit, inputs, None, (Z(0), Z(0) @ Z(1)), seed=0)
    torch.testing.assert_close(found.values, torch.tensor([[-1.0, 1.0]]).repeat(batch, 1))
    assert backend.samples(circuit, inputs, None, shots=7, seed=0).values.tolist() == [[[1, 1]] * 7] * batch
    without = backend.expectations(Circuit(1, (Op("h", (0,)),)), torch.zeros(batch, 0), None, (X(0),), seed=0)
    torch.testing.assert_close(without.values, torch.ones(batch, 1))


@pytest.mark.parametrize("device", DEVICES[:3])
def test_shots_are_honest(device: str) -> None:
    backend = PennyLane(device=device, shots=500)
    deviates: list[Tensor] = []
    for case in range(10):
        rng = np.random.default_rng(case)
        circuit = random_circuit(rng, 3, int(rng.integers(4, 12)))
        inputs, weights = random_data(rng, circuit, 3)
        found = backend.expectations(circuit, inputs, weights, _observables(3)[:4], seed=case)
        truth = EXACT.expectations(circuit, inputs, weights, _observables(3)[:4]).values
        assert (found.stderr > 0).all()
        deviates.append(((found.values - truth) / found.stderr).flatten())
    every = torch.cat(deviates)
    assert every.abs().max() < 5.8  # 120 deviates at a joint level of 1e-6
    assert 0.7 < every.std() < 1.2


@pytest.mark.parametrize("device", ["default.qubit", "lightning.qubit"])
def test_seeds_repeat_and_rows_differ(device: str) -> None:
    backend = PennyLane(device=device, shots=100)
    asked = (Circuit(1, (Op("ry", (0,), (Input(0),)),)), torch.full((6, 1), 1.5), None, (Z(0),))
    first = backend.expectations(*asked, seed=5).values
    assert torch.equal(first, backend.expectations(*asked, seed=5).values)
    assert not torch.equal(first, backend.expectations(*asked, seed=6).values)
    np.random.seed(0)  # noqa: NPY002 -- the generator that devices take by default: we must not
    once = backend.expectations(*asked).values
    np.random.seed(0)  # noqa: NPY002 -- as above
    assert not torch.equal(once, backend.expectations(*asked).values)
    assert len(set(first.flatten().tolist())) > 1


def test_shots_per_call() -> None:
    bell = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))
    found = PennyLane().expectations(bell, observables=(Z(0),), shots=50, seed=0)
    assert found.shots == 50
    assert found.stderr.item() > 0
    weights = torch.zeros(1, requires_grad=True)
    turn = Circuit(1, (Op("rx", (0,), (Weight(0),)),))
    with pytest.raises(ValueError, match="expect exact results, got shots=50"):
        PennyLane().expectations(turn, None, weights, (Z(0),), shots=50)
    rule = expectations_with_gradient(
        PennyLane(), turn, None, weights, (Z(0),), gradient="parameter-shift", shots=50, seed=0
    )
    rule.values.sum().backward()
    assert weights.grad is not None
    assert weights.grad.abs().item() < ALPHA_1E_6 / math.sqrt(2 * 50)


def test_wide_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 12 wires, got 13"):
        PennyLane().density(Circuit(14), wires=range(13))
    assert PennyLane().entropy(Circuit(14), wires=range(13)).values.item() == 0  # of the one other wire
    assert PennyLane().entropy(Circuit(14), wires=range(14)).values.item() == 0
