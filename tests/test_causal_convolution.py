"""The causal convolution against numpy and PyTorch's own, with every gradient, with state and with packed documents."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numba import types
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from classical_kernels import causal_convolution, causal_convolution_reference, causal_convolution_step
from classical_kernels.convolution.cpu import _backward, convolve
from classical_kernels.convolution.kernels import backward_segments, forward_segments
from classical_kernels.costs import causal_convolution_cost

Operands = tuple[Tensor, Tensor, Tensor, Tensor]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5}


def draw(batch: int, length: int, channels: int, taps: int = 4, dtype: torch.dtype = torch.float64) -> Operands:
    """x, weight, bias, state."""
    generator = torch.Generator().manual_seed(length)
    shapes = ((batch, length, channels), (channels, taps), (channels,), (batch, taps - 1, channels))
    x, weight, bias, state = (torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), state.requires_grad_()


def run(function: Callable[..., Any], operands: Operands, resets: Tensor | None = None) -> list[Tensor]:
    outputs = function(*operands, resets)
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, operands, weights, allow_unused=True, materialize_grads=True)]


def check(operands: Operands, resets: Tensor | None = None) -> None:
    dtype = operands[0].dtype
    x, weight, bias, state = (operand.detach().double().requires_grad_() for operand in operands)
    exact = run(causal_convolution_reference, (x, weight, bias, state), resets)
    for k, (ours, theirs) in enumerate(zip(run(causal_convolution, operands, resets), exact, strict=True)):
        assert (ours.dtype, ours.shape) == (dtype, theirs.shape)
        assert (ours.double() - theirs).norm() <= TOLERANCES[dtype] * theirs.norm(), k


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_length(dtype: torch.dtype) -> None:
    for length in (*range(1, 68), 255, 256, 257, 4095, 4096, 4097):
        check(draw(2, length, 3, dtype=dtype))


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 9])
def test_taps_and_shapes(taps: int) -> None:
    for shape in ((1, 1, 1), (2, 7, 70), (3, 600, 5), (0, 3, 2), (2, 0, 3), (2, 3, 0)):
        check(draw(*shape, taps))


def test_equals_numpy_and_torch() -> None:
    x, weight, bias, state = (operand.detach() for operand in draw(2, 30, 5))
    y, last = causal_convolution(x, weight, bias, state)
    padded = torch.cat((state, x), 1)
    for row in range(2):
        for d in range(5):
            expected = np.convolve(padded[row, :, d].numpy(), weight[d].flip(0).numpy(), "valid") + bias[d].item()
            np.testing.assert_allclose(y[row, :, d].numpy(), expected, rtol=1e-12)
    assert_close(y, functional.conv1d(padded.mT, weight.unsqueeze(1), bias, groups=5).mT)
    assert torch.equal(last, x[:, -3:])
    assert_close(causal_convolution(x, weight)[0], causal_convolution(x, weight, bias * 0, state * 0)[0])


def test_packed_documents_are_documents_alone() -> None:
    operands = draw(2, 40, 3)
    resets = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) < 0.2
    check(operands, resets)
    x, weight, bias, state = (operand.detach() for operand in operands)
    resets = torch.zeros(2, 40, dtype=torch.bool)
    resets[:, [10, 11, 39]] = True
    y, last = causal_convolution(x, weight, bias, state, resets)
    pieces = [causal_convolution(x[:, :10], weight, bias, state)[0]]
    pieces += [causal_convolution(x[:, i:j], weight, bias)[0] for i, j in ((10, 11), (11, 39), (39, 40))]
    assert torch.equal(y, torch.cat(pieces, 1))
    assert torch.equal(last, torch.cat((torch.zeros(2, 2, 3, dtype=x.dtype), x[:, 39:]), 1))


@pytest.mark.parametrize("function", [causal_convolution, causal_convolution_reference])
def test_pieces_carried_are_the_whole(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
    x, weight, bias, state = (operand.detach() for operand in draw(2, 300, 4))
    y, last = function(x, weight, bias, state)
    pieces = []
    for piece in (slice(0, 1), slice(1, 2), slice(2, 4), slice(4, 4), slice(4, 280), slice(280, 300)):
        part, state = function(x[:, piece], weight, bias, state)
        pieces.append(part)
    assert torch.equal(torch.cat(pieces, 1), y)
    assert torch.equal(state, last)


def test_steps_are_the_sequence() -> None:
    """Token by token from a state, in two precisions; the state keeps no whole window alive."""
    for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        x, weight, bias, state = (torch.randn(shape, dtype=dtype) for shape in ((2, 7, 3), (3, 4), (3,), (2, 3, 3)))
        whole, last = causal_convolution(x, weight, bias, state)
        for t in range(7):
            y, state = causal_convolution_step(x[:, t], weight, bias, state)
            torch.testing.assert_close(y, whole[:, t], rtol=bound, atol=bound)
        torch.testing.assert_close(state, last, rtol=0, atol=0)
        assert state.untyped_storage().nbytes() == state.nbytes
    y, state = causal_convolution_step(torch.ones(1, 2), torch.ones(2, 1), None, None)
    assert y.tolist() == [[1.0, 1.0]]
    assert state.shape == (1, 0, 2)


def test_gradcheck() -> None:
    resets = torch.tensor([[False, False, True, False], [False] * 4])
    for given in (None, resets):
        assert torch.autograd.gradcheck(lambda x, w, b, s, r=given: causal_convolution(x, w, b, s, r), draw(2, 4, 2, 3))


def test_low_precision_and_strides() -> None:
    x, weight, bias, state = (operand.detach() for operand in draw(2, 20, 6, dtype=torch.float32))
    y, last = causal_convolution(x.bfloat16(), weight, bias, state)
    expected, _ = causal_convolution(x.bfloat16().float(), weight, bias, state)
    assert torch.equal(y, expected.bfloat16())
    assert last.dtype == torch.float32
    strided = causal_convolution(x.mT.contiguous().mT, weight.T.contiguous().T, bias, state)[0]
    assert torch.equal(strided, causal_convolution(x, weight, bias, state)[0])


def test_operators_pass_opcheck() -> None:
    x, weight, bias, state = draw(2, 5, 3)
    taps = weight.detach().mT.contiguous().requires_grad_()
    for since in (torch.empty(0, dtype=torch.int64), torch.tensor([[9, 9, 0, 1, 2], [0, 1, 2, 0, 1]])):
        torch.library.opcheck(convolve, (x, taps, bias, state, since))
        plain = (x.detach(), taps.detach(), state.detach(), since, x.detach())
        torch.library.opcheck(_backward, plain)


def test_compiles_to_one_graph_and_counts_operations() -> None:
    operands = draw(2, 40, 5, dtype=torch.float32)
    compiled: Any = torch.compile(causal_convolution, fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, run(compiled, operands), run(causal_convolution, operands)))
    with FlopCounterMode(display=False) as counter:
        causal_convolution(*operands)[0].sum().backward()
    assert counter.get_total_flops() == 400 * (8 + 16)
    assert causal_convolution_cost((2, 40, 5), 4, torch.float32) == (3200, 3200)


def test_threads_change_no_bit_and_indices_have_64_bits() -> None:
    before = torch.get_num_threads()
    operands = draw(1, 1500, 70, dtype=torch.float32)
    try:
        results = []
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            results.append(run(causal_convolution, operands))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, results[0], results[1]))
    assert all(map(torch.equal, results[0], results[2]))
    for kernel in (forward_segments, backward_segments):
        for signature in kernel.signatures:
            assert signature[-3:] == (types.UniTuple(types.uint64, 3), types.intp, types.intp)


def test_second_derivative_is_refused_with_a_remedy() -> None:
    operands = draw(1, 4, 2)
    first = torch.autograd.grad(causal_convolution(*operands)[0].sum(), operands, create_graph=True, allow_unused=True)
    with pytest.raises(NotImplementedError, match=r"use classical_kernels\.causal_convolution_reference"):
        first[0].sum().backward()


def test_other_devices_run_the_reference() -> None:
    x, weight, bias, state = (operand.to("meta") for operand in draw(2, 3, 4))
    y, last = causal_convolution(x, weight, bias, state)
    assert (y.device.type, y.shape, last.shape) == ("meta", (2, 3, 4), (2, 3, 4))


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda x, w, b, s: (x[0], w, b, s), ValueError, r"x and weight must have shapes .*got \(3, 5\) and \(5, 4\)"),
        (lambda x, w, b, s: (x, w[:4], b, s), ValueError, r"x and weight must have shapes .*and \(4, 4\): reshape"),
        (lambda x, w, b, s: (x, w[:, :0], b, s), ValueError, r"with a tap at least, .*and \(5, 0\): reshape"),
        (lambda x, w, b, s: (x, w, b[:2], s), ValueError, r"bias must have shape \(5,\), got \(2,\): expand"),
        (lambda x, w, b, s: (x, w, b, s[:, :2]), ValueError, r"state must have shape \(2, 3, 5\), got \(2, 2, 5\)"),
        (lambda x, w, b, s: (x, w.float(), b, s), TypeError, r"float64 all or none .*\.double\(\)"),
        (lambda x, w, b, s: (x.long(), w, b, s), TypeError, r"x must be real and floating-point, got torch\.int64"),
        (lambda x, w, b, s: (x, w.tolist(), b, s), TypeError, "weight must be a torch tensor, got list: pass"),
        (lambda x, w, b, s: (x, w, b.to("meta"), s), ValueError, "bias must be on the device of x, cpu, got meta"),
        (lambda x, w, b, s: (x, w, b, s, x[..., 0]), TypeError, "resets must be a tensor of torch.bool"),
    ],
)
@pytest.mark.parametrize("function", [causal_convolution, causal_convolution_reference])
def test_bad_operands_are_refused(
    function: Callable[..., object], change: Callable[..., Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        function(*change(*draw(2, 3, 5)))
