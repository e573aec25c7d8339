"""IBM devices through qiskit-ibm-runtime: fake ones, with their noise, on this machine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.ibm.backend import IBM

_HOME = {"IBM": "backends.ibm.backend"}

__all__ = ["IBM"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'backends.ibm' has no attribute '{name}'")
