"""The mixture of experts behind a circuit: where tokens go, what is computed, what it learns, on every backend.

Axis legend: b batch, l sequence, d model width, n tokens, e experts, w wires.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backends import open_backend
from circuits.library import angle_encoding, hardware_efficient, reuploading, vqc_router
from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm.blocks.base import Context
from qlm.blocks.vqc_experts import VQCExperts, VQCExpertsConfig, VQCExpertsReport
from qlm.controls import QUANTUM_MODES
from qlm.data import load_corpus
from qlm.evaluation import circuit_ablation, count_parameters
from qlm.experts.base import EXPERTS
from qlm.experts.router import CircuitRouter, SoftmaxRouter, renormalise
from qlm.probabilities import ProbabilityLayer


def block(backend: str = "statevector", d_model: int = 8, seed: int = 0, **changes: Any) -> VQCExperts:
    """A small block whose circuit is away from its start."""
    torch.manual_seed(seed)
    made = VQCExperts(d_model, VQCExpertsConfig(**{"n_experts": 4, "depth": 2, **changes}), backend)
    if isinstance(made.router, CircuitRouter):
        nn.init.normal_(made.router.layer.weights)
    return made


def report_of(made: VQCExperts) -> VQCExpertsReport:
    assert made.report is not None
    return made.report


def routing(made: VQCExperts, hidden: Tensor) -> Tensor:
    """g (n, e) of a stream (b, l, d)."""
    assert made.router is not None
    return renormalise(made.router(made.angles(hidden).flatten(0, 1))).g


# The circuit


@pytest.mark.parametrize(("n_wires", "depth"), [(1, 1), (2, 3), (3, 0)])
def test_router_is_an_encoder_and_trainable_layers(n_wires: int, depth: int) -> None:
    circuit = vqc_router(n_wires, depth)
    assert circuit == angle_encoding(n_wires) + hardware_efficient(n_wires, depth)
    assert (circuit.n_inputs, circuit.n_weights) == (n_wires, 3 * n_wires * depth)
    rng = np.random.default_rng(0)
    inputs, weights = rng.uniform(-3, 3, (4, n_wires)), rng.uniform(-3, 3, circuit.n_weights)
    layer = ProbabilityLayer(circuit).double()
    with torch.no_grad():
        layer.weights.copy_(torch.tensor(weights))
        found = layer(torch.tensor(inputs))
    expected = [np.diag(oracles.density(circuit, row, weights)).real for row in inputs]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("n_experts", [8, 5, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_uniform_circuit_routes_uniformly(n_experts: int, dtype: torch.dtype) -> None:
    """RY(pi/2) on every wire, and rotations by 0: each basis state has probability 1/8, in any order of CNOTs."""
    router = CircuitRouter(vqc_router(3, 2), n_experts, "statevector").to(dtype)
    nn.init.zeros_(router.layer.weights)
    found = renormalise(router(torch.full((6, 3), math.pi / 2, dtype=dtype)))
    torch.testing.assert_close(found.g, torch.full((6, n_experts), 1 / n_experts, dtype=dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.leaked, torch.full((6,), 1 - n_experts / 8, dtype=dtype), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["circuit", "twin", "separable", "frozen"])
@pytest.mark.parametrize("n_experts", [3, 4])
def test_probabilities_are_born_s_rule_renormalised(mode: str, n_experts: int) -> None:
    made, hidden = block(quantum=mode, n_experts=n_experts).double(), torch.randn(2, 5, 8, dtype=torch.float64)
    g = routing(made, hidden)
    torch.testing.assert_close(g.sum(-1), torch.ones(10, dtype=torch.float64), atol=1e-12, rtol=0)
    made.eval()(hidden, Context())
    entropy = float(-(g * g.log()).sum(-1).mean().detach())
    assert report_of(made).routing_entropy == pytest.approx(entropy)
    if isinstance(made.router, SoftmaxRouter):
        assert report_of(made).leaked_mass < 1e-12
        return
    assert isinstance(made.router, CircuitRouter)
    layer, angles = made.router.layer, made.angles(hidden).detach().flatten(0, 1).numpy()
    weights = layer.weights.detach().numpy()
    assert (mode == "separable") == all(len(op.wires) == 1 for op in layer.circuit.ops)
    born = np.array([np.diag(oracles.density(layer.circuit, row, weights)).real for row in angles])[:, :n_experts]
    np.testing.assert_allclose(g.detach().numpy(), born / born.sum(1, keepdims=True), atol=1e-7)
    assert report_of(made).leaked_mass == pytest.approx(1 - born.sum(1).mean(), abs=1e-7)
    assert (report_of(made).leaked_mass > 0.01) == (n_experts == 3)


def test_a_circuit_that_never_reaches_the_experts_routes_uniformly() -> None:
    """Angles of pi on both wires: basis state 3, and three experts."""
    made = block(n_experts=3, circuit=angle_encoding(2).to_json(), top_k=2, shared=0).eval()
    nn.init.zeros_(made.encode.weight)
    nn.init.constant_(made.encode.bias, 20.0)  # tanh is 1: angles of pi
    hidden = torch.randn(1, 6, 8)
    made(hidden, Context())
    report = report_of(made)
    assert (report.lost_tokens, report.mean_k) == (6, 2)
    assert report.leaked_mass == pytest.approx(1)
    assert report.routing_entropy == pytest.approx(math.log(3))
    assert report.load == (0.5, 0.5, 0.0)


# What is computed


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize(("top_k", "mass", "shared"), [(1, 1.0, 0), (2, 1.0, 1), (4, 0.7, 2)])
def test_update_is_the_weighted_sum_of_chosen_and_shared_experts(
    expert: str, top_k: int, mass: float, shared: int
) -> None:
    """Against a loop over tokens, each alone."""
    made = block(expert=expert, top_k=top_k, mass=mass, shared=shared, rank=2).double().eval()
    hidden = torch.randn(2, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        found = made(hidden, Context()).hidden.flatten(0, 1)
        g = routing(made, hidden)
        for t, h in enumerate(hidden.flatten(0, 1)):
            x, order = made.norm(h)[None], g[t].argsort(descending=True).tolist()
            k = next(k for k in range(1, top_k + 1) if k == top_k or g[t, order[:k]].sum() >= mass)
            weights = g[t, order[:k]] / g[t, order[:k]].sum()
            update = sum(w * made.experts[i](x)[0] for i, w in zip(order[:k], weights, strict=True))
            update = update + sum(one(x)[0] for one in made.shared)
            torch.testing.assert_close(found[t], h + update, atol=1e-10, rtol=0)


@pytest.mark.parametrize("expert", ["dense", "tt", "tucker"])
def test_only_chosen_experts_compute(expert: str) -> None:
    """Tokens that enter each expert, and torch's count of flops beside the report's."""
    made = block(expert=expert, n_experts=8, top_k=2, mass=0.4, d_model=16, rank=2).eval()
    entered = [0] * 8
    for number, one in enumerate(made.experts):
        one.register_forward_hook(lambda _, args, out, number=number: entered.__setitem__(number, len(args[0])))
    hidden = torch.randn(3, 40, 16)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        made(hidden, Context())
    with torch.no_grad(), FlopCounterMode(display=False) as simulated:
        assert made.router is not None
        made.router(made.angles(hidden).flatten(0, 1))
    report = report_of(made)
    assert sum(entered) == round(report.mean_k * 120)
    assert 120 < sum(entered) < 240
    assert report.load == pytest.approx([n / sum(entered) for n in entered])
    assert report.flops == counter.get_total_flops() - simulated.get_total_flops()


def test_dense_flops_are_those_of_the_choices() -> None:
    made = block(n_experts=8, top_k=2, d_model=16).eval()
    made(torch.randn(3, 40, 16), Context())
    assert report_of(made).flops == (2 + 1) * 120 * 4 * 16 * 16


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("mode", QUANTUM_MODES)
def test_experts_without_tokens_still_get_a_gradient(mode: str, expert: str) -> None:
    """Distributed training waits for the gradient of each parameter on each process."""
    made = block(quantum=mode, expert=expert, top_k=1, n_experts=4, rank=2).train()
    for n_tokens in (0, 1):
        made.zero_grad()
        made(torch.randn(1, n_tokens, 8), Context()).hidden.sum().backward()
        assert all((p.grad is not None) == p.requires_grad for p in made.parameters())
    used = [any(bool(p.grad.any()) for p in one.parameters() if p.grad is not None) for one in made.experts]
    assert sum(used) == 1


@pytest.mark.parametrize("training", [False, True])
def test_padding_passes_unchanged_and_runs_no_circuit(training: bool) -> None:
    made = block().train(training)
    mask = torch.tensor([[False, False, True, True, True], [True] * 5, [False] * 5])
    hidden = torch.randn(3, 5, 8)
    found = made(hidden, Context(mask)).hidden
    assert torch.equal(found[~mask], hidden[~mask])
    alone = block().train(training)(hidden[mask][None], Context()).hidden[0]
    torch.testing.assert_close(found[mask], alone)
    assert bool((found[mask] != hidden[mask]).any(-1).all())
    assert (report_of(made).tokens, report_of(made).executions) == (8, 8)


def test_off_sends_every_token_to_the_first_experts_alike() -> None:
    made = block(quantum="off", top_k=2, shared=1).eval()
    hidden = torch.randn(2, 5, 8)
    x = made.norm(hidden)
    expected = hidden + (made.experts[0](x) + made.experts[1](x)) / 2 + made.shared[0](x)
    torch.testing.assert_close(made(hidden, Context()).hidden, expected)
    report = report_of(made)
    assert (report.executions, report.output_share, report.mean_k, report.load) == (0, 0.0, 2.0, (0.5, 0.5, 0.0, 0.0))
    assert made.circuit_core is None


def test_half_precision_outside_leaves_the_routing_in_single() -> None:
    made = block().eval()
    hidden = torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(hidden, Context()).hidden
        assert made.angles(hidden).dtype == torch.float32
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, made(hidden, Context()).hidden, atol=0.05, rtol=0)


# Gradients


def soft_mixture(made: VQCExperts, hidden: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
    """``sum_i g_i(weights) E_i`` over the chosen experts (n, e), for circuit weights put in by hand."""
    assert isinstance(made.router, CircuitRouter)
    angles = made.angles(hidden).flatten(0, 1)
    chances = made.router.layer.backend.probabilities(made.router.layer.circuit, angles, weights).values
    g = renormalise(chances[:, : made.config.n_experts]).g * chosen
    outputs = torch.stack([one(made.norm(hidden).flatten(0, 1)) for one in made.experts], 1)
    return (g[..., None] * outputs).sum(1)


@pytest.mark.parametrize(("n_experts", "top_k"), [(4, 4), (3, 3), (4, 1), (4, 2)])
def test_router_s_gradient_is_the_soft_mixture_s_by_finite_differences(n_experts: int, top_k: int) -> None:
    """With every expert chosen that of the mixture itself; else of the mixture in which the others add nothing."""
    made = block(n_experts=n_experts, top_k=top_k, shared=0).double().eval()
    hidden, cotangent = torch.randn(1, 6, 8).double(), torch.randn(6, 8).double()
    out = made(hidden, Context()).hidden
    (out[0] * cotangent).sum().backward()
    assert isinstance(made.router, CircuitRouter)
    found = made.router.layer.weights.grad
    assert found is not None
    with torch.no_grad():
        start = made.router.layer.weights.double()
        g = routing(made, hidden)
        chosen = torch.zeros_like(g).scatter(1, g.argsort(dim=1, descending=True)[:, :top_k], 1.0)
        if top_k == n_experts:
            torch.testing.assert_close(out[0], hidden[0] + soft_mixture(made, hidden, start, chosen))
        step, slopes = 1e-5, []
        for k in range(len(start)):
            shift = step * torch.eye(len(start))[k].double()
            ahead, behind = (soft_mixture(made, hidden, start + sign * shift, chosen) for sign in (1, -1))
            slopes.append(float(((ahead - behind) * cotangent).sum()) / (2 * step))
    np.testing.assert_allclose(found.numpy(), slopes, atol=1e-7)
    assert np.abs(slopes).max() > 1e-2


# Balance


def skewed(quantum: str = "circuit", balance: float = 0.05) -> VQCExperts:
    """All angles near 0, so that most of the probability is the first expert's."""
    made = block(quantum=quantum, n_experts=8, depth=1, top_k=2, shared=0, balance=balance)
    nn.init.normal_(made.encode.weight, 0.0, 0.1)
    nn.init.constant_(made.encode.bias, 0.15)
    assert isinstance(made.router, CircuitRouter)
    nn.init.normal_(made.router.layer.weights, 0.0, 0.1)
    return made


def excess(made: VQCExperts) -> float:
    """How far the most loaded expert lies above its even share, in even shares."""
    return 8 * max(report_of(made).load) - 1


@pytest.mark.parametrize(("balance", "evened"), [(0.05, True), (0.0, False)])
def test_bias_evens_the_load_in_training_and_leaves_weights_alone(balance: float, evened: bool) -> None:
    made = skewed(balance=balance).train()
    hidden = torch.randn(4, 128, 8, generator=torch.Generator().manual_seed(1))
    before = routing(made, hidden).detach()
    loads = []
    for _ in range(150):
        with torch.no_grad():
            made(torch.randn(4, 128, 8), Context())
        loads.append(excess(made))
    assert loads[0] > 2.5
    assert (sum(loads[-10:]) / 10 < 0.4) is evened
    torch.testing.assert_close(routing(made, hidden), before)
    made.eval()
    made(hidden, Context())
    assert (excess(made) < 0.6) is evened
    choice = made._route(made.norm(hidden).flatten(0, 1))[1]
    chances = before.gather(1, choice.experts)
    torch.testing.assert_close(choice.weights.detach(), chances / chances.sum(1, keepdim=True))


@pytest.mark.parametrize("mode", ["circuit", "twin", "off"])
def test_evaluation_and_a_block_without_router_move_no_buffer(mode: str) -> None:
    made = block(quantum=mode).train(mode == "off")
    before = {name: buffer.clone() for name, buffer in made.named_buffers()}
    assert set(before) == {"balance.bias", "balance.load"}
    made(torch.randn(4, 16, 8), Context())
    assert all(torch.equal(buffer, before[name]) for name, buffer in made.named_buffers())
    if mode != "off":
        made.train()(torch.randn(4, 16, 8), Context())
        assert not any(torch.equal(buffer, before[name]) for name, buffer in made.named_buffers())


def test_bias_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = QLMConfig(
        d_model=16, blocks=[{"kind": "vqc_experts", "n_experts": 4, "expert": kind, "rank": 2} for kind in EXPERTS]
    )
    model = QLMForCausalLM(config).train()
    ids = torch.randint(256, (4, 32))
    for _ in range(3):
        model(ids)
    model.eval().save_pretrained(tmp_path)
    read = QLMForCausalLM.from_pretrained(tmp_path).eval()
    for name, buffer in model.named_buffers():
        assert torch.equal(read.get_buffer(name), buffer), name
        assert bool((buffer != buffer.flatten()[0]).any()), name
    with torch.no_grad():
        assert torch.equal(read(ids).logits, model(ids).logits)


# Backends


SHOTS = 4000


def stream(n_wires: int) -> Tensor:
    """Angles of two tokens."""
    return torch.linspace(-2.5, 2.5, 2 * n_wires, dtype=torch.float64).reshape(2, n_wires)


@cache
def routed_on(spec: str, n_experts: int, spread: float = 1.0) -> tuple[Tensor, CircuitRouter]:
    """g (2, e) on a backend, and the router."""
    torch.manual_seed(0)
    n_wires = (n_experts - 1).bit_length()
    router = CircuitRouter(vqc_router(n_wires, 2), n_experts, spec).double()
    nn.init.normal_(router.layer.weights, 0.0, spread)
    with torch.no_grad():
        return renormalise(router(stream(n_wires))).g, router


@pytest.mark.parametrize(
    ("spec", "package"),
    [("aer", "qiskit_aer"), ("pennylane:default.qubit", "pennylane"), ("quimb:exact", "quimb")],
)
@pytest.mark.parametrize("n_experts", [16, 11])
def test_exact_backends_route_alike(spec: str, package: str, n_experts: int) -> None:
    pytest.importorskip(package)
    torch.testing.assert_close(routed_on(spec, n_experts)[0], routed_on("statevector", n_experts)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("max_bond", [4, 6, 8])
def test_matrix_product_states_route_within_their_truncation_error(max_bond: int) -> None:
    """64 experts on 6 wires, whose middle bond is 8 where nothing is cut."""
    pytest.importorskip("quimb")
    found, router = routed_on(f"quimb:mps?max_bond={max_bond}", 64, 0.5)
    layer = router.layer
    bound = layer.backend.probabilities(layer.circuit, stream(6), layer.weights.detach().double()).truncation_error
    error = (found - routed_on("statevector", 64, 0.5)[0]).abs()
    assert bool((error <= bound + 1e-6).all())
    assert float(bound.max()) < 0.4
    assert (float(error.max()) > 1e-3) == (max_bond < 8)


def test_counts_route_within_their_error_bars() -> None:
    pytest.importorskip("qiskit_aer")
    torch.manual_seed(1)
    found, router = routed_on(f"aer?shots={SHOTS}", 4)
    exact = routed_on("statevector", 4)[0]
    torch.testing.assert_close(found * SHOTS, (found * SHOTS).round(), atol=1e-6, rtol=0)
    error = (exact * (1 - exact) / SHOTS).sqrt()
    assert bool(((found - exact).abs() < 5 * error).all())
    assert router.shots == SHOTS


def test_block_trains_from_counts() -> None:
    """Few shots leave basis states unseen; gradients come by parameter shift."""
    pytest.importorskip("qiskit_aer")
    made = block("aer?shots=20", n_experts=3, depth=1).train()
    made(torch.randn(1, 6, 8), Context()).hidden.square().sum().backward()
    report = report_of(made)
    assert (report.shots, report.executions) == (20, 6)
    assert 0 < report.leaked_mass < 1
    assert isinstance(made.router, CircuitRouter)
    assert made.router.layer.weights.grad is not None
    assert bool(made.router.layer.weights.grad.any())


def test_a_fake_device_routes_with_its_noise() -> None:
    """Within the error bars of what the device itself measures, and apart from the noiseless answer."""
    pytest.importorskip("qiskit_ibm_runtime")
    torch.manual_seed(0)
    found, router = routed_on("ibm:fake_manila?shots=4000", 4)
    layer = router.layer
    device = layer.backend.probabilities(layer.circuit, stream(2), layer.weights.detach().double(), shots=40000, seed=1)
    error = (device.values * (1 - device.values) * (1 / SHOTS + 1 / 40000)).sqrt()
    assert bool(((found - device.values).abs() < 5 * error).all())
    exact = routed_on("statevector", 4)[0]
    assert 0.02 < float((found - exact).abs().max()) < 0.1
    made = block("ibm:fake_manila?shots=500", n_experts=4, depth=1).eval()
    made(torch.randn(1, 3, 8), Context())
    assert (report_of(made).shots, report_of(made).executions) == (500, 3)


# In a model


def trained(mode: str) -> tuple[list[float], Tensor, QLMForCausalLM, Tensor]:
    """Losses (nats) and loads (step, e) of 120 steps on real text, the model, and its first circuit weights, if any."""
    torch.manual_seed(0)
    entry = {"kind": "vqc_experts", "n_experts": 4, "depth": 2, "top_k": 1, "shared": 0}
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=[{"kind": "harmonic"}, entry], quantum=mode)).train()
    start = torch.cat([layer.weights.detach().clone() for _, layer in model.quantum_layers()] or [torch.zeros(0)])
    text = torch.frombuffer(bytearray(load_corpus("python-docs").train[:60000]), dtype=torch.uint8).long()
    optimizer, losses, loads = torch.optim.AdamW(model.parameters(), lr=1e-2), [], []
    for _ in range(120):
        first = torch.randint(len(text) - 33, (8,))
        ids = torch.stack([text[at : at + 33] for at in first.tolist()])
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        loads.append(model.reports()["1.vqc_experts"].load)
    return losses, torch.tensor(loads), model, start


@pytest.mark.parametrize("mode", ["circuit", "twin"])
def test_training_on_text_lowers_the_loss_and_moves_the_router(mode: str) -> None:
    losses, loads, model, start = trained(mode)
    assert sum(losses[:10]) / 10 > sum(losses[-10:]) / 10 + 1.5
    layers = [layer for _, layer in model.quantum_layers()]
    assert len(layers) == (mode == "circuit")
    for layer in layers:
        assert float((layer.weights.detach() - start).abs().max()) > 0.1
    report = model.reports()["1.vqc_experts"]
    assert float(loads[-40:].mean(0).max()) < 0.6  # of 4 experts; without balance the twin gives one of them 0.9
    assert report.executions == (8 * 33 if mode == "circuit" else 0)
    counted = count_parameters(model)
    assert (counted.circuit, counted.twin) == ((12, 0) if mode == "circuit" else (0, 14))
    valid = load_corpus("python-docs").valid
    change = circuit_ablation(model, valid[:2000], valid[2000:4000], context=32).change
    assert abs(change) > 1e-3  # routing by the mean distribution is another model


def test_entropy_of_the_router_can_be_measured() -> None:
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "vqc_experts", "n_experts": 4, "depth": 1}]))
    table = measure_entropy(model, "two tokens")
    made = model.model.layers[0]
    assert isinstance(made, VQCExperts)
    assert made.circuit_core is not None
    with torch.no_grad():
        ids = torch.tensor(list(b"two tokens"))
        angles = made.angles(model.get_input_embeddings()(ids))
        layer = made.circuit_core.layer
        entropy = open_backend("statevector").entropy(layer.circuit, angles.double(), layer.weights.double(), (0,))
    trained_rows = table.select(control="trained")
    np.testing.assert_allclose(trained_rows.entropy, entropy.values.numpy(), atol=1e-5)


def test_one_wire_has_no_cut() -> None:
    assert block(n_experts=2).circuit_core is None
    assert block(n_experts=3).circuit_core is not None


# What is wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_experts": 5, "n_wires": 2}, "at most the 4 experts that 2 wires have basis states for, got 5; add wires"),
        ({"n_experts": 5, "circuit": reuploading(2, 1).to_json()}, "at most the 4 experts that 2 wires"),
        ({"n_wires": 3, "circuit": reuploading(2, 1).to_json()}, "n_wires 0 or the circuit's 2, got 3"),
        ({"n_experts": 1}, "n_experts of at least 2, got 1"),
        ({"top_k": 0}, "top_k from 1 to the 8 experts, got 0"),
        ({"top_k": 9}, "top_k from 1 to the 8 experts, got 9"),
        ({"mass": 0.0}, "0 < mass <= 1 .* got 0.0"),
        ({"mass": 1.1}, "0 < mass <= 1 .* got 1.1"),
        ({"balance": -0.1}, "a finite balance >= 0, got 1.0 and -0.1"),
        ({"balance": math.nan}, "a finite balance >= 0"),
        ({"shared": -1}, "shared of at least 0, got -1"),
        ({"expansion": 0}, "expansion of at least 1, got 0"),
        ({"rank": 0}, "rank of at least 1, got 0"),
        ({"depth": -1}, "depth of at least 0, got -1"),
        ({"expert": "dens"}, "unknown expert 'dens': did you mean 'dense'"),
        ({"quantum": "twn"}, "unknown quantum mode 'twn': did you mean 'twin'"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VQCExpertsConfig(**changes)


def test_bad_sizes_are_refused_when_built() -> None:
    with pytest.raises(ValueError, match="cayley experts expect expansion 1"):
        block(expert="cayley", expansion=2)
    with pytest.raises(ValueError, match="tt experts expect a rank up to"):
        block(expert="tt", rank=50)
    with pytest.raises(ValueError, match="at most 10 wires, got 11"):
        block(n_experts=1025)
