"""Jobs on paid machines, written down before they are sent. Nothing here imports an engine, torch or numpy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.ledger.budget import BudgetError
    from backends.ledger.courier import Courier
    from backends.ledger.job import Job, JobRequest
    from backends.ledger.ledger import Ledger, open_ledger
    from backends.ledger.transport import Transport

_HOME = {
    "BudgetError": "backends.ledger.budget",
    "Courier": "backends.ledger.courier",
    "Job": "backends.ledger.job",
    "JobRequest": "backends.ledger.job",
    "Ledger": "backends.ledger.ledger",
    "open_ledger": "backends.ledger.ledger",
    "Transport": "backends.ledger.transport",
}

__all__ = ["BudgetError", "Courier", "Job", "JobRequest", "Ledger", "Transport", "open_ledger"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'backends.ledger' has no attribute '{name}'")
