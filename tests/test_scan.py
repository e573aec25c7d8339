"""The linear recurrence: the compiled operator against a float64 loop and against the differentiable reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scan_cases import COMPLEX, LOW, REAL, Scan, close, draw, gradients, leaves, loop, weights_like
from torch.testing import assert_close

from classical_kernels import scan, scan_reference

LENGTHS = (*range(1, 68), 4095, 4096, 4097)


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("function", [scan, scan_reference])
def test_equals_the_loop_at_every_length(function: Scan, dtype: torch.dtype) -> None:
    for length in LENGTHS:
        a, b, h0 = draw(2, length, 3, dtype=dtype, seed=length)
        h, h_last = function(a, b, h0)
        assert h.dtype == h_last.dtype == dtype
        close(h, loop(a, b, h0), dtype)
        assert torch.equal(h_last, h[:, -1])


@given(
    batch=st.integers(0, 4), length=st.integers(0, 40), channels=st.integers(0, 70), seed=st.integers(0, 2**16),
    dtype=st.sampled_from(REAL),
)  # fmt: skip
def test_kernel_is_the_reference_bit_for_bit(
    batch: int, length: int, channels: int, seed: int, dtype: torch.dtype
) -> None:
    """No fast-math, so that sums and products round as in the loop, forward and backward."""
    operands = draw(batch, length, channels, dtype=dtype, seed=seed)
    for ours, theirs in zip(scan(*operands), scan_reference(*operands), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(gradients(scan, operands), gradients(scan_reference, operands), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex(dtype: torch.dtype) -> None:
    for length in (1, 2, 33):
        operands = draw(2, length, 5, dtype=dtype)
        h, h_last = scan(*operands)
        assert h.dtype == dtype
        close(h, loop(*operands), dtype)
        assert torch.equal(h_last, h[:, -1])
        for ours, theirs in zip(gradients(scan, operands), gradients(scan_reference, operands), strict=True):
            close(ours, theirs, dtype)


def test_a_rotation_keeps_its_modulus() -> None:
    a = torch.polar(torch.ones(1, 4096, 2, dtype=torch.float64), torch.full((1, 4096, 2), 0.1, dtype=torch.float64))
    h, _ = scan(a, torch.zeros_like(a), torch.ones(1, 2, dtype=torch.complex128))
    assert_close(h.abs(), torch.ones(1, 4096, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert_close(h[0, 99].angle(), torch.full((2,), 10.0 - 4 * torch.pi, dtype=torch.float64), rtol=0, atol=1e-12)


def test_lazily_conjugated_operands() -> None:
    operands = draw(2, 9, 3, dtype=torch.complex64)
    lazy = operands[0].conj(), operands[1].conj(), operands[2].conj()
    assert all(operand.is_conj() for operand in lazy)
    h, h_last = scan(*lazy)
    expected, expected_last = scan(*operands)
    assert_close(h, expected.conj_physical())
    assert_close(h_last, expected_last.conj_physical())


@pytest.mark.parametrize("dtype", REAL)
def test_exact_cases(dtype: torch.dtype) -> None:
    _, b, h0 = draw(2, 50, 4, dtype=dtype)
    zeros, ones = torch.zeros_like(b), torch.ones_like(b)
    assert torch.equal(scan(zeros, b, h0)[0], b)  # no memory
    assert torch.equal(scan(ones, zeros, h0)[0], h0[:, None].expand_as(b))  # nothing but memory
    assert torch.equal(scan(ones, ones)[0], torch.arange(1, 51, dtype=dtype)[:, None].expand_as(b))  # counting
    halves = scan(ones / 2, zeros, torch.ones_like(h0))[0]
    assert torch.equal(halves[0, :, 0], 0.5 ** torch.arange(1, 51, dtype=dtype))


def test_strong_decay_where_cumulative_products_fail() -> None:
    a, b = torch.full((1, 3000, 8), 1e-3), torch.ones(1, 3000, 8)
    products = a.cumprod(1)
    assert (products * (b / products).cumsum(1)).isnan().any()  # the tempting closed form
    h, _ = scan(a, b)
    assert_close(h[:, 20:], torch.full((1, 2980, 8), 1 / (1 - 1e-3)))
    assert all(gradient.isfinite().all() for gradient in gradients(scan, (a, b, torch.zeros(1, 8))))


def test_growth_overflows_and_nan_stays_in_its_channel() -> None:
    a, b = torch.full((1, 200, 3), 2.0), torch.ones(1, 200, 3)
    a[..., 1:] = 0.5
    b[0, 7, 2] = float("nan")
    h, _ = scan(a, b)
    assert h[0, -1, 0].isinf()
    assert h[0, :, 1].isfinite().all()
    assert h[0, :7, 2].isfinite().all()
    assert h[0, 7:, 2].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("length", [0, 1, 2, 6])
def test_gradcheck(dtype: torch.dtype, length: int) -> None:
    wanted = leaves(*draw(2, length, 3, dtype=dtype))
    assert torch.autograd.gradcheck(scan, wanted)
    assert torch.autograd.gradcheck(lambda a, b, h0: scan(a, b, h0)[1], wanted)  # the last state alone
    assert torch.autograd.gradcheck(lambda a, b, h0: scan(a, b, h0)[0], wanted)  # all states alone


@pytest.mark.parametrize("wanted", range(3))
def test_gradient_of_one_operand_alone(wanted: int) -> None:
    operands = draw(2, 20, 5)
    whole = gradients(scan_reference, operands)
    a, b, h0 = (operand.clone().requires_grad_(k == wanted) for k, operand in enumerate(operands))
    outputs = scan(a, b, h0)
    assert torch.equal(torch.autograd.grad(outputs, (a, b, h0)[wanted], weights_like(outputs))[0], whole[wanted])


@pytest.mark.parametrize("dtype", [*REAL, *LOW, *COMPLEX])
def test_pieces_carried_are_the_whole_bit_for_bit(dtype: torch.dtype) -> None:
    a, b, h0 = draw(3, 101, 6, dtype=dtype if dtype not in LOW else torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    h, h_last = scan(a, b, h0)
    state, pieces = h0, []
    for piece in (slice(0, 1), slice(1, 2), slice(2, 64), slice(64, 64), slice(64, 101)):
        part, state = scan(a[:, piece], b[:, piece], state)
        pieces.append(part)
    if dtype.is_complex:  # PyTorch's product of one step may round the other way
        assert_close(torch.cat(pieces, 1), h)
        assert_close(state, h_last)
    else:
        assert torch.equal(torch.cat(pieces, 1), h)
        assert torch.equal(state, h_last)


@pytest.mark.parametrize("dtype", LOW)
def test_low_precision_runs_in_a_float32_state(dtype: torch.dtype) -> None:
    a, b, h0 = (operand.to(dtype) for operand in draw(2, 300, 4, dtype=torch.float32))
    h, h_last = scan(a, b, h0)
    wide, wide_last = scan(a.float(), b.float(), h0.float())
    assert h.dtype == dtype
    assert h_last.dtype == torch.float32
    assert torch.equal(h, wide.to(dtype))
    assert torch.equal(h_last, wide_last)
    assert all(gradient.dtype == dtype for gradient in gradients(scan, (a, b, h0)))
    # Where a state kept in low precision stops counting (256 in bfloat16, 2048 in float16), this one goes on.
    ones = torch.ones(1, 3000, 1, dtype=dtype)
    assert scan(ones, ones)[1].item() == 3000


def test_under_autocast_the_state_is_float32() -> None:
    a, b, h0 = draw(2, 30, 4, dtype=torch.float32)
    expected, expected_last = scan(a, b.bfloat16().float(), h0)
    with torch.autocast("cpu", torch.bfloat16):
        h, h_last = scan(a, b.bfloat16(), h0)  # as a linear layer leaves b in bfloat16 and exp leaves a in float32
        assert torch.equal(h, expected)
        assert torch.equal(h_last, expected_last)
        assert scan(a.bfloat16(), b.bfloat16())[0].dtype == torch.bfloat16
        assert scan(a.double(), b.double(), h0)[1].dtype == torch.float64


def test_several_state_axes() -> None:
    operands = draw(2, 17, 3, 4)
    h, h_last = scan(*operands)
    assert h_last.shape == (2, 3, 4)
    assert torch.equal(h, loop(*operands))
    assert torch.equal(h_last, h[:, -1])
    assert all(map(torch.equal, gradients(scan, operands), gradients(scan_reference, operands)))


def test_operands_need_not_be_contiguous() -> None:
    a, b, h0 = draw(2, 19, 6)
    assert torch.equal(scan(a, b, h0)[0], scan(a.mT.contiguous().mT, b.mT.contiguous().mT, h0)[0])
    rows, columns = a[:1, :1].expand_as(a), h0.T.contiguous().T
    assert not rows.is_contiguous()
    assert not columns.is_contiguous()
    assert torch.equal(scan(rows, b, columns)[0], loop(rows, b, columns))
    assert torch.equal(scan(a.flip(1)[:, ::2], b[:, ::2], h0)[0], loop(a.flip(1)[:, ::2], b[:, ::2], h0))


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3), (2, 5, 0), (0, 0, 3)])
def test_empty(shape: tuple[int, int, int]) -> None:
    operands = draw(*shape)
    h, h_last = scan(*operands)
    assert h.shape == shape
    assert h_last.shape == (shape[0], shape[2])
    if shape[1] == 0:
        assert torch.equal(h_last, operands[2])
        assert h_last.data_ptr() != operands[2].data_ptr() or h_last.numel() == 0
    for gradient, operand in zip(gradients(scan, operands), operands, strict=True):
        assert gradient.shape == operand.shape


@pytest.mark.parametrize("length", [1, 2])
def test_results_share_no_memory(length: int) -> None:
    a, b, h0 = draw(1, length, 3)
    before = h0.clone()
    h, h_last = scan(a, b, h0)
    kept = h_last.clone()
    h.zero_()
    assert torch.equal(h_last, kept)
    h_last.zero_()
    assert torch.equal(h0, before)
