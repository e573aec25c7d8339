"""The measured head: Born's rule against matrices, what leaks, its modes, shots, samples and training.

Axis legend: n tokens, d model width, v vocabulary, w wires, s shots.
"""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn

from circuits import Circuit, Op
from circuits.library import born_machine, conditional_born_machine
from qlm import QLMConfig, QLMForCausalLM
from qlm.data import load_corpus
from qlm.evaluation import count_parameters
from qlm.heads.born_circuit import BornCircuit, BornCircuitConfig, BornCore, SoftmaxTwin
from qlm.registry import head_config


def head(vocab_size: int = 6, backend: str = "statevector", d_model: int = 8, **changes: Any) -> BornCircuit:
    """A head whose parameters are away from their start, in double precision and evaluation mode."""
    torch.manual_seed(0)
    entry = {"kind": "born_circuit", "depth": 2, **changes}
    built = BornCircuit(d_model, vocab_size, head_config(entry, "circuit", vocab_size), backend).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return built.eval()


def states(n: int = 3, d_model: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(n, d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(built: BornCircuit) -> Tensor:
    assert isinstance(built.core, BornCore)
    return built.core.layer.weights.detach().double()


@pytest.mark.parametrize("mode", ["circuit", "separable", "frozen"])
@pytest.mark.parametrize("vocab_size", [2, 5, 8])
def test_log_probabilities_are_borns_rule_and_the_leak_is_shared_out(vocab_size: int, mode: str) -> None:
    built, hidden = head(vocab_size, quantum=mode), states()
    found = built(hidden).detach().numpy()
    assert isinstance(built.core, BornCore)
    circuit = built.core.layer.circuit
    leaks = []
    for row, angles in zip(found, built.angles(hidden).detach().numpy(), strict=True):
        chances = np.abs(oracles.unitary(circuit, angles, weights(built).numpy())[:, 0]) ** 2
        kept = chances[:vocab_size].sum()
        np.testing.assert_allclose(row, np.log(chances[:vocab_size] / kept), atol=1e-10)
        leaks.append(1 - kept)
    report = built.report
    assert report is not None
    assert report.leaked == pytest.approx(np.mean(leaks), abs=1e-12)
    assert (report.leaked > 0.01) is (vocab_size == 5)
    assert (report.tokens, report.executions, report.shots, report.output_share) == (3, 3, None, 1.0)


def test_phases_of_the_encoder_matter_only_through_the_circuit() -> None:
    built, hidden = head(8), states()
    assert built.encode is not None
    assert isinstance(built.core, BornCore)

    def turned() -> Tensor:
        before = built(hidden).detach()
        with torch.no_grad():
            built.encode.bias[3:] += 1.0  # pyright: ignore[reportOptionalMemberAccess, reportOptionalSubscript] -- asserted above
            after = built(hidden).detach()
            built.encode.bias[3:] -= 1.0  # pyright: ignore[reportOptionalMemberAccess, reportOptionalSubscript] -- asserted above
        return (after.exp() - before.exp()).abs()

    assert float(turned().max()) > 0.02
    with torch.no_grad():
        built.core.layer.weights.zero_()  # U permutes basis states
    assert float(turned().max()) < 1e-13


def test_off_is_independent_coins() -> None:
    built, hidden = head(6, quantum="off"), states()
    assert built.core is None
    assert built.encode is not None
    one = torch.sigmoid(built.encode(hidden)).detach()
    masses = torch.stack(
        [
            torch.stack([one[:, bit] if token >> (2 - bit) & 1 else 1 - one[:, bit] for bit in range(3)]).prod(0)
            for token in range(6)
        ],
        -1,
    )
    expected = (masses / masses.sum(-1, keepdim=True)).log()
    torch.testing.assert_close(built(hidden).detach(), expected, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="a head without a circuit has no angles, got quantum='off'"):
        built.sample(hidden, 3, 0)


@pytest.mark.parametrize(("d_model", "vocab_size", "depth"), [(16, 258, 1), (128, 258, 4), (64, 1000, 2), (8, 6, 1)])
def test_twin_is_a_softmax_of_the_whole_heads_size(d_model: int, vocab_size: int, depth: int) -> None:
    sizes = {}
    for mode in ("circuit", "twin"):
        config = BornCircuit.fitted(BornCircuitConfig(depth=depth, quantum=mode), vocab_size)
        built = BornCircuit(d_model, vocab_size, config)
        sizes[mode] = sum(parameter.numel() for parameter in built.parameters())
    unit = d_model + 1 + vocab_size
    assert abs(sizes["twin"] - sizes["circuit"]) <= max(0.02 * sizes["circuit"], unit)
    model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[], head={"kind": "born_circuit", "quantum": "twin"}))
    assert isinstance(model.lm_head, BornCircuit)
    assert isinstance(model.lm_head.core, SoftmaxTwin)
    assert count_parameters(model).twin == model.lm_head.core.n_parameters


def test_a_target_that_is_impossible_costs_everything_and_leaves_other_gradients_alone() -> None:
    """Bit 0 of the circuit is never 1: tokens 2 and 3 have probability 0."""
    circuit = Circuit(2, conditional_born_machine(1, 1).remap((1,), 2).ops)
    config = BornCircuit.fitted(BornCircuitConfig(circuit=circuit.to_json()), 4)
    built = BornCircuit(8, 4, config).double().train()
    logs = built(states(1))
    assert logs[0, 2:].tolist() == [-math.inf, -math.inf]
    assert float(nn.functional.cross_entropy(logs, torch.tensor([2])).detach()) == math.inf
    nn.functional.cross_entropy(logs, torch.tensor([1])).backward()
    for parameter in built.parameters():
        assert parameter.grad is not None
        assert bool(torch.isfinite(parameter.grad).all())
    assert isinstance(built.core, BornCore)
    assert built.core.layer.weights.grad is not None
    assert float(built.core.layer.weights.grad.abs().max()) > 1e-3


@pytest.mark.parametrize("spec", ["aer", "aer:matrix_product_state", "quimb:exact"])
def test_exact_backends_agree_in_values_and_gradients(spec: str) -> None:
    pytest.importorskip({"aer": "qiskit_aer", "qui": "quimb"}[spec[:3]])
    hidden, found = states(2), []
    for backend in ("statevector", spec):
        built = head(3, backend, depth=1).train()
        logs = built(hidden)
        gradients = torch.autograd.grad(-logs[:, 1].mean(), list(built.parameters()))
        found.append([logs, *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("max_bond", [2, 8])
def test_matrix_product_states_agree_within_their_truncation(max_bond: int) -> None:
    pytest.importorskip("quimb")
    hidden = states(2)
    exact, cut = head(16, depth=1), head(16, f"quimb:mps?max_bond={max_bond}", depth=1)
    assert isinstance(cut.core, BornCore)
    layer = cut.core.layer
    estimate = layer.backend.probabilities(layer.circuit, cut.angles(hidden).detach(), weights(cut))
    off = (cut(hidden) - exact(hidden)).detach().abs()
    if max_bond == 8:
        assert float(off.max()) < 1e-6
        return
    bound = estimate.truncation_error
    assert bound is not None
    assert bool(((cut(hidden).exp() - exact(hidden).exp()).detach().abs() <= bound + 1e-9).all())
    assert float(off.max()) > 1e-3


def test_shots_agree_within_their_error_and_zeros_are_zeros() -> None:
    pytest.importorskip("qiskit_aer")
    hidden, shots = states(4), 4000
    chances = head(6)(hidden).exp().detach()
    counted = head(6, f"aer?shots={shots}")
    found = counted(hidden).exp().detach()
    report = counted.report
    assert report is not None
    assert report.shots == shots
    kept = shots * (1 - report.leaked)
    assert bool(((found - chances).abs() < 5 * (chances * (1 - chances) / (0.9 * kept)).sqrt() + 5 / kept).all())
    few = head(6, "aer?shots=4")(hidden).detach()
    assert bool((few == -math.inf).any())
    assert bool(torch.isfinite(few).any(-1).all())
    torch.testing.assert_close(few.exp().sum(-1), torch.ones(4, dtype=torch.float64))


def test_training_on_counts_needs_smoothing_and_says_so() -> None:
    pytest.importorskip("qiskit_aer")
    hidden = states(2)
    with pytest.raises(ValueError, match=r"expects smoothing > 0 to train on backend 'aer\?shots=20', which counts"):
        head(6, "aer?shots=20").train()(hidden)
    built = head(6, "aer?shots=20", smoothing=0.5, depth=1).train()
    torch.manual_seed(0)
    logs = built(hidden)
    (-logs[:, 0].mean()).backward()
    assert isinstance(built.core, BornCore)
    gradient = built.core.layer.weights.grad
    assert gradient is not None
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) > 0
    torch.manual_seed(0)
    with torch.no_grad():
        chances = built.core(built.angles(hidden))[:, :6]
    counts = 20 * chances
    expected = (counts + 0.5) / (counts.sum(-1, keepdim=True) + 6 * 0.5)
    torch.testing.assert_close(logs.detach().exp(), expected, atol=1e-12, rtol=0)
    exact = head(6, smoothing=0.5)
    torch.testing.assert_close(exact(hidden), head(6)(hidden))  # exact backends are never smoothed


@pytest.mark.parametrize("spec", ["statevector", "aer"])
def test_measured_samples_have_the_distribution_and_count_what_leaked(spec: str) -> None:
    """Pearson's chi-square over 5 tokens: below its 0.9999 quantile at 4 degrees of freedom."""
    if spec == "aer":
        pytest.importorskip("qiskit_aer")
    built, hidden, shots = head(5, spec), states(6).reshape(2, 3, 8), 2000
    chances = head(5)(hidden).exp().detach()
    leaked = head(5)
    leaked(hidden)
    measured = built.sample(hidden, shots, seed=0)
    assert measured.tokens.shape == (2, 3, shots)
    counts = torch.stack([(measured.tokens == token).sum(-1) for token in range(5)], -1)
    assert bool((counts.sum(-1) == shots).all())
    assert float(((counts - shots * chances).square() / (shots * chances)).sum(-1).max()) < 23.6
    assert 0 < measured.leaked < measured.measurements
    assert measured.measurements - measured.leaked >= 6 * shots
    assert torch.equal(built.sample(hidden, 50, seed=3).tokens, built.sample(hidden, 50, seed=3).tokens)
    assert not torch.equal(built.sample(hidden, 50, seed=3).tokens, built.sample(hidden, 50, seed=4).tokens)


def test_a_state_outside_the_vocabulary_is_refused_when_measured() -> None:
    flipped = Circuit(2, (Op("x", (0,)), *conditional_born_machine(1, 0).remap((1,), 2).ops))
    built = BornCircuit(8, 2, BornCircuitConfig(circuit=flipped.to_json())).double()
    with pytest.raises(ValueError, match=r"outcomes that name tokens, got (\d+) of \1 outside the vocabulary"):
        built.sample(states(2), 2, 0)
    with pytest.raises(ValueError, match="some mass on the vocabulary, got a token all of whose outcomes leaked"):
        built(states(2))


@pytest.mark.parametrize(
    ("changes", "vocab_size", "message"),
    [
        ({}, 1025, "at most 1024 tokens, got 1025; use born_low_rank or born_mps"),
        ({"circuit": born_machine(2, 1).to_json()}, 5, "expects 3 to 10 wires for 5 tokens, got a circuit of 2"),
        ({"smoothing": -1.0}, 5, "a finite smoothing >= 0, got -1.0"),
        ({"quantum": "tween"}, 5, "unknown quantum mode 'tween': did you mean 'twin'"),
        ({"depth": -1}, 5, "conditional_born_machine.*depth"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], vocab_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QLMConfig(vocab_size=vocab_size, head={"kind": "born_circuit", **changes})
    with pytest.raises(ValueError, match="at least 1 shot, got 0"):
        head().sample(states(), 0, 0)


@pytest.mark.parametrize("mode", ["circuit", "twin"])
def test_the_loss_falls_on_real_text_and_the_circuit_learns(mode: str) -> None:
    """Bytes on 9 wires. Nats per byte start at ln 258 = 5.55."""
    torch.manual_seed(0)
    data = torch.tensor(list(load_corpus("python-docs").train[:20_000]))
    config = QLMConfig(d_model=32, blocks=[{"kind": "harmonic"}], head={"kind": "born_circuit", "quantum": mode})
    model = QLMForCausalLM(config).train()
    before = [layer.weights.detach().clone() for _, layer in model.quantum_layers()]
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=2e-2), []
    for _ in range(60):
        first = torch.randint(len(data) - 16, (8, 1))
        ids = data[first + torch.arange(16)]
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 5.3
    assert sum(losses[-10:]) / 10 < losses[0] - 1.2
    for start, (_, layer) in zip(before, model.quantum_layers(), strict=True):
        assert float((layer.weights.detach() - start).abs().mean()) > 0.05
    assert len(before) == (mode == "circuit")
