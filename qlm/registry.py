"""Blocks by name: one line each. A model is a list of them in its config."""

from dataclasses import asdict, fields
from functools import cache
from importlib import import_module
from typing import Any

from circuits._suggest import unknown
from qlm.blocks.base import Block

BLOCKS: dict[str, str] = {
    "harmonic": "qlm.blocks.harmonic:Harmonic",
    "quantum_router": "qlm.blocks.quantum_router:QuantumRouter",
    "tt_feed_forward": "qlm.blocks.tt_feed_forward:TTFeedForward",
}
"""Kind of block -> module:class."""


@cache
def block_class(kind: str) -> type[Block]:
    """Import and return a block's class; ValueError for an unknown kind (did you mean ...).

    >>> block_class("harmonic").__name__
    'Harmonic'
    """
    if kind not in BLOCKS:
        raise ValueError(unknown("block", kind, BLOCKS))
    module, _, name = BLOCKS[kind].partition(":")
    return getattr(import_module(module), name)


def block_config(entry: dict[str, Any], quantum: str) -> Any:
    """Return the typed config of a block from its entry ``{"kind": ..., field: value, ...}``.

    ``quantum`` is the mode of blocks that hold a circuit and do not say their own. Raises ValueError for an unknown
    kind or key (did you mean ...).
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise ValueError(f"a block expects a dictionary with a 'kind', got {entry!r}; write {{'kind': 'harmonic'}}.")
    cls = block_class(entry["kind"])
    given = {name: value for name, value in entry.items() if name != "kind"}
    known = [field.name for field in fields(cls.Config)]
    for name in given:
        if name not in known:
            raise ValueError(unknown(f"key of block '{entry['kind']}'", name, known))
    if cls.holds_circuit:
        given.setdefault("quantum", quantum)
    return cls.Config(**given)


def complete_entry(entry: dict[str, Any], quantum: str) -> dict[str, Any]:
    """Return the entry with every key of its block filled in, in JSON types: what a checkpoint stores.

    >>> complete_entry({"kind": "harmonic"}, "circuit")["taus"]
    [4.0, 32.0, 128.0]
    """
    values = asdict(block_config(entry, quantum))
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {"kind": entry["kind"], **plain}
