"""The ``aer`` backend: Qiskit Aer's simulators, exact or with counted shots, ideal or noisy.

Axis legend: b batch, a angles, o observables, k wires asked for, s bases, t shots, m measured wires.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from backends import counts, linalg, mixed_entropy, purity
from backends.aer_bond import may_truncate
from backends.aer_engines import Engine, Save, engine_for, execute, qubits_of, sample
from backends.aer_noise import Noise, misread, misread_probabilities
from backends.base import Backend, Request
from backends.estimate import Capabilities, Estimate
from backends.extras import require
from backends.ibm.devices import check_fake
from backends.ibm.placing import Placed
from circuits import GATES, Circuit, PauliSum
from circuits._suggest import unknown

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_MAX_WIRES = {"automatic": 24, "statevector": 24, "density_matrix": 12, "matrix_product_state": 100}
_MAX_DENSITY_WIRES = _MAX_WIRES["density_matrix"]
_PRECISIONS = ("single", "double")


@dataclass(frozen=True)
class Aer(Backend):
    """Qiskit Aer on this machine. ``shots`` None: exact; else each basis is measured that many times.

    ``method``: "automatic", "statevector", "density_matrix" or "matrix_product_state". ``precision``: "single" or
    "double"; None follows the angles' dtype. A batch is one call.

    ``noise``: a fake device of qiskit-ibm-runtime ("fake_torino"), whose gates, couplings and errors are cut down to
    the qubits in use, or a ``Noise`` of given numbers, also as a string ("readout:0.02,t1_us:100"). Exact results of
    noisy circuits, and of circuits with resets, come from density matrices (4**n numbers, up to 12 qubits) and need
    another method than "matrix_product_state". Expectations and probabilities are those of what is read, readout
    errors included; ``density``, exact entropies and purities are those of the state, on which readout does not act.

    ``max_bond`` caps the bonds of "matrix_product_state". Aer does not report what it discards, so wherever the cap may
    have bound (``may_truncate``) ``infidelity`` is 1 and ``truncation_error`` the bound that always holds; "quimb:mps"
    measures it. Raises ImportError without qiskit-aer, ValueError for options that do not fit.

    >>> Aer(method="density_matrix", shots=100, noise=Noise(readout=0.02)).spec
    'aer:density_matrix?shots=100&noise=readout:0.02'
    """

    kind: ClassVar[str] = "aer"
    argument: ClassVar[str | None] = "method"

    method: str = "automatic"
    shots: int | None = None
    max_bond: int | None = None
    precision: str | None = None
    noise: str | Noise | None = None

    def __post_init__(self) -> None:
        if self.method not in _MAX_WIRES:
            raise ValueError(unknown("method of backend 'aer'", str(self.method), _MAX_WIRES))
        for name, otherwise in (("shots", "None (exact)"), ("max_bond", "None (as needed)")):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"backend 'aer' expects positive {name} or {otherwise}, got {value!r}; raise it.")
        if self.max_bond is not None and self.method != "matrix_product_state":
            raise ValueError(
                f"backend 'aer' expects max_bond with the method 'matrix_product_state', got '{self.method}'; drop one."
            )
        if self.precision is not None and self.precision not in _PRECISIONS:
            raise ValueError(unknown("precision of backend 'aer'", str(self.precision), _PRECISIONS))
        require("aer", "qiskit_aer", "qiskit")
        if isinstance(self.noise, str):
            if ":" in self.noise:
                object.__setattr__(self, "noise", Noise.parse(self.noise))
            else:
                check_fake("noise of backend 'aer'", self.noise)

    @property
    def capabilities(self) -> Capabilities:
        exact, network, noisy = self.shots is None, self.method == "matrix_product_state", self.noise is not None
        return Capabilities(
            exact=exact and not noisy and self.max_bond is None,
            shots=not exact,
            state=exact and not noisy and self.method in ("automatic", "statevector"),
            density=exact and not (noisy and network),
            batch=True,
            reset=not (exact and network),
            max_wires=min(_MAX_WIRES[self.method], _MAX_DENSITY_WIRES if exact and noisy else 100),
            gates=frozenset(GATES),
            noisy=noisy,
        )

    @cached_property
    def _engine(self) -> Engine:
        """Live circuits and simulators; made on first use and never copied."""
        return engine_for(self.noise)

    def _simulator(self, placed: Placed, circuit: Circuit, angles: Tensor, exact: bool) -> Any:
        method = self.method
        if exact and (self.noise is not None or not circuit.is_unitary):
            what = "with resets" if self.noise is None else "with noise"
            if method == "matrix_product_state":
                raise ValueError(
                    f"exact results of a circuit {what} expect a density matrix, got '{method}'; set shots."
                )
            if placed.circuit.num_qubits > _MAX_DENSITY_WIRES:
                raise ValueError(
                    f"exact results of a circuit {what} expect at most {_MAX_DENSITY_WIRES} wires, got "
                    f"{placed.circuit.num_qubits}: it runs as a density matrix; use fewer wires or shots."
                )
            method = "density_matrix"
        precision = self.precision or ("double" if angles.dtype == torch.float64 else "single")
        cap = {} if self.max_bond is None else {"matrix_product_state_max_bond_dimension": self.max_bond}
        return self._engine.simulator(placed, method, precision, **cap)

    def _shots(self, request: Request) -> int | None:
        return self.shots if request.shots is None else request.shots

    def _bounded(self, circuit: Circuit, estimate: Estimate, most: Tensor | float) -> Estimate:
        """The estimate with the error that always holds, where the bonds' cap may have bound."""
        if self.max_bond is None or not may_truncate(circuit, self.max_bond):
            return estimate
        error = torch.as_tensor(most, dtype=estimate.stderr.dtype, device=estimate.stderr.device)
        return replace(
            estimate,
            truncation_error=error.expand_as(estimate.stderr).clone(),
            infidelity=torch.ones_like(estimate.infidelity),
        )

    def _exact(self, circuit: Circuit, angles: Tensor, save: Save) -> list[Any]:
        """Run the whole batch in one call and return what ``save`` asked for, sample by sample."""
        placed = self._engine.prepare(circuit)
        simulator = self._simulator(placed, circuit, angles, exact=True)
        return execute(simulator, placed, angles, save)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        most = torch.tensor([2 * sum(abs(c) for word, c in o.terms if word) for o in observables])
        shots = self._shots(request)
        if shots is not None:
            bases = counts.bases_of(observables)
            bits = self._bits(circuit, angles, bases, shots, request.seed)
            return self._bounded(circuit, counts.expectations(bits, bases, observables, angles), most)
        flips = self._engine.flips(self._engine.prepare(circuit), range(circuit.n_wires))
        seen = [dict(misread(observable, flips).terms) for observable in observables]
        words = sorted({word for terms in seen for word in terms if word})
        table = torch.tensor([[terms.get(word, 0.0) for terms in seen] for word in words], dtype=torch.float64)
        constants = torch.tensor([terms.get((), 0.0) for terms in seen], dtype=torch.float64)

        def save(made: "QuantumCircuit", placed: Placed) -> None:
            from qiskit.quantum_info import Pauli

            qubits = qubits_of(placed, tuple(range(circuit.n_wires)))
            for number, word in enumerate(words):
                # On all qubits, always: Aer drops idle ones and then reads observables on some of them elsewhere.
                letters = dict(word)
                pauli = Pauli("".join(letters.get(wire, "I") for wire in range(circuit.n_wires)))
                made.save_expectation_value(pauli, qubits, label=str(number))  # pyright: ignore[reportAttributeAccessIssue] -- added to the class by qiskit_aer

        if not words:
            return Estimate(constants.expand(len(angles), -1).to(angles))
        found = self._exact(circuit, angles, save)
        read = [[getattr(entry, str(number)) for number in range(len(words))] for entry in found]
        values = torch.tensor(read, dtype=torch.float64) @ table + constants
        return self._bounded(circuit, Estimate(values.to(angles)), most)

    def _probabilities(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        shots = self._shots(request)
        if shots is not None:
            bits = self._bits(circuit, angles, counts.computational(wires), shots, request.seed)[:, 0]
            return self._bounded(circuit, counts.probabilities(bits, angles), 1.0)
        at = qubits_of(self._engine.prepare(circuit), wires)
        found = self._exact(circuit, angles, lambda made, _: made.save_probabilities(at, label="p"))  # pyright: ignore[reportAttributeAccessIssue] -- as above
        values = torch.from_numpy(np.stack([np.asarray(entry.p) for entry in found]))
        flips = self._engine.flips(self._engine.prepare(circuit), wires)
        return self._bounded(circuit, Estimate(misread_probabilities(values, flips).to(angles)), 1.0)

    def _state(self, circuit: Circuit, angles: Tensor) -> Estimate:
        return Estimate(self._arrays(circuit, angles, lambda made, _: made.save_statevector(label="saved")))  # pyright: ignore[reportAttributeAccessIssue] -- as above

    def _density(self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], request: Request) -> Estimate:
        if self._shots(request) is not None:
            return super()._density(circuit, angles, wires, request)
        values = self._arrays(
            circuit,
            angles,
            lambda made, placed: made.save_density_matrix(qubits_of(placed, wires), label="saved"),  # pyright: ignore[reportAttributeAccessIssue] -- as above
        )
        return self._bounded(circuit, Estimate(values), 1.0)

    def _entropy(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], kind: str, request: Request
    ) -> Estimate:
        """Exact noisy results hold the whole density matrix, b 4**n numbers, for the global purity."""
        shots, every = self._shots(request), tuple(range(circuit.n_wires))
        if self.noise is None or (shots is not None and circuit.n_wires > purity.MAX_WIRES):
            estimate = super()._entropy(circuit, angles, wires, kind, request)
        elif shots is None:
            whole = self._density(circuit, angles, every, request).values
            spread = whole.real.square() + whole.imag.square()
            estimate = Estimate(
                linalg.entropy(linalg.partial_trace(whole, wires), kind),
                purity=spread.sum((1, 2)),
                purity_stderr=torch.zeros_like(spread[:, 0, 0]),
            )
        else:
            estimate = mixed_entropy.entropy(
                lambda bases, each: self._bits(circuit, angles, bases, each, request.seed),
                *(circuit, angles, wires, kind, shots, request.seed),
            )
        return self._bounded(circuit, estimate, len(wires) * log(2))

    def _arrays(self, circuit: Circuit, angles: Tensor, save: Save) -> Tensor:
        found = self._exact(circuit, angles, save)
        stacked = torch.from_numpy(np.stack([np.asarray(entry.saved) for entry in found]))
        return stacked.to(angles.device, angles.dtype.to_complex())

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        bits = self._bits(circuit, angles, counts.computational(wires), shots, seed)
        return torch.from_numpy(bits[:, 0]).to(angles.device)

    def _sample_estimate(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Estimate:
        return self._bounded(circuit, super()._sample_estimate(circuit, angles, wires, shots, seed), 1.0)

    def _bits(self, circuit: Circuit, angles: Tensor, bases: counts.Bases, shots: int, seed: int | None) -> counts.Bits:
        """Measure every sample in every basis: bits (b, s, t, m)."""
        shape = (len(angles), len(bases.letters), shots, len(bases.wires))
        if not bases.wires:
            return np.zeros(shape, dtype=np.uint8)
        placed = self._engine.prepare(circuit, bases.wires, bases.rotated)
        simulator = self._simulator(placed, circuit, angles, exact=False)

        def run(rows: np.ndarray, part_seed: int | None) -> counts.Bits:
            return counts.unpack(sample(simulator, placed, rows, shots, part_seed), len(bases.wires))

        return counts.collect(run, bases.parameters(angles), shots, seed).reshape(shape)
