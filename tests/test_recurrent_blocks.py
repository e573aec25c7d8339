"""Mamba, the rotational layer and the Transformer's layer against loops written from their definitions.

Axis legend: b batch, l sequence, d model width, e inner channels, n states.
"""

import math
from typing import Any

import pytest
import torch
from small_blocks import SMALL
from tiny_runs import losses_on_text
from torch import Tensor, nn
from torch.nn import functional

from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.base import Block, Context
from qlm.blocks.mamba import Mamba, MambaConfig
from qlm.blocks.rotational import Rotational, RotationalConfig
from qlm.blocks.transformer import Transformer, TransformerConfig
from qlm.evaluation import count_parameters
from qlm.presets import PRESETS
from qlm.registry import block_class, block_config

KINDS = ("mamba", "rotational", "transformer")
BASELINES = ("harmonic", "mamba", "rotational", "transformer")


def build(kind: str, d_model: int = 8, move: float = 0.3, **changes: Any) -> Any:
    """A block in float64 whose parameters are all away from their start."""
    torch.manual_seed(0)
    block = block_class(kind)(d_model, block_config({"kind": kind, **SMALL.get(kind, {}), **changes}, "circuit"))  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(move * torch.randn_like(parameter))
    return block.double().eval()


def stream(batch: int = 2, length: int = 11, d_model: int = 8) -> Tensor:
    return torch.randn(batch, length, d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def slow_mamba(block: Mamba, row: Tensor) -> Tensor:
    """Output (l, d) of one row (l, d), step by step."""
    A = -block.log_decay.exp().reshape(len(block.skip), -1)
    kernel, bias = block.convolution.weight[:, 0], block.convolution.get_parameter("bias")
    past, h, out = [torch.zeros(len(A), dtype=row.dtype)] * (block.config.taps - 1), torch.zeros_like(A), []
    for hidden in row:
        x, z = block.value_gate(block.norm(hidden)).chunk(2)
        past = [*past, x]
        u = functional.silu(
            sum(kernel[:, tap] * past[tap - block.config.taps] for tap in range(block.config.taps)) + bias
        )
        low, B, C = block.selection(u).split((block.rank, A.shape[1], A.shape[1]))
        delta = torch.log1p(torch.exp(block.delta(low)))[:, None]
        gain = delta if block.config.discretization == "euler" else (torch.exp(delta * A) - 1) / A
        h = torch.exp(delta * A) * h + gain * B * u[:, None]
        out.append(hidden + block.out((h @ C + block.skip * u) * functional.silu(z)))
    return torch.stack(out)


def slow_rotational(block: Rotational, row: Tensor) -> Tensor:
    """Output (l, d) of one row (l, d), each state a vector of two numbers and each turn a 2 x 2 matrix."""
    heads, n = block.config.n_heads, block.config.n_states
    share = len(block.skip) // heads
    h = before = torch.zeros(len(block.skip), n, 2, dtype=row.dtype)
    bias_B, bias_C = block.selection_bias.chunk(2)
    out = []
    for hidden in row:
        normed = block.norm(hidden)
        x, z = block.value_gate(normed).chunk(2)
        B, C = (block.selection_norm(one) for one in block.selection(normed).chunk(2))
        delta, mixture, turns = block.dynamics(normed).split((heads, heads, heads * n))
        delta, mixture = torch.log1p(delta.exp()), torch.sigmoid(mixture)
        angle = math.pi * torch.tanh(turns.reshape(heads, n))
        matrix = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1).reshape(heads, n, 2, 2)
        r = (torch.exp(-delta * block.log_decay.exp())[:, None, None, None] * matrix).repeat_interleave(share, 0)
        delta, mixture = (one.repeat_interleave(share)[:, None, None] for one in (delta, mixture))
        v = x[:, None, None] * (B + bias_B).reshape(n, 2)
        turned = torch.einsum("enij,enj->eni", r, h + delta * (1 - mixture) * before)
        h, before = turned + delta * mixture * v, v
        y = (h * (C + bias_C).reshape(n, 2)).sum((1, 2)) + block.skip * x
        out.append(hidden + block.out(y * functional.silu(z)))
    return torch.stack(out)


def slow_transformer(block: Transformer, row: Tensor) -> Tensor:
    """Output (l, d) of one row (l, d): scores pair by pair, positions as complex numbers."""
    heads, width = block.config.n_heads, row.shape[1] // block.config.n_heads
    query, key, value = (
        one.reshape(len(row), heads, width) for one in block.query_key_value(block.attention_norm(row)).chunk(3, -1)
    )
    powers = block.config.base ** (-torch.arange(0, width, 2, dtype=row.dtype) / width)
    read = torch.zeros_like(value)
    for t in range(len(row)):
        scores = []
        for s in range(t + 1):
            turn = torch.exp(1j * (s - t) * powers)  # of distances alone
            q, k = (torch.complex(*one.chunk(2, -1)) for one in (query[t], key[s]))
            scores.append((q.conj() * k * turn).real.sum(-1) / math.sqrt(width))
        weights = torch.softmax(torch.stack(scores), 0)
        read[t] = (weights[..., None] * value[: t + 1]).sum(0)
    hidden = row + block.attention_out(read.flatten(1))
    gate, up = block.gate_up(block.feed_forward_norm(hidden)).chunk(2, -1)
    return hidden + block.down(functional.silu(gate) * up)


@pytest.mark.parametrize(
    ("kind", "changes", "slow"),
    [
        ("mamba", {}, slow_mamba),
        ("mamba", {"discretization": "zoh", "taps": 2, "delta_rank": 3}, slow_mamba),
        ("rotational", {}, slow_rotational),
        ("rotational", {"n_heads": 1, "n_states": 5, "expansion": 1.5}, slow_rotational),
        ("transformer", {}, slow_transformer),
        ("transformer", {"n_heads": 1, "hidden": 5, "base": 7.0}, slow_transformer),
    ],
)
def test_block_equals_the_loop(kind: str, changes: dict[str, Any], slow: Any) -> None:
    block, hidden = build(kind, **changes), stream()
    with torch.no_grad():
        found = block(hidden, Context()).hidden
        expected = torch.stack([slow(block, row) for row in hidden])
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
        single = block.float()(hidden.float(), Context()).hidden
    torch.testing.assert_close(single.double(), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "changes"), [*((kind, {}) for kind in KINDS), ("harmonic", {"stride": 3})])
def test_left_padding_leaves_no_trace(kind: str, changes: dict[str, Any]) -> None:
    """With and without a state carried on: a padded row says what the bare one says."""
    block, hidden = build(kind, **changes), stream(2, 16)
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[0, :4] = False
    hidden[0, :4] = 1e3
    with torch.no_grad():
        padded, bare = block(hidden[:, :9], Context(mask[:, :9])), block(hidden[:1, 4:9], Context())
        torch.testing.assert_close(padded.hidden[:1, 4:], bare.hidden, atol=1e-12, rtol=0)
        padded = block(hidden[:, 9:], Context(mask[:, 9:], state=padded.state))
        bare = block(hidden[:1, 9:], Context(state=bare.state))
        torch.testing.assert_close(padded.hidden[:1], bare.hidden, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    block: Block = build(kind, d_model=4)
    hidden = stream(1, 3, 4).requires_grad_()
    with torch.no_grad():
        first = block(stream(1, 2, 4), Context()).state
    state = tuple(one.detach().requires_grad_(one.is_floating_point()) for one in first)
    state = (*state[:2], *(one.detach() for one in state[2:]))  # which tokens are real is no variable
    names = [name for name, _ in block.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in block.parameters()]

    def run(hidden: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, others[2:], strict=True))
        context = Context(state=(*others[:2], *state[2:]))
        output = torch.func.functional_call(block, given, (hidden, context))
        return output.hidden, *output.state[:2]

    assert torch.autograd.gradcheck(run, (hidden, *state[:2], *values), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_stays_near_single(kind: str) -> None:
    block, hidden = build(kind, move=0.1).float(), stream(1, 60).float()
    with torch.no_grad():
        expected = block(hidden, Context()).hidden
        with torch.autocast("cpu", torch.bfloat16):
            mixed = block(hidden, Context())
        low = nn.Module.to(block, torch.bfloat16)(hidden.bfloat16(), Context())
    assert low.hidden.dtype == torch.bfloat16
    for found in (mixed.hidden.float(), low.hidden.float()):
        assert float((found - expected).norm() / expected.norm()) < 0.02
    if kind != "transformer":
        assert mixed.state[0].dtype == low.state[0].dtype == torch.float32


def test_state_of_recurrences_is_constant_and_of_attention_grows() -> None:
    for kind in KINDS:
        sizes = []
        for length in (1, 3, 200):
            with torch.no_grad():
                state = build(kind)(stream(1, length), Context()).state
            sizes.append(sum(one.untyped_storage().nbytes() for one in state))
        if kind == "transformer":
            assert sizes == [length * (2 * 8 + 1) * 8 for length in (1, 3, 200)]
        else:
            assert sizes[0] == sizes[1] == sizes[2] > 0


def test_mamba_starts_as_published() -> None:
    torch.manual_seed(0)
    block = Mamba(64, MambaConfig())
    torch.testing.assert_close(block.log_decay.exp().reshape(128, 16), torch.arange(1.0, 17).expand(128, 16))
    assert torch.equal(block.skip, torch.ones(128))
    steps = functional.softplus(block.delta.bias.detach())
    assert 1e-3 * 0.999 < float(steps.min()) < 2e-3
    assert 5e-2 < float(steps.max()) < 1e-1 * 1.001
    assert float(block.delta.weight.detach().abs().max()) <= 0.5  # rank 4


def test_a_half_turn_counts_modulo_two() -> None:
    """Turned by pi at ones and by 0 at zeros, without decay, a state keeps the parity of what it saw: exactly."""
    bits = torch.randint(2, (1, 500), generator=torch.Generator().manual_seed(0))
    block = Rotational(2, RotationalConfig(expansion=1.0, n_heads=1, n_states=1)).double()
    with torch.no_grad():
        block.dynamics.weight.zero_()
        block.dynamics.bias[:] = torch.tensor([-50.0, 0.0, 0.0])  # steps of 0: neither decay nor input
        block.dynamics.weight[2, 0] = 1e3
    signs = torch.stack((bits.double(), 1 - bits.double()), -1)
    start = torch.ones(1, 2, 1, 2, dtype=torch.float64)
    with torch.no_grad():
        for t in range(0, 500, 100):
            state = block(signs[:, : t + 1], Context(state=(start, torch.zeros_like(start)))).state[0]
            expected = (-1.0) ** int(bits[0, : t + 1].sum())
            torch.testing.assert_close(state, expected * start, atol=1e-6, rtol=0)


def test_presets_have_equal_cores() -> None:
    """Within 2 % of the Transformer's, at one width; the ablations within 0.5 % of Harmonic's."""
    models = {name: QLMForCausalLM(QLMConfig.preset(name)) for name in PRESETS if name != "tiny-hybrid"}
    counts = {name: count_parameters(model).core for name, model in models.items()}
    assert {model.config.d_model for model in models.values()} == {128}
    for name in BASELINES:
        assert counts[name] == pytest.approx(counts["transformer"], rel=0.02), name
    for name in ("flat-tau-4", "flat-tau-32", "flat-tau-128", "raw-signal"):
        assert counts[name] == pytest.approx(counts["harmonic"], rel=0.005), name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: TransformerConfig(n_heads=0), "n_heads >= 1, hidden >= 0 and base > 1, got 0, 0 and 10000.0"),
        (lambda: TransformerConfig(base=1.0), "base > 1"),
        (
            lambda: Transformer(12, TransformerConfig(n_heads=4)),
            "multiple of 8, an even width for each of 4 heads, got 12",
        ),
        (lambda: MambaConfig(n_states=0), "n_states and taps of at least 1 and delta_rank >= 0"),
        (lambda: MambaConfig(discretization="exact"), "unknown mamba discretization 'exact'"),
        (lambda: RotationalConfig(expansion=0.0), "expansion > 0, n_heads >= 1 and n_states >= 1"),
        (lambda: Rotational(8, RotationalConfig(n_heads=3)), "multiple of its 3 heads, got 16"),
    ],
)
def test_bad_configs_are_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config()


@pytest.mark.parametrize("kind", [*KINDS, "harmonic"])
def test_a_model_of_it_learns_real_text(kind: str) -> None:
    torch.manual_seed(0)
    entry = {"kind": kind, **SMALL.get(kind, {})}
    model = QLMForCausalLM(QLMConfig(d_model=32, blocks=[entry, entry]))
    before = {name: one.detach().clone() for name, one in model.model.layers.named_parameters()}
    losses = losses_on_text(model, steps=100)
    assert losses[0] == pytest.approx(math.log(258), abs=0.3)
    assert losses[0] - sum(losses[-10:]) / 10 > 2.4
    for name, parameter in model.model.layers.named_parameters():
        assert float((parameter.detach() - before[name]).abs().max()) > 1e-3, name
