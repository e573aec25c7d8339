"""Circuits from and to other packages' formats."""

from importlib import import_module
from types import ModuleType

_ROOMS = ("openqasm", "pennylane_tape", "qiskit_circuit", "qiskit_import")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"circuits.interop.{name}")
    raise AttributeError(f"module 'circuits.interop' has no attribute '{name}'")
