"""The suite that every backend, ours or a user's, must pass: ``python -m backends.conformance NAME``, or pytest."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.conformance.judge import Failure, Measured, NotApplicable
    from backends.conformance.suite import Check, Outcome, checks, run, verify

_HOME = {
    "Check": "backends.conformance.suite",
    "Failure": "backends.conformance.judge",
    "Measured": "backends.conformance.judge",
    "NotApplicable": "backends.conformance.judge",
    "Outcome": "backends.conformance.suite",
    "checks": "backends.conformance.suite",
    "run": "backends.conformance.suite",
    "verify": "backends.conformance.suite",
}

__all__ = ["Check", "Failure", "Measured", "NotApplicable", "Outcome", "checks", "run", "verify"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'backends.conformance' has no attribute '{name}'")
