"""The block: what it computes in each mode, what it reports, and that it trains on real text beside its twin.

Axis legend: b batch, l sequence, d model width.
"""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from tiny_runs import python_docs
from torch import nn

from circuits import Circuit, Z
from circuits.library import angle_encoding, reuploading
from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm.blocks.base import Context
from qlm.blocks.time_crystal import LeakyTwin, TimeCrystal, TimeCrystalConfig, time_crystal_circuit
from qlm.controls import CircuitCore
from qlm.data import RandomByteWindows


def build(d_model: int = 8, backend: str = "statevector", **config: Any) -> TimeCrystal:
    torch.manual_seed(0)
    return TimeCrystal(d_model, TimeCrystalConfig(**{"n_wires": 3, "periods": 3, **config}), backend)


@pytest.mark.parametrize("periods", [1, 2, 5])
def test_update_is_the_circuits_readout_against_dense_matrices(periods: int) -> None:
    block = build(periods=periods).double().eval()
    hidden = torch.randn(1, 4, 8, dtype=torch.float64)
    output = block(hidden, Context()).hidden.detach()
    assert block.circuit_core is not None
    angles = (math.pi * torch.tanh(block.encode(block.norm(hidden))))[0].detach().numpy()
    weights = block.circuit_core.layer.weights.detach().double().numpy()
    found = oracles.expectations(block.circuit, angles, weights, [Z(wire) for wire in range(3)])
    expected = hidden[0].numpy() + (-1) ** periods * found @ block.decode.weight.detach().numpy().T
    np.testing.assert_allclose(output[0].numpy(), expected, atol=1e-12)


def test_circuit_is_an_encoding_and_a_chain_in_the_time_crystal_phase() -> None:
    circuit = time_crystal_circuit(4, 2)
    assert circuit.prefix(4) == angle_encoding(4)
    assert (circuit.n_inputs, circuit.n_weights) == (4, 8)
    angles = circuit.angles(np.zeros((1, 4)), np.zeros(8))[0, 4:]
    kicks, couplings, fields = angles[:4], angles[4:7], angles[7:11]
    np.testing.assert_allclose(kicks, math.pi)
    assert np.all((couplings >= -0.75 * math.pi) & (couplings <= -0.25 * math.pi))
    assert np.all(np.abs(fields) <= math.pi)
    assert np.ptp(couplings) > 0.2  # disordered
    moved = circuit.angles(np.zeros((1, 4)), np.full(8, 0.1))[0, 4:]
    np.testing.assert_allclose(moved - angles, 0.1)  # a weight is the angle of a gate


@pytest.mark.parametrize("quantum", ["circuit", "separable"])
def test_a_perfect_kick_keeps_everything(quantum: str) -> None:
    """Weight 0 is the kick's distance from a full flip: there z = cos x, whatever couplings and fields."""
    block = build(quantum=quantum).double().eval()
    core = block.circuit_core
    assert core is not None
    with torch.no_grad():
        core.layer.weights.normal_(0.0, 1.0)
        core.layer.weights[0] = 0.0
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    output = block(hidden, Context()).hidden
    expected = hidden + torch.cos(block.angles(hidden)) @ block.decode.weight.T
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)  # weights are float32
    assert block.report is not None
    assert block.report.kept == pytest.approx(1, abs=1e-6)
    assert block.report.output_share == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        core.layer.weights[0] = math.pi / 2  # half a flip: the chain melts
    block(hidden, Context())
    assert block.report.kept < 0.5
    assert block.report.output_share > 0.3


def test_twin_is_its_formula_and_stays_in_bounds() -> None:
    torch.manual_seed(0)
    twin = LeakyTwin(3, 3, 6)
    with torch.no_grad():
        twin.leak.normal_(0.0, 2.0)
        twin.coupling.normal_(0.0, 3.0)
    angles = math.pi * (2 * torch.rand(50, 3) - 1)
    leak = 1 / (1 + np.exp(-twin.leak.detach().numpy()))
    units = np.cos(angles.numpy())
    for _ in range(3):
        neighbours = np.stack([units[:, (k + 1) % 3] for k in range(3)], 1)
        units = -((1 - leak) * units + leak * np.tanh(twin.coupling.detach().numpy() * neighbours))
    found = twin(angles).detach().numpy()
    np.testing.assert_allclose(found, -units, atol=1e-6)
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize("n_wires", [2, 3, 4, 6])
def test_twin_has_the_circuits_size(n_wires: int) -> None:
    twin, core = build(n_wires=n_wires, quantum="twin").core, build(n_wires=n_wires).core
    assert isinstance(twin, LeakyTwin)
    assert isinstance(core, CircuitCore)
    assert twin.n_parameters == core.n_parameters == 2 * n_wires
    assert twin.is_twin
    assert not core.is_twin


def test_report_counts_real_tokens_alone() -> None:
    mask = torch.tensor([[False, False, True, True], [True] * 4, [False] * 4])
    hidden = torch.randn(3, 4, 8)
    for quantum, per_token in (("circuit", 1), ("frozen", 1), ("separable", 1), ("twin", 0), ("off", 0)):
        block = build(quantum=quantum).eval()
        output = block(hidden, Context(mask)).hidden
        report = block.report
        assert report is not None
        assert (report.tokens, report.executions, report.shots) == (6, 6 * per_token, None)
        assert torch.equal(output[~mask], hidden[~mask])
        assert not torch.equal(output[mask], hidden[mask])
        assert (report.output_share == 0) is (quantum == "off")
        assert (report.kept == 1) is (quantum == "off")
        block(hidden, Context(torch.zeros(3, 4, dtype=torch.bool)))
        assert block.report is not None
        assert (block.report.tokens, block.report.kept, block.report.output_share) == (0, 0.0, 0.0)


def test_a_fresh_register_is_a_time_crystal() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        block = TimeCrystal(16, TimeCrystalConfig()).eval()
        block(torch.randn(4, 25, 16), Context())
        assert block.report is not None
        assert 0.9 < block.report.kept <= 1


def test_shots_reach_the_report_and_the_update() -> None:
    exact, counted = build().eval(), build(backend="aer?shots=4000").eval()
    hidden = torch.randn(1, 3, 8)
    torch.manual_seed(1)
    difference = counted(hidden, Context()).hidden - exact(hidden, Context()).hidden
    assert counted.report is not None
    assert counted.report.shots == 4000
    assert (
        0
        < float(difference.detach().abs().max())
        < 5 * 4000**-0.5 * float(exact.decode.weight.detach().abs().sum(1).max())
    )


def test_entropy_of_the_register_can_be_measured() -> None:
    torch.manual_seed(0)
    entry = {"kind": "time_crystal", "n_wires": 3, "periods": 2}
    model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[entry]))
    table = measure_entropy(model, "three")
    assert len(table) == 5 * 3
    assert max(table.select(control="trained").entropy) > 0.01


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_wires": 1}, "n_wires of at least 2, got 1"),
        ({"periods": 0}, "periods of at least 1, got 0"),
        ({"quantum": "twins"}, "did you mean 'twin'"),
        ({"circuit": Circuit(2).to_json()}, "one input each, got 2 wires and 0 inputs"),
    ],
)
def test_bad_configs_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeCrystalConfig(**config)


def test_twin_of_another_circuit_is_refused_where_it_cannot_match() -> None:
    config = TimeCrystalConfig(circuit=reuploading(3, 2).to_json(), quantum="twin")
    with pytest.raises(ValueError, match="a leaky twin expects a circuit of 6 weights, got 18"):
        TimeCrystal(8, config)
    assert TimeCrystal(8, TimeCrystalConfig(circuit=reuploading(3, 2).to_json())).circuit.n_weights == 18


@pytest.mark.parametrize("quantum", ["circuit", "twin"])
def test_a_model_with_it_learns_real_text(quantum: str) -> None:
    torch.manual_seed(0)
    model = QLMForCausalLM(
        QLMConfig(
            d_model=24,
            blocks=[{"kind": "harmonic", "taus": [4.0]}, {"kind": "time_crystal", "n_wires": 3, "periods": 3}],
            quantum=quantum,
        )
    )
    core = next(layer.core for layer in model.modules() if isinstance(layer, TimeCrystal))
    assert isinstance(core, nn.Module)
    before = {name: parameter.detach().clone() for name, parameter in core.named_parameters()}
    losses = train(model, steps=200)
    assert sum(losses[:5]) / 5 - sum(losses[-20:]) / 20 > 2.0
    for name, parameter in core.named_parameters():
        assert float((parameter.detach() - before[name]).abs().min()) > 1e-3, name
    block = next(layer for layer in model.modules() if isinstance(layer, TimeCrystal))
    assert block.report is not None
    assert block.report.output_share > 0.01


def train(model: QLMForCausalLM, steps: int) -> list[float]:
    """Losses in nats per byte on windows of the embedded corpus."""
    windows = RandomByteWindows(python_docs().train, context=32, n_windows=8 * steps, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    losses = []
    for step in range(steps):
        items = [windows[8 * step + k] for k in range(8)]
        batch = {name: torch.stack([item[name] for item in items]) for name in ("input_ids", "labels")}
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
