"""The quantum natural gradient as an optimizer: its direction, what it is invariant to, where it is faster."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backends import open_backend
from backends.fubini_study import block_metric
from circuits import Circuit, Input, Op, PauliSum, Reset, Weight, X, Z
from circuits.library import reuploading
from qlm import QLMConfig, QLMForCausalLM
from qlm.natural_gradient import QuantumNaturalGradient, natural_direction
from qlm.quantum import QuantumLayer


def layer(circuit: Circuit, *observables: PauliSum, seed: int = 0, **changes: Any) -> QuantumLayer:
    torch.manual_seed(seed)
    return QuantumLayer(circuit, observables or (Z(0),), **changes).double()


def descend(model: QuantumLayer, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    energies = []
    for _ in range(steps):
        optimizer.zero_grad()
        energy = model(torch.zeros(1, 0, dtype=torch.float64)).sum()
        energy.backward()
        optimizer.step()
        energies.append(float(energy.detach()))
    return energies


def steps_to(energies: list[float], goal: float) -> int:
    return next((step for step, energy in enumerate(energies) if energy < goal), len(energies))


def test_a_step_solves_metric_times_direction_equals_gradient() -> None:
    model = layer(reuploading(2, 2), Z(0), X(1))
    x = torch.randn(5, 2, dtype=torch.float64)
    optimizer = QuantumNaturalGradient(model, lr=0.3, damping=0.05)
    model(x).square().sum().backward()
    before, gradient = model.weights.detach().clone(), model.weights.grad
    assert gradient is not None
    g = block_metric(model.backend, model.circuit, x, before).values
    optimizer.step()
    direction = (before - model.weights.detach()) / 0.3
    torch.testing.assert_close(g @ direction + 0.05 * direction, gradient, atol=1e-10, rtol=0)


def random_layers(seed: int, n_wires: int = 4, depth: int = 4) -> tuple[Circuit, Tensor]:
    """RY(pi/4) on each wire, then layers of RX, RY or RZ at random and a ladder of CZ; and random weights."""
    rng = np.random.default_rng(seed)
    ops = [Op("ry", (wire,), (math.pi / 4,)) for wire in range(n_wires)]
    for layer in range(depth):
        names = rng.choice(["rx", "ry", "rz"], n_wires)
        ops += [Op(str(name), (wire,), (Weight(n_wires * layer + wire),)) for wire, name in enumerate(names)]
        ops += [Op("cz", (wire, wire + 1)) for wire in range(n_wires - 1)]
    return Circuit(n_wires, tuple(ops)), torch.tensor(rng.uniform(0, 2 * math.pi, n_wires * depth))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_layers_reach_the_least_energy_in_fewer_steps_than_gradient_descent(seed: int) -> None:
    """Stokes et al. 2020, section 4: energy Z_0 Z_1, whose minimum is -1, at their rate 0.05. A free spin has g = 1/4,
    so gradient descent is given four times that rate too, at which both move it equally."""
    circuit, start = random_layers(seed)

    def needed(make: Callable[[QuantumLayer], torch.optim.Optimizer]) -> int:
        model = layer(circuit, Z(0) @ Z(1))
        with torch.no_grad():
            model.weights.copy_(start)
        return steps_to(descend(model, make(model), 110), -0.95)

    natural = needed(lambda model: QuantumNaturalGradient(model, lr=0.05))
    assert natural < 50
    assert natural < 0.5 * needed(lambda model: torch.optim.SGD(model.parameters(), lr=0.05))
    assert natural < needed(lambda model: torch.optim.SGD(model.parameters(), lr=0.2))


def test_a_scale_on_a_weight_does_not_change_the_path_of_the_state() -> None:
    """RY(w) and RY(10 w) from the same angle: equal angles after every step, which gradient descent does not give."""

    def angles(scale: float, optimizer: Callable[[QuantumLayer], torch.optim.Optimizer]) -> list[float]:
        model = layer(Circuit(1, (Op("ry", (0,), (Weight(0, scale=scale),)),)))
        with torch.no_grad():
            model.weights.fill_(0.7 / scale)
        own, path = optimizer(model), []
        for _ in range(5):
            descend(model, own, 1)
            path.append(scale * float(model.weights.detach()))
        return path

    natural = [angles(scale, lambda model: QuantumNaturalGradient(model, lr=0.05, damping=0.0)) for scale in (1, 10)]
    plain = [angles(scale, lambda model: torch.optim.SGD(model.parameters(), lr=0.05)) for scale in (1, 10)]
    assert natural[0] == pytest.approx(natural[1], abs=1e-9)
    assert natural[0][0] == pytest.approx(0.7 + 0.05 * 4 * math.sin(0.7), abs=1e-9)  # dL/dw = -sin w, g = 1/4
    assert abs(plain[0][-1] - plain[1][-1]) > 0.5


def test_directions_that_do_not_move_the_state_are_left_out_without_damping() -> None:
    """RZ on |0> is a phase; its share of a gradient, which only noise can give, is dropped."""
    model = layer(Circuit(1, (Op("rz", (0,), (Weight(0),)), Op("ry", (0,), (Weight(1),)))))
    direction = natural_direction(model, torch.zeros(1, 0, dtype=torch.float64), torch.ones(2), damping=0.0)
    assert direction.tolist() == pytest.approx([0.0, 4.0])


def test_large_damping_is_gradient_descent() -> None:
    one, other = (layer(reuploading(2, 1), seed=4) for _ in range(2))
    natural = QuantumNaturalGradient(one, lr=1e6 * 0.1, damping=1e6)
    plain = torch.optim.SGD(other.parameters(), lr=0.1)
    for model, optimizer in ((one, natural), (other, plain)):
        model(torch.ones(3, 2, dtype=torch.float64)).sum().backward()
        optimizer.step()
    torch.testing.assert_close(one.weights, other.weights, atol=1e-6, rtol=0)


def test_the_metric_is_taken_at_a_bounded_part_of_the_last_call_with_gradients() -> None:
    model = layer(reuploading(2, 1))
    optimizer = QuantumNaturalGradient(model, lr=1.0, damping=1e-3, samples=4)
    x = torch.randn(2, 7, 2, dtype=torch.float64)
    loss = model(x).sum()
    with torch.no_grad():
        model(torch.zeros(3, 2, dtype=torch.float64))  # a look at validation data in between
    model(torch.zeros(0, 2, dtype=torch.float64))  # no token came
    loss.backward()
    before, gradient = model.weights.detach().clone(), model.weights.grad
    assert gradient is not None
    expected = natural_direction(model, x.flatten(0, 1)[[0, 9, 4, 13]], gradient, 1e-3)  # steps of 9 round 14 rows
    whole = natural_direction(model, x.flatten(0, 1), gradient, 1e-3)
    optimizer.step()
    torch.testing.assert_close(before - model.weights.detach(), expected, atol=1e-12, rtol=0)
    assert float((expected - whole).abs().max()) > 1e-3


def test_a_model_trains_with_two_optimizers() -> None:
    """Circuits by their geometry, everything else by AdamW; the loss of a small text falls and the circuit moves."""
    torch.manual_seed(0)
    config = QLMConfig(d_model=16, blocks=[{"kind": "quantum_router", "n_wires": 2, "depth": 2, "budget": 0.5}])
    model = QLMForCausalLM(config).train()
    quantum = QuantumNaturalGradient(model, lr=0.02, damping=0.01, samples=16)
    classical = torch.optim.AdamW(quantum.others(model), lr=1e-2)
    (own,) = (part for _, part in model.quantum_layers())
    assert sum(p.numel() for p in quantum.others(model)) + own.weights.numel() == sum(
        p.numel() for p in model.parameters()
    )
    start = own.weights.detach().clone()
    ids = torch.tensor([list(b"the cat sat on the mat, the dog on the log. ")])
    losses = []
    for _ in range(40):
        loss = model(ids, labels=ids).loss
        loss.backward()
        for optimizer in (quantum, classical):
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 1.5
    assert float((own.weights.detach() - start).abs().max()) > 1e-3


def test_state_and_schedules_are_torchs_own() -> None:
    model = layer(reuploading(2, 1))
    optimizer = QuantumNaturalGradient(model, lr=0.1, damping=0.02)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    optimizer.step()
    schedule.step()
    state = copy.deepcopy(optimizer.state_dict())
    other = QuantumNaturalGradient(copy.deepcopy(model), lr=7.0)
    other.load_state_dict(state)
    assert (other.param_groups[0]["lr"], other.param_groups[0]["damping"]) == (0.05, 0.02)
    assert pickle.loads(pickle.dumps(model)).circuit == model.circuit


def test_a_copy_of_a_model_does_not_feed_the_optimizer_of_the_first() -> None:
    model = layer(reuploading(2, 1))
    optimizer = QuantumNaturalGradient(model, lr=0.1)
    x = torch.full((1, 2), 0.3, dtype=torch.float64)
    loss = model(x).sum()
    copy.deepcopy(model)(torch.ones(1, 2, dtype=torch.float64))
    loss.backward()
    before, gradient = model.weights.detach().clone(), model.weights.grad
    assert gradient is not None
    expected = natural_direction(model, x, gradient, 1e-3)
    optimizer.step()
    torch.testing.assert_close(before - model.weights.detach(), 0.1 * expected)


def test_a_closure_and_a_layer_without_gradient() -> None:
    used, unused = layer(reuploading(2, 1)), layer(reuploading(2, 1))
    optimizer = QuantumNaturalGradient([used, unused], lr=0.1)
    before = unused.weights.detach().clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = used(torch.ones(1, 2, dtype=torch.float64)).sum()
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert torch.equal(unused.weights, before)
    optimizer.close()
    assert not used._forward_hooks


def test_counted_shots_reach_the_ground_state_too_and_repeat_themselves() -> None:
    pytest.importorskip("qiskit_aer")
    circuit = Circuit(2, (Op("ry", (0,), (Weight(0),)), Op("ry", (1,), (Weight(1),)), Op("cx", (0, 1))))
    energy = Z(0) @ Z(1) + 0.5 * X(0)

    def run(steps: int) -> list[float]:
        model = layer(circuit, energy, backend="aer?shots=2000", seed=1)
        with torch.no_grad():
            model.weights.copy_(torch.tensor([0.5, 0.4]))
        descend(model, QuantumNaturalGradient(model, lr=0.2, damping=0.02), steps)
        exact = open_backend("statevector").expectations(circuit, None, model.weights.detach(), (energy,))
        return exact.values[0].tolist()

    matrix = np.diag([1.0, -1, -1, 1]) + 0.5 * np.kron([[0, 1], [1, 0]], np.eye(2))
    assert run(12)[0] < float(np.linalg.eigvalsh(matrix)[0]) + 0.1
    assert run(2) == run(2)


class _Resetting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = QuantumLayer(Circuit(1, (Op("rx", (0,), (Weight(0),)), *Reset((0,)))), (Z(0),))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: QuantumNaturalGradient(nn.Linear(1, 1)), ValueError, "QuantumLayer with trainable weights, got none"),
        (lambda: QuantumNaturalGradient(cast(Any, nn.Linear(1, 1).parameters())), TypeError, "not its parameters"),
        (lambda: QuantumNaturalGradient(cast(Any, 3)), TypeError, "expects a module or a list of them, got int"),
        (lambda: QuantumNaturalGradient(layer(reuploading(1, 1)), lr=-1.0), ValueError, "lr of at least 0, got -1.0"),
        (lambda: QuantumNaturalGradient(layer(reuploading(1, 1)), damping=math.nan), ValueError, "damping of at least"),
        (lambda: QuantumNaturalGradient(layer(reuploading(1, 1)), samples=0), ValueError, "positive number of samples"),
        (lambda: QuantumNaturalGradient(_Resetting()), ValueError, "expects a unitary circuit, got a reset"),
        (
            lambda: QuantumNaturalGradient(layer(Circuit(1, (Op("rx", (0,), (Input(0),)),)))),
            ValueError,
            "got none; a twin or a frozen circuit",
        ),
    ],
)
def test_what_is_wrong_is_said(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_step_before_any_call_is_refused() -> None:
    model = layer(reuploading(2, 1))
    optimizer = QuantumNaturalGradient(model)
    model.weights.grad = torch.ones_like(model.weights)
    with pytest.raises(ValueError, match="expects a forward call of layer 'quantum' before a step"):
        optimizer.step()


def test_samples_are_spread_over_positions_and_inputs_may_be_named() -> None:
    layer = QuantumLayer(reuploading(2, 1), (Z(0),))
    optimizer = QuantumNaturalGradient(layer, samples=64)
    positions = torch.arange(64.0)[None, :, None].expand(64, 64, 2)
    layer(inputs=positions)
    (watch,) = optimizer._watches
    assert watch.inputs is not None
    assert len(watch.inputs) == 64
    assert len(watch.inputs[:, 0].unique()) > 30
    optimizer.close()
