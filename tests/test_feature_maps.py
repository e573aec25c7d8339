"""Feature maps of quantum kernels: Qiskit's unitaries, what their kernels are, and how they concentrate.

Axis legend: n wires, b points.
"""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch

from backends import open_backend
from circuits import Circuit, Weight
from circuits.library import angle_encoding, kernel_feature_map, zz_feature_map
from circuits.slots import leaves


def gram(circuit: Circuit, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``|<phi(x)|phi(y)>|^2`` of all pairs, (b, b), in double precision."""
    tensors = torch.from_numpy(points), torch.from_numpy(weights)
    return (
        open_backend("statevector")
        .fidelity(circuit, tensors[0], inputs_b=tensors[0], weights_a=tensors[1], weights_b=tensors[1], gram=True)
        .values.numpy()
    )


def bits_reversed(n_wires: int) -> np.ndarray:
    """Where each basis state goes when the order of the wires is turned round."""
    return np.array([int(format(state, f"0{n_wires}b")[::-1], 2) for state in range(2**n_wires)])


@pytest.mark.parametrize("reps", [1, 2, 3])
@pytest.mark.parametrize("n_wires", [1, 2, 3, 4])
def test_zz_feature_map_is_qiskits_with_the_wires_turned_round(n_wires: int, reps: int) -> None:
    library = pytest.importorskip("qiskit.circuit.library")
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    x = np.random.default_rng(0).uniform(-3, 3, n_wires)
    family = library.zz_feature_map if n_wires > 1 else library.z_feature_map  # one wire has no pair
    theirs = quantum_info.Operator(family(n_wires, reps=reps).assign_parameters(x)).data
    turned = bits_reversed(n_wires)
    ours = oracles.unitary(zz_feature_map(n_wires, reps), x)
    np.testing.assert_allclose(ours, theirs[np.ix_(turned, turned)], atol=1e-12)


def test_zz_feature_map_by_its_formula() -> None:
    """``V(x) = exp(i sum_S phi_S prod Z)`` up to a phase, phi_i = -x_i, phi_ij = -(pi - x_i)(pi - x_j)."""
    x = np.array([0.4, -1.3])
    hadamards = np.kron([[1, 1], [1, -1]], [[1, 1], [1, -1]]) / 2
    exponent = []
    for first, second in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        exponent.append(-x[0] * first - x[1] * second - (math.pi - x[0]) * (math.pi - x[1]) * first * second)
    step = np.diag(np.exp(1j * np.array(exponent))) @ hadamards
    ours = oracles.unitary(zz_feature_map(2), x)
    assert abs(np.trace(ours.conj().T @ step @ step)) == pytest.approx(4, abs=1e-12)


def test_defaults_and_counts() -> None:
    assert zz_feature_map(3) == zz_feature_map(3, reps=2)
    assert (zz_feature_map(3).n_inputs, zz_feature_map(3).n_weights) == (3, 0)
    assert sum(op.name == "cx" for op in zz_feature_map(4, 3).ops) == 3 * 2 * 6
    assert kernel_feature_map(4, 0) == angle_encoding(4)
    assert (kernel_feature_map(4, 3).n_inputs, kernel_feature_map(4, 3).n_weights) == (4, 36)


@pytest.mark.parametrize("n_wires", [1, 2, 4])
def test_without_entanglers_the_kernel_is_a_product_of_squared_cosines(n_wires: int) -> None:
    points = np.random.default_rng(1).uniform(-3, 3, (7, n_wires))
    differences = points[:, None] - points[None]
    expected = np.prod(np.cos(differences / 2) ** 2, -1)
    for circuit in (kernel_feature_map(n_wires, 0), kernel_feature_map(n_wires, 0).separable()):
        np.testing.assert_allclose(gram(circuit, points, oracles.NOTHING), expected, atol=1e-12)


@pytest.mark.parametrize("circuit", [zz_feature_map(3), kernel_feature_map(3, 2), kernel_feature_map(2, 0)])
def test_kernels_are_one_on_the_diagonal_symmetric_and_positive(circuit: Circuit) -> None:
    rng = np.random.default_rng(2)
    kernel = gram(circuit, *oracles.random_data(rng, circuit, 40))
    np.testing.assert_allclose(np.diag(kernel), 1, atol=1e-12)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-14)
    assert np.linalg.eigvalsh(kernel).min() > -1e-12
    assert kernel.std() > 0.05


def test_every_weight_moves_the_kernel_but_those_of_a_trailing_layer_would_not() -> None:
    """The last encoding is there because gates without inputs at the end cancel in the overlap."""
    rng = np.random.default_rng(3)
    circuit = kernel_feature_map(2, 2)
    points, weights = oracles.random_data(rng, circuit, 6)
    before = gram(circuit, points, weights)
    for j in range(circuit.n_weights):
        moved = weights.copy()
        moved[j] += 0.5
        assert np.abs(gram(circuit, points, moved) - before).max() > 1e-3, j
    last = max(k for k, op in enumerate(circuit.ops) if any(isinstance(x, Weight) for s in op.slots for x in leaves(s)))
    cut = next(k for k in range(last + 1, len(circuit.ops)) if circuit.ops[k].name == "ry")
    trailing = circuit.prefix(cut)
    shorter = gram(trailing, points, weights)
    for j in range(6, 12):
        moved = weights.copy()
        moved[j] += 0.5
        np.testing.assert_allclose(gram(trailing, points, moved), shorter, atol=1e-12)


def test_kernels_concentrate_exponentially_with_the_wires() -> None:
    """Standard deviation of the off-diagonal kernel over 60 uniform points and weights, seed 0, as measured:

    n                        2       3       4       5       6       7       8
    kernel_feature_map(n, 3) 0.2280  0.1322  0.0756  0.0349  0.0173  0.0080  0.0039
    zz_feature_map(n)        0.2223  0.1226  0.0651  0.0314  0.0175  0.0079  0.0040

    A Haar-random state's overlap has mean and deviation of about ``2**-n``: 0.0039 at n = 8.
    """
    for family in (lambda n: kernel_feature_map(n, 3), zz_feature_map):
        spreads, means = [], []
        for n_wires in range(2, 9):
            rng, circuit = np.random.default_rng(0), family(n_wires)
            kernel = gram(
                circuit, rng.uniform(-np.pi, np.pi, (60, n_wires)), rng.uniform(-np.pi, np.pi, circuit.n_weights)
            )
            off = kernel[np.triu_indices(60, 1)]
            spreads.append(off.std())
            means.append(off.mean())
        assert all(later < 0.75 * earlier for earlier, later in itertools.pairwise(spreads))
        assert spreads[-1] < 3 * 2**-8
        assert means[-1] == pytest.approx(2**-8, rel=0.5)


def test_bad_arguments_are_refused_in_one_sentence() -> None:
    for call in (lambda: zz_feature_map(0), lambda: zz_feature_map(2, 0), lambda: kernel_feature_map(2, -1)):
        with pytest.raises(ValueError, match=r"expects .* of at least"):
            call()
    with pytest.raises(TypeError, match="expects an integer"):
        zz_feature_map(2.5)  # pyright: ignore[reportArgumentType]
