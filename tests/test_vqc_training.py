"""The mixture of experts in training: balance of the load, checkpoints, real text, entropy.

Axis legend: b batch, l sequence, d model width, n tokens, e experts, w wires.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from expert_blocks import block, report_of, routing
from torch import Tensor, nn

from backends import open_backend
from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm.blocks.base import Context
from qlm.blocks.vqc_experts import VQCExperts
from qlm.data import load_corpus
from qlm.evaluation import circuit_ablation, count_parameters
from qlm.experts.base import EXPERTS
from qlm.experts.router import CircuitRouter

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
