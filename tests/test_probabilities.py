"""The layer of Born probabilities: one distribution and one gradient on every backend, with errors where it counts.

Axis legend: b batch, i inputs, k wires asked for.
"""

import pytest
import torch
from torch import Tensor

from backends import open_backend
from circuits import Circuit, Op
from circuits.library import hardware_efficient, reuploading
from qlm.probabilities import ProbabilityLayer


def data(circuit: Circuit, batch: int = 3) -> Tensor:
    return torch.linspace(-2, 2, batch * circuit.n_inputs, dtype=torch.float64).reshape(batch, -1).requires_grad_()


def gradients(layer: ProbabilityLayer, inputs: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    found = torch.autograd.grad((out * cotangent).sum(), (inputs, layer.weights))
    return found[0], found[1]


@pytest.mark.parametrize("wires", [None, (2,), (0, 2), (2, 0, 1)])
@pytest.mark.parametrize("gradient", [None, "parameter-shift"])
def test_layer_is_born_s_rule_on_the_state(wires: tuple[int, ...] | None, gradient: str | None) -> None:
    torch.manual_seed(0)
    circuit = reuploading(3, 2)
    layer, inputs = ProbabilityLayer(circuit, wires=wires, gradient=gradient).double(), data(circuit)
    found = layer(inputs)
    state = open_backend("statevector").state(circuit, inputs, layer.weights.double()).values.reshape(-1, 2, 2, 2)
    kept = (0, 1, 2) if wires is None else wires
    rest = tuple(wire for wire in range(3) if wire not in kept)
    expected = state.abs().square().permute(0, *(wire + 1 for wire in (*kept, *rest)))
    expected = expected.reshape(len(inputs), 2 ** len(kept), -1).sum(-1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    for one, other in zip(gradients(layer, inputs, found), gradients(layer, inputs, expected), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_layer_keeps_leading_axes_and_an_empty_batch() -> None:
    layer = ProbabilityLayer(reuploading(2, 1))
    assert layer(torch.zeros(2, 5, 2)).shape == (2, 5, 4)
    assert layer(torch.zeros(0, 2)).shape == (0, 4)


def test_counted_shots_give_relative_frequencies_and_their_error() -> None:
    pytest.importorskip("qiskit_aer")
    torch.manual_seed(0)
    circuit, shots = reuploading(2, 1), 4000
    counted = ProbabilityLayer(circuit, f"aer?shots={shots}").double()
    inputs = data(circuit)
    found = counted(inputs)
    torch.testing.assert_close(found * shots, (found * shots).round(), atol=1e-9, rtol=0)
    exact = ProbabilityLayer(circuit).double()
    exact.load_state_dict(counted.state_dict())
    chances = exact(inputs).detach()
    error = (chances * (1 - chances) / shots).sqrt()
    assert bool(((found - chances).abs() < 5 * error).all())
    assert counted.report is not None
    assert counted.report.shots == shots
    assert counted.report.mean_stderr == pytest.approx(float(error.mean()), rel=0.05)
    found_slope, slope = gradients(counted, inputs, found)[1], gradients(exact, inputs, exact(inputs))[1]
    assert float((found_slope - slope).norm() / slope.norm()) < 0.2


def test_many_wires_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 10 wires, got 11"):
        ProbabilityLayer(hardware_efficient(11, 0) + Circuit(11, (Op("h", (10,)),)))
