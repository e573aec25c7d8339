"""Each pass against dense matrices, global phase included."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from oracles import ALL_NAMES, Complex, circuits_strategy, density, random_circuit, random_data, reduced, unitary

from circuits import GATES, Circuit, Input, Op, Product, Reset, Weight
from circuits.decompositions import COMPOSITES, CONTROLLED, MULTI_CONTROLLED
from circuits.library import reuploading
from circuits.passes import controlled, inverse, remap, repeat, require_unitary, separable

INPUTS, WEIGHTS = np.array([0.3, -1.2, 2.5]), np.array([0.7, -0.1, 1.9, -2.2])
SEEDS = range(8)


def dense(circuit: Circuit) -> Complex:
    return unitary(circuit, INPUTS, WEIGHTS)


def block(matrix: Complex) -> Complex:
    """|0><0| (x) 1 + |1><1| (x) U."""
    zero, one = np.diag([1, 0]), np.diag([0, 1])
    return np.kron(zero, np.eye(len(matrix))) + np.kron(one, matrix)


def gate_circuits() -> list[Circuit]:
    """Each primitive, composite and multi-controlled gate alone, wires in an awkward order, every kind of slot."""
    slots = (Product(Input(0), Weight(1), scale=1.5, shift=0.4), Weight(0, scale=-2.0), Input(2, shift=0.1))
    circuits = []
    for name in ALL_NAMES:
        record = (GATES | COMPOSITES | MULTI_CONTROLLED)[name]
        wires = {1: (1,), 2: (2, 0), 3: (2, 0, 1), 0: (2, 0, 3, 1)}[record.n_wires]
        circuits.append(Circuit(4 if record.n_wires == 0 else 3, (Op(name, wires, slots[: record.n_angles]),)))
    return circuits


every_gate = pytest.mark.parametrize("circuit", gate_circuits(), ids=ALL_NAMES)
random_circuits = pytest.mark.parametrize(
    "circuit", [random_circuit(np.random.default_rng(seed), 1 + seed % 4, 24) for seed in SEEDS]
)


def test_the_table_of_controlled_gates_covers_every_primitive() -> None:
    assert set(CONTROLLED) == set(GATES)


@every_gate
def test_controlled_gate(circuit: Circuit) -> None:
    np.testing.assert_allclose(dense(controlled(circuit)), block(dense(circuit)), rtol=0, atol=1e-12)


@every_gate
def test_twice_controlled_gate(circuit: Circuit) -> None:
    twice = circuit.controlled().controlled()
    np.testing.assert_allclose(dense(twice), block(block(dense(circuit))), rtol=0, atol=1e-12)


@every_gate
def test_inverse_of_a_gate(circuit: Circuit) -> None:
    np.testing.assert_allclose(dense(inverse(circuit)), dense(circuit).conj().T, rtol=0, atol=1e-13)


@random_circuits
def test_controlled_random_circuit_with_its_phase(circuit: Circuit) -> None:
    np.testing.assert_allclose(dense(controlled(circuit)), block(dense(circuit)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_twice_controlled_random_circuit(seed: int) -> None:
    circuit = random_circuit(np.random.default_rng(50 + seed), 2, 10)
    twice = controlled(controlled(circuit))
    np.testing.assert_allclose(dense(twice), block(block(dense(circuit))), rtol=0, atol=1e-12)


@settings(max_examples=25)
@given(circuits_strategy(max_wires=3, max_ops=5))
def test_controlled_and_inverse_of_any_circuit(circuit: Circuit) -> None:
    np.testing.assert_allclose(dense(controlled(circuit)), block(dense(circuit)), rtol=0, atol=1e-11)
    np.testing.assert_allclose(dense(circuit + inverse(circuit)), np.eye(2**circuit.n_wires), rtol=0, atol=1e-11)
    assert inverse(inverse(circuit)) == circuit


def test_a_global_phase_becomes_a_phase_on_the_control() -> None:
    circuit = Circuit(1, (), (Weight(0, scale=2.0), 0.25))
    assert controlled(circuit) == Circuit(2, (Op("p", (0,), (Weight(0, scale=2.0),)), Op("p", (0,), (0.25,))))
    assert controlled(controlled(circuit)).global_phase == ()
    assert inverse(circuit).global_phase == (Weight(0, scale=-2.0), -0.25)


@random_circuits
def test_inverse_random_circuit(circuit: Circuit) -> None:
    np.testing.assert_allclose(dense(circuit.inverse()), dense(circuit).conj().T, rtol=0, atol=1e-12)


@random_circuits
def test_plus_multiplies(circuit: Circuit) -> None:
    other = random_circuit(np.random.default_rng(99), circuit.n_wires, 12)
    np.testing.assert_allclose(dense(circuit + other), dense(other) @ dense(circuit), rtol=0, atol=1e-12)


@random_circuits
@pytest.mark.parametrize("times", [0, 1, 3])
def test_repeat_is_a_power(circuit: Circuit, times: int) -> None:
    expected = np.linalg.matrix_power(dense(circuit), times)
    np.testing.assert_allclose(dense(circuit.repeat(times)), expected, rtol=0, atol=1e-11)


def test_repeat_with_fresh_weights_numbers_them_copy_by_copy() -> None:
    layer = Circuit(
        1,
        (Op("rx", (0,), (Weight(1),)), Op("ry", (0,), (Product(Input(0), Weight(0, shift=0.2)),))),
        global_phase=(Weight(1, scale=3.0),),
    )
    rng = np.random.default_rng(0)
    weights = rng.normal(size=6)
    tripled = repeat(layer, 3, fresh_weights=True)
    assert (tripled.n_weights, tripled.n_inputs) == (6, 1)
    first, second, third = (unitary(layer, INPUTS, weights[k : k + 2]) for k in (0, 2, 4))
    np.testing.assert_allclose(unitary(tripled, INPUTS, weights), third @ second @ first, atol=1e-13)


def test_repeat_keeps_resets() -> None:
    step = Circuit(2, (Op("ry", (0,), (0.8,)), Op("cx", (0, 1)), *Reset(0)))
    thrice = step.repeat(3)
    assert thrice.ops == step.ops * 3
    assert density(thrice)[2:, 2:].sum() == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_remap_moves_wires(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 3, 20)
    order = tuple(int(wire) for wire in rng.permutation(3))
    moved = dense(circuit.remap(order)).reshape((2,) * 6)
    axes = (*order, *(3 + wire for wire in order))  # old wire k is the moved circuit's wire order[k]
    np.testing.assert_allclose(moved.transpose(axes).reshape(8, 8), dense(circuit), rtol=0, atol=1e-13)


def test_remap_to_a_wider_circuit_leaves_the_other_wires_alone() -> None:
    circuit = random_circuit(np.random.default_rng(5), 2, 12, resets=True)
    inputs, weights = random_data(np.random.default_rng(6), circuit, 1)
    wide = circuit.remap((3, 1), n_wires=5)
    assert wide.n_wires == 5
    assert circuit.remap((3, 1)).n_wires == 4
    rho = density(wide, inputs[0], weights)
    np.testing.assert_allclose(reduced(rho, (3, 1)), density(circuit, inputs[0], weights), atol=1e-13)
    np.testing.assert_allclose(np.diagonal(reduced(rho, (0, 2, 4))), np.eye(8)[0], atol=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
def test_separable_circuits_make_product_states(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 3, 40)
    inputs, weights = random_data(rng, circuit, 1)
    local = separable(circuit)
    assert (local.n_inputs, local.n_weights) == (circuit.n_inputs, circuit.n_weights)
    rho = density(local, inputs[0], weights)
    parts = [reduced(rho, (wire,)) for wire in range(3)]
    for part in parts:
        assert np.trace(part @ part).real == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose(np.kron(np.kron(parts[0], parts[1]), parts[2]), rho, atol=1e-13)


def test_separable_keeps_local_gates_resets_and_all_numbers() -> None:
    circuit = Circuit(2, (Op("ry", (0,), (Weight(0),)), Op("rzz", (0, 1), (Product(Input(3), Weight(5)),)), *Reset(1)))
    local = circuit.separable()
    assert local.ops == (Op("ry", (0,), (Weight(0),)), Op("reset", (1,)))
    assert (local.n_inputs, local.n_weights) == (4, 6)
    assert not local.is_unitary
    entangled = density(reuploading(2, 1), np.array([0.5, 1.0]), np.arange(6.0))
    assert np.trace(reduced(entangled, (0,)) @ reduced(entangled, (0,))).real < 0.99  # the original is not a product


@pytest.mark.parametrize("apply", [inverse, controlled], ids=["inverse", "controlled"])
def test_passes_that_need_a_unitary_refuse_resets(apply: Any) -> None:
    circuit = Circuit(2, (Op("h", (0,)), *Reset(1)))
    with pytest.raises(ValueError, match=f"{apply.__name__} expects a unitary circuit, got a reset at op 1; remove"):
        apply(circuit)
    with pytest.raises(ValueError, match="fidelity expects a unitary circuit"):
        require_unitary(circuit, "fidelity")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda circuit: repeat(circuit, -1), "repeat expects times of at least 0, got -1; raise it"),
        (lambda circuit: remap(circuit, (0,)), r"remap expects 2 distinct wires, got \(0,\); name"),
        (lambda circuit: remap(circuit, (1, 1)), r"remap expects 2 distinct wires, got \(1, 1\); name"),
        (lambda circuit: remap(circuit, (0, -1)), "remap expects wires numbered from 0, got -1; use"),
        (lambda circuit: remap(circuit, (0, 5), n_wires=3), "remap expects wires below 3, got 5"),
    ],
)
def test_passes_refuse(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(Circuit(2, (Op("cx", (0, 1)),)))
