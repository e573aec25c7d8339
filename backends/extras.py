"""Optional dependencies: one sentence for what is not installed."""

from importlib import import_module
from types import ModuleType


def require(backend: str, module: str, extra: str) -> ModuleType:
    """Import and return an optional module; ImportError names the extra that installs it.

    >>> require("demo", "no_such_module", "qiskit")
    Traceback (most recent call last):
    ImportError: backend 'demo' expects the package 'no_such_module', which is missing; pip install 'hybridqlm[qiskit]'.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise ImportError(
            f"backend '{backend}' expects the package '{missing}', which is missing; pip install 'hybridqlm[{extra}]'."
        ) from error
