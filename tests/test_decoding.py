"""One token at a time: compiled steps against tensor operations, and where they must not stand in for these.

Axis legend: b batch, l sequence, d model width, k levels.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize, prune
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from classical_kernels.token_steps.cpu import advance, convolve, normalise
from classical_kernels.token_steps.reference import advance_reference, convolve_reference, normalise_reference
from qlm.blocks import harmonic as module
from qlm.blocks.base import BlockOutput, Context
from qlm.blocks.harmonic import Harmonic, HarmonicConfig

CLOSE: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-13},
    torch.float32: {"rtol": 2e-6, "atol": 2e-6},
}
PRECISIONS = tuple(CLOSE)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(dtype)


def harmonic(d_model: int = 33, dtype: torch.dtype = torch.float64, **config: Any) -> Harmonic:
    """A block whose parameters are all away from their start."""
    torch.manual_seed(0)
    block = Harmonic(d_model, HarmonicConfig(**config)).double().eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block.to(dtype)


def drawn(block: Harmonic, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A token (b, 1, d) and a state."""
    width, n_levels = block.out.in_features, len(block.taus)
    state = (draw(batch, n_levels, width, dtype=dtype), draw(batch, block.taps - 1, width, dtype=dtype))
    return draw(batch, 1, width, dtype=dtype), state


def ordinary(block: nn.Module, hidden: Tensor, context: Context) -> tuple[Tensor, ...]:
    """What tensor operations give: those with gradients on."""
    with torch.enable_grad():
        output = block(hidden, context)
    return tuple(tensor.detach() for tensor in (output.hidden, *output.state))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each token so far: whether the block took it in one compiled call, or a piece of it in one."""
    calls: list[bool] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            calls.append(result is not None)
            return result

        return call

    monkeypatch.setattr(module, "step_harmonic", noted(module.step_harmonic))
    monkeypatch.setattr(module, "advance", noted(module.advance))
    return calls


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("b", "d", "k", "taps"), [(1, 128, 3, 4), (3, 7, 1, 1), (5, 33, 4, 2), (2, 1, 2, 3), (0, 4, 2, 2)]
)
def test_pieces_equal_their_references(dtype: torch.dtype, b: int, d: int, k: int, taps: int) -> None:
    torch.manual_seed(0)
    x, filters, vector = draw(b, 1, d, dtype=dtype), draw(d, 1, taps, dtype=dtype), draw(d, dtype=dtype)
    tail, levels = draw(b, taps - 1, d, dtype=dtype), draw(b, k, d, dtype=dtype)
    logits, value_gate = draw(b, 1, k * d, dtype=dtype), draw(b, 1, 2 * d, dtype=dtype)
    with torch.no_grad():
        assert_close(normalise(x, vector, 1e-6), normalise_reference(x, vector, 1e-6), **CLOSE[dtype])
        given = (x, filters, vector, tail)
        assert_close(convolve(*given), convolve_reference(*given), **CLOSE[dtype])
        for predicted in {0, k - 1}:
            given = (logits, value_gate, draw(predicted, d, dtype=dtype), levels)
            assert_close(advance(*given), advance_reference(*given), **CLOSE[dtype])


def test_extreme_numbers_pass_as_they_do_in_tensor_operations() -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0, float("nan")]]])
    value_gate = torch.tensor([[[1.0, 2.0, float("inf"), 1.0, 1e4, -1e4, 1.0, 1.0]]])
    with torch.no_grad():
        given = (logits, value_gate, torch.zeros(0, 4), torch.full((1, 1, 4), 3.0))
        assert_close(advance(*given), advance_reference(*given), equal_nan=True)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    "config", [{}, {"taus": (8.0,)}, {"taps": 1}, {"signal": "raw"}, {"taus": (2.0, 16.0), "taps": 2}]
)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_token_in_one_call_equals_tensor_operations(
    dtype: torch.dtype, config: dict[str, Any], batch: int, taken: list[bool]
) -> None:
    block = harmonic(dtype=dtype, **config)
    hidden, state = drawn(block, batch, dtype)
    before = [tensor.clone() for tensor in (hidden, *state)]
    with torch.no_grad():
        output = block(hidden, Context(state=state))
    assert taken == [True]
    assert_close((output.hidden, *output.state), ordinary(block, hidden, Context(state=state)), **CLOSE[dtype])
    assert_close([hidden, *state], before, rtol=0, atol=0)
    assert all(tensor.untyped_storage().nbytes() == tensor.numel() * dtype.itemsize for tensor in output.state)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_what_is_too_large_for_one_call_is_taken_in_pieces(dtype: torch.dtype, taken: list[bool]) -> None:
    block = harmonic(d_model=32, dtype=dtype)
    hidden, state = drawn(block, 400, dtype)
    with torch.no_grad():
        output = block(hidden, Context(state=state))
    assert taken == [False, True]
    assert_close((output.hidden, *output.state), ordinary(block, hidden, Context(state=state)), **CLOSE[dtype])


def _doubled(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return 2 * output


class _Adapter(nn.Module):
    """A layer with something added, as PEFT wraps one."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x.mean()


class _Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _replaced(block: Harmonic) -> None:
    own = block.value_gate.forward
    setattr(block.value_gate, "forward", lambda x: own(x) + 1)  # noqa: B010 -- of another signature


CHANGES: dict[str, Callable[[Harmonic], object]] = {
    "hook": lambda block: block.out.register_forward_hook(_doubled),
    "hook of the norm": lambda block: block.norm.register_forward_hook(_doubled),
    "hook before": lambda block: block.decay.register_forward_pre_hook(lambda _, given: (given[0] + 1,)),
    "adapter": lambda block: setattr(block, "value_gate", _Adapter(block.value_gate)),
    "other forward": _replaced,
    "parametrised": lambda block: parametrize.register_parametrization(block.decay, "weight", _Halved()),
    "pruned": lambda block: prune.l1_unstructured(block.out, "weight", 0.5),
    "bias": lambda block: block.out.register_parameter("bias", nn.Parameter(torch.ones(33, dtype=torch.float64))),
    "no bias": lambda block: block.decay.register_parameter("bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_layers_are_called(change: str) -> None:
    """Each change shows in the output, and shows as it does with tensor operations."""
    block = harmonic()
    hidden, state = drawn(block)
    with torch.no_grad():
        plain = block(hidden, Context(state=state)).hidden
    CHANGES[change](block)
    with torch.no_grad():
        output = block(hidden, Context(state=state))
    assert (output.hidden - plain).abs().max() > 1e-3
    assert_close((output.hidden, *output.state), ordinary(block, hidden, Context(state=state)), rtol=1e-12, atol=1e-13)


def test_hooks_of_all_modules_are_called() -> None:
    block, seen = harmonic(), []
    hidden, state = drawn(block)
    handle = nn.modules.module.register_module_forward_hook(lambda called, _, __: seen.append(called))
    with handle, torch.no_grad():
        block(hidden, Context(state=state))
    assert block.out in seen
    assert block.norm in seen


class _Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


WATCHED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients": torch.enable_grad,
    "dispatch mode": _Watching,
    "function mode": lambda: torch.device("cpu"),
    "forward derivatives": forward_ad.dual_level,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("watcher", WATCHED)
def test_watched_tensors_go_through_tensor_operations(watcher: str, taken: list[bool]) -> None:
    block = harmonic()
    hidden, state = drawn(block)
    with torch.no_grad(), WATCHED[watcher]():
        block(hidden, Context(state=state))
    assert taken == [False, False]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # PyTorch's own jvp calls it
def test_derivatives_forward_and_per_sample_calls_are_right() -> None:
    block = harmonic()
    hidden, state = drawn(block)

    def run(hidden: Tensor, *state: Tensor) -> Tensor:
        return block(hidden[None], Context(state=tuple(part[None] for part in state))).hidden[0]

    with torch.no_grad():
        together = block(hidden, Context(state=state)).hidden
        assert_close(torch.vmap(run)(hidden, *state), together)
        slope = torch.func.jvp(lambda x: block(x, Context(state=state)).hidden, (hidden,), (hidden,))[1]
        step = [block(hidden * (1 + e), Context(state=state)).hidden for e in (1e-6, -1e-6)]
        assert_close(slope, (step[0] - step[1]) / 2e-6, rtol=1e-6, atol=1e-6)


def test_other_tensors_go_through_tensor_operations(taken: list[bool]) -> None:
    """Padding, strides of levels and of memory, narrow numbers, autocast: the same results as with gradients on."""
    single = harmonic(dtype=torch.float32)
    token, own = drawn(single, dtype=torch.float32)
    strided = harmonic(stride=2)
    wide, levelled = drawn(strided)
    counted = (*levelled, torch.ones(2, 1, dtype=torch.float64))
    padded = torch.tensor([[True], [False]])
    narrow = tuple(tensor.bfloat16() for tensor in own)
    turned = (own[0].mT.contiguous().mT, own[1])
    cases: list[tuple[Harmonic, Tensor, Context, Any]] = [
        (strided, wide, Context(state=counted), nullcontext()),
        (single, token, Context(padded, state=own), nullcontext()),
        (single, token, Context(state=turned), nullcontext()),
        (single, token, Context(state=own), torch.autocast("cpu", torch.bfloat16)),
        (harmonic(dtype=torch.bfloat16), token.bfloat16(), Context(state=narrow), nullcontext()),
    ]
    for block, hidden, context, mode in cases:
        taken.clear()
        with mode:
            expected = ordinary(block, hidden, context)
            with torch.no_grad():
                output: BlockOutput = block(hidden, context)
        assert_close((output.hidden, *output.state), expected)
    assert_close(ordinary(single, token, Context(state=turned)), ordinary(single, token, Context(state=own)))


def test_states_of_other_shapes_are_refused_as_ever() -> None:
    block = harmonic()
    hidden, (levels, tail) = drawn(block)
    for state in ((levels[:, :2].clone(), tail), (levels[..., :5].clone(), tail), (levels, tail[:, :1].clone())):
        with torch.no_grad(), pytest.raises((RuntimeError, ValueError, IndexError)):
            block(hidden, Context(state=state))
