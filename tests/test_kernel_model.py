"""Kernel attention in a model: generation from a state, entropies, and training on real text beside its twin.

Axis legend: b batch, l sequence.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_cases import WAYS
from torch import Tensor

from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm.controls import QuantumPart
from qlm.data import load_corpus
from qlm.state import RecurrentState


def model(vocab_size: int = 258, d_model: int = 32, **changes: Any) -> QLMForCausalLM:
    torch.manual_seed(0)
    entry = {"kind": "kernel_attention", "n_wires": 3, "depth": 1, "d_value": 32, **changes}
    return QLMForCausalLM(QLMConfig(vocab_size=vocab_size, d_model=d_model, blocks=[{"kind": "harmonic"}, entry]))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_generation_continues_from_a_saved_state(way: dict[str, Any], tmp_path: Path) -> None:
    """Also where the state grows: the layout's 0 stands for any length."""
    made: Any = model(**way).double().eval()
    ids = torch.randint(258, (2, 9))
    whole = made(ids, use_cache=False).logits
    state = made(ids[:, :5], use_cache=True).past_key_values
    state.save(tmp_path / "state.safetensors")
    rest = made(ids[:, 5:], past_key_values=RecurrentState.load(tmp_path / "state.safetensors"))
    torch.testing.assert_close(rest.logits, whole[:, 5:], atol=1e-10, rtol=0)
    with_cache = made.generate(ids, max_new_tokens=6, do_sample=False)
    without = made.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(with_cache, without)


def test_only_an_axis_of_zero_takes_any_length() -> None:
    state = RecurrentState(1, 3, [(torch.zeros(2, 5, 4),)])
    state.check_layout((((0, 4),),), double=False)
    state.check_layout((((5, 4),),), double=False)
    for wrong in ((((5, 0, 1),),), (((0, 3),),), (((4, 4),),), (((0, 4), (0, 4)),), ((),)):
        with pytest.raises(ValueError, match="expects states of shapes"):
            state.check_layout(wrong, double=False)


def test_entropy_of_the_queries_circuit_can_be_measured() -> None:
    table = measure_entropy(model(n_wires=2, depth=1), "two", n_shuffles=1)
    assert len(table) == 9
    trained = table.select(control="trained").entropy
    assert 0 < max(trained) <= math.log(2) + 1e-9


def kernel_part(made: QLMForCausalLM) -> QuantumPart:
    """What the mode swaps, in the model's one block of kernel attention."""
    (part,) = (module for module in made.modules() if isinstance(module, QuantumPart))
    return part


def train(mode: str, steps: int = 200, **changes: Any) -> tuple[float, float, QLMForCausalLM, Tensor]:
    """Mean losses (nats) of the first and last 20 steps on real text, the model, and its part's first parameters."""
    text = torch.frombuffer(bytearray(load_corpus("python-docs").train[:20000]), dtype=torch.uint8).long()
    made = model(quantum=mode, **changes)
    part = kernel_part(made)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in part.parameters()])
    optimizer, losses = torch.optim.Adam(made.parameters(), lr=5e-3), []
    for _ in range(steps):
        starts = torch.randint(len(text) - 33, (8,))
        ids = torch.stack([text[start : start + 33] for start in starts])
        loss = made(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[:20]) / 20, sum(losses[-20:]) / 20, made, before


@pytest.mark.parametrize("mode", ["circuit", "twin"])
def test_training_on_real_text_lowers_the_loss_and_moves_the_part(mode: str) -> None:
    first, last, made, before = train(mode)
    after = torch.cat([parameter.detach().flatten() for parameter in kernel_part(made).parameters()])
    assert last < first - 1.0
    assert float((after - before).abs().max()) > 0.02
