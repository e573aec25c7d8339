"""The light cone: what is observed does not change, and what cannot reach it goes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import circuits_strategy, density, expectations, random_circuit, random_data, reduced

from circuits import Circuit, Input, Op, Reset, Weight, X, Y, Z
from circuits.library import hardware_efficient
from circuits.passes import light_cone

INPUTS, WEIGHTS = np.array([[0.3, -1.2, 2.5]]), np.array([0.7, -0.1, 1.9, -2.2])


@settings(max_examples=60)
@given(circuits_strategy(max_wires=4, max_ops=12, resets=True), st.data())
def test_expectations_stay(circuit: Circuit, data: st.DataObject) -> None:
    wires = data.draw(st.lists(st.integers(0, circuit.n_wires - 1), min_size=1, max_size=2, unique=True))
    observable = X(wires[0]) + 0.5 * (Y(wires[0]) @ Z(wires[1]) if len(wires) > 1 else Z(wires[0]))
    small = light_cone(circuit, (observable,))
    before = expectations(circuit, INPUTS, WEIGHTS, (observable,))
    np.testing.assert_allclose(expectations(small, INPUTS, WEIGHTS, (observable,)), before, rtol=0, atol=1e-12)
    assert (small.n_wires, small.n_inputs, small.n_weights) == (circuit.n_wires, circuit.n_inputs, circuit.n_weights)
    assert light_cone(small, observable).ops == small.ops


@pytest.mark.parametrize("seed", range(6))
def test_reduced_states_stay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 4, 8, resets=True)
    inputs, weights = random_data(rng, circuit, 1)
    kept = density(light_cone(circuit, (2, 0)), inputs[0], weights)
    before = reduced(density(circuit, inputs[0], weights), (2, 0))
    np.testing.assert_allclose(reduced(kept, (2, 0)), before, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("wire", "n_gates"), [(0, 1), (3, 4), (7, 8)])
def test_a_chain_is_cut_behind_the_wire(wire: int, n_gates: int) -> None:
    chain = Circuit(8, (Op("h", (0,)), *(Op("cx", (k, k + 1)) for k in range(7))))
    assert len(light_cone(chain, Z(wire)).ops) == min(n_gates + 1, 8)  # cx(wire, wire + 1) touches the wire too


def test_one_layer_of_a_chain_keeps_three_rotations_a_wire_of_the_cone() -> None:
    ansatz = hardware_efficient(6, 1, "chain")
    small = light_cone(ansatz, Z(0))
    assert [op.wires for op in small.ops] == [(0,)] * 3 + [(1,)] * 3 + [(0, 1)]
    assert small.n_weights == ansatz.n_weights == 18


def test_resets_end_the_cone_and_go_where_nothing_is_observed() -> None:
    ops = (Op("ry", (0,), (Input(2),)), Op("cx", (0, 1)), *Reset((0, 1)), Op("ry", (0,), (Weight(1),)), Op("x", (1,)))
    assert light_cone(Circuit(2, ops), Z(0)).ops == (*Reset(0), Op("ry", (0,), (Weight(1),)))
    entangled = Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)), *Reset(0), Op("x", (0,))))
    assert light_cone(entangled, Z(1)).ops == (Op("h", (0,)), Op("cx", (0, 1)))
    assert light_cone(entangled, ()).ops == ()


def test_a_wire_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="light_cone expects wires below 2, got 5; observe others"):
        light_cone(Circuit(2), (Z(0), Z(5)))
    with pytest.raises(ValueError, match="light_cone expects wires numbered from 0, got -1"):
        light_cone(Circuit(2), (-1,))
