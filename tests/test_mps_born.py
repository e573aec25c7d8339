"""Born machines of matrix product states against the dense tensor: amplitudes, masses, conditionals, gradients.

Axis legend: n samples, v integers, k sites.
"""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tensornet import BornMPS, TensorTrain

SHAPES = [((2, 3, 2), 3, 4), ((4, 4), 2, 1), ((5,), 1, 3), ((2,) * 8, 4, 2)]
"""Digits, inner bonds, open left bond."""


def state(
    digits: tuple[int, ...], bond: int, left: int, size: int | None = None, dtype: torch.dtype = torch.complex128
) -> BornMPS:
    generator = torch.Generator().manual_seed(len(digits))
    bonds = (left, *[bond] * (len(digits) - 1), 1)
    shapes = [(one, digit, other) for digit, (one, other) in zip(digits, pairwise(bonds), strict=True)]
    return BornMPS(tuple(torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes), size)


def lefts(machine: BornMPS, n: int = 5) -> Tensor:
    core = machine.cores[0]
    return torch.randn(n, core.shape[0], dtype=core.dtype, generator=torch.Generator().manual_seed(9))


def dense(machine: BornMPS, left: Tensor) -> Tensor:
    """Masses (n, all integers) from the tensor of each sample, contracted by another class."""
    first, *rest = machine.cores
    trains = (TensorTrain((torch.einsum("a,adb->db", row, first)[None], *rest)) for row in left)
    return torch.stack([train.to_tensor().flatten().abs().square() for train in trains])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("digits", "bond", "left"), SHAPES)
def test_log_probs_are_those_of_the_dense_tensor(
    digits: tuple[int, ...], bond: int, left: int, dtype: torch.dtype
) -> None:
    total = math.prod(digits)
    for size in {None, 1, total // 2 + 1, total - 1, total}:
        machine = state(digits, bond, left, size, dtype)
        given_left = lefts(machine)
        masses = dense(machine, given_left)
        kept = masses[:, :size]
        expected = (kept / kept.sum(-1, keepdim=True)).log()
        found = machine.log_probs(given_left)
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)
        one = torch.ones(5, dtype=torch.float64)
        torch.testing.assert_close(found.exp().sum(-1), one, atol=1e-12, rtol=0)
        for integer in {0, len(kept[0]) - 1, len(kept[0]) // 2}:
            alone = machine.log_prob(given_left, torch.full((5,), integer))
            torch.testing.assert_close(alone, expected[:, integer], atol=1e-11, rtol=0)
        leaked = 1 - kept.sum(-1) / masses.sum(-1)
        torch.testing.assert_close(machine.leaked(given_left), leaked, atol=1e-12, rtol=0)


@given(
    digits=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    bond=st.integers(1, 4),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_normalisation_is_exact_whatever_the_digits_and_the_size(
    digits: list[int], bond: int, share: float, seed: int
) -> None:
    """``log_prob``'s Z comes from transfer matrices, and never from a sum over integers: it has to be that sum."""
    torch.manual_seed(seed)
    size = max(1, round(share * math.prod(digits)))
    machine = state(tuple(digits), bond, 2, size)
    left = torch.randn(1, 2, dtype=torch.complex128)
    logs = machine.log_prob(left.expand(size, -1), torch.arange(size))
    assert float(logs.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    torch.testing.assert_close(logs, machine.log_probs(left)[0], atol=1e-8, rtol=0)


def test_single_precision_sums_to_one() -> None:
    machine = state((32, 32, 32), 8, 8, 32_000, torch.complex64)
    left = lefts(machine, 3)
    logs = machine.log_probs(left)
    assert logs.dtype == torch.float32
    torch.testing.assert_close(logs.double().exp().sum(-1), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)
    alone = machine.log_prob(left, torch.tensor([0, 17_000, 31_999]))
    picked = logs[torch.arange(3), torch.tensor([0, 17_000, 31_999])]
    torch.testing.assert_close(alone, picked, atol=2e-5, rtol=0)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_scales_of_cores_and_left_bonds_do_not_matter(factor: float) -> None:
    """They would overflow float64 when squared over twelve sites."""
    machine = state((2,) * 12, 3, 2, 3000)
    left, integers = lefts(machine), torch.tensor([0, 1, 77, 2048, 2999])
    scaled = BornMPS(tuple(core * factor for core in machine.cores), 3000)
    expected = machine.log_prob(left, integers)
    torch.testing.assert_close(scaled.log_prob(left * factor**2, integers), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(scaled.log_probs(left), machine.log_probs(left), atol=1e-10, rtol=0)
    torch.testing.assert_close(scaled.leaked(left), machine.leaked(left), atol=1e-12, rtol=0)


def test_gradients_are_those_of_the_dense_tensor() -> None:
    machine = state((3, 2, 3), 2, 2, 15)
    cores = [core.requires_grad_() for core in machine.cores]
    left = lefts(machine).requires_grad_()
    integers = torch.tensor([0, 14, 3, 7, 7])
    masses = dense(machine, left)[:, :15]
    by_hand = (masses.gather(1, integers[:, None])[:, 0] / masses.sum(-1)).log().sum()
    expected = torch.autograd.grad(by_hand, [*cores, left])
    for value in (
        machine.log_prob(left, integers).sum(),
        machine.log_probs(left).gather(1, integers[:, None]).sum(),
    ):
        assert float(value.detach()) == pytest.approx(float(by_hand.detach()), abs=1e-10)
        for one, other in zip(torch.autograd.grad(value, [*cores, left]), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_an_impossible_integer_is_minus_infinity_and_its_neighbours_learn() -> None:
    ghz = torch.zeros(2, 2, 2, dtype=torch.float64)
    ghz[0, 0, 0] = ghz[1, 1, 1] = 1
    ends = torch.eye(2, dtype=torch.float64)
    machine = BornMPS((ends[None].clone().requires_grad_(), ghz, ends[..., None]), 8)
    one = torch.ones(1, 1, dtype=torch.float64)
    logs = machine.log_probs(one)
    assert logs[0, 3] == machine.log_prob(one, torch.tensor([3]))[0] == -math.inf
    assert logs[0, 7].exp() == 0.5
    logs[0, 7].backward()
    gradient = machine.cores[0].grad
    assert gradient is not None
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.abs().max()) == 1.0


def test_samples_have_the_distribution_and_none_is_outside() -> None:
    """Pearson's chi-square over 23 integers: below its 0.9999 quantile, 56.1 at 22 degrees of freedom."""
    machine = state((3, 3, 3), 3, 2, 23)
    left = lefts(machine, 1)
    n = 20_000
    drawn = machine.sample(left.expand(n, -1), torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=23)
    assert len(counts) == 23
    wished = n * machine.log_probs(left)[0].exp()
    assert float(((counts - wished).square() / wished).sum()) < 56.1
    again = machine.sample(left.expand(n, -1), torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


def test_empty_batches() -> None:
    machine = state((3, 2), 2, 2)
    left = torch.zeros(0, 2, dtype=torch.complex128)
    assert machine.log_probs(left).shape == (0, 6)
    assert machine.log_prob(left, torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    core = torch.ones(2, 3, 2)
    with pytest.raises(ValueError, match=r"expects cores \(a, D, b\) that chain, got shapes"):
        BornMPS((core, torch.ones(3, 2, 1)))
    with pytest.raises(ValueError, match="that chain, got shapes"):
        BornMPS(())
    with pytest.raises(ValueError, match="1 as its last bond, got 2"):
        BornMPS((core,))
    machine = state((2, 2), 2, 2)
    with pytest.raises(ValueError, match="a size from 1 to the 4 of its digits, got 5"):
        BornMPS(machine.cores, 5)
    with pytest.raises(ValueError, match=r"left bonds of shape \(n, 2\), got \(1, 3\)"):
        machine.log_probs(torch.ones(1, 3))
    with pytest.raises(IndexError, match="integers from 0 to 3, got 4"):
        machine.log_prob(lefts(machine, 2), torch.tensor([0, 4]))
