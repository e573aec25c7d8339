"""The amplified memory: what it adds to the stream, its twin, what it counts, and that it learns real text.

Axis legend: b batch, l sequence, d model width, m tokens, s slots.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from backends.base import Request
from backends.estimate import Estimate
from backends.statevector import Statevector
from circuits import Circuit
from circuits.library import amplification, amplitude_loading, hardware_efficient, loading_angles, success_probability
from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm.blocks.base import Context
from qlm.blocks.grover_memory import AmplificationCore, AmplificationTwin, GroverMemory, GroverMemoryConfig
from qlm.data import RandomByteWindows, load_corpus


@dataclass(frozen=True)
class Counting(Statevector):
    """The state-vector simulator, which writes down the batch of each call."""

    batches: list[int] = field(default_factory=list, init=False, compare=False, repr=False)

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        self.batches.append(len(angles))
        return super()._probabilities(circuit, angles, wires, request)


def memory(backend: str | Statevector = "statevector", d_model: int = 8, **changes: Any) -> GroverMemory:
    torch.manual_seed(0)
    return GroverMemory(d_model, GroverMemoryConfig(**changes), backend)


def scores_of(block: GroverMemory, hidden: Tensor) -> Tensor:
    return block.score(block.norm(hidden)).detach()


def by_hand(block: GroverMemory, hidden: Tensor, success: Tensor) -> Tensor:
    """The stream when the accepted slots hold ``success`` in all and both sets keep their ratios."""
    chances = torch.softmax(scores_of(block, hidden), -1)
    first = chances.shape[-1] - block.config.n_accepted
    p_good = chances[..., first:].sum(-1, keepdim=True)
    rejected = chances[..., :first] / (1 - p_good) * (1 - success)
    split = torch.cat((rejected, chances[..., first:] / p_good * success), -1)
    return hidden + split @ block.values.weight.detach().T


@pytest.mark.parametrize(("n_wires", "iterations", "n_accepted"), [(2, 1, 1), (3, 1, 2), (3, 2, 3), (4, 1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_phases_pi_it_is_grovers_law(n_wires: int, iterations: int, n_accepted: int, dtype: torch.dtype) -> None:
    block = memory(n_wires=n_wires, iterations=iterations, n_accepted=n_accepted).to(dtype).eval()
    assert isinstance(block.core, AmplificationCore)
    torch.nn.init.zeros_(block.core.layer.weights)
    torch.nn.init.normal_(block.score.weight)
    hidden = torch.randn(2, 5, 8, dtype=dtype)
    p_good = torch.softmax(scores_of(block, hidden), -1)[..., -n_accepted:].sum(-1, keepdim=True)
    success = torch.sin((2 * iterations + 1) * p_good.sqrt().asin()) ** 2
    found = block(hidden, Context()).hidden
    torch.testing.assert_close(
        found, by_hand(block, hidden, success), atol=1e-12 if dtype == torch.float64 else 1e-5, rtol=0
    )
    assert block.report is not None
    assert block.report.mean_p_good == pytest.approx(float(p_good.mean()), abs=1e-6)
    assert block.report.mean_success == pytest.approx(float(success.mean()), abs=1e-5)
    assert float((success - p_good).abs().max()) > 0.3


def test_fresh_weights_are_near_grover_and_the_default_set_is_amplified_to_certainty() -> None:
    """A uniform softmax and one iteration: a quarter of the slots, found with certainty at phases pi."""
    for n_wires, n_accepted in ((2, 1), (3, 2), (4, 4)):
        block = memory(n_wires=n_wires).eval()
        assert block.config.n_accepted == n_accepted
        assert isinstance(block.core, AmplificationCore)
        assert 0 < float(block.core.layer.weights.detach().abs().max()) < 0.5
        torch.nn.init.zeros_(block.score.weight)
        torch.nn.init.zeros_(block.score.bias)
        block(torch.randn(1, 3, 8), Context())
        assert block.report is not None
        assert block.report.mean_p_good == pytest.approx(0.25, abs=1e-6)
        assert block.report.mean_success > 0.95
    assert GroverMemoryConfig(n_wires=4, iterations=2).n_accepted == 2
    assert success_probability(2 / 16, 2) > max(success_probability(n / 16, 2) for n in (1, 3, 4))


def test_twin_is_a_soft_mask_of_the_circuits_size() -> None:
    for iterations in (1, 2, 3):
        twin, circuit = (memory(iterations=iterations, quantum=mode).core for mode in ("twin", "circuit"))
        assert isinstance(twin, AmplificationTwin)
        assert isinstance(circuit, AmplificationCore)
        assert twin.n_parameters == circuit.n_parameters == 2 * iterations
        assert twin.is_twin
        assert not circuit.is_twin
    block = memory(quantum="twin", n_accepted=3).double().eval()
    assert isinstance(block.core, AmplificationTwin)
    hidden = torch.randn(2, 5, 8, dtype=torch.float64)
    accepted, rejected = (part.logsumexp(-1, keepdim=True) for part in scores_of(block, hidden).split((5, 3), -1)[::-1])
    success = torch.sigmoid(4 + torch.tanh(accepted - rejected))
    torch.testing.assert_close(block(hidden, Context()).hidden, by_hand(block, hidden, success))
    torch.nn.init.constant_(block.core.boost, 60.0)
    masked = by_hand(block, hidden, torch.ones_like(success))
    torch.testing.assert_close(block(hidden, Context()).hidden, masked, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", ["circuit", "twin", "off"])
def test_scores_of_any_size_give_finite_updates_and_gradients(mode: str) -> None:
    """A softmax that underflows to exact zeros, in whole subtrees and in the accepted set."""
    block = memory(quantum=mode).train()
    torch.nn.init.normal_(block.score.weight, 0.0, 200.0)
    hidden = torch.randn(2, 20, 8, requires_grad=True)
    output = block(hidden, Context()).hidden
    assert float((torch.softmax(scores_of(block, hidden), -1) == 0).float().mean()) > 0.5
    output.square().sum().backward()
    for parameter in (hidden, *block.parameters()):
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad).all())


def test_off_reads_the_softmax_itself_and_separable_entangles_nothing() -> None:
    block = memory(quantum="off").eval()
    hidden = torch.randn(1, 4, 8)
    expected = hidden + torch.softmax(scores_of(block, hidden), -1) @ block.values.weight.T
    torch.testing.assert_close(block(hidden, Context()).hidden, expected)
    assert block.circuit_core is None
    assert block.report is not None
    assert (block.report.executions, block.report.output_share) == (0, 0.0)
    assert block.report.mean_success == block.report.mean_p_good
    core = memory(quantum="separable").circuit_core
    assert core is not None
    assert {len(op.wires) for op in core.layer.circuit.ops} == {1}
    frozen = memory(quantum="frozen").circuit_core
    assert frozen is not None
    assert not frozen.layer.weights.requires_grad


def test_padding_runs_no_circuit_and_stays_as_it_is() -> None:
    backend = Counting()
    block = memory(backend).eval()
    hidden = torch.randn(2, 4, 8)
    mask = torch.tensor([[False, False, True, True], [True, True, True, False]])
    output = block(hidden, Context(mask=mask)).hidden
    assert backend.batches == [5]
    assert block.report is not None
    assert (block.report.tokens, block.report.executions, block.report.shots) == (5, 5, None)
    assert torch.equal(output[~mask], hidden[~mask])
    torch.testing.assert_close(output[mask], block(hidden, Context()).hidden[mask])
    assert backend.batches == [5, 8]


def test_output_share_is_what_the_amplification_changed() -> None:
    block = memory().eval()
    hidden = torch.randn(1, 6, 8)
    plain = torch.softmax(scores_of(block, hidden), -1) @ block.values.weight.detach().T
    update = (block(hidden, Context()).hidden - hidden).detach()
    assert block.report is not None
    assert block.report.output_share == pytest.approx(float((update - plain).norm() / update.norm()), rel=1e-3)


def test_shots_are_counted_and_near() -> None:
    block = memory("aer?shots=4000", n_wires=2).eval()
    exact = memory(n_wires=2).eval()
    hidden = torch.randn(1, 3, 8)
    block(hidden, Context())
    exact(hidden, Context())
    assert block.report is not None
    assert exact.report is not None
    assert (block.report.executions, block.report.shots) == (3, 4000)
    assert block.report.mean_success == pytest.approx(exact.report.mean_success, abs=0.02)


def test_entropy_of_the_loaded_and_amplified_state_can_be_measured() -> None:
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=[{"kind": "harmonic"}, {"kind": "grover_memory"}])).eval()
    table = measure_entropy(model, "amplify", n_shuffles=2)
    trained = table.select(control="trained")
    assert len(trained) == 7
    block = model.model.layers[1]
    assert isinstance(block, GroverMemory)
    angles = block.angles(torch.zeros(4, 16))
    torch.testing.assert_close(angles, loading_angles(torch.softmax(block.score.bias, -1)).expand(4, 7))
    assert all(0 <= entropy <= math.log(2) + 1e-6 for entropy in trained.entropy)


def test_a_circuit_of_ones_own_is_kept() -> None:
    own = amplification(2, {0}, 2) + hardware_efficient(2, 1)
    block = memory(n_wires=2, circuit=own.to_json())
    assert block.circuit == own
    twin = memory(n_wires=2, circuit=own.to_json(), quantum="twin").core
    assert isinstance(twin, AmplificationTwin)
    assert abs(twin.n_parameters - own.n_weights) <= 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_wires": 1}, "n_wires of at least 2, got 1"),
        ({"n_wires": 11}, "at most 10 wires, got 11"),
        ({"circuit": amplitude_loading(3).to_json()}, "a circuit with weights, got none"),
        ({"iterations": 0}, "iterations of at least 1, got 0"),
        ({"n_accepted": 8}, "1 to 7 accepted slots of 8, got 8"),
        ({"n_accepted": -1}, "1 to 7 accepted slots of 8, got -1"),
        ({"circuit": amplitude_loading(2).to_json()}, "a circuit of 3 wires and 7 inputs, .* got 2 and 3"),
        ({"circuit": hardware_efficient(3, 1).to_json()}, "got 3 and 0"),
        ({"quantum": "twins"}, "did you mean 'twin'"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroverMemoryConfig(**changes)


@cache
def real_text() -> RandomByteWindows:
    """1200 windows of 32 tokens of Python's reference manual."""
    return RandomByteWindows(load_corpus("python-docs", context=32).train, 32, 1200, seed=0)


@pytest.mark.parametrize("mode", ["circuit", "twin"])
def test_a_model_with_it_learns_real_text(mode: str) -> None:
    """150 steps on Python's reference manual: the loss falls by more than 1.5 nats, and what the mode swaps moves."""
    torch.manual_seed(0)
    entries = [{"kind": "harmonic"}, {"kind": "grover_memory", "n_wires": 2}, {"kind": "harmonic"}]
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=entries, quantum=mode)).train()
    block = model.model.layers[1]
    assert isinstance(block, GroverMemory)
    assert block.core is not None
    before = torch.cat([parameter.detach().clone().flatten() for parameter in block.core.parameters()])
    windows = real_text()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(150):
        rows = [windows[8 * step + row] for row in range(8)]
        ids, labels = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels"))
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < losses[0] - 1.5
    after = torch.cat([parameter.detach().flatten() for parameter in block.core.parameters()])
    assert float((after - before).abs().min()) > 0.01
    assert block.report is not None
    assert block.report.executions == (8 * 32 if mode == "circuit" else 0)
    assert block.report.output_share > 0.01
