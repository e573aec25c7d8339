"""The JSON schema (draft 2020-12) of circuits as ``circuits.serial`` writes them, made from the gate table."""

from typing import Any

from circuits.gates import GATES
from circuits.ops import RESET
from circuits.serial import FORMAT, MAX_INDEX, MAX_OPS, MAX_WIRES, VERSION


def circuit_schema() -> dict[str, Any]:
    """Return the schema, which ``circuits/circuit.schema.json`` holds as a file.

    It says everything about one op or slot alone. What a schema cannot say is left to ``loads``: that wires are below
    ``n_wires``, and how deep products nest.

    >>> circuit_schema()["properties"]["version"]
    {'const': 1}
    """
    shapes: dict[tuple[int, int], list[str]] = {}
    for gate in GATES.values():
        shapes.setdefault((gate.n_wires, gate.n_angles), []).append(gate.name)
    shapes[1, 0].append(RESET)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hybridqlm circuit",
        "type": "object",
        "properties": {
            "format": {"const": FORMAT},
            "version": {"const": VERSION},
            "n_wires": {"type": "integer", "minimum": 1, "maximum": MAX_WIRES},
            "ops": {"type": "array", "maxItems": MAX_OPS, "items": {"$ref": "#/$defs/op"}},
            "global_phase": {"type": "array", "items": {"$ref": "#/$defs/slot"}},
        },
        "required": ["format", "version", "n_wires", "ops"],
        "additionalProperties": False,
        "$defs": {
            "op": {"anyOf": [_op(names, *shape) for shape, names in shapes.items()]},
            "slot": {"anyOf": [{"type": "number"}, _leaf("input"), _leaf("weight"), _product()]},
        },
    }


def _op(names: list[str], n_wires: int, n_angles: int) -> dict[str, Any]:
    wire = {"type": "integer", "minimum": 0, "maximum": MAX_WIRES - 1}
    wires = {"type": "array", "items": wire, "minItems": n_wires, "maxItems": n_wires, "uniqueItems": True}
    slots = {"type": "array", "items": {"$ref": "#/$defs/slot"}, "minItems": n_angles, "maxItems": n_angles}
    entries = [{"enum": names}, wires, slots]
    return {"type": "array", "prefixItems": entries, "items": False, "minItems": 3 if n_angles else 2}


def _leaf(kind: str) -> dict[str, Any]:
    return _slot(kind, {"type": "integer", "minimum": 0, "maximum": MAX_INDEX})


def _product() -> dict[str, Any]:
    return _slot("product", {"type": "array", "items": {"$ref": "#/$defs/slot"}, "minItems": 2, "maxItems": 2})


def _slot(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    affine = {"scale": {"type": "number"}, "shift": {"type": "number"}}
    properties = {kind: value, **affine}
    return {"type": "object", "properties": properties, "required": [kind], "additionalProperties": False}
