"""Amplitude loading and diagonal gates against dense matrices; the distributions that are refused.

Axis legend: n wires, N = 2**n probabilities, b batch.
"""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backends import open_backend
from circuits import Circuit, Input, Weight
from circuits.library import amplitude_loading, diagonal, loading_angles, phase_on
from circuits.library.gray_code import gray_codes, parity_rotations, walsh

Real = NDArray[np.float64]
BACKENDS = ("statevector", "pennylane:default.qubit", "aer", "quimb:exact")


def amplitudes(circuit: Circuit, inputs: Real = oracles.NOTHING, weights: Real = oracles.NOTHING) -> oracles.Complex:
    return oracles.unitary(circuit, inputs, weights)[:, 0]


def some_distribution(rng: np.random.Generator, n_wires: int, zeros: float = 0.0) -> Real:
    """Random and uneven, with about that share of exact zeros."""
    chances = rng.dirichlet(np.full(2**n_wires, 0.4)) * (rng.random(2**n_wires) >= zeros)
    chances[rng.integers(2**n_wires)] += 0.1
    return chances / chances.sum()


@pytest.mark.parametrize("n_wires", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("zeros", [0.0, 0.5, 1.0])
def test_loaded_amplitudes_are_the_roots_of_the_distribution(n_wires: int, zeros: float) -> None:
    rng = np.random.default_rng(n_wires)
    circuit = amplitude_loading(n_wires)
    for _ in range(5):
        chances = some_distribution(rng, n_wires, zeros)
        vector = amplitudes(circuit, loading_angles(chances))
        np.testing.assert_allclose(vector, np.sqrt(chances), atol=1e-12, rtol=0)
        assert np.abs(vector[chances == 0]).max(initial=0.0) < 1e-15


@settings(max_examples=50)
@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1.0)), min_size=8, max_size=8).filter(any))
def test_any_distribution_is_loaded(weights: list[float]) -> None:
    chances = np.array(weights) / np.sum(weights)
    vector = amplitudes(amplitude_loading(3), loading_angles(chances))
    np.testing.assert_allclose(vector, np.sqrt(chances), atol=1e-12, rtol=0)
    assert np.abs(vector[chances == 0]).max(initial=0.0) < 1e-15


def test_loading_has_one_input_per_rotation_and_no_other_gate() -> None:
    for n_wires in range(1, 9):
        circuit = amplitude_loading(n_wires)
        names = [op.name for op in circuit.ops]
        assert circuit.n_inputs == names.count("ry") == 2**n_wires - 1
        assert names.count("cx") == 2**n_wires - 2 == len(names) - circuit.n_inputs
        assert [op.slots for op in circuit.ops if op.slots] == [(Input(k),) for k in range(circuit.n_inputs)]


def test_angles_of_known_distributions() -> None:
    np.testing.assert_allclose(loading_angles([0.75, 0.25]), [np.pi / 3], atol=1e-15)
    bell = loading_angles([0.5, 0.0, 0.0, 0.5])  # wire 1 turns by 0 or pi: half the sum, half the difference
    np.testing.assert_allclose(bell, [np.pi / 2, np.pi / 2, -np.pi / 2], atol=1e-15)
    np.testing.assert_array_equal(loading_angles([0.0, 0.0, 0.0, 1.0])[:1], [np.pi])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_and_arrays_give_the_same_angles_over_leading_axes(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    chances = np.stack([some_distribution(rng, 3, 0.3) for _ in range(6)]).reshape(2, 3, 8)
    angles = loading_angles(torch.tensor(chances, dtype=dtype))
    assert angles.shape == (2, 3, 7)
    assert angles.dtype == dtype
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(angles.numpy(), loading_angles(chances), atol=tolerance)
    np.testing.assert_array_equal(loading_angles(chances)[1, 2], loading_angles(chances[1, 2]))
    assert loading_angles(chances.astype(np.float32)).dtype == np.float32
    assert loading_angles(torch.zeros(0, 8, dtype=dtype)).shape == (0, 7)


def test_gradient_of_angles_is_right_inside_and_0_at_zeros() -> None:
    logits = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loading_angles(torch.softmax(x, -1)), (logits,))
    assert torch.autograd.gradgradcheck(lambda x: loading_angles(torch.softmax(x, -1)), (logits,))
    chances = torch.tensor([0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    angles = loading_angles(chances)
    (gradient,) = torch.autograd.grad(angles.sum() + angles.square().sum(), chances)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient[[0, 1, 4, 5, 6, 7]].abs().max()) == 0
    assert float(gradient[2:4].abs().max()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smallest", [0.0, 1e-300, 1e-44, 1e-38, 1e-31, 1e-29, 1e-12])
def test_gradients_stay_finite_however_small_an_entry_is(dtype: torch.dtype, smallest: float) -> None:
    for row in ([1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1], [0.5, 0, 0, 0, 0, 0, 0.5, 0]):
        chances = torch.tensor([[max(x, smallest) for x in row]], dtype=dtype, requires_grad=True)
        angles = loading_angles(chances)
        assert bool(torch.isfinite(angles).all())
        (100 * angles.abs().sum()).backward()
        assert chances.grad is not None
        assert bool(torch.isfinite(chances.grad).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_through_the_circuit_is_that_of_the_distribution(dtype: torch.dtype) -> None:
    """Loading and measuring is the identity on distributions, so the loss of a softmax keeps its own gradient, also
    where entries underflow."""
    logits = torch.tensor([0.3, -1.0, -60.0, 2.0, -torch.inf, -torch.inf, 0.0, -1e4], dtype=dtype, requires_grad=True)
    values = torch.linspace(-1, 1, 8, dtype=dtype)
    angles = loading_angles(torch.softmax(logits, -1))[None]
    born = open_backend("statevector").probabilities(amplitude_loading(3), angles).values
    (through,) = torch.autograd.grad(born[0] @ values, logits)
    (direct,) = torch.autograd.grad(torch.softmax(logits, -1) @ values, logits)
    torch.testing.assert_close(through, direct, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exact_backends_measure_the_distribution(backend: str) -> None:
    chances = torch.tensor(np.stack([some_distribution(np.random.default_rng(k), 3, 0.3) for k in range(4)]))
    estimate = open_backend(backend).probabilities(amplitude_loading(3), loading_angles(chances))
    torch.testing.assert_close(estimate.values.double(), chances, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("chances", "error", "message"),
    [
        ([0.5, 0.25, 0.125, 0.0], ValueError, "sum to 1 within 1e-05, got 0.875; divide"),
        ([0.5, 0.5, 1e-4, 0.0], ValueError, "sum to 1"),
        ([1.5, -0.5], ValueError, "no negative probability, got -0.5"),
        ([0.5, float("nan")], ValueError, "finite probabilities"),
        ([0.5, float("inf")], ValueError, "finite probabilities"),
        ([0.5, 0.25, 0.25], ValueError, r"3,?\); pad with zeros"),
        ([1.0], ValueError, "2, 4, 8"),
        ([], ValueError, "2, 4, 8"),
        (0.5, TypeError, "float32 or float64 probabilities, got float"),
        (torch.tensor([1, 0]), TypeError, "got torch.int64"),
        (torch.tensor([0.5, 0.5]).half(), TypeError, "got torch.float16"),
    ],
)
def test_what_is_no_distribution_is_refused(chances: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        loading_angles(chances)
    if isinstance(chances, list) and chances:
        with pytest.raises(error, match=message):
            loading_angles(torch.tensor([chances, chances]))


def test_one_bad_row_is_enough() -> None:
    rows = np.full((3, 4), 0.25)
    rows[1, 2] = 0.5
    with pytest.raises(ValueError, match=r"got 1\.25"):
        loading_angles(rows)


def test_widths_are_checked() -> None:
    with pytest.raises(ValueError, match="at most 16 wires, got 17"):
        amplitude_loading(17)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        amplitude_loading(0)
    with pytest.raises(ValueError, match="at most 12 wires, got 13"):
        phase_on(13, {0}, 1.0)
    for phases in (np.zeros(2**13), np.zeros(3), np.zeros((2, 2)), np.zeros(1)):
        with pytest.raises(ValueError, match="expects 2"):
            diagonal(phases)
    with pytest.raises(ValueError, match="finite phases"):
        diagonal([0.0, float("nan")])
    with pytest.raises(IndexError, match="states 0 to 3, got 4"):
        phase_on(2, {4}, 1.0)
    for state in (True, 1.0, "1"):
        with pytest.raises(TypeError, match="basis states"):
            phase_on(2, [state], 1.0)  # pyright: ignore[reportArgumentType] -- refused here


@pytest.mark.parametrize("n_wires", [1, 2, 3, 5])
def test_diagonal_is_exact_with_its_global_phase(n_wires: int) -> None:
    rng = np.random.default_rng(n_wires)
    phases = rng.uniform(-4, 4, 2**n_wires)
    np.testing.assert_allclose(oracles.unitary(diagonal(phases)), np.diag(np.exp(1j * phases)), atol=1e-12)
    weights, inputs = np.array([0.0, -0.7]), np.array([1.3])
    by_weight = oracles.unitary(diagonal(phases, Weight(1, scale=2.0)), inputs, weights)
    np.testing.assert_allclose(by_weight, np.diag(np.exp(-1.4j * phases)), atol=1e-12)
    by_input = oracles.unitary(diagonal(phases, Input(0)), inputs, weights)
    np.testing.assert_allclose(by_input, np.diag(np.exp(1.3j * phases)), atol=1e-12)


@settings(max_examples=50)
@given(st.sets(st.integers(0, 15)), st.floats(-6, 6))
def test_phase_on_any_set_is_exact_and_within_its_cost(accepted: set[int], phase: float) -> None:
    circuit = phase_on(4, accepted, phase)
    expected = [np.exp(1j * phase * (state in accepted)) for state in range(16)]
    np.testing.assert_allclose(oracles.unitary(circuit), np.diag(expected), atol=1e-12)
    names = [op.name for op in circuit.ops]
    assert names.count("rz") <= 15
    assert names.count("cx") <= 14


def test_half_of_the_states_is_one_rotation() -> None:
    assert [(op.name, op.wires) for op in phase_on(5, range(16, 32), Weight(0)).ops] == [("rz", (0,))]
    odd = [state for state in range(8) if state.bit_count() % 2]
    names = [op.name for op in phase_on(3, odd, 1.0).ops]
    assert (names.count("rz"), names.count("cx")) == (1, 4)


def test_gray_codes_and_walsh() -> None:
    codes = gray_codes(5)
    assert sorted(codes.tolist()) == list(range(32))
    assert {int(a ^ b).bit_count() for a, b in zip(codes, np.roll(codes, 1), strict=True)} == {1}
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 16))
    signs = np.array([[(-1) ** (s & x).bit_count() for x in range(16)] for s in range(16)])
    np.testing.assert_allclose(walsh(values), values @ signs, atol=1e-12)
    np.testing.assert_allclose(walsh(torch.tensor(values)).numpy(), values @ signs, atol=1e-12)


@pytest.mark.parametrize("name", ["ry", "rz"])
def test_rotations_on_parities_are_a_multiplexer(name: str) -> None:
    rng = np.random.default_rng(1)
    slots = [float(x) for x in rng.normal(size=8) * (rng.random(8) > 0.4)]
    circuit = Circuit(4, tuple(parity_rotations(name, (0, 1, 2), 3, slots)))
    signs = np.array([[(-1) ** int(s & g).bit_count() for g in gray_codes(3)] for s in range(8)])
    whole = np.zeros((16, 16), dtype=complex)
    for state, angle in enumerate(signs @ slots):
        block = slice(2 * state, 2 * state + 2)
        whole[block, block] = oracles.GATES[name].matrix(angle)
    np.testing.assert_allclose(oracles.unitary(circuit), whole, atol=1e-12)
