"""Ops and circuits as values: what they refuse, how they print, compare, pickle and count."""

import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from oracles import (
    ALL_NAMES,
    NOTHING,
    circuits_strategy,
    density,
    random_circuit,
    random_data,
    unitary,
)

from circuits import GATES, Circuit, Input, Op, Product, Reset, Weight
from circuits.ir import lifted

HEAD = "from circuits import Circuit, Input, Op, Product, Weight"
NAN = float("nan")


# The same constructors without their types, to be called wrongly.
LooseOp: Any = Op
LooseReset: Any = Reset
LooseCircuit: Any = Circuit


# --- Ops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: LooseOp("swp", (0,)), ValueError, "unknown gate 'swp': did you mean 'swap'.* Known: "),
        (lambda: LooseOp("cx", (0,)), ValueError, "op 'cx' expects 2 wires and 0 angles, got 1 and 0; write"),
        (lambda: LooseOp("rx", (0,)), ValueError, "op 'rx' expects 1 wire and 1 angle, got 1 and 0; write"),
        (lambda: LooseOp("h", (0,), (0.5,)), ValueError, "op 'h' expects 1 wire and 0 angles, got 1 and 1; write"),
        (lambda: LooseOp("u3", (0,), (1.0,)), ValueError, "op 'u3' expects 1 wire and 3 angles, got 1 and 1; write"),
        (lambda: LooseOp("mcx", (0,)), ValueError, "op 'mcx' expects 2 wires and 0 angles, got 1 and 0; write"),
        (lambda: LooseOp("reset", ()), ValueError, "op 'reset' expects 1 wire and 0 angles, got 0 and 0; write"),
        (lambda: LooseOp("cx", (1, 1)), ValueError, r"op 'cx' expects distinct wires, got \(1, 1\); remove"),
        (lambda: LooseOp("x", (-1,)), ValueError, "op 'x' expects wires numbered from 0, got -1; use"),
        (lambda: LooseOp("x", (0.0,)), ValueError, "op 'x' expects wires numbered from 0, got 0.0; use"),
        (lambda: LooseOp("x", (True,)), ValueError, "op 'x' expects wires numbered from 0, got True; use"),
        (lambda: LooseOp("rx", (0,), ("a",)), TypeError, "a slot expects Input, Weight, Product or a number, got str"),
        (lambda: LooseOp("rx", (0,), (NAN,)), ValueError, "a slot expects a finite angle in radians, got nan; drop"),
        (lambda: LooseReset(-1), ValueError, "Reset expects wires numbered from 0, got -1; use"),
        (lambda: LooseReset((0, 1.5)), ValueError, "Reset expects wires numbered from 0, got 1.5; use"),
    ],
)
def test_ops_refuse(build: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build()


def test_a_single_wire_or_slot_may_stand_alone() -> None:
    assert LooseOp("rx", 1, Input(0)) == Op("rx", (1,), (Input(0),))
    assert LooseOp("cx", np.array([2, 0])) == Op("cx", (2, 0))
    assert LooseOp("rx", [np.int64(1)], [2]) == Op("rx", (1,), (2.0,))
    assert LooseReset(np.int64(2)) == (Op("reset", (2,)),)


# --- Circuits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: LooseCircuit(0), ValueError, "a circuit expects at least 1 wire, got 0; pass"),
        (lambda: LooseCircuit(True), ValueError, "a circuit expects at least 1 wire, got True; pass"),
        (lambda: LooseCircuit(1.5), ValueError, "a circuit expects at least 1 wire, got 1.5; pass"),
        (lambda: LooseCircuit(1, (Op("cx", (0, 1)),)), ValueError, "op 0 .* expects wires below 1, got 1; widen"),
        (lambda: LooseCircuit(1, ("h",)), TypeError, "a circuit expects Op entries, got str; write Op"),
        (lambda: LooseCircuit(1, 3), TypeError, "a circuit expects Op entries, got int; write Op"),
        (lambda: LooseCircuit(1, (), (NAN,)), ValueError, "a slot expects a finite angle in radians, got nan"),
        (lambda: LooseCircuit(1) + Circuit(2), ValueError, r"'\+' expects 1 wires on both sides, got 2; use remap"),
        (lambda: LooseCircuit(1).prefix(1), IndexError, "prefix expects 0 to 0 ops, got 1; composite"),
        (lambda: LooseCircuit(1).prefix(-1), IndexError, "prefix expects 0 to 0 ops, got -1; composite"),
    ],
)
def test_circuits_refuse(build: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build()


@settings(max_examples=50)
@given(circuits_strategy(resets=True))
def test_repr_is_valid_python(circuit: Circuit) -> None:
    names = {"Circuit": Circuit, "Input": Input, "Op": Op, "Product": Product, "Weight": Weight}
    assert eval(repr(circuit), names) == circuit  # noqa: S307 -- the promise under test


@settings(max_examples=50)
@given(circuits_strategy(resets=True))
def test_equal_circuits_hash_alike_and_survive_pickle_and_copy(circuit: Circuit) -> None:
    again = Circuit(circuit.n_wires, circuit.ops, circuit.global_phase)
    assert again == circuit
    assert hash(again) == hash(circuit)
    for twin in (pickle.loads(pickle.dumps(circuit)), copy.copy(circuit), copy.deepcopy(circuit)):
        assert twin == circuit
        assert hash(twin) == hash(circuit)
    assert circuit + Circuit(circuit.n_wires, (Op("h", (0,)),)) != circuit


def test_a_pickled_circuit_does_not_carry_its_hash_to_another_process() -> None:
    circuit = Circuit(1, (Op("rx", (0,), (Input(0),)),))
    hash(circuit)
    code = (
        f"import pickle; {HEAD}; other = pickle.loads({pickle.dumps(circuit)!r}); "
        "print(hash(other) == hash(Circuit(1, (Op('rx', (0,), (Input(0),)),))))"
    )
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert result.stdout.strip() == "True"


def test_fields_are_frozen() -> None:
    for value, field in ((Circuit(1), "n_wires"), (Op("h", (0,)), "name"), (Input(0), "index")):
        with pytest.raises(AttributeError):
            setattr(value, field, 3)


def test_composites_become_primitives_and_nested_tuples_are_flattened() -> None:
    circuit = LooseCircuit(3, [Op("ccx", (0, 1, 2)), Reset((0, 2)), [[Op("h", (1,))]]])
    assert {op.name for op in circuit.ops} == {"h", "p", "cx", "reset"}
    assert circuit.ops[-3:] == (Op("reset", (0,)), Op("reset", (2,)), Op("h", (1,)))
    assert Circuit(2, (Op("reset", (0, 1)),)) == LooseCircuit(2, (Reset(range(2)),))
    assert LooseCircuit(1, Op("h", (0,))) == Circuit(1, (Op("h", (0,)),))


def test_counts() -> None:
    circuit = Circuit(
        3,
        (
            Op("rx", (0,), (Product(Input(4), Weight(1)),)),
            Op("ry", (1,), (Weight(1, scale=2.0),)),
            Op("rz", (2,), (0.5,)),
            Op("h", (2,)),
            Op("rzz", (0, 1), (Input(0),)),
        ),
        global_phase=(Weight(6),),
    )
    assert (circuit.n_inputs, circuit.n_weights, circuit.n_angles) == (5, 7, 4)
    assert circuit.shared == (False, True, True, False)
    assert circuit.slots == (Product(Input(4), Weight(1)), Weight(1, scale=2.0), 0.5, Input(0))
    assert circuit.is_unitary
    assert not Circuit(1, Reset(0)).is_unitary
    assert (Circuit(2).n_inputs, Circuit(2).n_weights, Circuit(2).n_angles, Circuit(2).depth) == (0, 0, 0, 0)


def test_depth_counts_layers() -> None:
    ring = Circuit(
        3, (Op("h", (0,)), Op("h", (1,)), Op("h", (2,)), Op("cx", (0, 1)), Op("cx", (1, 2)), Op("cx", (2, 0)))
    )
    assert ring.depth == 4
    assert Circuit(4, (Op("cx", (0, 1)), Op("cx", (2, 3)), Op("cz", (0, 3)))).depth == 2


def test_prefix_keeps_resets_and_drops_the_phase() -> None:
    circuit = Circuit(1, (Op("h", (0,)), *Reset(0), Op("x", (0,))), global_phase=(0.3,))
    assert circuit.prefix(2) == Circuit(1, (Op("h", (0,)), Op("reset", (0,))))
    assert circuit.prefix(0) == Circuit(1)
    assert circuit.prefix(3).ops == circuit.ops


def test_global_phases_add_up_to_one_number_and_the_symbolic_terms() -> None:
    first = Circuit(1, (), (Weight(0), 0.25))
    total = first + Circuit(1, (), (0.5, Input(0))) + Circuit(1, (), (-0.75,))
    assert total.global_phase == (Weight(0), Input(0))
    assert (first + first).global_phase == (Weight(0), Weight(0), 0.5)
    assert LooseCircuit(1, (), 0.5) == Circuit(1, (), (0.25, 0.25))
    value = unitary(first + first, NOTHING, np.array([0.1]))
    np.testing.assert_allclose(value, np.exp(0.7j) * np.eye(2), atol=1e-15)


def test_plus_runs_left_before_right() -> None:
    first, second = Circuit(1, (Op("h", (0,)),)), Circuit(1, (Op("s", (0,)),))
    np.testing.assert_allclose(unitary(first + second), GATES["s"].matrix() @ GATES["h"].matrix(), atol=1e-15)


@pytest.mark.parametrize("resets", [False, True])
def test_lifted_takes_angles_as_inputs(resets: bool) -> None:
    rng = np.random.default_rng(7)
    circuit = random_circuit(rng, 3, 40, resets=resets)
    inputs, weights = random_data(rng, circuit, 2)
    angles = circuit.angles(inputs, weights)
    free = lifted(circuit)
    assert (free.n_inputs, free.n_weights, free.slots) == (
        circuit.n_angles,
        0,
        tuple(Input(k) for k in range(circuit.n_angles)),
    )
    np.testing.assert_array_equal(free.angles(angles, NOTHING), angles)
    for row, angle in zip(inputs, angles, strict=True):
        np.testing.assert_allclose(density(free, angle), density(circuit, row, weights), atol=1e-13)


def test_random_circuits_of_40_ops_hold_every_gate_and_every_kind_of_slot() -> None:
    circuit = random_circuit(np.random.default_rng(3), 5, len(ALL_NAMES), resets=False)
    assert set(GATES) <= {op.name for op in circuit.ops}
    assert {type(slot) for slot in circuit.slots} == {float, Input, Weight, Product}
    assert not random_circuit(np.random.default_rng(3), 5, 40, resets=True).is_unitary
