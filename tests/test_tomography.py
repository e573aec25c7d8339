"""Entropies and purities from counted shots: bias, coverage of the errors, limits; measured on simulated counts."""

import math
from functools import reduce
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracles import renyi2, von_neumann

from backends import Estimate, counts, linalg, purity, tomography
from backends.derive import pauli_words
from circuits import pauli_word
from circuits.gates import pauli_matrix

Matrices = NDArray[np.complex128]
# The columns of each matrix are the letter's eigenvectors, +1 first.
EIGENVECTORS = {
    "X": np.array([[1, 1], [1, -1]]) / 2**0.5,
    "Y": np.array([[1, 1], [1j, -1j]]) / 2**0.5,
    "Z": np.eye(2),
}


def _spectrum(kind: str, entropy: float, size: int) -> NDArray[np.float64]:
    """Eigenvalues of a given entropy (nats): a depolarised pure state's, or two alone."""
    low, high = 0.0, 1.0 if kind == "depolarised" else 0.5
    rest = np.full(size, 1 / size) if kind == "depolarised" else np.eye(size)[1]
    first = np.eye(size)[0]
    for _ in range(60):
        middle = (low + high) / 2
        chances = (1 - middle) * first + middle * rest
        low, high = (middle, high) if von_neumann(np.diag(chances)) < entropy else (low, middle)
    return (1 - low) * first + low * rest


def _states(spectrum: NDArray[np.float64], batch: int, rng: np.random.Generator) -> Matrices:
    """Random states (b, d, d) of one spectrum."""
    shape = (batch, len(spectrum), len(spectrum))
    vectors = np.linalg.qr(rng.normal(size=shape) + 1j * rng.normal(size=shape))[0]
    return ((vectors * spectrum) @ vectors.conj().swapaxes(-1, -2)).astype(np.complex128)


def _measure(states: Matrices, bases: counts.Bases, shots: int, rng: np.random.Generator) -> counts.Bits:
    """Bits (b, s, t, k) of Born's rule, by projection on the letters' eigenvectors."""
    n_wires = len(bases.wires)
    found = []
    for letters in bases.letters:
        turn = reduce(np.kron, (EIGENVECTORS[letter] for letter in letters))
        chances = np.einsum("ij,bik,kj->bj", turn.conj(), states, turn).real.clip(0)
        outcomes = [rng.choice(2**n_wires, shots, p=row / row.sum()) for row in chances]
        found.append((np.array(outcomes)[..., None] >> np.arange(n_wires - 1, -1, -1)) & 1)
    return np.stack(found, 1).astype(np.uint8)


def _counted(states: Matrices, shots: int, rng: np.random.Generator) -> tuple[list[str], Estimate]:
    """The estimate that a backend would give of all words: every product basis, ``shots`` times each."""
    n_wires = len(states[0]).bit_length() - 1
    wires = tuple(range(n_wires))
    words = pauli_words(wires)
    observables = tuple(pauli_word(word, wires) for word in words)
    bases = counts.bases_of(observables)
    assert len(bases.letters) == 3**n_wires
    return words, counts.expectations(_measure(states, bases, shots, rng), bases, observables, torch.zeros(1).double())


CASES = [
    (n_wires, kind, share)
    for n_wires in (1, 2)
    for kind in ("depolarised", "two")
    for share in (0.0, 0.1, 0.5, 0.9, 1.0)
    if kind == "depolarised" or (n_wires == 2 and share in (0.1, 0.5))  # on one wire the two kinds are one
]


@pytest.mark.parametrize(("shots", "least"), [(256, 0.78), (1024, 0.83)])
@pytest.mark.parametrize(("n_wires", "kind", "share"), CASES)
def test_coverage_and_bias(n_wires: int, kind: str, share: float, shots: int, least: float) -> None:
    """Entropies 0, 0.1, 0.5 nats, 90 % of the maximum and the maximum: true value within 1.96 stderr, bias reduced."""
    top = n_wires * math.log(2)
    wanted = share if share < 0.9 else share * top
    rng = np.random.default_rng(int(1000 * share) + n_wires)
    states = _states(_spectrum(kind, wanted, 2**n_wires), 200, rng)
    truth, truth2 = von_neumann(states[0]), renyi2(states[0])
    words, counted = _counted(states, shots, rng)
    corrected = tomography.entropy(words, counted, "von_neumann", seed=0)
    plain = linalg.entropy(tomography.assemble(words, counted).values, "von_neumann")
    covered = ((corrected.values - truth).abs() <= 1.96 * corrected.stderr).double().mean().item()
    bias, plain_bias = (corrected.values.mean() - truth).item(), (plain.mean() - truth).item()
    second = tomography.entropy(words, counted, "renyi2", seed=0)
    covered2 = ((second.values - truth2).abs() <= 1.96 * second.stderr).double().mean().item()
    print(
        f"{n_wires} {kind} {wanted:.3f}: bias {plain_bias:+.4f} -> {bias:+.4f}, covered {covered:.3f}, {covered2:.3f}"
    )
    assert covered >= least
    assert covered2 >= 0.92
    assert abs(bias) <= max(abs(plain_bias), 0.02)
    if n_wires == 2 and share in (0.0, 0.9, 1.0):
        assert abs(bias) < 0.6 * abs(plain_bias)
    for estimate in (corrected, second):
        assert (estimate.stderr > 0).all()
        assert ((estimate.values >= 0) & (estimate.values <= top)).all()


def test_plug_in_would_not_cover_pure_states() -> None:
    """The reason for the correction: without it the bootstrap's interval misses 0 in a third of the cases."""
    rng = np.random.default_rng(0)
    words, counted = _counted(_states(np.eye(4)[0], 200, rng), 1024, rng)
    plain = linalg.entropy(tomography.assemble(words, counted).values, "von_neumann")
    corrected = tomography.entropy(words, counted, "von_neumann", seed=0)
    assert plain.mean() > 0.04
    assert corrected.values.mean() < 0.6 * plain.mean()


def test_seeds_repeat() -> None:
    rng = np.random.default_rng(0)
    words, counted = _counted(_states(np.array([0.8, 0.2]), 3, rng), 300, rng)
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
        words, counted = _counted(_states(np.array([0.8, 0.2]), 20, rng), shots, rng)
        found.append(tomography.entropy(words, counted, "von_neumann", seed=0).stderr.mean())
    assert found[0] / found[1] == pytest.approx(4, rel=0.2)


def test_exact_expectations_need_no_bootstrap() -> None:
    rng = np.random.default_rng(0)
    states = _states(np.array([0.7, 0.2, 0.1, 0.0]), 2, rng)
    words = pauli_words((0, 1))
    values = [[np.trace(state @ pauli_matrix(word)).real for word in words] for state in states]
    found = tomography.entropy(words, Estimate(torch.tensor(values)), "von_neumann", seed=None)
    assert found.values.tolist() == pytest.approx([von_neumann(state) for state in states], abs=1e-10)
    assert (found.stderr == 0).all()


def test_projection_is_the_nearest_physical_state() -> None:
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(_states(np.array([0.9, 0.3, -0.05, -0.15]), 5, rng))
    found = tomography.project(raw)
    eigenvalues = torch.linalg.eigvalsh(found)
    torch.testing.assert_close(found.diagonal(dim1=1, dim2=2).sum(-1).real, torch.ones(5).double())
    torch.testing.assert_close(
        eigenvalues, torch.tensor([0, 0, 0.2, 0.8], dtype=torch.float64).repeat(5, 1), atol=1e-12, rtol=0
    )
    distance = torch.linalg.matrix_norm(found - raw)
    for other in _states(np.array([0.82, 0.18, 0, 0]), 200, rng):
        assert (torch.linalg.matrix_norm(torch.from_numpy(other) - raw) >= distance).all()


@pytest.mark.parametrize(("n_wires", "wires"), [(2, (1,)), (3, (2, 0)), (4, (0, 3)), (4, (1, 3, 0)), (5, (4, 1))])
def test_design_reads_the_subsystem_fully(n_wires: int, wires: tuple[int, ...]) -> None:
    bases = purity.design(n_wires, wires, seed=3)
    assert len(bases.letters) == 3 ** min(n_wires, max(len(wires) + 1, 3))
    assert len({tuple(word[wire] for wire in wires) for word in bases.letters}) == 3 ** len(wires)
    for a in range(n_wires):  # every letter on every wire equally often
        assert sorted(word[a] for word in bases.letters) == sorted("XYZ" * (len(bases.letters) // 3))


def test_two_of_four_wires_read_every_three() -> None:
    bases = purity.design(4, (2, 0), seed=1)
    for chosen in combinations(range(4), 3):
        assert len({tuple(word[wire] for wire in chosen) for word in bases.letters}) == 27


@pytest.mark.parametrize(("n_wires", "least"), [(2, 0.92), (3, 0.92), (4, 0.88)])
@pytest.mark.parametrize("mixed", [0.1, 0.5])
def test_global_purity(n_wires: int, least: float, mixed: float) -> None:
    """Unbiased within its error over designs, and covered."""
    size = 2**n_wires
    spectrum = (1 - mixed) * np.eye(size)[0] + mixed / size
    truth = float((spectrum**2).sum())
    found, errors = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        bases = purity.design(n_wires, (0, 1), seed)
        bits = _measure(_states(spectrum, 15, rng), bases, 3 * 512 // len(bases.letters) * 3, rng)
        value, stderr = purity.global_purity(bits, bases, seed)
        found.append(value)
        errors.append(stderr)
    values, stderrs = torch.cat(found), torch.cat(errors)
    assert abs(values.mean() - truth) < 4.9 * values.std() / 150**0.5 + 0.01
    assert ((values - truth).abs() <= 1.96 * stderrs).double().mean() >= least
    assert (stderrs > 0).all()
    assert ((values >= 1 / size) & (values <= 1)).all()
