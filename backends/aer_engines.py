"""How Aer runs a circuit: without noise, with noise of given numbers, or as a device would.

Axis legend: k wires, r rows of parameters, t shots.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backends.aer_noise import Flips, Noise, flips_of
from backends.extras import require
from backends.ibm.devices import open_device
from backends.ibm.placing import Placed, narrowed, noise_model, place
from circuits import Circuit
from circuits.interop.qiskit_circuit import BASIS, measured, to_qiskit

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit_aer.noise import NoiseModel

Save = Callable[["QuantumCircuit", Placed], None]
"""Adds to a circuit what Aer shall save at its end."""


class Engine(ABC):
    """Circuits as Aer takes them, and the simulators that run them; both made on first use and kept."""

    def __init__(self) -> None:
        self.prepare = lru_cache(maxsize=256)(self._prepare)
        self._simulators: dict[tuple[object, ...], Any] = {}
        self._model_of = lru_cache(maxsize=256)(self._model)

    @abstractmethod
    def _prepare(self, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
        """The circuit in gates that Aer knows, measured on ``wires`` if any; shared, so callers copy it."""

    @abstractmethod
    def _model(self, physical: tuple[int, ...]) -> "NoiseModel | None":
        """The noise on those qubits."""

    def simulator(self, placed: Placed, method: str, precision: str, **options: Any) -> Any:
        """Return the simulator of a placed circuit."""
        key = (placed.physical, method, precision, *options.values())
        if key not in self._simulators:
            self._simulators[key] = require("aer", "qiskit_aer", "qiskit").AerSimulator(
                method=method,
                precision=precision,
                noise_model=self._model_of(placed.physical),
                runtime_parameter_bind_enable=True,
                mps_lapack=True,  # Aer's own singular values are good to 1e-10 alone, LAPACK's to 1e-15
                **options,
            )
        return self._simulators[key]

    def flips(self, placed: Placed, wires: Sequence[int]) -> Flips:
        """Return the wires' readout errors."""
        return flips_of(self._model_of(placed.physical), tuple(placed.qubits[wire] for wire in wires))


class Ideal(Engine):
    """No noise: wire w is qubit n-1-w."""

    def _prepare(self, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
        made = measured(circuit, wires, rotated) if wires else to_qiskit(circuit)
        columns = tuple(range(len(made.parameters)))
        return Placed(made.decompose("ch"), columns, tuple(reversed(range(circuit.n_wires))))  # Aer lacks ch

    def _model(self, physical: tuple[int, ...]) -> "NoiseModel | None":
        return None


class Numbers(Ideal):
    """Noise of given numbers on every gate of the circuit; the gates that choose a basis have none."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self._noise = noise

    def _prepare(self, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
        placed = super()._prepare(circuit, wires, rotated)
        return Placed(_labelled(placed.circuit), placed.columns, placed.qubits)

    def _model(self, physical: tuple[int, ...]) -> "NoiseModel | None":
        return self._noise.model()


class Device(Engine):
    """A fake device's gates, couplings and noise, on the qubits that a circuit uses alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._device = open_device(name)

    def _prepare(self, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
        return narrowed(place(self._device, circuit, wires, rotated))

    def _model(self, physical: tuple[int, ...]) -> "NoiseModel | None":
        return noise_model(self._device, physical)


def engine_for(noise: str | Noise | None) -> Engine:
    """Return the engine of a noise: none, numbers, or a fake device's name."""
    if noise is None:
        return Ideal()
    return Numbers(noise) if isinstance(noise, Noise) else Device(noise)


def execute(simulator: Any, placed: Placed, angles: Tensor, save: Save) -> list[Any]:
    """Run the whole batch in one call and return what ``save`` asked for, sample by sample."""
    made = placed.circuit.copy()
    save(made, placed)
    columns = angles.detach().cpu().double().numpy()[:, placed.columns]
    binds = {parameter: columns[:, k].tolist() for k, parameter in enumerate(made.parameters)}
    result = simulator.run(made, parameter_binds=[binds] if binds else None, shots=1).result()
    if not result.success:
        raise RuntimeError(f"Aer could not run the circuit: {result.status}.")
    found = [entry.data for entry in result.results]
    return found if binds else found * len(angles)  # without angles all samples are one


def sample(
    simulator: Any, placed: Placed, rows: NDArray[np.float64], shots: int, seed: int | None
) -> NDArray[np.uint8]:
    """Return the packed outcomes of a measured circuit, in one call: (r, t, bytes)."""
    sampler = require("aer", "qiskit_aer.primitives", "qiskit").SamplerV2.from_backend(simulator, seed=seed)
    if placed.columns:
        pub, repeats = (placed.circuit, {tuple(placed.circuit.parameters): rows[:, placed.columns]}), 1
    else:
        pub, repeats = (placed.circuit,), len(rows)  # all rows are one: more shots of it
    (answer,) = sampler.run([pub], shots=shots * repeats).result()
    return answer.data.bits.array.reshape(len(rows), shots, -1)


def qubits_of(placed: Placed, wires: tuple[int, ...]) -> list[int]:
    """Return the wires' qubits, least significant first, as Aer orders what it saves."""
    return [placed.qubits[wire] for wire in reversed(wires)]


def _labelled(made: "QuantumCircuit") -> "QuantumCircuit":
    """The circuit with a label on the gates that choose a basis: noise goes by label, and theirs has none."""
    out = made.copy_empty_like()
    for step in made.data:
        vectors = (getattr(parameter, "vector", None) for parameter in step.operation.params)
        if any(vector is not None and vector.name == BASIS for vector in vectors):
            operation = step.operation.to_mutable()
            operation.label = BASIS
            step = step.replace(operation=operation)
        out.append(step)
    return out
