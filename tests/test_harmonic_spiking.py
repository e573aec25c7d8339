"""Neurons for levels: the block against a loop written from its definition, its surrogate slope, and that it learns.

Axis legend: b batch, l sequence, d model width, k levels.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import losses_on_text
from torch import Tensor
from torch.nn import functional

from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.base import Context
from qlm.blocks.harmonic_spiking import HarmonicSpiking, HarmonicSpikingConfig, fire


def build(move: float = 0.3, **config: Any) -> HarmonicSpiking:
    """A block in float64 whose parameters are all away from their start."""
    torch.manual_seed(0)
    block = HarmonicSpiking(6, HarmonicSpikingConfig(**config)).double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(move * torch.randn_like(parameter))
    return block


def loop(block: HarmonicSpiking, row: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Spikes (l, k, d) and the last potentials (k, d) of one row (l, d)."""
    with torch.no_grad():
        u, _ = block.convolution(block.norm(row)[None], None)
        value = block.value_norm(block.value_gate(u).chunk(2, -1)[0])[0].numpy()
        decays = torch.sigmoid(block.decay(u))[0].unflatten(1, (3, 6)).numpy()
        thresholds, gains = block.log_threshold.exp().reshape(3, 6).numpy(), torch.sigmoid(block.prediction).numpy()
    v, s, fired = np.zeros((3, 6)), np.zeros((3, 6)), []
    for x, a in zip(value, decays, strict=True):
        before, signal = s.copy(), x
        for k in range(3):
            error = signal - gains[k - 1] * before[k] if k else signal
            v[k] = a[k] * v[k] + (1 - a[k]) * error - thresholds[k] * before[k]
            s[k] = v[k] >= thresholds[k]
            signal = s[k]
        fired.append(s.copy())
    return np.array(fired), v


def test_block_equals_the_loop() -> None:
    block = build()
    hidden = torch.randn(2, 40, 6, dtype=torch.float64)
    with torch.no_grad():
        output = block(hidden, Context())
        gate = block.value_gate(block.convolution(block.norm(hidden), None)[0]).chunk(2, -1)[1]
        found = [loop(block, row) for row in hidden]
        spikes = np.array([fired for fired, _ in found])
        expected = hidden + block.out(torch.from_numpy(spikes.sum(2)) * functional.silu(gate))
    torch.testing.assert_close(output.hidden, expected, atol=1e-12, rtol=0)
    for row, (fired, v) in enumerate(found):
        np.testing.assert_allclose(output.state[0][row].numpy(), v, atol=1e-12)
        np.testing.assert_array_equal(output.state[1][row].numpy(), fired[-1])
    assert block.report is not None
    np.testing.assert_allclose(block.report.rates, spikes.mean((0, 1, 3)))
    assert 0 < min(block.report.rates) < max(block.report.rates) < 0.9


@pytest.mark.parametrize("sizes", [(5, 7), (1, 1, 10), (0, 12)])
def test_parts_with_carried_state_are_the_whole(sizes: tuple[int, ...]) -> None:
    block = build()
    hidden = torch.randn(2, 12, 6, dtype=torch.float64)
    whole, state, parts = block(hidden, Context()), (), []
    for part in hidden.split(list(sizes), 1):
        output = block(part, Context(state=state))
        parts.append(output.hidden)
        state = output.state
    torch.testing.assert_close(torch.cat(parts, 1), whole.hidden, atol=1e-13, rtol=0)
    torch.testing.assert_close(state, whole.state, atol=1e-13, rtol=0)


def test_a_constant_input_fires_at_a_regular_rate() -> None:
    """Above the threshold the charge that comes in goes out in spikes: a rate near (1 - a)(x - c) / c a token."""
    block = build(0.0, taus=(1000.0,)).requires_grad_(False)
    threshold, a, x = float(block.log_threshold[0].exp()), math.exp(-1e-3), 5.0
    values = torch.full((1, 4000, 6), x, dtype=torch.float64)
    decays = torch.full((1, 4000, 1, 6), a, dtype=torch.float64)
    zeros = torch.zeros(1, 1, 6, dtype=torch.float64)
    fired, (v, _) = block._run(values, decays, torch.ones(1, 4000, dtype=torch.bool), (zeros, zeros))
    # Summed over time: what came in, minus what leaked at a mean potential between 0 and the threshold, was fired.
    rate = float(fired[:, 1000:].mean())
    assert (1 - a) * (x - threshold) / threshold <= rate * 1.05
    assert rate <= (1 - a) * x / threshold * 1.05
    assert float(v.abs().max()) < 2 * threshold


def test_the_slope_of_a_spike_is_the_surrogates() -> None:
    excess = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    spikes = fire(excess, 3.0)
    spikes.backward(torch.arange(9.0, dtype=torch.float64))
    assert spikes.tolist() == [0.0] * 4 + [1.0] * 5
    assert excess.grad is not None
    expected = torch.arange(9.0, dtype=torch.float64) / (1 + 3 * excess.detach().abs()) ** 2
    torch.testing.assert_close(excess.grad, expected)


@pytest.mark.parametrize("config", [{"taus": ()}, {"taus": (0.0,)}, {"taps": 0}, {"sharpness": 0.0}])
def test_bad_configs_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive taus, taps >= 1 and a finite sharpness > 0"):
        HarmonicSpikingConfig(**config)


def test_a_model_of_it_learns_real_text() -> None:
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig(d_model=24, blocks=[{"kind": "harmonic_spiking", "taus": [2.0, 8.0]}]))
    block = model.model.layers[0]
    before = {name: parameter.detach().clone() for name, parameter in block.named_parameters()}
    losses = losses_on_text(model, steps=60, context=16)
    assert sum(losses[:3]) / 3 - sum(losses[-10:]) / 10 > 1.7
    for name, parameter in block.named_parameters():
        assert float((parameter.detach() - before[name]).abs().max()) > 1e-3, name
