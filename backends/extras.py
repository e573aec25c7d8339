"""Optional dependencies: one sentence for what is not installed."""

from importlib import import_module
from importlib.util import find_spec
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
        raise _missing(backend, error.name or module, extra) from error


def check_installed(backend: str, package: str, extra: str) -> None:
    """Raise the same ImportError for a package that is missing, without importing it: some take half a minute.

    >>> check_installed("demo", "torch", "qiskit")
    """
    if find_spec(package) is None:
        raise _missing(backend, package, extra)


def _missing(backend: str, package: str, extra: str) -> ImportError:
    return ImportError(
        f"backend '{backend}' expects the package '{package}', which is missing; pip install 'hybridqlm[{extra}]'."
    )
