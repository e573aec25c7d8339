"""The mixture of experts behind a circuit: what is computed for which token, and what is refused.

Axis legend: b batch, l sequence, d model width, n tokens, e experts, w wires.
"""

import math
from typing import Any

import pytest
import torch
from expert_blocks import block, report_of, routing
from torch.utils.flop_counter import FlopCounterMode

from circuits.library import reuploading
from qlm.blocks.base import Context
from qlm.blocks.vqc_experts import VQCExpertsConfig
from qlm.controls import QUANTUM_MODES
from qlm.experts.base import EXPERTS

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
