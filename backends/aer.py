"""The ``aer`` backend: Qiskit Aer's simulators, exact or with counted shots.

Axis legend: b batch, a angles, o observables, k wires asked for, s bases, t shots, m measured wires.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from backends import counts
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.extras import require
from circuits import GATES, Circuit, PauliSum
from circuits._suggest import unknown
from circuits.interop.qiskit_circuit import measured, to_qiskit

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_MAX_WIRES = {"automatic": 24, "statevector": 24, "density_matrix": 12, "matrix_product_state": 100}
_MAX_DENSITY_WIRES = _MAX_WIRES["density_matrix"]


@dataclass(frozen=True)
class Aer(Backend):
    """Qiskit Aer on this machine. ``shots`` None: exact; else each basis is measured that many times.

    ``method``: "automatic", "statevector", "density_matrix" or "matrix_product_state" (bonds grow as needed; Aer does
    not report what a truncation discards, so a ``max_bond`` is refused). Exact results of a circuit with resets come
    from density matrices (4**n numbers, up to 12 wires) unless the method is "matrix_product_state", which then needs
    shots. float32 angles run in single precision, float64 in double. A batch is one call. Raises ImportError without
    qiskit-aer.

    >>> Aer(method="density_matrix", shots=100).spec
    'aer:density_matrix?shots=100'
    """

    kind: ClassVar[str] = "aer"
    argument: ClassVar[str | None] = "method"

    method: str = "automatic"
    shots: int | None = None
    max_bond: int | None = None

    def __post_init__(self) -> None:
        if self.method not in _MAX_WIRES:
            raise ValueError(unknown("method of backend 'aer'", str(self.method), _MAX_WIRES))
        if self.shots is not None and (
            isinstance(self.shots, bool) or not isinstance(self.shots, int) or self.shots < 1
        ):
            raise ValueError(f"backend 'aer' expects positive shots or None (exact), got {self.shots!r}; raise them.")
        if self.max_bond is not None:
            raise ValueError(
                f"backend 'aer' expects no max_bond, got {self.max_bond!r}: Aer does not report what a truncation "
                "discards, so the error could not be given; leave it out and bonds grow as needed."
            )
        require("aer", "qiskit_aer", "qiskit")

    @property
    def capabilities(self) -> Capabilities:
        exact, network = self.shots is None, self.method == "matrix_product_state"
        return Capabilities(
            exact=exact,
            shots=not exact,
            state=exact and self.method in ("automatic", "statevector"),
            density=exact,
            batch=True,
            reset=not (exact and network),
            max_wires=_MAX_WIRES[self.method],
            gates=frozenset(GATES),
        )

    @cached_property
    def _simulators(self) -> dict[tuple[str, str], Any]:
        """Live simulators by (method, precision); opened on first use and never copied."""
        return {}

    def _simulator(self, circuit: Circuit, angles: Tensor, exact: bool) -> Any:
        method = self.method
        if exact and not circuit.is_unitary:
            if circuit.n_wires > _MAX_DENSITY_WIRES:
                raise ValueError(
                    f"exact results of a circuit with resets expect at most {_MAX_DENSITY_WIRES} wires, got "
                    f"{circuit.n_wires}: it runs as a density matrix; use fewer wires or shots."
                )
            method = "density_matrix"
        precision = "double" if angles.dtype == torch.float64 else "single"
        if (method, precision) not in self._simulators:
            simulator = require("aer", "qiskit_aer", "qiskit").AerSimulator
            self._simulators[method, precision] = simulator(
                method=method, precision=precision, runtime_parameter_bind_enable=True
            )
        return self._simulators[method, precision]

    def _shots(self, request: Request) -> int | None:
        return self.shots if request.shots is None else request.shots

    def _exact(self, circuit: Circuit, angles: Tensor, save: Callable[["QuantumCircuit"], None]) -> list[Any]:
        """Run the whole batch in one call and return what ``save`` asked for, sample by sample."""
        made = _converted(circuit).copy()
        save(made)
        columns = angles.detach().cpu().double().numpy()
        binds = {parameter: columns[:, k].tolist() for k, parameter in enumerate(made.parameters)}
        batch = [binds] if binds else None
        simulator = self._simulator(circuit, angles, exact=True)
        result = simulator.run(made, parameter_binds=batch, shots=1).result()
        if not result.success:
            raise RuntimeError(f"Aer could not run the circuit: {result.status}.")
        found = [entry.data for entry in result.results]
        return found if binds else found * len(angles)  # without angles all samples are one

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        shots = self._shots(request)
        if shots is not None:
            bases = counts.bases_of(observables)
            return counts.expectations(
                self._bits(circuit, angles, bases, shots, request.seed), bases, observables, angles
            )
        words = sorted({word for observable in observables for word, _ in observable.terms})
        table = torch.tensor(
            [[dict(o.terms).get(word, 0.0) for o in observables] for word in words], dtype=torch.float64
        )

        def save(made: "QuantumCircuit") -> None:
            from qiskit.quantum_info import Pauli

            for number, word in enumerate(words):
                letters = dict(word)
                label = "".join(letters.get(wire, "I") for wire in range(circuit.n_wires))
                made.save_expectation_value(Pauli(label), range(circuit.n_wires), label=str(number))  # pyright: ignore[reportAttributeAccessIssue] -- added to the class by qiskit_aer

        found = self._exact(circuit, angles, save)
        read = [[getattr(entry, str(number)) for number in range(len(words))] for entry in found]
        return Estimate((torch.tensor(read, dtype=torch.float64) @ table).to(angles))

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        shots = self._shots(request)
        if shots is not None:
            return counts.probabilities(self._samples_array(circuit, angles, wires, shots, request.seed), angles)
        qubits = _qubits(circuit, wires)
        found = self._exact(circuit, angles, lambda made: made.save_probabilities(qubits, label="p"))  # pyright: ignore[reportAttributeAccessIssue] -- as above
        return Estimate(torch.from_numpy(np.stack([np.asarray(entry.p) for entry in found])).to(angles))

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        return Estimate(self._arrays(circuit, angles, lambda made: made.save_statevector(label="saved")))  # pyright: ignore[reportAttributeAccessIssue] -- as above

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        if self._shots(request) is not None:
            return super()._density(circuit, angles, wires, request)
        qubits = _qubits(circuit, wires)
        return Estimate(self._arrays(circuit, angles, lambda made: made.save_density_matrix(qubits, label="saved")))  # pyright: ignore[reportAttributeAccessIssue] -- as above

    def _arrays(self, circuit: Circuit, angles: Tensor, save: Callable[["QuantumCircuit"], None]) -> Tensor:
        found = self._exact(circuit, angles, save)
        stacked = torch.from_numpy(np.stack([np.asarray(entry.saved) for entry in found]))
        return stacked.to(angles.device, angles.dtype.to_complex())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        return torch.from_numpy(self._samples_array(circuit, angles, wires, shots, seed)).to(angles.device)

    def _samples_array(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> counts.Bits:
        return self._bits(circuit, angles, counts.computational(wires), shots, seed)[:, 0]

    def _bits(self, circuit: Circuit, angles: Tensor, bases: counts.Bases, shots: int, seed: int | None) -> counts.Bits:
        """Measure every sample in every basis: bits (b, s, t, m)."""
        shape = (len(angles), len(bases.letters), shots, len(bases.wires))
        if not bases.wires:
            return np.zeros(shape, dtype=np.uint8)
        made = _converted(circuit, bases.wires, bases.rotated)
        simulator = self._simulator(circuit, angles, exact=False)

        def run(rows: np.ndarray, part_seed: int | None) -> counts.Bits:
            sampler = require("aer", "qiskit_aer.primitives", "qiskit").SamplerV2.from_backend(
                simulator, seed=part_seed
            )
            if made.parameters:
                pub, repeats = (made, {tuple(made.parameters): rows}), 1
            else:
                pub, repeats = (made,), len(rows)  # all samples are one: more shots of it
            (answer,) = sampler.run([pub], shots=shots * repeats).result()
            return counts.unpack(answer.data.bits.array, len(bases.wires)).reshape(len(rows), shots, -1)

        return counts.collect(run, bases.parameters(angles), shots, seed).reshape(shape)


def _qubits(circuit: Circuit, wires: tuple[int, ...]) -> list[int]:
    """The wires' qubits, least significant first, as Aer orders what it saves."""
    return [circuit.n_wires - 1 - wire for wire in reversed(wires)]


@lru_cache(maxsize=256)
def _converted(circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> "QuantumCircuit":
    """The circuit in gates that Aer knows (it lacks ``ch``), measured on ``wires``; shared, so callers copy it."""
    made = measured(circuit, wires, rotated) if wires else to_qiskit(circuit)
    return made.decompose("ch")
