"""What is known of PennyLane's devices by name."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Literal

from circuits._suggest import unknown


@dataclass(frozen=True, slots=True)
class Traits:
    """How a device differentiates exact results, whether its state is pure, mixed or hidden, and where it runs."""

    gradient: Literal["backprop", "adjoint"] | None = None
    state: Literal["pure", "mixed"] | None = None
    max_wires: int = 24
    remote: bool = False


KNOWN = MappingProxyType(
    {
        "default.qubit": Traits("backprop", "pure"),
        "default.mixed": Traits(None, "mixed", 10),  # its backpropagation rounds to single precision
        "reference.qubit": Traits(None, "pure", 12),
        "lightning.qubit": Traits("adjoint", "pure", 26),
        "lightning.kokkos": Traits("adjoint", "pure", 26),
        "lightning.gpu": Traits("adjoint", "pure", 26),
        "qlm.statevector": Traits("backprop", "pure"),
    }
)
"""Simulators whose results the tests check."""
_REFUSED = {
    "null.qubit": "it computes nothing",
    "default.clifford": "it runs Clifford gates alone",
    "default.tensor": "it does not report what it truncates; use backend 'quimb'",
    "default.gaussian": "it holds no qubits",
    "default.qutrit": "it holds no qubits",
    "default.qutrit.mixed": "it holds no qubits",
}


def traits(device: str) -> Traits:
    """Return what is known of an installed device; of others nothing is: no state, no gradient, perhaps remote.

    Raises ValueError for a device that is not installed (did you mean ...) or cannot do what a backend has to.

    >>> traits("default.qubit").gradient
    'backprop'
    """
    if device in _REFUSED:
        raise ValueError(f"backend 'pennylane' does not run device '{device}': {_REFUSED[device]}.")
    installed = {point.name for point in entry_points(group="pennylane.plugins")}
    if device not in installed:
        raise ValueError(unknown("device of backend 'pennylane'", device, installed - set(_REFUSED)))
    return KNOWN.get(device, Traits(remote=True))
