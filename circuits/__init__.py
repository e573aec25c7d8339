"""Circuits as values: gates, slots, observables, passes and families. Nothing here executes."""

from importlib import import_module
from types import ModuleType

from circuits.gates import GATES, Gate
from circuits.ir import Circuit, Op, Reset
from circuits.observables import I, PauliSum, X, Y, Z, commuting_groups, pauli_word
from circuits.slots import Input, Product, Slot, Weight

IS_HYBRIDQLM = True
"""Tells this package from an unrelated one of the same name."""

__all__ = [
    "GATES",
    "Circuit",
    "Gate",
    "I",
    "Input",
    "Op",
    "PauliSum",
    "Product",
    "Reset",
    "Slot",
    "Weight",
    "X",
    "Y",
    "Z",
    "commuting_groups",
    "pauli_word",
]

_ROOMS = ("interop", "library")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"circuits.{name}")
    raise AttributeError(f"module 'circuits' has no attribute '{name}'")
