"""Circuits as JSON, exactly and strictly: a circuit read back is equal to the one written, and data never execute.

The text is ``{"format": "hybridqlm-circuit", "version": 1, "n_wires": n, "ops": [...], "global_phase": [...]}``. An op
is ``[name, wires]`` or ``[name, wires, slots]`` with a primitive gate or ``reset``; a slot is a number (radians),
``{"input": i}``, ``{"weight": j}`` or ``{"product": [slot, slot]}``, each object with an optional ``scale`` and
``shift``. Floats are written by ``repr``, which returns them bit for bit.
"""

import json
import sys
from typing import Any, NoReturn

from circuits._suggest import unknown
from circuits.gates import GATES
from circuits.ir import RESET, Circuit, Op
from circuits.slots import Input, Product, Slot, Weight

FORMAT = "hybridqlm-circuit"
VERSION = 1
MAX_CHARACTERS = 100_000_000
MAX_WIRES = 4096
MAX_OPS = 1_000_000
MAX_INDEX = 1_000_000
MAX_PRODUCT_DEPTH = 16


class CircuitFormatError(ValueError):
    """A text that is not a circuit of this format, or a circuit beyond the format's limits."""


def dumps(circuit: Circuit) -> str:
    """Return the circuit as JSON, one op a line, such that ``loads(dumps(circuit)) == circuit``.

    Raises CircuitFormatError for a circuit that ``loads`` would refuse as too large. Cost O(ops).

    >>> circuit = Circuit(2, (Op("ry", (0,), (Input(0, scale=2.0),)), Op("cx", (0, 1))))
    >>> print(dumps(circuit))
    {"format": "hybridqlm-circuit", "version": 1, "n_wires": 2, "ops": [
    ["ry", [0], [{"input": 0, "scale": 2.0}]],
    ["cx", [0, 1]]
    ]}
    """
    _limit("n_wires", circuit.n_wires, MAX_WIRES)
    _limit("the number of ops", len(circuit.ops), MAX_OPS)
    lines = []
    for k, op in enumerate(circuit.ops):
        slots = [[_slot_data(slot, f"ops[{k}]") for slot in op.slots]] if op.slots else []
        lines.append(json.dumps([op.name, list(op.wires), *slots]))
    head = json.dumps({"format": FORMAT, "version": VERSION, "n_wires": circuit.n_wires})[:-1]
    phase = [_slot_data(slot, "global_phase") for slot in circuit.global_phase]
    tail = f', "global_phase": {json.dumps(phase)}' if phase else ""
    body = "\n" + ",\n".join(lines) + "\n" if lines else ""
    return f'{head}, "ops": [{body}]{tail}}}'


def loads(text: str) -> Circuit:
    """Return the circuit that ``dumps`` wrote.

    Raises CircuitFormatError (a ValueError) naming the place for anything else: unknown or missing or repeated keys,
    wrong types, NaN or infinity, unknown or composite gates, another version, or a size beyond the limits above;
    TypeError for what is no string. Cost O(length).

    >>> loads('{"format": "hybridqlm-circuit", "version": 1, "n_wires": 1, "ops": [["h", [0]]]}')
    Circuit(1, (Op('h', (0,)),))
    """
    if not isinstance(text, str):
        raise TypeError(f"loads expects a string of JSON, got {type(text).__name__}; decode or read the file first.")
    _limit("the number of characters", len(text), MAX_CHARACTERS)
    data = _object(_parsed(text), "a circuit", {"format", "version", "n_wires", "ops"}, {"global_phase"})
    if data["format"] != FORMAT:
        raise CircuitFormatError(f"a circuit expects format '{FORMAT}', got {_shown(data['format'])}; check the file.")
    if _integer(data["version"], "version", VERSION, least=1) != VERSION:
        raise CircuitFormatError(f"a circuit expects version {VERSION}, got {data['version']}; rewrite it with dumps.")
    n_wires = _integer(data["n_wires"], "n_wires", MAX_WIRES, least=1)
    raw = _list(data["ops"], "ops")
    _limit("the number of ops", len(raw), MAX_OPS)
    ops = tuple(_op(entry, f"ops[{k}]", n_wires) for k, entry in enumerate(raw))
    phase = _list(data.get("global_phase", []), "global_phase")
    return Circuit(n_wires, ops, tuple(_slot(entry, f"global_phase[{k}]") for k, entry in enumerate(phase)))


def _slot_data(slot: Slot, place: str, depth: int = 0) -> Any:
    if not isinstance(slot, Input | Weight | Product):
        return slot
    if isinstance(slot, Product):
        _limit(f"the nesting of products in {place}", depth + 1, MAX_PRODUCT_DEPTH)
        data: dict[str, Any] = {"product": [_slot_data(part, place, depth + 1) for part in (slot.left, slot.right)]}
    else:
        _limit(f"the largest index in {place}", slot.index, MAX_INDEX)
        data = {"input" if isinstance(slot, Input) else "weight": slot.index}
    if slot.scale != 1:
        data["scale"] = slot.scale
    if slot.shift != 0:
        data["shift"] = slot.shift
    return data


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_constant, object_pairs_hook=_distinct)
    except CircuitFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise CircuitFormatError(f"a circuit expects JSON as dumps writes it, got {error}; check the file.") from None


def _constant(name: str) -> NoReturn:
    raise CircuitFormatError(f"a circuit expects finite numbers, got {name}; write angles in radians.")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise CircuitFormatError(f"an object expects distinct keys, got {_shown(repeated)} twice; remove one.")
    return data


def _shown(value: object) -> str:
    """A value short enough for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _limit(what: str, size: int, most: int) -> None:
    if size > most:
        raise CircuitFormatError(f"the circuit format expects {what} to be at most {most}, got {size}; split it.")


def _object(data: Any, place: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CircuitFormatError(f"{place} expects an object, got {type(data).__name__}; write it as dumps does.")
    for key in data:
        if key not in required | optional:
            raise CircuitFormatError(f"{place}: {unknown('key', key[:40], required | optional)}")
    for key in sorted(required - data.keys()):
        raise CircuitFormatError(f"{place} expects the key '{key}', got {_shown(sorted(data))}; add it.")
    return data


def _list(data: Any, place: str) -> list[Any]:
    if not isinstance(data, list):
        raise CircuitFormatError(f"{place} expects a list, got {type(data).__name__}; write it as dumps does.")
    return data


def _integer(value: Any, place: str, most: int, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CircuitFormatError(f"{place} expects an integer from {least} to {most}, got {_shown(value)}; correct it.")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise CircuitFormatError(f"{place} expects a finite number, got {_shown(value)}; write radians.")
    return float(value)


def _op(data: Any, place: str, n_wires: int) -> Op:
    parts = _list(data, place)
    if len(parts) not in (2, 3):
        raise CircuitFormatError(
            f"{place} expects [name, wires] or [name, wires, slots], got {len(parts)} entries; fix."
        )
    name, wires, slots = parts[0], _list(parts[1], f"{place} wires"), _list([*parts, []][2], f"{place} slots")
    if not isinstance(name, str) or (name not in GATES and name != RESET):
        raise CircuitFormatError(f"{place}: {unknown('primitive gate', str(name)[:40], [*GATES, RESET])}")
    checked = tuple(_integer(wire, f"{place} wires", n_wires - 1) for wire in wires)
    angles = tuple(_slot(slot, f"{place} slots") for slot in slots)
    try:
        return Op(name, checked, angles)
    except ValueError as error:
        raise CircuitFormatError(f"{place}: {error}") from None


def _slot(data: Any, place: str, depth: int = 0) -> Slot:
    if not isinstance(data, dict):
        return _number(data, place)
    kind = next((key for key in ("input", "weight", "product") if key in data), "input")
    _object(data, place, {kind}, {"scale", "shift"})
    scale, shift = _number(data.get("scale", 1.0), f"{place} scale"), _number(data.get("shift", 0.0), f"{place} shift")
    if kind != "product":
        index = _integer(data[kind], f"{place} {kind}", MAX_INDEX)
        return Input(index, scale, shift) if kind == "input" else Weight(index, scale, shift)
    _limit(f"the nesting of products in {place}", depth + 1, MAX_PRODUCT_DEPTH)
    factors = _list(data[kind], f"{place} product")
    if len(factors) != 2:
        raise CircuitFormatError(f"{place} product expects 2 slots, got {len(factors)}; nest products for more.")
    left, right = (_slot(factor, f"{place} product", depth + 1) for factor in factors)
    return Product(left, right, scale, shift)
