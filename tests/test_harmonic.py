"""The three-level recurrence against a loop that takes one step at a time, written from its definition.

Axis legend: b batch, l sequence, d model width.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from qlm.blocks.base import Context
from qlm.blocks.harmonic import Harmonic, HarmonicConfig

Array = NDArray[np.float64]


def harmonic(d_model: int = 6, move: float = 0.3, **config: Any) -> Harmonic:
    """A block in float64 whose parameters are all away from their start."""
    torch.manual_seed(0)
    block = Harmonic(d_model, HarmonicConfig(**config)).double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(move * torch.randn_like(parameter))
    return block


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def slow(block: Harmonic, row: Array) -> tuple[Array, Array]:
    """Output (l, d) and final levels (K, d) of one row (l, d), step by step."""
    n_levels, width = len(block.taus), row.shape[1]
    kernel, bias = numbers(block.convolution.weight)[:, 0], numbers(block.convolution.bias)  # pyright: ignore[reportArgumentType]
    value_map, gate_map = np.split(numbers(block.value_gate.weight), 2)
    decay_map, decay_bias = numbers(block.decay.weight), numbers(block.decay.bias)
    gains = sigmoid(numbers(block.prediction)) if len(block.prediction) else np.zeros((n_levels, width))
    levels, past, out = np.zeros((n_levels, width)), [np.zeros(width)] * (block.taps - 1), []
    for x in row:
        past = [*past, x / np.sqrt(np.mean(x**2) + 1e-6) * numbers(block.norm.weight)]
        u = sum((kernel[:, tap] * past[tap - block.taps] for tap in range(block.taps)), bias)
        u = u * sigmoid(u)
        a = sigmoid(decay_map @ u + decay_bias).reshape(n_levels, width)
        before, error = levels.copy(), value_map @ u
        for k in range(n_levels):
            if len(out) % block.periods[k] == block.periods[k] - 1:
                levels[k] = a[k] * before[k] + (1 - a[k]) * error
            if k + 1 < n_levels:
                error = levels[k] - gains[k] * before[k + 1]  # the upper level is one step behind
        gate = gate_map @ u
        out.append(x + numbers(block.out.weight) @ (levels.sum(0) * gate * sigmoid(gate)))
    return np.array(out).reshape(row.shape), levels


@pytest.mark.parametrize("taus", [(4.0, 32.0, 128.0), (8.0,), (2.0, 16.0)])
@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("signal", ["error", "raw"])
def test_block_equals_the_loop(taus: tuple[float, ...], taps: int, signal: str) -> None:
    block = harmonic(taus=taus, taps=taps, signal=signal)
    hidden = torch.randn(3, 17, 6, dtype=torch.float64)
    output = block(hidden, Context())
    for row, out, levels in zip(hidden.numpy(), output.hidden, output.state[0], strict=True):
        expected, final = slow(block, row)
        np.testing.assert_allclose(numbers(out), expected, atol=1e-12)
        np.testing.assert_allclose(numbers(levels), final, atol=1e-12)


@pytest.mark.parametrize("stride", [2, 3])
def test_block_with_a_stride_equals_the_loop(stride: int) -> None:
    """Upper levels move at every second and fourth token, or third and ninth; in one piece and in parts."""
    block = harmonic(stride=stride)
    assert block.periods == (1, stride, stride**2)
    hidden = torch.randn(2, 23, 6, dtype=torch.float64)
    expected = [slow(block, row) for row in hidden.numpy()]
    for sizes in ((23,), (1, 4, 9, 9), (1,) * 23):
        parts: list[Tensor] = []
        state: tuple[Tensor, ...] = ()
        for part in hidden.split(list(sizes), 1):
            output = block(part, Context(state=state))
            parts.append(output.hidden)
            state = output.state
        carried = list(state)
        np.testing.assert_allclose(numbers(torch.cat(parts, 1)), [out for out, _ in expected], atol=1e-12)
        np.testing.assert_allclose(numbers(carried[0]), [levels for _, levels in expected], atol=1e-12)
        assert carried[2].tolist() == [[23 % stride**2]] * 2


def test_time_scales_with_a_stride_stay_in_tokens() -> None:
    block = Harmonic(3, HarmonicConfig(signal="raw", stride=4)).double().requires_grad_(False)
    block.decay.weight.zero_()
    block.convolution.get_parameter("bias").zero_()
    for level, tau in enumerate((4, 32, 128)):
        levels = torch.zeros(1, 3, 3, dtype=torch.float64)
        levels[:, level] = 1
        state = (levels, torch.zeros(1, 3, 3, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
        after = block(torch.zeros(1, 64, 3, dtype=torch.float64), Context(state=state)).state[0][0, level]
        assert float(after[0]) == pytest.approx(math.exp(-64 / tau), rel=1e-6)


def test_single_precision_equals_the_loop() -> None:
    block = harmonic()
    hidden = torch.randn(1, 200, 6)
    expected, _ = slow(block, hidden[0].double().numpy())
    np.testing.assert_allclose(numbers(block.float()(hidden, Context()).hidden[0]), expected, atol=2e-5)


def test_decays_start_at_their_time_scales() -> None:
    block = Harmonic(5, HarmonicConfig())
    with torch.no_grad():
        block.decay.weight.zero_()
        start = torch.sigmoid(block.decay(torch.randn(5))).reshape(3, 5)
    for tau, a in zip((4, 32, 128), start, strict=True):
        torch.testing.assert_close(a, torch.full((5,), math.exp(-1 / tau)), atol=1e-6, rtol=0)
    assert torch.equal(block.prediction, torch.zeros(2, 5))


@pytest.mark.parametrize(("signal", "taus"), [("error", (4, 21, 85)), ("raw", (4, 32, 128))])
def test_levels_forget_at_the_stated_time_scales(signal: str, taus: tuple[int, ...]) -> None:
    """Each level alone holds a one; with no input left, it decays by exp(-1/tau) a token."""
    block = Harmonic(3, HarmonicConfig(signal=signal)).double()
    with torch.no_grad():
        block.decay.weight.zero_()
        block.convolution.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    for level, tau in enumerate(taus):
        levels = torch.zeros(1, 3, 3, dtype=torch.float64)
        levels[:, level] = 1
        state = (levels, torch.zeros(1, 3, 3, dtype=torch.float64))
        after = block(torch.zeros(1, 1, 3, dtype=torch.float64), Context(state=state)).state[0][0, level]
        assert float(-1 / after[0].detach().log()) == pytest.approx(tau, abs=0.5)


@pytest.mark.parametrize("sizes", [(5, 7), (1, 1, 10), (11, 1), (0, 12), (2, 3, 7)])
def test_parts_with_carried_state_are_the_whole(sizes: tuple[int, ...]) -> None:
    block = harmonic()
    hidden = torch.randn(2, 12, 6, dtype=torch.float64)
    whole, state, parts = block(hidden, Context()), (), []
    for part in hidden.split(list(sizes), 1):
        output = block(part, Context(state=state))
        parts.append(output.hidden)
        state = output.state
    torch.testing.assert_close(torch.cat(parts, 1), whole.hidden, atol=1e-13, rtol=0)
    for carried, at_once in zip(state, whole.state, strict=True):
        torch.testing.assert_close(carried, at_once, atol=1e-13, rtol=0)


def test_state_holds_no_more_than_its_numbers() -> None:
    """Constant in the length, also in the memory that it keeps alive."""
    block = harmonic()
    for length in (1, 3, 500):
        levels, tail = block(torch.randn(1, length, 6, dtype=torch.float64), Context()).state
        assert levels.shape == (1, 3, 6)
        assert tail.shape == (1, 3, 6)
        assert levels.untyped_storage().nbytes() == tail.untyped_storage().nbytes() == 18 * 8


def test_left_padding_leaves_no_trace() -> None:
    block = harmonic()
    hidden = torch.randn(2, 9, 6, dtype=torch.float64)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, :4] = False
    hidden[0, :4] = 1e3
    padded, bare = block(hidden, Context(mask)), block(hidden[:1, 4:], Context())
    torch.testing.assert_close(padded.hidden[:1, 4:], bare.hidden, atol=1e-13, rtol=0)
    for with_padding, without in zip(padded.state, bare.state, strict=True):
        torch.testing.assert_close(with_padding[:1], without, atol=1e-13, rtol=0)
    torch.testing.assert_close(padded.hidden[1], block(hidden[1:], Context()).hidden[0], atol=1e-13, rtol=0)


def test_padding_moves_no_level() -> None:
    block = harmonic()
    hidden = torch.randn(1, 9, 6, dtype=torch.float64)
    mask = torch.tensor([[True] * 6 + [False] * 3])
    levels = block(hidden, Context(mask)).state[0]
    torch.testing.assert_close(levels, block(hidden[:, :6], Context()).state[0], atol=1e-13, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    block = harmonic(d_model=3, taps=2)
    hidden = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    levels = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    tail = torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in block.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in block.parameters()]

    def run(hidden: Tensor, levels: Tensor, tail: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, parameters, strict=True))
        output = torch.func.functional_call(block, given, (hidden, Context(state=(levels, tail))))
        return output.hidden, *output.state

    assert torch.autograd.gradcheck(run, (hidden, levels, tail, *values), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_the_levels_in_float32(dtype: torch.dtype) -> None:
    """A decay of exp(-1/128) forgets at its own rate, not at that of the nearest low-precision number."""
    torch.manual_seed(0)
    block = Harmonic(8, HarmonicConfig()).eval()
    hidden = torch.randn(1, 300, 8)
    expected = block(hidden, Context()).state[0]
    output = block.to(dtype)(hidden.to(dtype), Context())
    assert output.hidden.dtype == dtype
    assert output.state[0].dtype == torch.float32
    torch.testing.assert_close(output.state[0], expected, atol=0.02 * float(expected.detach().abs().max()), rtol=0)
    after = block(hidden[:, :1].to(dtype), Context(state=output.state))
    assert after.state[0].dtype == torch.float32


def test_an_unknown_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown harmonic signal 'raws': did you mean 'raw'"):
        HarmonicConfig(signal="raws")


@pytest.mark.parametrize("config", [{"taus": ()}, {"taus": (4.0, 0.0)}, {"taps": 0}])
def test_bad_configs_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive taus and taps >= 1"):
        HarmonicConfig(**config)


@pytest.mark.parametrize("stride", [0, -1, 2**11])
def test_a_bad_stride_is_refused(stride: int) -> None:
    with pytest.raises(
        ValueError, match="stride of at least 1 whose top level moves every 1048576 tokens or more often"
    ):
        HarmonicConfig(stride=stride)
