"""A circuit as a layer: its values, gradients, seeds, reports and what it stores.

Axis legend: b batch, i inputs, o observables.
"""

import copy
import math
import pickle

import numpy as np
import oracles
import pytest
import torch
from torch import nn

from backends import Backend, open_backend
from backends.gradients import SPSA, ParameterShift
from circuits import Circuit, Input, Op, Weight, X, Y, Z
from circuits.library import hardware_efficient, reuploading
from qlm import QuantumLayer
from qlm.quantum import LayerReport

BELL = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("rx", (1,), (Weight(0, scale=2.0),)), Op("cx", (0, 1))))


def layer(circuit: Circuit = BELL, backend: str | Backend = "statevector", **options: object) -> QuantumLayer:
    torch.manual_seed(0)
    return QuantumLayer(circuit, (Z(0), Z(0) @ Z(1)), backend, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_by_hand(dtype: torch.dtype) -> None:
    """RY(x) on wire 0, RX(2 w) on wire 1, CNOT: <Z0> = cos x, <Z0 Z1> = <Z1 before the CNOT> = cos 2w."""
    module = layer().to(dtype)
    with torch.no_grad():
        module.weights.fill_(0.4)
    x = torch.linspace(-3, 3, 7, dtype=dtype)[:, None]
    values = module(x)
    expected = torch.cat((x.cos(), torch.full_like(x, math.cos(0.8))), 1)
    assert values.dtype == dtype
    torch.testing.assert_close(values, expected, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)


def test_values_against_dense_matrices() -> None:
    torch.manual_seed(0)
    circuit, observables = reuploading(3, 2), (Z(0), 0.5 * X(1) + Y(2), Z(0) @ X(2))
    module = QuantumLayer(circuit, observables).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = oracles.expectations(circuit, x.numpy(), module.weights.detach().numpy(), observables)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)


def test_leading_axes_are_kept_as_in_a_linear_layer() -> None:
    module = QuantumLayer(reuploading(2, 1), (Z(0), Z(1), X(0)))
    x = torch.randn(2, 3, 4, 2)
    values = module(x)
    assert values.shape == (2, 3, 4, 3)
    torch.testing.assert_close(values.reshape(-1, 3), module(x.reshape(-1, 2)))
    assert module.report == LayerReport(24, None, 0.0)
    assert nn.Sequential(nn.Linear(5, 2), module, nn.Linear(3, 1))(torch.randn(6, 5)).shape == (6, 1)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0, 2)])
def test_batch_of_nothing_touches_the_weights(shape: tuple[int, ...]) -> None:
    module = QuantumLayer(reuploading(2, 1), (Z(0),))
    values = module(torch.zeros(shape))
    assert values.shape == (*shape[:-1], 1)
    values.sum().backward()
    assert module.weights.grad is not None
    assert torch.equal(module.weights.grad, torch.zeros(6))
    assert module.report == LayerReport(0, None, 0.0)


def test_circuit_without_inputs() -> None:
    module = QuantumLayer(hardware_efficient(2, 1), (Z(0),))
    values = module(torch.zeros(3, 0))
    assert values.shape == (3, 1)
    assert torch.equal(values[0], values[2])


def test_integers_are_angles_too() -> None:
    """Their values are no integers: nothing is cut off."""
    with torch.no_grad():
        torch.testing.assert_close(layer()(torch.tensor([[1]]))[0, 0], torch.tensor(math.cos(1)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gradient", ["parameter-shift", ParameterShift(max_batch=3)])
def test_shift_rule_equals_the_backends_own_gradient(gradient: str | ParameterShift) -> None:
    torch.manual_seed(0)
    own = QuantumLayer(reuploading(2, 2), (Z(0), X(0) @ Z(1))).double()
    shifted = QuantumLayer(reuploading(2, 2), (Z(0), X(0) @ Z(1)), gradient=gradient).double()
    shifted.load_state_dict(own.state_dict())
    x = torch.randn(5, 2, dtype=torch.float64)
    cotangent = torch.randn(5, 2, dtype=torch.float64)
    gradients = []
    for module in (own, shifted):
        inputs = x.clone().requires_grad_()
        module(inputs).backward(cotangent)
        gradients.append((inputs.grad, module.weights.grad))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
        assert one is not None
        assert float(one.abs().min()) > 1e-6


def test_training_a_layer_reaches_its_target() -> None:
    module = layer()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(150):
        loss = (module(torch.zeros(1, 1))[0, 1] - 0.3).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(math.cos(2 * module.weights.item())) == pytest.approx(0.3, abs=0.01)


def test_entropy_of_the_layers_state() -> None:
    """Angles pi/2 on a Bell circuit entangle as far as cos 2w = 1 allows: with w = 0, S = ln 2; with x = 0, none."""
    module = layer(spread=0.0)
    entropy = module.entropy(torch.tensor([[math.pi / 2], [0.0]]), (0,))
    torch.testing.assert_close(entropy.values.detach(), torch.tensor([math.log(2), 0.0]), atol=1e-6, rtol=0)
    renyi = module.entropy(torch.tensor([[1.0]]), (0,), "renyi2").values.detach()
    purity = math.cos(0.5) ** 4 + math.sin(0.5) ** 4
    torch.testing.assert_close(renyi, torch.tensor([-math.log(purity)]), atol=1e-6, rtol=0)


def test_fresh_weights() -> None:
    torch.manual_seed(0)
    module = QuantumLayer(reuploading(10, 30), (Z(0),))
    spread = float(module.weights.detach().std())
    assert abs(spread - 0.1) < 4 * 0.1 / math.sqrt(2 * 900)
    still = QuantumLayer(reuploading(10, 30), (Z(0),), spread=0.0)
    assert torch.equal(still.weights, torch.zeros(900))
    still.reset_parameters()
    assert torch.equal(still.weights, torch.zeros(900))


def test_only_weights_are_stored() -> None:
    module = layer()
    assert list(module.state_dict()) == ["weights"]
    other = QuantumLayer(BELL, (Z(0), Z(0) @ Z(1)))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(torch.ones(1, 1)), module(torch.ones(1, 1)))


def test_weights_are_read_when_the_layer_runs() -> None:
    """A layer that captured them once would answer with stale ones after a checkpoint is read."""
    module, x = layer(), torch.ones(1, 1)
    before = module(x)
    with torch.no_grad():
        module.weights.add_(0.5)
    assert float((module(x) - before).detach().abs().max()) > 0.05
    module.weights = nn.Parameter(torch.zeros(1))
    torch.testing.assert_close(module(x).detach()[0, 1], torch.tensor(1.0))


def test_copies_run_alone() -> None:
    module = layer()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(torch.ones(2, 1)), module(torch.ones(2, 1)))
        assert twin.backend == module.backend
        assert twin.circuit == module.circuit
        with torch.no_grad():
            twin.weights.add_(1)
        assert not torch.equal(twin.weights, module.weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_leaves_the_weights_alone(dtype: torch.dtype) -> None:
    module = layer()
    before = module.weights.detach().clone()
    for cast in (module.to(dtype), module.half(), module.bfloat16()):
        assert cast.weights.dtype == torch.float32
        assert torch.equal(cast.weights, before)
    x = torch.tensor([[0.5]], dtype=dtype)
    values = module(x)
    assert values.dtype == dtype
    torch.testing.assert_close(values[0, 0].float().detach(), torch.tensor(math.cos(0.5)), atol=5e-3, rtol=0)
    assert module.double().weights.dtype == torch.float64


def test_autocast_runs_in_full_precision() -> None:
    module, x = layer(), torch.tensor([[0.7]])
    with torch.autocast("cpu", torch.bfloat16):
        values = module(x)
    torch.testing.assert_close(values, module(x), atol=0, rtol=0)


def test_a_bad_angle_names_the_layer_and_its_place() -> None:
    module = layer()
    module.label = "layers.3.core.layer"
    with pytest.raises(
        ValueError, match=r"^layer 'layers.3.core.layer': inputs expect finite .* nan .* index \(1, 0\)"
    ):
        module(torch.tensor([[0.0], [math.nan]]))
    with torch.no_grad():
        module.weights[0] = math.inf
    with pytest.raises(ValueError, match=r"^layer 'layers.3.core.layer': weights expect finite .* inf .* index \(0,\)"):
        module(torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"^layer 'layers.3.core.layer': weights expect finite"):
        module.entropy(torch.zeros(1, 1), (0,))


def test_wrong_shapes_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inputs expect shape \(batch, 1\), got \(2, 3\)"):
        layer()(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"inputs expect shape \(batch, 1\), got \(1,\)"):
        layer()(torch.zeros(1))
    with pytest.raises(ValueError, match="did you mean 'statevector'"):
        layer(backend="statevectr")
    with pytest.raises(ValueError, match="did you mean 'parameter-shift'"):
        layer(gradient="parameter-shft")


def test_string_and_instance_are_the_same_backend() -> None:
    opened = open_backend("statevector")
    assert layer(backend=opened).backend is opened
    assert layer(backend="statevector").backend == opened
    assert "backend='statevector'" in repr(layer())
    assert "n_inputs=1, n_weights=1, n_observables=2" in repr(layer())


def test_shot_backend_repeats_under_torchs_seed() -> None:
    pytest.importorskip("qiskit_aer")
    module, x = layer(backend="aer?shots=100"), torch.full((3, 1), 0.9)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat((module(x), module(x)), 1).detach()

    first = run(1)
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))
    assert not torch.equal(first[:, :2], first[:, 2:])  # each call draws a seed of its own
    assert isinstance(module.report, LayerReport)
    assert (module.report.executions, module.report.shots) == (3, 100)
    expected = math.sqrt((1 - math.cos(0.9) ** 2) / 100)
    assert 0 < module.report.mean_stderr < expected
    sigma = torch.tensor([math.sin(0.9), math.sin(2 * float(module.weights.detach()))]) / 10
    exact = torch.tensor([math.cos(0.9), math.cos(2 * float(module.weights.detach()))])
    assert bool(((first[:, :2] - exact).abs() < 5 * sigma + 1e-2).all())


def test_shot_backend_learns_by_parameter_shift() -> None:
    """Aer has no gradient of its own: the rule's is unbiased, and repeats under torch's seed."""
    pytest.importorskip("qiskit_aer")
    module = layer(backend="aer?shots=2000")
    with torch.no_grad():
        module.weights.fill_(0.4)
    torch.manual_seed(3)
    module(torch.full((4, 1), 0.9)).sum(0)[1].backward()
    assert module.weights.grad is not None
    # d cos(2w)/dw = -2 sin 2w per sample; each shifted mean has an error of at most 1/sqrt(2000), four samples add.
    assert float(module.weights.grad) == pytest.approx(-8 * math.sin(0.8), abs=5 * 2 * math.sqrt(4 * 2 / 4 / 2000))


def test_spsa_is_accepted() -> None:
    module = layer(gradient=SPSA(directions=64, step=0.05))
    torch.manual_seed(0)
    with torch.no_grad():
        module.weights.fill_(0.4)
    module(torch.full((1, 1), 0.0))[0, 1].backward()
    assert module.weights.grad is not None
    assert float(module.weights.grad) == pytest.approx(-2 * math.sin(0.8), abs=0.01)
