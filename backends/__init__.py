"""Backends run circuits: one interface, one string to change the engine."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.base import Backend, Request
    from backends.estimate import Capabilities, Estimate
    from backends.gradients import GRADIENTS, expectations_with_gradient
    from backends.registry import BACKENDS, backend_names, open_backend

IS_HYBRIDQLM = True
"""Tells this package from an unrelated one of the same name."""

_HOME = {
    "Backend": "backends.base",
    "Request": "backends.base",
    "Capabilities": "backends.estimate",
    "Estimate": "backends.estimate",
    "GRADIENTS": "backends.gradients",
    "expectations_with_gradient": "backends.gradients",
    "BACKENDS": "backends.registry",
    "backend_names": "backends.registry",
    "open_backend": "backends.registry",
}

__all__ = [
    "BACKENDS",
    "GRADIENTS",
    "Backend",
    "Capabilities",
    "Estimate",
    "Request",
    "backend_names",
    "expectations_with_gradient",
    "open_backend",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'backends' has no attribute '{name}'")
