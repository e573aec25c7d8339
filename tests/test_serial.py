"""Circuits as JSON: exact both ways, and nothing else is let in."""

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import circuits_strategy, random_circuit

from circuits import Circuit, Input, Op, Product, Reset, Weight, serial
from circuits.library import hardware_efficient, reuploading
from circuits.serial import CircuitFormatError, dumps, loads

HEAD = {"format": "hybridqlm-circuit", "version": 1, "n_wires": 2}


def written(ops: object = (), **changes: object) -> str:
    return json.dumps({**HEAD, "ops": ops, **changes})


def rx(slot: object) -> str:
    return written([["rx", [0], [slot]]])


@settings(max_examples=60)
@given(circuits_strategy(resets=True))
def test_round_trip_is_exact(circuit: Circuit) -> None:
    text = dumps(circuit)
    assert loads(text) == circuit
    assert repr(loads(text)) == repr(circuit)
    assert dumps(loads(text)) == text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("seed", range(4))
def test_round_trip_of_large_random_circuits_and_families(seed: int) -> None:
    circuit = random_circuit(np.random.default_rng(seed), 5, 60, resets=bool(seed % 2))
    for one in (circuit, reuploading(4, 3), hardware_efficient(1, 2), Circuit(3)):
        assert loads(dumps(one)) == one
        assert Circuit.from_json(one.to_json()) == one


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_returns_bit_for_bit(value: float) -> None:
    slots = loads(dumps(Circuit(1, (Op("rx", (0,), (value,)), Op("ry", (0,), (Weight(0, scale=value),)))))).slots
    assert isinstance(slots[0], float)
    assert isinstance(slots[1], Weight)
    assert (slots[0].hex(), slots[1].scale) == (value.hex(), value)


def test_the_text_is_stable_and_readable() -> None:
    slot = Product(Input(0), Weight(3, scale=2.0, shift=-0.5), shift=0.1)
    circuit = Circuit(2, (Op("rzz", (1, 0), (slot,)), *Reset(0)), global_phase=(Weight(1), 0.5))
    assert dumps(circuit).splitlines() == [
        '{"format": "hybridqlm-circuit", "version": 1, "n_wires": 2, "ops": [',
        '["rzz", [1, 0], [{"product": [{"input": 0}, {"weight": 3, "scale": 2.0, "shift": -0.5}], "shift": 0.1}]],',
        '["reset", [0]]',
        '], "global_phase": [{"weight": 1}, 0.5]}',
    ]
    assert loads(json.dumps(json.loads(dumps(circuit)), indent=3)) == circuit  # any JSON layout is read


def test_integers_are_read_as_angles() -> None:
    assert loads(rx(2)).slots == (2.0,)
    assert loads(rx({"input": 1, "scale": 3})).slots == (Input(1, scale=3.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a circuit expects JSON as dumps writes it, got Expecting value.*; check"),
        (dumps(reuploading(2, 1))[:-9], "a circuit expects JSON as dumps writes it, got .*; check"),
        ("[" * 100_000, "a circuit expects JSON as dumps writes it, got maximum recursion depth exceeded.*; check"),
        ("[]", "a circuit expects an object, got list; write"),
        ("null", "a circuit expects an object, got NoneType; write"),
        ("{}", "a circuit expects the key 'format', got .*; add it"),
        (written(format="qpy"), "a circuit expects format 'hybridqlm-circuit', got 'qpy'; check"),
        (written(version=2), "version expects an integer from 1 to 1, got 2"),
        (written(version=True), "version expects an integer from 1 to 1, got True"),
        (written(n_wires=0), "n_wires expects an integer from 1 to 4096, got 0; correct"),
        (written(n_wires=2.0), "n_wires expects an integer from 1 to 4096, got 2.0; correct"),
        (written(n_wires="2"), "n_wires expects an integer from 1 to 4096, got '2'; correct"),
        (written(n_wires=10**9), "n_wires expects an integer from 1 to 4096, got 1000000000; correct"),
        (written(n_wire=3), "a circuit: unknown key 'n_wire': did you mean 'n_wires'.* Known: "),
        (written({"h": [0]}), "ops expects a list, got dict; write"),
        (written(["h"]), r"ops\[0\] expects a list, got str; write"),
        (written([["h"]]), r"ops\[0\] expects \[name, wires\] or \[name, wires, slots\], got 1 entr"),
        (written([["h", [0], [], []]]), r"ops\[0\] expects .* got 4 entr"),
        (written([["hh", [0]]]), r"ops\[0\]: unknown primitive gate 'hh': did you mean .* Known: "),
        (written([["ccx", [0, 1, 2]]], n_wires=3), r"ops\[0\]: unknown primitive gate 'ccx'"),
        (written([[["h"], [0]]]), r"ops\[0\]: unknown primitive gate"),
        (written([["__import__('os').abort()", [0]]]), "unknown primitive gate"),
        (written([["h", 0]]), r"ops\[0\] wires expects a list, got int; write"),
        (written([["h", [0]], ["h", [2]]]), r"ops\[1\] wires expects an integer from 0 to 1, got 2; correct"),
        (written([["h", [-1]]]), r"ops\[0\] wires expects an integer from 0 to 1, got -1; correct"),
        (written([["h", [False]]]), r"ops\[0\] wires expects an integer from 0 to 1, got False; correct"),
        (written([["cx", [1, 1]]]), r"ops\[0\]: op 'cx' expects distinct wires"),
        (written([["cx", [1]]]), r"ops\[0\]: op 'cx' expects 2 wires and 0 angles, got 1 and 0"),
        (written([["rx", [0]]]), r"ops\[0\]: op 'rx' expects 1 wire and 1 angle, got 1 and 0"),
        (written([["rx", [0], 0.5]]), r"ops\[0\] slots expects a list, got float; write"),
        (rx("x"), r"ops\[0\] slots expects a finite number, got 'x'; write"),
        (rx(None), r"ops\[0\] slots expects a finite number, got None; write"),
        (rx(True), r"ops\[0\] slots expects a finite number, got True; write"),
        (rx([0.5]), r"ops\[0\] slots expects a finite number, got \[0.5\]; write"),
        (rx(math.nan), "a circuit expects finite numbers, got NaN; write"),
        (rx(-math.inf), "a circuit expects finite numbers, got -Infinity; write"),
        (rx(0.5).replace("0.5", "1e999"), r"ops\[0\] slots expects a finite number, got inf; write"),
        (rx(0.5).replace("0.5", "1" + 400 * "0"), r"ops\[0\] slots expects a finite number, got 1000.*\.\.\.; write"),
        (rx(0.5).replace("0.5", "1" + 5000 * "0"), "a circuit expects JSON as dumps writes it, got Exceeds the limit"),
        (rx({}), r"ops\[0\] slots expects the key 'input', got \[\]; add"),
        (rx({"input": -1}), r"ops\[0\] slots input expects an integer from 0 to 1000000, got -1; correct"),
        (rx({"weight": 10**12}), r"ops\[0\] slots weight expects an integer from 0 to 1000000, got 10+; correct"),
        (rx({"input": 0, "weight": 0}), r"ops\[0\] slots: unknown key 'weight'"),
        (rx({"weight": 0, "scael": 2}), r"ops\[0\] slots: unknown key 'scael': did you mean 'scale'"),
        (rx({"weight": 0, "scale": "2"}), r"ops\[0\] slots scale expects a finite number, got '2'; write"),
        (rx({"weight": 0, "shift": None}), r"ops\[0\] slots shift expects a finite number, got None; write"),
        (rx({"product": 3}), r"ops\[0\] slots product expects a list, got int; write"),
        (rx({"product": [1.0]}), r"ops\[0\] slots product expects 2 slots, got 1; nest"),
        (rx({"product": [1.0, "y"]}), r"ops\[0\] slots product expects a finite number, got 'y'; write"),
        (written(global_phase=0.5), "global_phase expects a list, got float; write"),
        (written(global_phase=[{"inputs": 1}]), r"global_phase\[0\]: unknown key 'inputs': did you mean 'input'"),
        ('{"version": 1, "version": 1}', "an object expects distinct keys, got 'version' twice; remove"),
    ],
)
def test_loads_refuses(text: str, message: str) -> None:
    with pytest.raises(CircuitFormatError, match=message) as caught:
        loads(text)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_loads_refuses_what_is_no_string() -> None:
    loose: Any = loads
    for value in (b"{}", None, {"n_wires": 1}):
        with pytest.raises(TypeError, match=r"loads expects a string of JSON, got .*; decode or read"):
            loose(value)


def nested(depth: int) -> Product:
    slot: Any = Input(0)
    for _ in range(depth):
        slot = Product(slot, Weight(0))
    return slot


def test_limits_hold_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    deepest = Circuit(1, (Op("rx", (0,), (nested(serial.MAX_PRODUCT_DEPTH),)),))
    assert loads(dumps(deepest)) == deepest
    too_deep = Circuit(1, (Op("rx", (0,), (nested(serial.MAX_PRODUCT_DEPTH + 1),)),))
    too_large = Circuit(1, (Op("rx", (0,), (Weight(serial.MAX_INDEX + 1),)),))
    for circuit, message in (
        (too_deep, r"expects the nesting of products in ops\[0\] to be at most 16, got 17; split"),
        (too_large, r"expects the largest index in ops\[0\] to be at most 1000000, got 1000001; split"),
        (Circuit(serial.MAX_WIRES + 1), "expects n_wires to be at most 4096, got 4097; split"),
    ):
        with pytest.raises(CircuitFormatError, match=message):
            dumps(circuit)
    text = dumps(deepest).replace('{"input": 0}', '{"product": [0.5, {"input": 0}]}')
    with pytest.raises(CircuitFormatError, match=r"expects the nesting of products .* to be at most 16, got 17"):
        loads(text)
    three = Circuit(1, (Op("h", (0,)),) * 3)
    monkeypatch.setattr(serial, "MAX_OPS", 2)
    for act in (lambda: dumps(three), lambda: loads(written([["h", [0]]] * 3))):
        with pytest.raises(CircuitFormatError, match="expects the number of ops to be at most 2, got 3; split"):
            act()
    monkeypatch.setattr(serial, "MAX_CHARACTERS", 10)
    with pytest.raises(CircuitFormatError, match="expects the number of characters to be at most 10, got "):
        loads(written())


def test_refusing_a_deep_text_leaves_the_interpreter_well() -> None:
    for _ in range(3):
        with pytest.raises(CircuitFormatError):
            loads('{"format": ' + '{"a": ' * 50_000)
    assert loads(written()) == Circuit(2)
    assert sys.getrecursionlimit() >= 1000
