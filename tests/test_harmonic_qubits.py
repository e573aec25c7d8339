"""Levels as damped qubits: the circuit against dense matrices, and the block against its classical twin on backends.

Axis legend: b batch, l sequence, d model width, k levels, m channels.
"""

import copy
import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from tiny_runs import losses_on_text
from torch import Tensor

from backends import open_backend
from circuits import Circuit, Op, Z
from circuits.library import generalised_damping, reuploading
from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.base import Context
from qlm.blocks.harmonic_qubits import HarmonicQubits, HarmonicQubitsConfig, LeakyLevels, QubitLevels

TAUS = (2.0, 8.0, 32.0)


def build(mode: str = "circuit", backend: str = "statevector", **config: Any) -> HarmonicQubits:
    """A block whose parameters are all away from their start."""
    torch.manual_seed(0)
    block = HarmonicQubits(6, HarmonicQubitsConfig(**{"taus": TAUS, "n_channels": 2, **config}, quantum=mode), backend)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.eval()


def trajectory(seed: int, n_steps: int, batch: int = 5) -> tuple[Tensor, Tensor]:
    """Random angles of ``generalised_damping(n_steps)`` and the polarisations (b, n_steps) of the recursion."""
    generator = torch.Generator().manual_seed(seed)
    first, *others = torch.rand(1 + 2 * n_steps, batch, generator=generator, dtype=torch.float64)
    z, angles, expected = 2 * first - 1, [torch.acos(2 * first - 1)], []
    for x, rate in zip((2 * one - 1 for one in others[::2]), others[1::2], strict=True):
        z = (1 - rate) * z + rate * x
        angles += [torch.acos(x), torch.asin(rate.sqrt())]
        expected.append(z)
    return torch.stack(angles, 1), torch.stack(expected, 1)


@pytest.mark.parametrize("backend", ["statevector", "aer", "pennylane"])
def test_a_damped_qubit_is_an_exact_leaky_integrator(backend: str) -> None:
    """Through resets: the polarisation after each of several steps of one circuit."""
    inputs, expected = trajectory(0, 3)
    for n_steps in (1, 3) if backend != "pennylane" else (1, 2):
        circuit = generalised_damping(n_steps)
        found = open_backend(backend).expectations(circuit, inputs[:, : 2 * n_steps + 1], None, (Z(0),)).values
        torch.testing.assert_close(found[:, 0], expected[:, n_steps - 1], atol=1e-10, rtol=0)


def test_the_state_stays_diagonal_and_without_dephasing_it_does_not() -> None:
    inputs, expected = trajectory(1, 3)
    circuit = generalised_damping(3)
    state = oracles.reduced(oracles.density(circuit, inputs[0].numpy(), np.zeros(0)), (0,))
    assert float(np.real(state[0, 0] - state[1, 1])) == pytest.approx(float(expected[0, -1]), abs=1e-12)
    bare = Circuit(3, tuple(op for op in circuit.ops if op.name != "cx"))
    found = open_backend("statevector").expectations(bare, inputs, None, (Z(0),)).values[:, 0]
    assert float((found - expected[:, -1]).abs().max()) > 0.05


def loop(block: HarmonicQubits, values: np.ndarray, logits: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Levels (l, k, m) of one row, by the definition."""
    levels, out = np.zeros(logits.shape[1:]), []
    for x, row in zip(values, 1 / (1 + np.exp(-logits)), strict=True):
        before, signal = levels.copy(), x
        for k, a in enumerate(row):
            target = (signal - gains[k - 1] * before[k]) / 2 if k else signal
            levels[k] = a * before[k] + (1 - a) * target
            signal = levels[k].copy()
        out.append(levels.copy())
    return np.array(out)


@pytest.mark.parametrize("mode", ["circuit", "twin"])
def test_block_equals_the_loop(mode: str) -> None:
    block = build(mode).double()
    hidden = torch.randn(2, 9, 6, dtype=torch.float64)
    with torch.no_grad():
        normed = block.norm(hidden)
        values = torch.tanh(block.mix(block.convolution(block.value(normed), None)[0]))
        logits = block.decay(normed).unflatten(2, (3, 2))
        gains = torch.sigmoid(block.prediction).numpy()
        output = block(hidden, Context())
        levels = np.array([loop(block, *rows, gains) for rows in zip(values.numpy(), logits.numpy(), strict=True)])
        read = torch.from_numpy(levels[:, :, 0] + 2 * levels[:, :, 1:].sum(2))
        expected = hidden + block.out((values + read) * torch.nn.functional.silu(block.gate(normed)))
    assert np.abs(levels).max() <= 1
    torch.testing.assert_close(output.hidden, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(output.state[0], torch.from_numpy(levels[:, -1]), atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("backend", "resets"),
    [("statevector", False), ("statevector", True), ("aer", True), ("aer", False), ("pennylane", False)],
)
def test_circuits_equal_their_twin_on_every_backend(backend: str, resets: bool) -> None:
    """In single precision, to 1e-5, with padding; also where the step's circuit keeps its resets."""
    config = {"circuit": generalised_damping().to_json()} if resets else {}
    quantum, twin = build("circuit", backend, **config), build("twin")
    twin.load_state_dict({name: one for name, one in quantum.state_dict().items() if "core" not in name})
    hidden, mask = torch.randn(2, 5, 6), torch.tensor([[False, True, True, True, True], [True] * 5])
    with torch.no_grad():
        one, other = quantum(hidden, Context(mask)), twin(hidden, Context(mask))
        torch.testing.assert_close(one.hidden, other.hidden, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.state, other.state, atol=1e-5, rtol=0)
        one = quantum(hidden[:, :2], Context(state=one.state))
        other = twin(hidden[:, :2], Context(state=other.state))
    torch.testing.assert_close(one.hidden, other.hidden, atol=1e-5, rtol=0)


def test_gradients_equal_the_twins() -> None:
    gradients = []
    for mode in ("circuit", "twin"):
        block, hidden = build(mode).double(), torch.linspace(-1, 1, 60, dtype=torch.float64).sin().reshape(2, 5, 6)
        hidden.requires_grad_()
        block(hidden, Context()).hidden.square().sum().backward()
        named = {name: one.grad for name, one in block.named_parameters() if one.requires_grad}
        gradients.append({"hidden": hidden.grad, **named})
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        torch.testing.assert_close(one, gradients[1][name], atol=1e-9, rtol=1e-9, msg=name)


def test_poles_and_extreme_rates_have_finite_gradients() -> None:
    block = build()
    with torch.no_grad():
        block.mix.weight.mul_(1e4)  # tanh of it is 1 to the bit
        block.decay.weight.mul_(1e4)
    hidden = torch.randn(1, 6, 6, requires_grad=True)
    block(hidden, Context()).hidden.square().sum().backward()
    for parameter in block.parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


def test_controls_and_report() -> None:
    hidden, mask = torch.randn(2, 4, 6), torch.tensor([[False, False, True, True], [True] * 4])
    circuit, twin, off = build(), build("twin"), build("off")
    for block, executions in ((circuit, 6 * 3 * 2), (twin, 0), (off, 0), (build("frozen"), 36)):
        block(hidden, Context(mask))
        assert block.report is not None
        assert (block.report.tokens, block.report.executions, block.report.shots) == (6, executions, None)
        assert (block.report.output_share > 0) is (block is not off)
    assert isinstance(circuit.core, QubitLevels)
    assert isinstance(twin.core, LeakyLevels)
    assert circuit.core.n_parameters == twin.core.n_parameters == 0
    levels = build("separable")(hidden, Context()).state[0]
    assert float(levels.detach().abs().max()) < 1e-6  # nothing reaches the qubits


def test_shots_reach_the_report() -> None:
    counted, exact = build(backend="aer?shots=2000"), build()
    counted.load_state_dict(exact.state_dict())
    hidden = torch.randn(1, 2, 6)
    torch.manual_seed(0)
    difference = counted(hidden, Context()).state[0] - exact(hidden, Context()).state[0]
    assert counted.report is not None
    assert counted.report.shots == 2000
    assert 0 < float(difference.detach().abs().max()) < 5 * 2000**-0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"taus": ()}, "positive taus and taps >= 1"),
        ({"taps": 0}, "positive taus and taps >= 1"),
        ({"n_channels": 0}, "n_channels of at least 1, got 0"),
        ({"quantum": "twins"}, "did you mean 'twin'"),
        ({"circuit": reuploading(2, 1).to_json()}, "3 inputs and no weights, got 2 and 6"),
        ({"circuit": Circuit(1, (Op("x", (0,)),)).to_json()}, "3 inputs and no weights, got 0 and 0"),
    ],
)
def test_bad_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HarmonicQubitsConfig(**config)


def test_a_model_of_it_learns_real_text_as_its_twin_does() -> None:
    """The same start, the same batches: the two go the same way, and use their levels."""
    torch.manual_seed(0)
    entry = {"kind": "harmonic_qubits", "taus": [2.0, 8.0], "n_channels": 8}
    quantum = QLMForCausalLM(QLMConfig(d_model=16, blocks=[entry]))
    twin = QLMForCausalLM(QLMConfig(d_model=16, blocks=[{**entry, "quantum": "twin"}]))
    twin.load_state_dict(copy.deepcopy(quantum.state_dict()), strict=False)
    losses = {"quantum": losses_on_text(quantum, 30, 12, 16, 3e-2), "twin": losses_on_text(twin, 30, 12, 16, 3e-2)}
    assert losses["quantum"][0] == pytest.approx(math.log(258), abs=0.2)
    assert losses["quantum"][0] - sum(losses["quantum"][-5:]) / 5 > 1.2
    assert losses["quantum"] == pytest.approx(losses["twin"], abs=0.02)
    (report,) = quantum.reports().values()
    assert report.output_share > 0.01
