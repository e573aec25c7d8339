"""The linear recurrence backwards in time, with packed documents, padding, low precision, and one step at a time."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import LOW, REAL, close, draw, gradients, leaves
from torch import Tensor
from torch.testing import assert_close

from classical_kernels import scan, scan_reference, scan_step
from classical_kernels.memory import flat_array, fresh


def marks(batch: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Resets at a fifth of the steps, padding at another fifth."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(batch, length, generator=generator) < p for p in (0.2, 0.8))  # pyright: ignore[reportReturnType] (two)


@settings(max_examples=40)
@given(
    batch=st.integers(0, 3), length=st.integers(0, 33), channels=st.integers(0, 40), seed=st.integers(0, 2**16),
    reverse=st.booleans(), packed=st.booleans(), padded=st.booleans(), dtype=st.sampled_from(REAL),
)  # fmt: skip
def test_options_are_those_of_the_reference_bit_for_bit(
    batch: int, length: int, channels: int, seed: int, reverse: bool, packed: bool, padded: bool, dtype: torch.dtype
) -> None:
    operands = draw(batch, length, channels, dtype=dtype, seed=seed)
    resets, mask = marks(batch, length, seed)
    options = {"reverse": reverse, "resets": resets if packed else None, "mask": mask if padded else None}
    for ours, theirs in zip(scan(*operands, **options), scan_reference(*operands, **options), strict=True):
        assert torch.equal(ours, theirs)
    ours = gradients(lambda a, b, h0: scan(a, b, h0, **options), operands)
    theirs = gradients(lambda a, b, h0: scan_reference(a, b, h0, **options), operands)
    assert all(map(torch.equal, ours, theirs))


def test_reverse_is_the_scan_of_the_flipped_sequence() -> None:
    for length in (1, 2, 37):
        a, b, h0 = draw(2, length, 5)
        h, h_last = scan(a, b, h0, reverse=True)
        flipped, flipped_last = scan(a.flip(1), b.flip(1), h0)
        assert torch.equal(h, flipped.flip(1))
        assert torch.equal(h_last, flipped_last)
        assert torch.equal(h_last, h[:, 0])


def test_packed_documents_are_documents_alone() -> None:
    a, b, h0 = draw(1, 30, 4)
    resets = torch.zeros(1, 30, dtype=torch.bool)
    resets[0, [7, 8, 20]] = True
    h, h_last = scan(a, b, h0, resets=resets)
    pieces = [scan(a[:, :7], b[:, :7], h0)[0]]
    pieces += [scan(a[:, i:j], b[:, i:j])[0] for i, j in ((7, 8), (8, 20), (20, 30))]
    assert torch.equal(h, torch.cat(pieces, 1))
    assert torch.equal(h_last, h[:, -1])
    ends = torch.zeros(1, 30, dtype=torch.bool)
    ends[0, [6, 7, 19]] = True  # from the end, a document begins at its last token
    backward = scan(a, b, h0, reverse=True, resets=ends)[0]
    pieces = [scan(a[:, i:j], b[:, i:j], reverse=True)[0] for i, j in ((0, 7), (7, 8), (8, 20))]
    assert torch.equal(backward, torch.cat([*pieces, scan(a[:, 20:], b[:, 20:], h0, reverse=True)[0]], 1))


@pytest.mark.parametrize("length", [1, 12])
def test_padding_moves_no_state_whatever_it_holds(length: int) -> None:
    a, b, h0 = draw(2, length + 5, 4)
    mask = torch.ones(2, length + 5, dtype=torch.bool)
    mask[:, :5] = False
    a[:, :5], b[:, :5] = float("nan"), float("inf")
    h, h_last = scan(a, b, h0, mask=mask)
    expected, expected_last = scan(a[:, 5:], b[:, 5:], h0)
    assert torch.equal(h[:, :5], h0[:, None].expand(-1, 5, -1))
    assert torch.equal(h[:, 5:], expected)
    assert torch.equal(h_last, expected_last)
    grad_a, grad_b, _ = gradients(lambda a, b, h0: scan(a, b, h0, mask=mask), (a, b, h0))
    assert not grad_a[:, :5].any()
    assert not grad_b[:, :5].any()


def test_a_single_step_with_options() -> None:
    a, b, h0 = draw(2, 1, 3)
    first, second = torch.tensor([[True], [False]]), torch.tensor([[False], [True]])
    assert torch.equal(scan(a, b, h0, resets=first)[1][0], b[0, 0])
    assert torch.equal(scan(a, b, h0, resets=first)[1][1], scan(a, b, h0)[1][1])
    assert torch.equal(scan(a, b, h0, mask=second)[1][0], h0[0])
    assert torch.equal(scan(a, b, h0, reverse=True)[1], scan(a, b, h0)[1])


def test_gradcheck_with_options() -> None:
    wanted = leaves(*draw(2, 7, 2))
    resets, mask = marks(2, 7)
    assert resets.any()
    assert not mask.all()
    for reverse in (False, True):
        assert torch.autograd.gradcheck(lambda a, b, h0: scan(a, b, h0, reverse, resets, mask), wanted)  # noqa: B023 (called here)


@pytest.mark.parametrize("dtype", [*LOW, torch.complex64])
def test_steps_are_the_scan(dtype: torch.dtype) -> None:
    a, b, h0 = draw(2, 9, 3, 2, dtype=dtype if dtype.is_complex else torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    h, h_last = scan(a, b, h0)
    state = h0
    for t in range(9):
        state = scan_step(a[:, t], b[:, t], state)
        assert_close(state.to(dtype), h[:, t])
    assert state.dtype == h_last.dtype
    assert_close(state, h_last)


@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_gradients(dtype: torch.dtype) -> None:
    """Against the same numbers in float64: each gradient is rounded once, and multiplies a rounded state."""
    a, b, h0 = draw(2, 200, 33, dtype=torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    exact = gradients(scan, (a.double(), b.double(), h0.double()))
    wanted = leaves(a, b, h0)
    outputs = scan(*wanted)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, dtype=torch.float64, generator=generator) for out in outputs]
    ours = torch.autograd.grad(outputs, wanted, [w.to(out.dtype) for w, out in zip(weights, outputs, strict=True)])
    epsilon = torch.finfo(dtype).eps
    for our, their, leaf in zip(ours, exact, wanted, strict=True):
        assert our.dtype == leaf.dtype
        assert (our.double() - their).norm() < epsilon * their.norm()


@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_values_round_as_torch_does(dtype: torch.dtype) -> None:
    """All 65536 bit patterns are read; every one, its neighbourhood, infinities and NaN are written."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    zeros, ones = torch.zeros(1, 2**16, dtype=torch.float32), torch.ones_like(values)
    read = scan(torch.zeros_like(values)[None, None], values[None, None].clone(), zeros)[1][0]
    assert_close(read, values.float(), rtol=0, atol=0, equal_nan=True)
    ties = values.float()
    for scale in (1, 1 + 2.0**-9, 1 + 2.0**-12, 1 - 2.0**-10, 1 + 2.0**-20):
        start = ties * scale
        two = torch.stack((ones, ones))[None]
        written = scan(two, torch.zeros_like(two), start[None])[0][0, 0]
        assert_close(written, start.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_marks_are_checked() -> None:
    a, b, h0 = draw(2, 3, 4)
    good = torch.ones(2, 3, dtype=torch.bool)
    wrong: tuple[tuple[Any, type[Exception], str], ...] = (
        (good.long(), TypeError, r"must be a tensor of torch\.bool, got torch\.int64: cast"),
        (good.tolist(), TypeError, r"must be a tensor of torch\.bool, got list: cast"),
        (good[:, 1:], ValueError, r"must have shape \(batch, seq\) = \(2, 3\), got \(2, 2\): expand"),
        (good.to("meta"), ValueError, "must be on cpu, got meta: move"),
    )
    for function in (scan, scan_reference):
        for marked, error, sentence in wrong:
            anything: Any = marked
            with pytest.raises(error, match="resets " + sentence):
                function(a, b, h0, resets=anything)
            with pytest.raises(error, match="mask " + sentence):
                function(a, b, h0, mask=anything)


@pytest.mark.parametrize("dtype", REAL)
def test_every_gradient_at_every_length_against_double_precision(dtype: torch.dtype) -> None:
    for length in (*range(1, 68, 3), 4095, 4096, 4097):
        operands = draw(2, length, 3, dtype=dtype, seed=length)
        exact = gradients(scan_reference, tuple(operand.double() for operand in operands))
        wanted = leaves(*operands)
        outputs = scan(*wanted)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(out.shape, dtype=torch.float64, generator=generator).to(dtype) for out in outputs]
        if dtype == torch.float32:  # the oracle's weights, rounded alike
            wide = leaves(*(operand.double() for operand in operands))
            exact = torch.autograd.grad(scan_reference(*wide), wide, [weight.double() for weight in weights])
        for ours, theirs in zip(torch.autograd.grad(outputs, wanted, weights), exact, strict=True):
            close(ours, theirs, dtype)


def test_large_results_are_whole() -> None:
    """Above the size from which huge pages are asked for, also where the memory does not begin on one."""
    for elements in (2**20, 2**20 + 1, 3 * 2**20):
        tensor = fresh((elements,), torch.float32)
        tensor.fill_(1)
        assert tensor.sum(dtype=torch.float64) == elements
    assert flat_array(torch.ones(2, 3).T).tolist() == [1.0] * 6
