"""Amplitude amplification against its closed forms, on every backend.

Axis legend: n wires, N = 2**n basis states, b batch, k or l iterations.
"""

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends import open_backend
from circuits import Circuit
from circuits.library import (
    amplification,
    fixed_point_grover,
    fixed_point_iterations,
    fixed_point_phases,
    fixed_point_success,
    fixed_point_width,
    grover,
    loading_angles,
    optimal_iterations,
    success_probability,
)

Real = NDArray[np.float64]
UNEVEN = np.array([0.05, 0.3, 0.1, 0.0, 0.25, 0.02, 0.2, 0.08])


def outcome(circuit: Circuit) -> Real:
    """Born probabilities of a bound circuit, by dense matrices."""
    return np.abs(oracles.unitary(circuit)[:, 0]) ** 2


def chebyshev(order: float, x: float) -> float:
    return math.cos(order * math.acos(x)) if abs(x) <= 1 else math.cosh(order * math.acosh(x))


@pytest.mark.parametrize(
    ("n_wires", "iterations", "success"), [(2, 1, 1.0), (3, 1, 0.78125), (3, 2, 0.9453125), (3, 3, 0.330078125)]
)
def test_textbook_values(n_wires: int, iterations: int, success: float) -> None:
    size = 2**n_wires
    for marked in range(size):
        chances = outcome(grover(np.full(size, 1 / size), {marked}, iterations))
        assert chances[marked] == pytest.approx(success, abs=1e-12)
        assert success_probability(1 / size, iterations) == pytest.approx(success, abs=1e-12)


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
@pytest.mark.parametrize("n_wires", [1, 2, 3, 4])
def test_amplitudes_of_random_priors_signs_and_phases_included(n_wires: int, iterations: int) -> None:
    """After k iterations: ``sin((2k+1)t)/sin(t)`` times the start's amplitude in the accepted set, cos/cos outside."""
    rng = np.random.default_rng(n_wires)
    for _ in range(4):
        chances = rng.dirichlet(np.full(2**n_wires, 0.5))
        accepted = rng.permutation(2**n_wires)[: rng.integers(1, 2**n_wires)].tolist()
        good = np.isin(np.arange(2**n_wires), accepted)
        t = math.asin(math.sqrt(chances[good].sum()))
        turn = (2 * iterations + 1) * t
        factor = np.where(good, math.sin(turn) / math.sin(t), math.cos(turn) / math.cos(t))
        vector = oracles.unitary(grover(chances, accepted, iterations))[:, 0]
        np.testing.assert_allclose(vector, factor * np.sqrt(chances), atol=1e-10)
        found = (np.abs(vector) ** 2)[good].sum()
        assert found == pytest.approx(success_probability(chances[good].sum(), iterations), abs=1e-10)


@settings(max_examples=40)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1.0)), min_size=8, max_size=8).filter(lambda row: sum(row) > 0),
    st.sets(st.integers(0, 7), min_size=1, max_size=7),
    st.integers(0, 3),
)
def test_ratios_inside_and_outside_the_accepted_set_stay(row: list[float], accepted: set[int], k: int) -> None:
    chances = np.array(row) / sum(row)
    good = np.isin(np.arange(8), list(accepted))
    if chances[good].sum() == 0:
        with pytest.raises(ValueError, match="got none"):
            grover(chances, accepted, k)
        return
    found = outcome(grover(chances, accepted, k))
    for part in (good, ~good):
        np.testing.assert_allclose(found[part] * chances[part].sum(), chances[part] * found[part].sum(), atol=1e-9)
    assert np.abs(found[chances == 0]).max(initial=0.0) < 1e-28


def test_the_uniform_diffuser_would_be_wrong() -> None:
    """The reflection is about the start state: reflecting an uneven start about the uniform state loses the law."""
    accepted, good = {3, 4}, [3, 4]
    right = outcome(grover(UNEVEN, accepted, 1))[good].sum()
    assert right == pytest.approx(success_probability(0.25, 1), abs=1e-12) == pytest.approx(1.0)
    start, sign = np.sqrt(UNEVEN), np.where(np.isin(np.arange(8), good), -1, 1)
    wrong = (np.full((8, 8), 2 / 8) - np.eye(8)) @ (sign * start)
    assert (wrong[good] ** 2).sum() < 0.95


@pytest.mark.parametrize("p_good", [1e-4, 0.003, 0.02, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9, 1.0])
def test_optimal_iterations_are_the_best_of_the_first_rise(p_good: float) -> None:
    first_rise = range(math.ceil(math.pi / (2 * math.asin(math.sqrt(p_good)))) + 1)
    chances = [success_probability(p_good, k) for k in first_rise if (2 * k + 1) * math.asin(math.sqrt(p_good)) < 2.4]
    best = optimal_iterations(p_good)
    assert chances[best] == pytest.approx(max(chances), abs=1e-12)
    assert all(chance < max(chances) - 1e-12 for chance in chances[:best])
    assert success_probability(p_good, best) >= 1 - p_good - 1e-12 or p_good > 0.25


@pytest.mark.parametrize("delta", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("iterations", [0, 1, 2, 4])
@pytest.mark.parametrize("p_good", [0.02, 0.2, 0.5, 0.93])
def test_fixed_point_circuit_follows_the_chebyshev_law(p_good: float, iterations: int, delta: float) -> None:
    rng = np.random.default_rng(iterations)
    good = np.array([0, 1, 1, 0, 0, 0, 1, 0], dtype=bool)
    chances = rng.dirichlet(np.ones(8))
    chances[good] *= p_good / chances[good].sum()
    chances[~good] *= (1 - p_good) / chances[~good].sum()
    length = 2 * iterations + 1
    law = 1 - delta**2 * chebyshev(length, chebyshev(1 / length, 1 / delta) * math.sqrt(1 - p_good)) ** 2
    found = outcome(fixed_point_grover(chances, np.flatnonzero(good).tolist(), iterations, delta))
    assert found[good].sum() == pytest.approx(law, abs=1e-10)
    assert fixed_point_success(p_good, iterations, delta) == pytest.approx(law, abs=1e-10)
    np.testing.assert_allclose(found[good] * p_good, chances[good] * law, atol=1e-10)


@given(st.integers(0, 30), st.floats(0.01, 0.99), st.floats(0, 1))
def test_fixed_point_never_falls_below_its_bound_again(iterations: int, delta: float, share: float) -> None:
    width = fixed_point_width(iterations, delta)
    assert width == pytest.approx(1 - chebyshev(1 / (2 * iterations + 1), 1 / delta) ** -2, abs=1e-9)
    assert fixed_point_success(width, iterations, delta) == pytest.approx(1 - delta**2, abs=1e-9)
    assert fixed_point_success(width + share * (1 - width), iterations, delta) >= 1 - delta**2 - 1e-9
    below = 0.9 * share * width
    assert fixed_point_success(below, iterations, delta) < 1 - delta**2 + 1e-12


@given(st.floats(1e-4, 1.0), st.floats(0.01, 0.99))
def test_fixed_point_iterations_are_the_fewest(p_least: float, delta: float) -> None:
    fewest = fixed_point_iterations(p_least, delta)
    assert fixed_point_width(fewest, delta) <= p_least + 1e-9
    assert fewest == 0 or fixed_point_width(fewest - 1, delta) > p_least - 1e-9


def test_delta_1_is_grovers_search_and_plain_search_overcooks() -> None:
    np.testing.assert_allclose(np.array(fixed_point_phases(3, 1 - 1e-14)) % (2 * np.pi), np.pi, atol=1e-6)
    assert success_probability(1 / 8, 4) < 0.02
    assert all(fixed_point_success(1 / 8, calls, 0.3) >= 1 - 0.3**2 for calls in range(3, 50))


def test_family_at_phases_pi_is_grover_and_takes_a_batch() -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(8, 0.7), size=5)
    accepted = (1, 5, 6)
    angles, backend = torch.tensor(loading_angles(chances)), open_backend("statevector")
    for shift, weight in ((0.0, math.pi), (math.pi, 0.0)):
        family = amplification(3, accepted, 2, shift=shift)
        assert (family.n_inputs, family.n_weights) == (7, 4)
        weights = torch.full((4,), weight, dtype=torch.float64)
        found = backend.probabilities(family, angles, weights).values.numpy()
        each = [outcome(grover(row, accepted, 2)) for row in chances]
        np.testing.assert_allclose(found, each, atol=1e-12)


def test_family_holds_fixed_point_search() -> None:
    phases = np.array(fixed_point_phases(2, 0.3)).ravel()
    unitary = oracles.unitary(amplification(3, {2}, 2), loading_angles(UNEVEN), phases)
    np.testing.assert_allclose(unitary, oracles.unitary(fixed_point_grover(UNEVEN, {2}, 2, 0.3)), atol=1e-12)


def test_gradients_of_family_in_phases_and_distribution() -> None:
    family, backend = amplification(2, {1, 3}, 1), open_backend("statevector")

    def found(logits: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
        return backend.probabilities(family, loading_angles(torch.softmax(logits, -1)), phases).values

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    phases = torch.tensor([2.5, 3.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(found, (logits, phases))


def test_cost_is_what_the_docstring_says() -> None:
    rng = np.random.default_rng(0)
    for n_wires, k in ((2, 1), (3, 2), (5, 1)):
        size = 2**n_wires
        names = [op.name for op in amplification(n_wires, rng.permutation(size)[: size // 2].tolist(), k).ops]
        assert names.count("ry") == (2 * k + 1) * (size - 1)
        assert names.count("rz") <= 2 * k * (size - 1)
        assert names.count("cx") <= (4 * k + 1) * (size - 2)
    uniform = [op.name for op in grover(np.full(8, 1 / 8), {7}, 1).ops]
    assert uniform.count("ry") == 9  # a uniform start is a product: three RY and no CNOT, three times over


EXACT = ("statevector", "pennylane:default.qubit", "aer", "aer:density_matrix", "quimb:exact")


@pytest.mark.parametrize("backend", EXACT)
def test_exact_backends_agree(backend: str) -> None:
    for circuit in (grover(UNEVEN, {0, 6}, 1), fixed_point_grover(UNEVEN, {5}, 2, 0.3)):
        values = open_backend(backend).probabilities(circuit).values[0].double().numpy()
        np.testing.assert_allclose(values, outcome(circuit), atol=1e-6)


def test_matrix_product_states_within_their_error() -> None:
    circuit = grover(UNEVEN, {0, 6}, 2)
    for spec, exact in (("quimb:mps", True), ("quimb:mps?max_bond=2", False), ("quimb:mps?max_bond=1", False)):
        estimate = open_backend(spec).probabilities(circuit)
        error = np.abs(estimate.values[0].double().numpy() - outcome(circuit))
        assert (error <= estimate.truncation_error[0].double().numpy() + 1e-5).all()
        assert not exact or error.max() < 1e-5
    assert error.max() > 0.01  # one product state cannot hold it


def test_shots_within_their_error() -> None:
    circuit = grover(UNEVEN, {0, 6}, 1)
    shots = 20_000
    values = open_backend(f"aer?shots={shots}").probabilities(circuit, seed=3).values[0].double().numpy()
    exact = outcome(circuit)
    assert (np.abs(values - exact) <= 5 * np.sqrt(exact * (1 - exact) / shots) + 1e-9).all()
    bits = open_backend("aer").samples(circuit, shots=400, seed=1).values[0].numpy()
    assert np.isin(bits @ [4, 2, 1], [0, 6]).mean() == pytest.approx(success_probability(0.25, 1), abs=1e-9)


@pytest.mark.parametrize(("n_wires", "least"), [(2, 0.75), (3, 0.3)])
def test_a_noisy_device_amplifies_with_visible_loss(n_wires: int, least: float) -> None:
    """Three wires take many CNOTs on a chain of qubits, and the noise shows."""
    size, k = 2**n_wires, n_wires - 1
    circuit = grover(np.full(size, 1 / size), {size - 1}, k)
    found = float(open_backend("ibm:fake_manila?shots=2000").probabilities(circuit, seed=1).values[0, -1])
    ideal = success_probability(1 / size, k)
    assert least < found < ideal - 0.02
    assert found > 1.5 / size


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((UNEVEN, set(), 1), ValueError, "one that accepts nothing; accept a state"),
        ((UNEVEN, set(range(8)), 1), ValueError, "one that accepts everything; leave a state out"),
        ((UNEVEN, {3}, 1), ValueError, "a probability above 0, got none"),
        ((UNEVEN, {8}, 1), IndexError, "basis states 0 to 7, got 8"),
        ((UNEVEN, {-1}, 1), IndexError, "got -1"),
        ((UNEVEN, {"a"}, 1), TypeError, "integer basis states"),
        ((UNEVEN, 1, 1), TypeError, "a collection of basis states, got 1; put a single one into braces"),
        ((UNEVEN, {0}, -1), ValueError, "iterations of at least 0, got -1"),
        ((UNEVEN, {0}, 1.0), TypeError, "an integer iterations"),
        ((UNEVEN * 1.1, {0}, 1), ValueError, "sum to 1"),
        ((UNEVEN - 0.01, {0}, 1), ValueError, "no negative probability"),
        ((UNEVEN * math.nan, {0}, 1), ValueError, "got NaN"),
        ((UNEVEN[:7] / UNEVEN[:7].sum(), {0}, 1), ValueError, "pad with zeros"),
        ((np.stack([UNEVEN, UNEVEN]), {0}, 1), ValueError, "one distribution"),
        ((np.full(2**13, 2.0**-13), {0}, 1), ValueError, "at most 12 wires, got 13"),
    ],
)
def test_bad_searches_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        grover(*arguments)
    chances, accepted, iterations = arguments
    with pytest.raises(error, match=message):
        fixed_point_grover(chances, accepted, iterations, 0.3)


def test_bad_numbers_are_refused() -> None:
    for delta in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="0 < delta < 1"):
            fixed_point_grover(UNEVEN, {0}, 1, delta)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"probability in \[0, 1\]"):
            success_probability(share, 1)
    with pytest.raises(ValueError, match="nothing can be amplified"):
        optimal_iterations(0.0)
    with pytest.raises(ValueError, match="p_least above 0"):
        fixed_point_iterations(0.0, 0.3)
    with pytest.raises(ValueError, match="accepts everything"):
        amplification(2, range(4), 1)
    with pytest.raises(ValueError, match="at most 12 wires, got 13"):
        amplification(13, {0}, 1)
