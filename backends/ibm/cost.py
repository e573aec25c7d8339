"""What a request costs on a device, said before anything is sent."""

from dataclasses import dataclass
from typing import Any

from backends.ibm.ask import Ask
from backends.ibm.placing import Placed

_OVERHEAD = 2.0
"""QPU seconds that the service spends on a job beside its circuits."""
_REP_DELAY = 250e-6
"""Seconds between two executions: the default of IBM's devices."""


@dataclass(frozen=True)
class Cost:
    """What a request asks of a device: jobs, measurement bases, circuits in all bases, executions, and QPU seconds.

    ``qpu_seconds`` is about what the service will bill: 2 s a job, and 250 us beside the circuit's own duration for
    each execution (the platform's rule of thumb). It is an estimate: the ledger notes what was billed.

    >>> print(Cost(1, 2, 8, 8192, 4.1))
    1 job: 8 circuits in 2 measurement bases, 8,192 shots in all, about 4.1 QPU seconds
    """

    jobs: int
    bases: int
    circuits: int
    shots: int
    qpu_seconds: float

    def __str__(self) -> str:
        jobs, bases = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((self.jobs, "job"), (self.bases, "basis")))
        bases = bases.replace("basiss", "measurement bases").replace("basis", "measurement basis")
        circuits = f"{self.circuits:,} circuit{'' if self.circuits == 1 else 's'}"
        return f"{jobs}: {circuits} in {bases}, {self.shots:,} shots in all, about {self.qpu_seconds:.1f} QPU seconds"


def seconds(ask: Ask, placed: Placed, device: Any) -> float:
    """Return about how many QPU seconds one job takes; amplified noise takes longer circuits."""
    factors = ask.primitives.noise_factors
    each = sum(_REP_DELAY + factor * duration(placed, device) for factor in factors)
    return _OVERHEAD + ask.circuits * ask.shots * each


def duration(placed: Placed, device: Any) -> float:
    """Return how long a placed circuit takes, in seconds: its longest path; gates of unknown duration count nothing.

    >>> from backends.ibm.devices import open_device
    >>> from backends.ibm.placing import place
    >>> from circuits import Circuit, Op
    >>> device = open_device("fake_manila")
    >>> round(1e6 * duration(place(device, Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))), (0, 1)), device), 1)
    5.7
    """
    ready: dict[int, float] = {}
    numbers = {qubit: index for index, qubit in enumerate(placed.circuit.qubits)}
    for step in placed.circuit.data:
        own = [numbers[qubit] for qubit in step.qubits]
        known = device.target.get(step.operation.name) or {}
        properties = known.get(tuple(placed.physical[qubit] for qubit in own))
        end = max((ready.get(qubit, 0.0) for qubit in own), default=0.0) + ((properties and properties.duration) or 0.0)
        ready |= dict.fromkeys(own, end)
    return max(ready.values(), default=0.0)
