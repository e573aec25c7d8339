"""The matrix form of the recurrence with one decay a head against the loop, with every gradient."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from classical_kernels import prefers_ssd, selective_scan, ssd, ssd_reference, ssd_step

Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def draw(batch: int, length: int, heads: int, width: int, groups: int, states: int, decay: float = 1.0) -> Operands:
    """x, log_a, B, C, h0 in float64."""
    generator = torch.Generator().manual_seed(length)
    x, log_a, B, C, h0 = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in (
            (batch, length, heads, width), (batch, length, heads), (batch, length, groups, states),
            (batch, length, groups, states), (batch, heads, width, states),
        )
    )  # fmt: skip
    return x, -decay * log_a.abs(), B, C, h0


def run(function: Callable[..., Any], operands: Operands, **options) -> list[Tensor]:
    leaves = [operand.clone().requires_grad_() for operand in operands]
    outputs = function(*leaves, **options)
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, weights, allow_unused=True, materialize_grads=True)]


def check(operands: Operands, dtype: torch.dtype, chunk: int = 64, **options) -> None:
    """Against the loop on the same numbers in float64, relative to the size of each result."""
    x, log_a, B, C, h0 = (operand.to(dtype) for operand in operands)
    ours = run(ssd, (x, log_a, B, C, h0), chunk=chunk, **options)
    exact = run(ssd_reference, (x.double(), log_a.double(), B.double(), C.double(), h0.double()), **options)
    for k, (our, their) in enumerate(zip(ours, exact, strict=True)):
        assert (our.dtype, our.shape) == (dtype, their.shape)
        assert (our.double() - their).norm() <= TOLERANCES[dtype] * their.norm(), (k, dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_every_length(dtype: torch.dtype) -> None:
    for length in range(1, 68):
        check(draw(1, length, 2, 3, 1, 2), dtype, chunk=16)


@pytest.mark.parametrize("length", [4095, 4096, 4097])
def test_long_sequences(length: int) -> None:
    check(draw(1, length, 1, 2, 1, 2, decay=0.1), torch.float32)


@pytest.mark.parametrize(
    "shape", [(2, 70, 4, 5, 2, 3), (3, 9, 6, 1, 6, 1), (1, 65, 3, 16, 1, 8), (0, 3, 2, 2, 1, 2), (2, 0, 2, 2, 1, 2)]
)
def test_every_shape(shape: tuple[int, int, int, int, int, int]) -> None:
    for dtype in TOLERANCES:
        for chunk in (1, 7, 64, 1000):
            check(draw(*shape), dtype, chunk)


def test_packed_documents_and_padding() -> None:
    operands = draw(2, 70, 2, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    resets, mask = (torch.rand(2, 70, generator=generator) < p for p in (0.1, 0.8))
    for dtype in TOLERANCES:
        check(operands, dtype, 16, resets=resets)
        check(operands, dtype, 16, resets=resets, mask=mask)
    x, log_a, B, C, h0 = operands
    resets = torch.zeros(2, 70, dtype=torch.bool)
    resets[:, 31] = True
    y, h_last = ssd(x, log_a, B, C, h0, 16, resets)
    after, last = ssd(x[:, 31:], log_a[:, 31:], B[:, 31:], C[:, 31:], chunk=16)
    assert_close(y[:, 31:], after, rtol=1e-12, atol=1e-12)
    assert_close(h_last, last, rtol=1e-12, atol=1e-12)
    x[:, :31], log_a[:, :31], B[:, :31] = float("nan"), float("nan"), float("nan")
    y, h_last = ssd(x, log_a, B, C, mask=torch.arange(70).expand(2, 70) >= 31, chunk=16)
    assert_close(y[:, 31:], after, rtol=1e-12, atol=1e-12)
    assert not y[:, :31].any()
    assert_close(h_last, last, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_strong_and_no_decay(dtype: torch.dtype) -> None:
    x, log_a, B, C, h0 = draw(1, 150, 3, 4, 1, 2)
    check((x, log_a * 0, B, C, h0), dtype)
    check((x, log_a * 100, B, C, h0), dtype)
    mixed = log_a * 1e-3
    mixed[:, ::9] = -69.07755278982137  # a decay of 1e-30
    mixed[:, 5::9] = -1e4
    mixed[:, 7::27] = float("-inf")
    check((x, mixed, B, C, h0), dtype)


def test_is_the_selective_scan_with_one_decay_a_head() -> None:
    x, log_a, B, C, h0 = draw(2, 90, 3, 4, 1, 5)
    delta = log_a.abs()
    y, h_last = ssd(delta.unsqueeze(-1) * x, -2 * delta, B, C, h0)
    wide = delta.repeat_interleave(4, 2)
    A = torch.full((12, 5), -2.0, dtype=torch.float64)
    theirs, last = selective_scan(x.flatten(2), wide, A, B[:, :, 0], C[:, :, 0], h0=h0.flatten(1, 2))
    assert_close(y.flatten(2), theirs, rtol=1e-11, atol=1e-11)
    assert_close(h_last.flatten(1, 2), last, rtol=1e-11, atol=1e-11)


def test_pieces_and_steps_are_the_whole() -> None:
    x, log_a, B, C, h0 = draw(2, 75, 4, 3, 2, 2)
    y, h_last = ssd(x, log_a, B, C, h0, 16)
    state, pieces = h0, []
    for part in (slice(0, 1), slice(1, 34), slice(34, 34), slice(34, 75)):
        piece, state = ssd(x[:, part], log_a[:, part], B[:, part], C[:, part], state, 16)
        pieces.append(piece)
    assert_close(torch.cat(pieces, 1), y, rtol=1e-12, atol=1e-12)
    assert_close(state, h_last, rtol=1e-12, atol=1e-12)
    state = h0
    for t in range(75):
        out, state = ssd_step(x[:, t], log_a[:, t], B[:, t], C[:, t], state)
        assert_close(out, y[:, t], rtol=1e-11, atol=1e-11)
    assert_close(state, h_last, rtol=1e-12, atol=1e-12)


def test_gradcheck_twice() -> None:
    leaves = tuple(operand.requires_grad_() for operand in draw(1, 5, 2, 2, 1, 2))
    resets = torch.tensor([[False, False, True, False, False]])
    for given in (None, resets):
        assert torch.autograd.gradcheck(lambda *o, r=given: ssd(*o, chunk=2, resets=r), leaves)
        assert torch.autograd.gradgradcheck(lambda *o, r=given: ssd(*o, chunk=2, resets=r)[0], leaves)


def test_compiles_to_one_graph_and_runs_low_precision() -> None:
    x, log_a, B, C, h0 = (operand.float() for operand in draw(2, 40, 4, 3, 2, 2))
    compiled: Any = torch.compile(ssd, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(x, log_a, B, C, h0), ssd(x, log_a, B, C, h0), strict=True):
        assert_close(ours, theirs)
    y, h_last = ssd(x.bfloat16(), log_a, B.bfloat16(), C.bfloat16(), h0)
    wide, wide_last = ssd(x.bfloat16().float(), log_a, B.bfloat16().float(), C.bfloat16().float(), h0)
    assert (y.dtype, h_last.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, wide.bfloat16())
    assert torch.equal(h_last, wide_last)


def test_the_rule_by_shape() -> None:
    assert prefers_ssd(4, 64, 16)
    assert prefers_ssd(64, 16, 64)
    assert not prefers_ssd(3, 64, 64)
    assert not prefers_ssd(64, 16, 16)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda x, a, B, C, h: (x[0], a, B, C, h), ValueError, r"x and B must have shapes .*got \(3, 4, 5\)"),
        (lambda x, a, B, C, h: (x, a, B[:, :, [0, 1, 1]], C, h), ValueError, "dividing the heads"),
        (
            lambda x, a, B, C, h: (x, a[..., :1], B, C, h),
            ValueError,
            r"log_a must have shape \(2, 3, 4\), got \(2, 3, 1",
        ),
        (lambda x, a, B, C, h: (x, a, B, C[..., :1], h), ValueError, r"C must have shape \(2, 3, 2, 6\), got"),
        (
            lambda x, a, B, C, h: (x, a, B, C, h.mT),
            ValueError,
            r"h0 must have shape \(2, 4, 5, 6\), got \(2, 4, 6, 5\)",
        ),
        (lambda x, a, B, C, h: (x, a, B, C, h, 0), ValueError, "chunk must be at least 1, got 0"),
        (lambda x, a, B, C, h: (x, a.float(), B, C, h), TypeError, r"float64 all or none .*\.double\(\)"),
        (lambda x, a, B, C, h: (x, a.long(), B, C, h), TypeError, r"log_a must be real .* got torch\.int64: cast"),
        (lambda x, a, B, C, h: (x, a, None, C, h), TypeError, "B must be a torch tensor, got NoneType"),
        (lambda x, a, B, C, h: (x, a, B, C.to("meta"), h), ValueError, "C must be on the device of x, cpu, got meta"),
    ],
)
def test_bad_operands_are_refused(change: Callable[..., Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        ssd(*change(*draw(2, 3, 4, 5, 2, 6)))
