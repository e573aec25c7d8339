"""The JSON schema against what the writer writes and what the reader refuses."""

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from oracles import circuits_strategy

from circuits import GATES, Circuit, Op
from circuits.schema import circuit_schema
from circuits.serial import CircuitFormatError, dumps, loads

jsonschema = pytest.importorskip("jsonschema")
VALIDATOR = jsonschema.Draft202012Validator(circuit_schema())


def test_the_file_is_the_schema_and_the_schema_is_one() -> None:
    assert json.loads((files("circuits") / "circuit.schema.json").read_text(encoding="utf-8")) == circuit_schema()
    jsonschema.Draft202012Validator.check_schema(circuit_schema())


@settings(max_examples=60)
@given(circuits_strategy(max_wires=4, resets=True))
def test_what_is_written_is_valid(circuit: Circuit) -> None:
    VALIDATOR.validate(json.loads(dumps(circuit)))


@pytest.mark.parametrize("name", [*GATES, "reset"])
def test_each_gate_with_a_wrong_number_of_wires_or_angles_is_not(name: str) -> None:
    n_wires, n_angles = (GATES[name].n_wires, GATES[name].n_angles) if name in GATES else (1, 0)
    right = json.loads(dumps(Circuit(3, (Op(name, tuple(range(n_wires)), (0.5,) * n_angles),))))
    VALIDATOR.validate(right)
    for wires, angles in ((n_wires + 1, n_angles), (n_wires - 1, n_angles), (n_wires, n_angles + 1)):
        wrong = {**right, "ops": [[name, list(range(wires)), [0.5] * angles]]}
        if name == "reset" and wires > 1:
            continue  # the reader splits a reset of several wires, the writer writes none
        assert not VALIDATOR.is_valid(wrong)
        with pytest.raises(CircuitFormatError):
            loads(json.dumps(wrong))


def whole(**changes: Any) -> dict[str, Any]:
    return {"format": "hybridqlm-circuit", "version": 1, "n_wires": 2, "ops": [], **changes}


def rx(slot: Any) -> dict[str, Any]:
    return whole(ops=[["rx", [0], [slot]]])


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        {},
        whole(format="qpy"),
        whole(version=2),
        whole(n_wires=0),
        whole(n_wires=5000),
        whole(n_wires="2"),
        whole(n_wire=2),
        whole(ops={}),
        whole(ops=["h"]),
        whole(ops=[["h"]]),
        whole(ops=[["hh", [0]]]),
        whole(ops=[["h", 0]]),
        whole(ops=[["h", [0], [], []]]),
        whole(ops=[["h", [-1]]]),
        whole(ops=[["cx", [1, 1]]]),
        whole(ops=[["rx", [0]]]),
        rx("x"),
        rx(None),
        rx(True),
        rx([0.5]),
        rx({}),
        rx({"input": -1}),
        rx({"input": 0.5}),
        rx({"weight": 10**12}),
        rx({"input": 0, "weight": 0}),
        rx({"weight": 0, "scael": 2}),
        rx({"weight": 0, "scale": "2"}),
        rx({"product": [1.0]}),
        rx({"product": [1.0, "y"]}),
        whole(global_phase=0.5),
        whole(global_phase=[{"inputs": 1}]),
    ],
)
def test_what_the_reader_refuses_is_not_valid(data: Any) -> None:
    assert not VALIDATOR.is_valid(data)
    with pytest.raises(CircuitFormatError):
        loads(json.dumps(data))
