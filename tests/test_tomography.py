"""Entropies and purities from counted shots: bias, coverage of the errors, limits; measured on simulated counts."""

import math

import numpy as np
import pytest
import torch
from counted_states import basis_states, count_words, random_states, spectrum_of
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import renyi2, von_neumann

from backends import Estimate, linalg, tomography
from backends.derive import pauli_words
from circuits.gates import pauli_matrix

FAMILIES = ((1, "depolarised", False), (1, "depolarised", True), (2, "depolarised", False), (2, "depolarised", True))
CASES = [
    *((*family, share) for family in FAMILIES for share in (0.0, 0.1, 0.5, 0.95)),
    (1, "depolarised", True, 0.02),
    *((2, "two", in_basis, share) for in_basis in (False, True) for share in (0.1, 0.5)),
    (1, "depolarised", False, 1.0),
    (2, "depolarised", False, 1.0),
]
"""Wires, spectrum, whether its basis is the computational one (its counts are certain), entropy or share of the most.

Any of these is the state of a part of four wires in a pure state; no more of the four enters."""


@pytest.mark.parametrize(
    ("n_wires", "kind", "in_basis", "share", "shots"),
    [
        (*case, shots)
        for case in CASES
        for shots in (256, 1024, 4096)
        if shots < 4096
        or case[0] == 1
        or case[1:] in (("depolarised", False, 0.0), ("two", True, 0.5))  # they take long
    ],
)
def test_coverage_and_bias(n_wires: int, kind: str, in_basis: bool, share: float, shots: int) -> None:
    """Share of true values within 1.96 stderr in 200 repetitions, two binomial errors below what is claimed; bias."""
    top = n_wires * math.log(2)
    wanted = share if share < 0.9 else share * top
    rng = np.random.default_rng(int(1000 * share) + n_wires)
    spectrum = spectrum_of(kind, wanted, 2**n_wires)
    states = basis_states(spectrum, 200) if in_basis else random_states(spectrum, 200, rng)
    truth, truth2 = von_neumann(states[0]), renyi2(states[0])
    words, counted = count_words(states, shots, rng)
    corrected = tomography.entropy(words, counted, "von_neumann", seed=0)
    plain = linalg.entropy(tomography.assemble(words, counted).values, "von_neumann")
    covered = _covered(corrected, truth)
    bias, plain_bias = (corrected.values.mean() - truth).item(), (plain.mean() - truth).item()
    second = tomography.entropy(words, counted, "renyi2", seed=0)
    covered2 = _covered(second, truth2)
    print(
        f"{n_wires} {kind} {'in' if in_basis else 'out'} {shots} {share}: bias {plain_bias:+.4f} -> {bias:+.4f}, "
        f"covered {covered:.3f}, {covered2:.3f}, stderr {corrected.stderr.mean():.4f}"
    )
    assert covered >= (0.85 if kind == "two" else 0.90)
    assert covered2 >= 0.90
    assert abs(bias) <= max(abs(plain_bias), 0.02)
    if n_wires == 2 and share in (0.0, 1.0) and not in_basis:
        assert abs(bias) < 0.6 * abs(plain_bias)
    for estimate in (corrected, second):
        assert (estimate.stderr > 1 / (9 * shots)).all()
        assert ((estimate.values >= 0) & (estimate.values <= top)).all()


def _covered(estimate: Estimate, truth: float) -> float:
    return ((estimate.values - truth).abs() <= 1.96 * estimate.stderr + 1e-12).double().mean().item()


@pytest.mark.parametrize("shots", [16, 256, 4096])
@pytest.mark.parametrize("n_wires", [1, 2])
@pytest.mark.parametrize("kind", ["von_neumann", "renyi2"])
def test_the_bound_of_a_product_state_holds_what_its_shots_cannot_exclude(kind: str, n_wires: int, shots: int) -> None:
    """|0..0> and a wire flipped in a share of 3 / shots look alike in 5 % of cases (the rule of three)."""
    rng = np.random.default_rng(0)
    zero = np.eye(2**n_wires)[0]
    words, counted = count_words(basis_states(zero, 100), shots, rng)
    found = tomography.entropy(words, counted, kind, seed=0)
    share = 3 / shots / 3 ** (n_wires - 1)  # the other wire's three bases all read the first one
    hidden = np.diag((1 - share) * zero + share * np.eye(2**n_wires)[-1])
    truth = {"von_neumann": von_neumann, "renyi2": renyi2}[kind](hidden)
    assert (found.values + 1.96 * found.stderr >= truth).all()
    assert _covered(found, 0.0) >= 0.95


@given(st.integers(1, 2), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40)
def test_errors_are_never_zero(n_wires: int, shots: int, seed: int, in_basis: bool) -> None:
    """Whatever few shots show, and at every entropy."""
    rng = np.random.default_rng(seed)
    spectrum = rng.dirichlet(np.full(2**n_wires, 0.3))
    states = basis_states(spectrum, 1) if in_basis else random_states(spectrum, 1, rng)
    words, counted = count_words(states, shots, rng)
    assert (counted.stderr > 0).all()
    for kind in ("von_neumann", "renyi2"):
        found = tomography.entropy(words, counted, kind, seed=0)
        assert torch.isfinite(found.values).all()
        assert (found.stderr > 1e-3 / shots).all()
        assert torch.isfinite(found.stderr).all()


def test_plug_in_would_not_cover_pure_states() -> None:
    """The reason for the correction: without it the bootstrap's interval misses 0 in a third of the cases."""
    rng = np.random.default_rng(0)
    words, counted = count_words(random_states(np.eye(4)[0], 200, rng), 1024, rng)
    plain = linalg.entropy(tomography.assemble(words, counted).values, "von_neumann")
    corrected = tomography.entropy(words, counted, "von_neumann", seed=0)
    assert plain.mean() > 0.04
    assert corrected.values.mean() < 0.6 * plain.mean()


def test_seeds_repeat() -> None:
    rng = np.random.default_rng(0)
    words, counted = count_words(random_states(np.array([0.8, 0.2]), 3, rng), 300, rng)
    first = tomography.entropy(words, counted, "von_neumann", seed=1)
    again = tomography.entropy(words, counted, "von_neumann", seed=1)
    other = tomography.entropy(words, counted, "von_neumann", seed=2)
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.stderr, again.stderr)
    assert not torch.equal(first.values, other.values)


def test_errors_fall_as_shots_grow() -> None:
    found = []
    for shots in (200, 3200):
        rng = np.random.default_rng(0)
        words, counted = count_words(random_states(np.array([0.8, 0.2]), 20, rng), shots, rng)
        found.append(tomography.entropy(words, counted, "von_neumann", seed=0).stderr.mean())
    assert found[0] / found[1] == pytest.approx(4, rel=0.2)


def test_exact_expectations_need_no_bootstrap() -> None:
    rng = np.random.default_rng(0)
    states = random_states(np.array([0.7, 0.2, 0.1, 0.0]), 2, rng)
    words = pauli_words((0, 1))
    values = [[np.trace(state @ pauli_matrix(word)).real for word in words] for state in states]
    found = tomography.entropy(words, Estimate(torch.tensor(values)), "von_neumann", seed=None)
    assert found.values.tolist() == pytest.approx([von_neumann(state) for state in states], abs=1e-10)
    assert (found.stderr == 0).all()


def test_projection_is_the_nearest_physical_state() -> None:
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(random_states(np.array([0.9, 0.3, -0.05, -0.15]), 5, rng))
    found = tomography.project(raw)
    eigenvalues = torch.linalg.eigvalsh(found)
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2).sum(-1).real, torch.ones(5).double())
    torch.testing.assert_close(
        eigenvalues, torch.tensor([0, 0, 0.2, 0.8], dtype=torch.float64).repeat(5, 1), atol=1e-12, rtol=0
    )
    distance = torch.linalg.matrix_norm(found - raw)
    for other in random_states(np.array([0.82, 0.18, 0, 0]), 200, rng):
        assert (torch.linalg.matrix_norm(torch.from_numpy(other) - raw) >= distance).all()
