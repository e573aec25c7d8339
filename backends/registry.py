"""Backends by name, and the strings that open them."""

from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import get_args, get_type_hints
from urllib.parse import unquote_plus

from backends.base import Backend
from circuits._suggest import unknown

ENTRY_POINT_GROUP = "hybridqlm.backends"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a backend lives: module, class, and the extra that installs what it needs ("" when nothing more)."""

    module: str
    cls: str
    extra: str = ""


BACKENDS: dict[str, Entry] = {
    "statevector": Entry("backends.statevector", "Statevector"),
    "aer": Entry("backends.aer", "Aer", "qiskit"),
    "ibm": Entry("backends.ibm", "IBM", "qiskit"),
    "pennylane": Entry("backends.pennylane_device", "PennyLane", "pennylane"),
    "quimb": Entry("backends.quimb_mps", "QuimbMPS", "tensornet"),
    "quimb:exact": Entry("backends.quimb_exact", "QuimbExact", "tensornet"),
    "dask": Entry("backends.dask", "Dask", "dask"),
}
"""The shipped backends: one line each."""


def backend_names() -> list[str]:
    """Return all known kinds of backend, ours first, then those of the entry-point group.

    >>> backend_names()[0]
    'statevector'
    """
    return [*BACKENDS, *sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))]


def backend_class(kind: str) -> type[Backend]:
    """Import and return a backend's class; ValueError for an unknown kind, ImportError naming the extra to install."""
    if kind in BACKENDS:
        entry = BACKENDS[kind]
        return getattr(import_module(entry.module), entry.cls)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == kind:
            return point.load()
    raise ValueError(unknown("backend", kind, backend_names()))


def open_backend(spec: "str | Backend") -> Backend:
    """Return the backend that a string names: ``kind[:argument][?field=value&...]``; a Backend is returned as it is.

    Raises ValueError for an unknown backend, argument or field (did you mean ...) or an unreadable value.

    >>> open_backend("statevector").spec
    'statevector'
    """
    if isinstance(spec, Backend):
        return spec
    if not isinstance(spec, str):
        raise TypeError(f"open_backend expects a string or a Backend, got {type(spec).__name__}; try 'statevector'.")
    head, _, query = spec.partition("?")
    kind, _, argument = (head, "", "") if head in BACKENDS else head.partition(":")
    cls = backend_class(kind)
    texts = _options(kind, query)
    if argument:
        if cls.argument is None:
            raise ValueError(f"backend '{kind}' expects nothing after the colon, got '{argument}'; drop it.")
        texts[cls.argument] = argument
    known = {field.name for field in fields(cls) if field.init}  # pyright: ignore[reportArgumentType] -- backends are dataclasses
    for name in texts:
        if name not in known:
            raise ValueError(unknown(f"option of backend '{kind}'", name, known))
    hints = get_type_hints(cls)
    return cls(**{name: _parse(kind, name, text, hints[name]) for name, text in texts.items()})


def _options(kind: str, query: str) -> dict[str, str]:
    """Names and values of ``name=value&name=value``, each name once."""
    texts: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise ValueError(f"options of backend '{kind}' expect name=value, got '{part}'; join several with '&'.")
        if name in texts:
            raise ValueError(f"backend '{kind}' expects option '{name}' once, got it twice; drop one.")
        texts[name] = unquote_plus(value)
    return texts


def _parse(kind: str, name: str, text: str, hint: object) -> object:
    """Read an option's text as its field's type: the first of bool, int, float, str that the annotation names."""
    types = get_args(hint) or (hint,)
    if type(None) in types and text == "None":
        return None
    if bool in types and text in ("True", "False"):
        return text == "True"
    for reader in (int, float, str):
        if reader in types:
            try:
                return reader(text)
            except ValueError:
                continue
    expected = " or ".join(getattr(option, "__name__", str(option)) for option in types)
    raise ValueError(f"option '{name}' of backend '{kind}' expects {expected}, got '{text}'; correct the string.")
