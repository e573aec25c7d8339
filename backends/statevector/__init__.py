"""Our own simulator: batched state vectors, density matrices where a circuit resets."""

from backends.statevector.backend import Statevector

__all__ = ["Statevector"]
