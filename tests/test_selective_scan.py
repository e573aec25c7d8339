"""The fused selective scan against the loop in double precision, with every gradient."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from classical_kernels import scan, selective_scan, selective_scan_reference, selective_step
from classical_kernels.exponential import exp, growth, growth_slope
from classical_kernels.selective.inputs import DISCRETIZATIONS

LENGTHS = {torch.float64: range(1, 68), torch.float32: range(1, 68, 4)}
TOLERANCES = {torch.float64: 1e-11, torch.float32: 3e-5}


class Operands(NamedTuple):
    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    h0: Tensor
    z: Tensor


def draw(batch: int, length: int, channels: int, states: int, dtype: torch.dtype = torch.float64) -> Operands:
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    wide, narrow = (batch, length, channels), (batch, length, states)
    drawn = (
        normal(*wide), normal(*wide).abs() / 2, -normal(channels, states).abs(), normal(*narrow), normal(*narrow),
        normal(channels), normal(batch, channels, states), normal(*wide),
    )  # fmt: skip
    return Operands(*(one.to(dtype).requires_grad_() for one in drawn))


def run(function, operands: Operands, gated: bool = True, **options) -> tuple[Tensor, ...]:
    """y, h_last, and the gradients of a fixed weighting of both for all operands."""
    u, delta, A, B, C, D, h0, z = operands
    outputs = function(u, delta, A, B, C, D, h0, z if gated else None, **options)
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    wanted = operands if gated else operands[:-1]
    return (*outputs, *torch.autograd.grad(outputs, wanted, weights, allow_unused=True, materialize_grads=True))


def _first_eight(*operands: Tensor, gated: bool, **options) -> tuple[Tensor, Tensor]:
    u, delta, A, B, C, D, h0, z = operands
    return selective_scan(u, delta, A, B, C, D, h0, z if gated else None, **options)


def check(operands: Operands, **options) -> None:
    """Against the loop on the same numbers in float64, relative to the size of each result."""
    dtype = operands.u.dtype
    wide = Operands(*(operand.detach().double().requires_grad_() for operand in operands))
    for k, (ours, theirs) in enumerate(
        zip(run(selective_scan, operands, **options), run(selective_scan_reference, wide, **options), strict=True)
    ):
        assert ours.dtype == dtype
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs).norm()
        assert error <= TOLERANCES[dtype] * theirs.norm() + 1e-12, (k, options, error / theirs.norm())


@pytest.mark.parametrize("dtype", LENGTHS)
def test_every_length(dtype: torch.dtype) -> None:
    for length, (discretization, gated) in zip(
        LENGTHS[dtype], itertools.cycle(itertools.product(DISCRETIZATIONS, (True, False))), strict=False
    ):
        check(draw(1, length, 3, 2, dtype), discretization=discretization, gated=gated)


def test_long_sequences() -> None:
    """4097 steps against the loop; 4095 and 4096 against those 4097, whose last outputs then have no weight."""
    operands = draw(1, 4097, 2, 2, torch.float32)
    check(operands)
    u, delta, A, B, C, D, h0, z = operands
    weights = torch.randn(1, 4097, 2, generator=torch.Generator().manual_seed(0))
    for length in (4095, 4096):
        y, _ = selective_scan(u, delta, A, B, C, D, h0, z)
        expected = torch.autograd.grad(y[:, :length], operands, weights[:, :length])
        row = (u[:, :length], delta[:, :length], A, B[:, :length], C[:, :length], D, h0, z[:, :length])
        part, _ = selective_scan(*row)
        assert torch.equal(part, y[:, :length])
        for ours, theirs in zip(torch.autograd.grad(part, operands, weights[:, :length]), expected, strict=True):
            assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(2, 33, 1, 1), (3, 9, 17, 5), (1, 65, 300, 16), (1, 40, 129, 1), (2, 35, 21, 150), (0, 3, 2, 2), (2, 0, 3, 2),
     (2, 3, 0, 2), (2, 3, 4, 0)],
)  # fmt: skip
def test_every_shape(shape: tuple[int, int, int, int], gated: bool, discretization: str) -> None:
    for dtype in (torch.float32, torch.float64):
        check(draw(*shape, dtype), gated=gated, discretization=discretization)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_packed_documents_and_padding(discretization: str) -> None:
    operands = draw(2, 70, 5, 3)
    generator = torch.Generator().manual_seed(0)
    resets, mask = (torch.rand(2, 70, generator=generator) < p for p in (0.1, 0.8))
    check(operands, discretization=discretization, resets=resets)
    check(operands, discretization=discretization, resets=resets, mask=mask)
    u, delta, A, B, C, D, h0, _ = (operand.detach() for operand in operands)
    resets = torch.zeros(2, 70, dtype=torch.bool)
    resets[:, 31] = True
    y, h_last = selective_scan(u, delta, A, B, C, D, h0, resets=resets)
    parts = (slice(0, 31), slice(31, 70))
    first, second = (tuple(one[:, part] for one in (u, delta, B, C)) for part in parts)
    before, _ = selective_scan(first[0], first[1], A, first[2], first[3], D, h0)
    after, last = selective_scan(second[0], second[1], A, second[2], second[3], D)
    assert_close(y, torch.cat((before, after), 1), rtol=1e-13, atol=1e-13)
    assert_close(h_last, last, rtol=1e-13, atol=1e-13)
    mask = torch.arange(70).expand(2, 70) >= 31  # left padding: the second part alone
    padded = (one.clone() for one in (u, delta, B))
    u, delta, B = (one.index_fill(1, torch.arange(31), float("nan")) for one in padded)
    y, h_last = selective_scan(u, delta, A, B, C, D, mask=mask)
    assert_close(y[:, 31:], after, rtol=1e-13, atol=1e-13)
    assert_close(h_last, last, rtol=1e-13, atol=1e-13)
    assert not y[:, :31].any()


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_strong_and_no_decay(discretization: str) -> None:
    """delta A down to -100 and beyond, where the decay underflows, and A = 0 and delta = 0, where nothing is lost."""
    for dtype in (torch.float32, torch.float64):
        operands = draw(1, 200, 6, 4, dtype)
        with torch.no_grad():
            operands.A[0], operands.A[1], operands.A[2], operands.A[3] = (0, -100, -1e4, -69.07755278982137)  # 1e-30
            operands.delta[:, ::7], operands.delta[:, 3::7] = 0, 1
        check(operands, discretization=discretization)


def test_one_state_is_the_linear_scan() -> None:
    u, delta, A, B, _, _, h0, _ = (operand.detach() for operand in draw(2, 50, 4, 1))
    ones = torch.ones(2, 50, 1, dtype=torch.float64)
    y, h_last = selective_scan(u, delta, A, B, ones, h0=h0)
    h, last = scan(torch.exp(delta * A[:, 0]), delta * u * B, h0[..., 0])
    assert_close(y, h, rtol=1e-12, atol=1e-12)
    assert_close(h_last[..., 0], last, rtol=1e-12, atol=1e-12)


def test_zero_order_hold_is_exact_for_a_held_input() -> None:
    """Ten steps of 0.1 are one of 1 while the input is held; Euler's rule misses by its error."""
    A = torch.tensor([[-1.5, -0.3]], dtype=torch.float64)

    def ends(n_steps: int, discretization: str) -> Tensor:
        ones = torch.ones(1, n_steps, 1, dtype=torch.float64)
        rows = torch.ones(1, n_steps, 2, dtype=torch.float64)
        return selective_scan(ones, ones / n_steps, A, rows, rows, discretization=discretization)[1]

    exact = (torch.exp(A) - 1) / A
    assert_close(ends(1, "zoh")[0], exact, rtol=1e-14, atol=0)
    assert_close(ends(10, "zoh"), ends(1, "zoh"), rtol=1e-14, atol=0)
    assert ((ends(10, "euler")[0] - exact).abs() > 1e-3).all()
    assert_close(ends(1, "euler")[0], torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_gradcheck(discretization: str) -> None:
    resets = torch.tensor([[False, True, False], [False, False, False]])
    for gated in (True, False):
        operands = draw(2, 3, 2, 2)
        assert torch.autograd.gradcheck(
            partial(_first_eight, gated=gated, discretization=discretization, resets=resets), tuple(operands)
        )


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_pieces_and_steps_are_the_whole(discretization: str) -> None:
    u, delta, A, B, C, D, h0, z = (operand.detach() for operand in draw(2, 75, 5, 3))
    y, h_last = selective_scan(u, delta, A, B, C, D, h0, z, discretization)
    state, pieces = h0, []
    for part in (slice(0, 1), slice(1, 34), slice(34, 34), slice(34, 75)):
        row = (u[:, part], delta[:, part], A, B[:, part], C[:, part], D)
        piece, state = selective_scan(*row, state, z[:, part], discretization)
        pieces.append(piece)
    assert torch.equal(torch.cat(pieces, 1), y)
    assert torch.equal(state, h_last)
    state = h0
    for t in range(75):
        out, state = selective_step(u[:, t], delta[:, t], A, B[:, t], C[:, t], state, D, z[:, t], discretization)
        assert_close(out, y[:, t], rtol=1e-11, atol=1e-12)
    assert_close(state, h_last, rtol=1e-11, atol=1e-12)


def test_low_precision_runs_in_float32() -> None:
    operands = Operands(*(operand.detach().bfloat16() for operand in draw(1, 20, 3, 2)))
    operands = operands._replace(A=operands.A.float())  # as models keep it
    y, h_last = selective_scan(*operands)
    wide, wide_last = selective_scan(*Operands(*(operand.float() for operand in operands)))
    assert (y.dtype, h_last.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, wide.bfloat16())
    assert torch.equal(h_last, wide_last)


def test_operands_need_not_be_contiguous() -> None:
    operands = Operands(*(operand.detach() for operand in draw(2, 20, 6, 4)))
    y, h_last = selective_scan(*operands)
    strided = Operands(*(operand.mT.contiguous().mT if operand.dim() > 1 else operand for operand in operands))
    again, last = selective_scan(*strided)
    assert torch.equal(y, again)
    assert torch.equal(h_last, last)


@numba.njit
def _exponentials(x, power, other, mean, slope):
    for i in range(x.size):
        power[i] = exp(x[i])
        other[i], mean[i] = growth(x[i])
        slope[i] = growth_slope(x[i], other[i], mean[i])


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.float32, -104, 89), (np.float64, -746, 710.5)])
def test_exponential(dtype: type, low: float, high: float) -> None:
    x = np.concatenate([np.linspace(low - 5, high, 100001), np.linspace(-2, 2, 50001), [0, 1e-30, -1e-8]]).astype(dtype)
    power, other, mean, slope = (np.empty_like(x) for _ in range(4))
    _exponentials(x, power, other, mean, slope)
    wide = x.astype(np.longdouble)
    exact = np.exp(wide)
    with np.errstate(over="ignore"):
        finite = np.isfinite(exact.astype(dtype))
    assert np.isinf(power[~finite]).all()
    last_place = np.spacing(exact[finite].astype(dtype)).astype(np.longdouble)
    assert (np.abs(power[finite] - exact[finite]) <= 1.5 * last_place).all()
    assert np.array_equal(power, other)
    below = wide < high - 2
    exact_mean = np.where(wide == 0, 1, np.expm1(wide) / np.where(wide == 0, 1, wide))
    epsilon = np.finfo(dtype).eps
    assert (np.abs(mean - exact_mean)[below] <= 3 * epsilon * exact_mean[below]).all()
    away = np.where(np.abs(wide) < 0.1, 0.1, wide)
    factorials = np.cumprod(np.arange(1, 23, dtype=np.longdouble))
    series = sum(wide**k * (k + 1) / factorials[k + 1] for k in range(18))
    exact_slope = np.where(np.abs(wide) < 1, series, (exact - exact_mean) / away)
    assert (np.abs(slope - exact_slope)[below] <= 6 * epsilon * exact_slope[below]).all()
    special = np.array([np.nan, np.inf, -np.inf, -0.0], dtype=dtype)
    out: Any = np.empty((4, 4), dtype=dtype)
    _exponentials(special, *out)
    assert np.array_equal(out[0], np.array([np.nan, np.inf, 0, 1], dtype=dtype), equal_nan=True)
