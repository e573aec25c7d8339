"""Capped bonds of Aer's matrix product states: exact where the cap cannot bind, a bound that always holds elsewhere."""

import math

import numpy as np
import pytest
import torch
from oracles import random_circuit, random_data

from backends import open_backend
from circuits import Circuit, Input, Op, X, Z
from circuits.library import angle_encoding, hardware_efficient

pytest.importorskip("qiskit_aer", reason="the extra qiskit is not installed")

from backends.aer import Aer
from backends.aer_bond import may_truncate


def _schmidt_ranks(circuit: Circuit, inputs: torch.Tensor, weights: torch.Tensor) -> int:
    """The largest rank over all cuts of the line and all prefixes of the circuit."""
    largest = 1
    for count in range(1, len(circuit.ops) + 1):
        part = circuit.prefix(count)
        state = open_backend("statevector").state(part, inputs[:, : part.n_inputs], weights[: part.n_weights])
        for cut in range(1, circuit.n_wires):
            matrix = state.values[0].reshape(2**cut, -1)
            largest = max(largest, int(torch.linalg.matrix_rank(matrix, atol=1e-9)))
    return largest


def test_the_bound_on_ranks_holds() -> None:
    safe = 0
    for case in range(25):
        rng = np.random.default_rng(case)
        n_wires = int(rng.integers(2, 6))
        circuit = random_circuit(rng, n_wires, int(rng.integers(2, 10)))
        inputs, weights = (torch.tensor(data, dtype=torch.float64) for data in random_data(rng, circuit, 1))
        rank = _schmidt_ranks(circuit, inputs, weights)
        for cap in (1, 2, 3, 4):
            if not may_truncate(circuit, cap):
                assert rank <= cap
                safe += 1
    assert safe > 12


def test_a_cap_that_cannot_bind_changes_nothing() -> None:
    ghz = Circuit(30, (Op("ry", (0,), (Input(0),)), *(Op("cx", (k, k + 1)) for k in range(29))))
    found = open_backend("aer:matrix_product_state?max_bond=2").expectations(
        ghz, torch.tensor([[0.7]], dtype=torch.float64), None, (Z(29), Z(0) @ Z(29))
    )
    torch.testing.assert_close(found.values, torch.tensor([[math.cos(0.7), 1.0]], dtype=torch.float64))
    assert not found.truncation_error.any()
    assert not found.infidelity.any()


def test_a_cap_that_may_bind_is_declared() -> None:
    circuit = angle_encoding(6) + hardware_efficient(6, 4)
    generator = torch.Generator().manual_seed(0)
    inputs, weights = 3 * torch.rand(3, 6, generator=generator), 3 * torch.rand(circuit.n_weights, generator=generator)
    observables = (Z(0), 0.5 * X(1) @ X(4) - 0.25 * Z(5) + 2)
    capped, exact = Aer(method="matrix_product_state", max_bond=2), open_backend("statevector")
    found = capped.expectations(circuit, inputs, weights, observables)
    truth = exact.expectations(circuit, inputs, weights, observables).values
    assert (found.values - truth).abs().max() > 0.05  # Aer did truncate
    torch.testing.assert_close(found.truncation_error, torch.tensor([[2.0, 1.5]]).repeat(3, 1))
    assert ((found.values - truth).abs() <= found.truncation_error).all()
    assert (found.infidelity == 1).all()
    entropy = capped.entropy(circuit, inputs, weights, wires=(0, 1, 2))
    gap = (entropy.values - exact.entropy(circuit, inputs, weights, wires=(0, 1, 2)).values).abs()
    assert gap.max() > 0.05
    assert (gap <= entropy.truncation_error).all()
    chances = capped.probabilities(circuit, inputs, weights, wires=(0, 3))
    assert (chances.truncation_error == 1).all()
    assert (capped.samples(circuit, inputs, weights, shots=5, seed=0).truncation_error == 1).all()
    assert not capped.capabilities.exact
    wide = capped.with_options(max_bond=8).expectations(circuit, inputs, weights, observables)
    torch.testing.assert_close(wide.values, truth, atol=1e-5, rtol=0)
    assert not wide.truncation_error.any()
