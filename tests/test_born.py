"""Born machines: their layers and numbers, Born's rule against matrices, phases, and one distribution on all backends.

Axis legend: b batch, n wires, N = 2**n basis states, s shots.
"""

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor

from backends import open_backend
from circuits import Circuit, Input, Weight
from circuits.library import born_machine, conditional_born_machine

EXACT = {
    "aer": "qiskit_aer",
    "aer:matrix_product_state": "qiskit_aer",
    "pennylane:default.qubit": "pennylane",
    "quimb:exact": "quimb",
}


def data(circuit: Circuit, batch: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs, weights = oracles.random_data(np.random.default_rng(seed), circuit, batch)
    return torch.tensor(inputs), torch.tensor(weights)


def chances(
    circuit: Circuit, inputs: Tensor | None, weights: Tensor, spec: str = "statevector", **options: Any
) -> Tensor:
    return open_backend(spec).probabilities(circuit, inputs, weights, **options).values


@pytest.mark.parametrize(("n_wires", "depth"), [(1, 0), (1, 2), (2, 1), (4, 3), (3, 0)])
def test_layers_and_numbers(n_wires: int, depth: int) -> None:
    machine = born_machine(n_wires, depth)
    assert (machine.n_inputs, machine.n_weights) == (0, 2 * n_wires * (depth + 1))
    ring = n_wires if n_wires > 1 else 0
    assert [op.name for op in machine.ops] == (["rz", "ry"] * n_wires + ["cx"] * ring) * depth + ["rz", "ry"] * n_wires
    weights = [slot.index for slot in machine.slots if isinstance(slot, Weight)]
    assert weights == list(range(machine.n_weights))  # in program order
    whole = conditional_born_machine(n_wires, depth)
    assert whole.ops[2 * n_wires :] == machine.ops
    assert (whole.n_inputs, whole.n_weights) == (2 * n_wires, machine.n_weights)
    read = [slot.index for slot in whole.slots if isinstance(slot, Input)]
    assert read == [index for wire in range(n_wires) for index in (wire, n_wires + wire)]


@pytest.mark.parametrize(("n_wires", "depth"), [(1, 1), (3, 0), (3, 2), (5, 1)])
def test_distribution_is_borns_rule_on_the_product_of_matrices(n_wires: int, depth: int) -> None:
    circuit = conditional_born_machine(n_wires, depth)
    inputs, weights = data(circuit)
    found = chances(circuit, inputs, weights)
    for row, values in zip(inputs.numpy(), found.numpy(), strict=True):
        amplitudes = oracles.unitary(circuit, row, weights.numpy())[:, 0]
        np.testing.assert_allclose(values, np.abs(amplitudes) ** 2, atol=1e-13)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, dtype=torch.float64), atol=1e-13, rtol=0)


def test_alone_it_is_a_distribution_without_inputs() -> None:
    machine = born_machine(3, 2)
    _, weights = data(machine)
    found = open_backend("statevector").probabilities(machine, None, weights).values
    amplitudes = oracles.unitary(machine, oracles.NOTHING, weights.numpy())[:, 0]
    np.testing.assert_allclose(found[0].numpy(), np.abs(amplitudes) ** 2, atol=1e-13)


def test_every_weight_behind_the_encoder_moves_the_distribution() -> None:
    """None is spent on a gate that no measurement sees; on |0> the first layer's RZs are."""
    for circuit, idle in ((conditional_born_machine(3, 2), set()), (born_machine(3, 2), {0, 2, 4})):
        inputs, weights = data(circuit, 1)
        slope = torch.autograd.functional.jacobian(
            lambda w, circuit=circuit, inputs=inputs: chances(circuit, inputs if circuit.n_inputs else None, w),
            weights,
        )
        moved = slope[0].abs().amax(0)
        assert {index for index, most in enumerate(moved.tolist()) if most < 1e-12} == idle
        assert min(most for index, most in enumerate(moved.tolist()) if index not in idle) > 1e-3


def test_without_entanglers_the_bits_are_independent_coins() -> None:
    """U = 1: bit i is 1 with chance sin^2(x_i / 2), and wire 0 is the most significant bit."""
    circuit = conditional_born_machine(3, 0)
    inputs, weights = data(circuit)
    one = torch.sin(inputs[:, :3] / 2).square()
    expected = torch.stack(
        [
            torch.stack([one[:, wire] if index >> (2 - wire) & 1 else 1 - one[:, wire] for wire in range(3)]).prod(0)
            for index in range(8)
        ],
        -1,
    )
    found = chances(circuit, inputs, torch.zeros_like(weights))
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_phases_of_the_input_matter_only_through_the_circuit(depth: int) -> None:
    circuit = conditional_born_machine(4, depth)
    inputs, weights = data(circuit)
    turned = inputs.clone()
    turned[:, 4:] = torch.tensor(np.random.default_rng(1).uniform(-3, 3, (3, 4)))
    still = torch.zeros_like(weights)
    torch.testing.assert_close(
        chances(circuit, turned, still), chances(circuit, inputs, still), atol=1e-13, rtol=0
    )  # U is 1, or a permutation of basis states
    moved = (chances(circuit, turned, weights) - chances(circuit, inputs, weights)).abs()
    assert float(moved.amax(-1).min()) > 0.02


@pytest.mark.parametrize("spec", EXACT)
def test_exact_backends_agree(spec: str) -> None:
    pytest.importorskip(EXACT[spec])
    circuit = conditional_born_machine(5, 2)
    inputs, weights = data(circuit)
    torch.testing.assert_close(
        chances(circuit, inputs, weights, spec), chances(circuit, inputs, weights), atol=1e-10, rtol=0
    )


@pytest.mark.parametrize("max_bond", [3, 4, 64])
def test_matrix_product_states_agree_within_their_error(max_bond: int) -> None:
    pytest.importorskip("quimb")
    circuit = conditional_born_machine(6, 2)
    inputs, weights = data(circuit)
    weights = weights / 10  # as weak as fresh weights, so that a small bond says something
    estimate = open_backend(f"quimb:mps?max_bond={max_bond}").probabilities(circuit, inputs, weights)
    assert estimate.truncation_error is not None
    off = (estimate.values - chances(circuit, inputs, weights)).abs()
    assert bool((off <= estimate.truncation_error + 1e-9).all())
    bound = float(estimate.truncation_error.max())
    assert bound < 1e-9 if max_bond == 64 else bound > 0.1
    assert (float(off.max()) > 0.01) is (max_bond < 64)  # the cut does show


@pytest.mark.parametrize("spec", ["statevector", "aer"])
def test_samples_have_the_distribution(spec: str) -> None:
    """Pearson's chi-square over 8 outcomes: above its 0.9999 quantile for no row."""
    if spec == "aer":
        pytest.importorskip("qiskit_aer")
    circuit, shots = conditional_born_machine(3, 2), 4000
    inputs, weights = data(circuit)
    bits = open_backend(spec).samples(circuit, inputs, weights, shots=shots, seed=0).values.long()
    codes = (bits * torch.tensor([4, 2, 1])).sum(-1)
    counts = torch.stack([torch.bincount(row, minlength=8) for row in codes])
    wished = shots * chances(circuit, inputs, weights)
    assert float(((counts - wished).square() / wished).sum(-1).max()) < 29.9


@pytest.mark.parametrize("make", [born_machine, conditional_born_machine])
@pytest.mark.parametrize(
    ("arguments", "error"), [((0, 1), ValueError), ((2, -1), ValueError), ((2.0, 1), TypeError), ((2, True), TypeError)]
)
def test_bad_sizes_are_refused(make: Any, arguments: tuple[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=make.__name__):
        make(*arguments)
