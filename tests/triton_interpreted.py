"""The Triton kernels against the float64 loops, in Triton's interpreter: `test_triton_kernels.py` runs this file.

It needs a process of its own with TRITON_INTERPRET=1. The CUDA implementations are registered for CPU tensors there, so
that the public functions run them whole: checks, operators, gradients. Tiles are tiny, since the interpreter is slow.
"""

import os
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from classical_kernels import (
    causal_convolution,
    causal_convolution_reference,
    scan,
    scan_reference,
    selective_scan,
    selective_scan_reference,
)
from classical_kernels.convolution import cpu as convolution_cpu
from classical_kernels.convolution import cuda as convolution
from classical_kernels.linear_scan import cpu as linear_cpu
from classical_kernels.linear_scan import cuda as linear
from classical_kernels.selective import cpu as selective_cpu
from classical_kernels.selective import cuda as selective

Function = Callable[..., tuple[Tensor, Tensor]]
_TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.fixture(scope="module", autouse=True)
def _on_the_cpu() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1", "run test_triton_kernels.py, which sets what this file needs"
    linear_cpu.scan_channels.register_kernel("cpu")(linear.scan_cuda)
    linear_cpu._scan_backward.register_kernel("cpu")(linear.scan_backward_cuda)
    selective_cpu.selective_scan_fused.register_kernel("cpu")(selective.selective_scan_cuda)
    selective_cpu._backward.register_kernel("cpu")(selective.selective_scan_backward_cuda)
    convolution_cpu.convolve.register_kernel("cpu")(convolution.convolve_cuda)
    convolution_cpu._backward.register_kernel("cpu")(convolution.convolve_backward_cuda)
    torch.manual_seed(0)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _run(function: Function, operands: Mapping[str, Tensor], options: Mapping[str, object]) -> dict[str, Tensor]:
    """Both results, and the gradients of fixed random weights on them for all operands."""
    leaves = {name: operand.detach().clone().requires_grad_() for name, operand in operands.items()}
    outputs = function(**leaves, **options)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, dtype=_wide(out).dtype, generator=generator).to(out.dtype) for out in outputs]
    grads = torch.autograd.grad(outputs, list(leaves.values()), weights, materialize_grads=True)
    return dict(zip(("first", "last", *leaves), (*(out.detach() for out in outputs), *grads), strict=True))


def _agree(ours: Function, oracle: Function, operands: Mapping[str, Tensor], **options: object) -> None:
    """Results and gradients equal those of the loop in double precision, to the rounding of the operands' dtype."""
    dtype = next(iter(operands.values())).dtype
    tolerance = _TOLERANCE[dtype.to_real() if dtype.is_complex else dtype]
    got = _run(ours, operands, options)
    expected = _run(oracle, {name: _wide(operand) for name, operand in operands.items()}, options)
    for name, value in expected.items():
        scale = 1 + (value.abs().max().item() if value.numel() else 0)
        error = (got[name].to(value.dtype) - value).abs().max().item() if value.numel() else 0.0
        assert got[name].shape == value.shape
        assert error <= tolerance * scale, f"{name}: off by {error:.1e}"


def _linear(*shape: int, dtype: torch.dtype) -> dict[str, Tensor]:
    state = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    a, b = torch.randn(shape, dtype=state), torch.randn(shape, dtype=state)
    return {
        "a": (a / (1 + a.abs())).to(dtype), "b": b.to(dtype), "h0": torch.randn(shape[0], *shape[2:], dtype=state)
    }  # fmt: skip


def _marks(batch: int, seq_len: int) -> dict[str, Tensor]:
    """Documents of some steps each, and padding at both ends of the first row."""
    resets, mask = torch.rand(batch, seq_len) < 0.3, torch.ones(batch, seq_len, dtype=torch.bool)
    mask[0, :2], mask[0, -1:] = False, False
    return {"resets": resets, "mask": mask}


@pytest.mark.parametrize("by_steps", [True, False])
@pytest.mark.parametrize(
    ("dtype", "shape", "reverse", "marked"),
    [
        (torch.float64, (2, 5, 3), False, False), (torch.float64, (1, 6, 2), True, True),
        (torch.float32, (1, 1, 3), False, True), (torch.float32, (1, 6, 1), True, False),
        (torch.complex128, (1, 5, 2), False, True), (torch.complex64, (1, 3, 1), True, False),
        (torch.bfloat16, (1, 3, 2), False, True), (torch.float16, (1, 3, 2), False, False),
        (torch.float64, (2, 0, 3), False, False),
    ],
)  # fmt: skip
def test_linear_scan(
    monkeypatch: pytest.MonkeyPatch,
    by_steps: bool,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    reverse: bool,
    marked: bool,
) -> None:
    monkeypatch.setattr(linear, "plan", lambda shape, dtype: linear.Plan(by_steps, 4, 2))
    options = _marks(*shape[:2]) if marked else {}
    _agree(scan, scan_reference, _linear(*shape, dtype=dtype), reverse=reverse, **options)


def test_linear_scan_as_shipped() -> None:
    """The rule as it is; channels on two axes, operands that are neither contiguous nor conjugated yet."""
    operands = _linear(1, 3, 2, 5, dtype=torch.complex128)
    assert linear.plan((1, 5, 6), torch.complex128).by_steps

    def transposed(function: Function) -> Function:
        return lambda a, b, h0: function(a.transpose(1, 3).conj(), b.transpose(1, 3), h0[:, :, 0].mT.conj())

    operands["h0"] = torch.randn(1, 3, 1, 2, dtype=torch.complex128)
    _agree(transposed(scan), transposed(scan_reference), operands)


@pytest.mark.parametrize("by_steps", [True, False])
def test_linear_scan_keeps_documents_apart(monkeypatch: pytest.MonkeyPatch, by_steps: bool) -> None:
    """NaN and infinity before a reset do not pass it, in either direction; pieces equal the whole."""
    monkeypatch.setattr(linear, "plan", lambda shape, dtype: linear.Plan(by_steps, 4, 2))
    operands = _linear(1, 6, 2, dtype=torch.float64)
    operands["b"][0, 1], operands["b"][0, 2] = float("nan"), float("inf")
    resets = torch.tensor([[False, False, False, True, False, False]])
    a, b, h0 = operands.values()
    h, expected = scan(a, b, h0, resets=resets)[0], scan_reference(a, b, h0, resets=resets)[0]
    torch.testing.assert_close(h, expected, equal_nan=True, rtol=1e-14, atol=1e-14)
    assert h[0, 3:].isfinite().all()
    assert h[0, 1].isnan().all()
    a, b, h0 = _linear(1, 7, 3, dtype=torch.float64).values()
    first, carried = scan(a[:, :3], b[:, :3], h0)
    second, last = scan(a[:, 3:], b[:, 3:], carried)
    whole, expected = scan(a, b, h0)
    torch.testing.assert_close(torch.cat((first, second), 1), whole, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(last, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("dtype", "length", "n_states", "discretization", "whole"),
    [
        (torch.float32, 5, 2, "euler", False), (torch.float64, 3, 3, "euler", True), (torch.float64, 5, 2, "zoh", True),
        (torch.float32, 3, 1, "zoh", False), (torch.float64, 2, 0, "euler", True), (torch.float64, 0, 2, "euler", True),
    ],
)  # fmt: skip
def test_selective_scan(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, length: int, n_states: int, discretization: str, whole: bool
) -> None:
    """With three states in tiles of two, the second sweep adds to the first; steps on both sides of |delta A| = 1."""
    tile = selective.Tile(2, 2, 2, 4)
    monkeypatch.setattr(selective, "forward_tile", lambda n_states: tile)
    monkeypatch.setattr(selective, "backward_tile", lambda n_states, dtype, spread: tile)
    monkeypatch.setattr(selective, "_STEPS", 2)
    n_channels = 3 if whole and n_states == 2 else 2
    operands = {
        "u": torch.randn(1, length, n_channels, dtype=dtype),
        "delta": functional.softplus(torch.randn(1, length, n_channels, dtype=dtype)),
        "A": -torch.exp(torch.randn(n_channels, n_states, dtype=dtype)),
        "B": torch.randn(1, length, n_states, dtype=dtype),
        "C": torch.randn(1, length, n_states, dtype=dtype),
    }
    options = {"discretization": discretization}
    if whole:
        operands |= {"D": torch.randn(n_channels, dtype=dtype), "z": torch.randn(1, length, n_channels, dtype=dtype)}
        operands["h0"] = torch.randn(1, n_channels, n_states, dtype=dtype)
        options |= _marks(1, length)
    _agree(selective_scan, selective_scan_reference, operands, **options)


@pytest.mark.parametrize(
    ("dtype", "length", "taps", "packed"),
    [
        (torch.float64, 7, 4, True), (torch.float32, 5, 3, False), (torch.float32, 2, 4, False),
        (torch.float64, 5, 1, False), (torch.float64, 0, 3, False),
    ],
)  # fmt: skip
def test_convolution(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, length: int, taps: int, packed: bool) -> None:
    monkeypatch.setattr(convolution, "tile_for", lambda dtype: (4, 2))
    operands = {
        "x": torch.randn(1, length, 3, dtype=dtype), "weight": torch.randn(3, taps, dtype=dtype),
        "bias": torch.randn(3, dtype=dtype), "state": torch.randn(1, taps - 1, 3, dtype=dtype),
    }  # fmt: skip
    options = {"resets": torch.rand(1, length) < 0.3} if packed else {}
    _agree(causal_convolution, causal_convolution_reference, operands, **options)
