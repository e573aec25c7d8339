"""Random circuits, one answer: every exact backend against the state vector, and that against matrices."""

from functools import cache

import numpy as np
import oracles
import pytest
import torch
from oracles import random_circuit, random_data
from torch import Tensor

from backends import open_backend
from circuits import Circuit, PauliSum, Reset, X, Y, Z

EXACT = {
    "aer": ("qiskit_aer", 4),
    "aer:matrix_product_state": ("qiskit_aer", 4),
    "pennylane:default.qubit": ("pennylane", 10),
    "pennylane:lightning.qubit": ("pennylane_lightning", 10),
    "quimb:exact": ("quimb", 20),
}
"""Exact backends: the package without which each is skipped, and every how many circuits are run on it: those that take
0.05 s and more for a circuit are shown a share of them."""
N_CIRCUITS = 1000

Case = tuple[Circuit, Tensor, Tensor, tuple[PauliSum, ...]]


@cache
def case(number: int) -> Case:
    """A circuit of 2 to 8 wires with slots of all kinds, data for one sample, and observables of three bases."""
    rng = np.random.default_rng((2024, number))
    n_wires = int(rng.integers(2, 9))
    circuit = random_circuit(rng, n_wires, int(rng.integers(2, 13)))
    inputs, weights = (torch.tensor(data, dtype=torch.float64) for data in random_data(rng, circuit, 1))
    first, second = (int(wire) for wire in rng.permutation(n_wires)[:2])
    return circuit, inputs, weights, (Z(first), X(first) @ Y(second), 0.5 * Z(first) @ Z(second) - Y(second))


@cache
def expected(number: int) -> Tensor:
    return open_backend("statevector").expectations(*case(number)).values


@pytest.mark.parametrize("spec", EXACT)
def test_random_circuits_have_one_answer(spec: str) -> None:
    package, step = EXACT[spec]
    pytest.importorskip(package)
    backend, shown = open_backend(spec), range(0, N_CIRCUITS, step)
    found = torch.cat([backend.expectations(*case(number)).values for number in shown])
    answers = torch.cat([expected(number) for number in shown])
    torch.testing.assert_close(found, answers, atol=1e-10, rtol=0)


@pytest.mark.parametrize("spec", ["statevector", *EXACT])
def test_single_precision_agrees_to_its_rounding(spec: str) -> None:
    if spec in EXACT:
        pytest.importorskip(EXACT[spec][0])
    backend, worst = open_backend(spec), 0.0
    for number in range(40):
        circuit, inputs, weights, observables = case(number)
        found = backend.expectations(circuit, inputs.float(), weights.float(), observables).values
        assert found.dtype == torch.float32
        worst = max(worst, float((found.double() - expected(number)).abs().max()))
    assert worst < 2e-5


def test_the_state_vector_is_the_product_of_matrices() -> None:
    for number in range(0, N_CIRCUITS, 10):
        circuit, inputs, weights, observables = case(number)
        if circuit.n_wires > 6:
            continue  # the matrices would be slow, and wires beyond six add nothing
        truth = oracles.expectations(circuit, inputs.numpy(), weights.numpy(), observables)
        np.testing.assert_allclose(expected(number).numpy(), truth, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "package", "n_circuits", "n_ops"),
    [
        ("statevector", "torch", 15, 10),
        *((f"aer:{method}", "qiskit_aer", 15, 10) for method in ("automatic", "statevector", "density_matrix")),
        *((f"pennylane:{name}", "pennylane", 5, 5) for name in ("default.qubit", "lightning.qubit", "default.mixed")),
    ],
)
def test_resets_are_exact(spec: str, package: str, n_circuits: int, n_ops: int) -> None:
    """Densities and entropies of two wires."""
    pytest.importorskip(package)
    backend = open_backend(spec)
    for number in range(n_circuits):
        rng = np.random.default_rng(number)
        circuit = random_circuit(rng, 3, n_ops, resets=True) + Circuit(3, Reset(1))
        inputs, weights = random_data(rng, circuit, 2)
        found = backend.density(circuit, inputs, weights, wires=(2, 0)).values.numpy()
        entropies = backend.entropy(circuit, inputs, weights, wires=(2, 0)).values
        for row, rho, entropy in zip(inputs, found, entropies, strict=True):
            exact = oracles.reduced(oracles.density(circuit, row, weights), (2, 0))
            assert np.abs(rho - exact).max() < 1e-10
            assert abs(oracles.von_neumann(exact) - entropy) < 1e-9
