"""Blocks and heads by name: one line each. A model is a list of blocks, and a head, in its config."""

from collections.abc import Callable
from dataclasses import asdict, fields
from functools import cache
from importlib import import_module
from typing import Any

from circuits._suggest import unknown
from qlm.blocks.base import Block
from qlm.heads.base import Head

BLOCKS: dict[str, str] = {
    "grover_memory": "qlm.blocks.grover_memory:GroverMemory",
    "harmonic": "qlm.blocks.harmonic:Harmonic",
    "harmonic_qubits": "qlm.blocks.harmonic_qubits:HarmonicQubits",
    "harmonic_spiking": "qlm.blocks.harmonic_spiking:HarmonicSpiking",
    "kernel_attention": "qlm.blocks.kernel_attention:KernelAttention",
    "mamba": "qlm.blocks.mamba:Mamba",
    "quantum_router": "qlm.blocks.quantum_router:QuantumRouter",
    "rotational": "qlm.blocks.rotational:Rotational",
    "time_crystal": "qlm.blocks.time_crystal:TimeCrystal",
    "transformer": "qlm.blocks.transformer:Transformer",
    "tt_feed_forward": "qlm.blocks.tt_feed_forward:TTFeedForward",
    "vqc_experts": "qlm.blocks.vqc_experts:VQCExperts",
}
"""Kind of block -> module:class."""

HEADS: dict[str, str] = {
    "born_circuit": "qlm.heads.born_circuit:BornCircuit",
    "born_low_rank": "qlm.heads.born_low_rank:BornLowRank",
    "born_mps": "qlm.heads.born_mps:BornMPSHead",
    "linear": "qlm.heads.linear:LinearHead",
}
"""Kind of head -> module:class."""


@cache
def block_class(kind: str) -> type[Block]:
    """Import and return a block's class; ValueError for an unknown kind (did you mean ...).

    >>> block_class("harmonic").__name__
    'Harmonic'
    """
    if kind not in BLOCKS:
        raise ValueError(unknown("block", kind, BLOCKS))
    return _import(BLOCKS[kind])


@cache
def head_class(kind: str) -> type[Head]:
    """Import and return a head's class; ValueError for an unknown kind (did you mean ...).

    >>> head_class("linear").__name__
    'LinearHead'
    """
    if kind not in HEADS:
        raise ValueError(unknown("head", kind, HEADS))
    return _import(HEADS[kind])


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def block_config(entry: dict[str, Any], quantum: str) -> Any:
    """Return the typed config of a block from its entry ``{"kind": ..., field: value, ...}``.

    ``quantum`` is the mode of blocks that hold a circuit and do not say their own. Raises ValueError for an unknown
    kind or key (did you mean ...), TypeError for a value of another type than the key's.
    """
    return _typed(entry, quantum, "block", "harmonic", block_class)


def head_config(entry: dict[str, Any], quantum: str, vocab_size: int) -> Any:
    """Return the typed config of a head from its entry, with what depends on the vocabulary filled in.

    ``quantum`` is the mode of heads that have modes and do not say their own. Raises as ``block_config``.
    """
    typed = _typed(entry, quantum, "head", "linear", head_class)
    return head_class(entry["kind"]).fitted(typed, vocab_size)


def _typed(entry: Any, quantum: str, noun: str, example: str, load: Callable[[str], type[Block] | type[Head]]) -> Any:
    """The typed config of a part of a model."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise ValueError(f"a {noun} expects a dictionary with a 'kind', got {entry!r}; write {{'kind': '{example}'}}.")
    cls = load(entry["kind"])
    given = {name: value for name, value in entry.items() if name != "kind"}
    known = [field.name for field in fields(cls.Config)]
    for name in given:
        if name not in known:
            raise ValueError(unknown(f"key of {noun} '{entry['kind']}'", name, known))
    if "quantum" in known:
        given.setdefault("quantum", quantum)
    return cls.Config(**given)


def complete_entry(entry: dict[str, Any], quantum: str) -> dict[str, Any]:
    """Return the entry with every key of its block filled in, in JSON types: what a checkpoint stores.

    >>> complete_entry({"kind": "harmonic"}, "circuit")["taus"]
    [4.0, 32.0, 128.0]
    """
    typed = block_config(entry, quantum)
    return _plain(entry["kind"], typed)


def complete_head(entry: dict[str, Any], quantum: str, vocab_size: int) -> dict[str, Any]:
    """Return the entry with every key of its head filled in, in JSON types: what a checkpoint stores.

    >>> complete_head({"kind": "linear"}, "circuit", 258)
    {'kind': 'linear'}
    """
    typed = head_config(entry, quantum, vocab_size)
    return _plain(entry["kind"], typed)


def _plain(kind: str, typed: Any) -> dict[str, Any]:
    values = asdict(typed)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {"kind": kind, **plain}
