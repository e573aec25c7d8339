"""The way to a device: circuits placed on it, and what the primitives take for their mode. Live; never copied."""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

from backends.extras import require
from backends.ibm.devices import is_real, open_device
from backends.ibm.placing import Placed, narrowed, part, place
from backends.ibm.service import connect
from circuits import Circuit

MAX_FAKE_WIRES = 12
"""A fake device's noise is simulated on density matrices: 4**12 numbers."""
MODES = {"job": "", "batch": "Batch", "session": "Session"}
"""Execution modes, and the runtime's classes for them."""


class Access(ABC):
    """A device, the circuits that were placed on it, and how something is submitted to it."""

    paid: ClassVar[bool]
    """Whether the device bills for its time."""

    def __init__(self, device: Any, mode: str) -> None:
        self.device = device
        self.mode = mode
        self.place = lru_cache(maxsize=256)(self._place)

    def _place(self, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
        """Transpile a circuit, measured on ``wires`` if any are named."""
        return place(self.device, circuit, wires, rotated)

    @abstractmethod
    def opened(self, placed: Placed) -> Any:
        """What a primitive takes for its mode: the last step before something is submitted."""


class Fake(Access):
    """A fake device, simulated on the qubits that a circuit uses alone."""

    paid: ClassVar[bool] = False

    def __init__(self, name: str, mode: str) -> None:
        super().__init__(open_device(name), mode)
        self._simulators: dict[tuple[int, ...], Any] = {}

    def _place(self, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
        placed = narrowed(super()._place(circuit, wires, rotated))
        if placed.circuit.num_qubits > MAX_FAKE_WIRES:
            raise ValueError(
                f"a fake device expects at most {MAX_FAKE_WIRES} qubits in use, got {placed.circuit.num_qubits} after "
                "routing; use fewer wires, or gates between neighbours."
            )
        return placed

    def opened(self, placed: Placed) -> Any:
        """Density matrices of the qubits in use: Aer's default, one trajectory a shot, is slower."""
        physical = placed.physical
        if physical not in self._simulators:
            simulator = require("ibm", "qiskit_aer", "qiskit").AerSimulator
            self._simulators[physical] = simulator.from_backend(
                part(self.device, physical), method="density_matrix", max_parallel_experiments=0
            )
        simulator, name = self._simulators[physical], MODES[self.mode]
        return getattr(require("ibm", "qiskit_ibm_runtime", "qiskit"), name)(backend=simulator) if name else simulator


class Real(Access):
    """A real device, reached through the service; the ledger sees to it that nothing runs without leave."""

    paid: ClassVar[bool] = True

    def __init__(self, name: str, mode: str) -> None:
        super().__init__(connect(name), mode)
        require("ibm", "backends.ibm.gate", "qiskit").guarded(self.device)
        self.held: Any = None
        """The runtime's batch or session that is open."""

    def opened(self, placed: Placed) -> Any:
        """The open batch or session, or else the device."""
        return self.device if self.held is None else self.held


def open_access(name: str, mode: str) -> Access:
    """Return the way to a device: a fake one, or a real one through the service.

    >>> open_access("fake_manila", "job").device.num_qubits
    5
    """
    return Real(name, mode) if is_real(name) else Fake(name, mode)
