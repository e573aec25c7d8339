"""Qiskit's primitives on our state-vector simulator: an estimator and a sampler, exact, a whole PUB in one call.

Axis legend: r sets of parameters, a angles, u distinct observables, t shots, m measured qubits.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.extras import require

require("QLMEstimator", "qiskit", "qiskit")  # this module subclasses what it cannot do without

from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterExpression, ParameterVector
from qiskit.primitives import (
    BaseEstimatorV2,
    BaseSamplerV2,
    BitArray,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    PubResult,
    SamplerPubResult,
)
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from backends.statevector.backend import Statevector
from circuits import GATES, Circuit, PauliSum
from circuits.interop.qiskit_import import from_qiskit

Rng = np.random.Generator | int | None
_MAX_AMPLITUDES = 2**24
"""Parameter sets are run in as many parts as keep a part's states within 256 MB."""
_PROJECTORS: Mapping[str, tuple[tuple[str, float], ...]] = {
    **{letter: ((letter, 1.0),) for letter in "IXYZ"},
    **{
        name: (("I", 0.5), (letter, 0.5 * sign))
        for letter, names in (("Z", "01"), ("X", "+-"), ("Y", "rl"))
        for name, sign in zip(names, (1, -1), strict=True)
    },
}
"""Qiskit's letters of an observable, projectors included, as sums of Pauli letters."""


class QLMEstimator(BaseEstimatorV2):
    """Expectations of PUBs (circuit, observables, parameter values, precision), exactly, by the state vector.

    Arrays of observables and of parameter values broadcast as in Qiskit. ``evs`` are exact and ``stds`` 0; a
    ``precision`` above 0 adds normal noise of that deviation, which ``stds`` then tells. Resets are exact too (density
    matrices). Projectors in observables are understood. Raises ValueError for circuits that measure, for control flow,
    and beyond 24 qubits (12 with resets). Cost r (ops 2**n + u 2**n).

    >>> from qiskit.circuit import Parameter
    >>> made = QuantumCircuit(1)
    >>> _ = made.ry(Parameter("t"), 0)
    >>> QLMEstimator().run([(made, ["Z", "X"], [[0.0], [np.pi / 2]])]).result()[0].data.evs.round(6).tolist()
    [1.0, 1.0]
    """

    def __init__(self, *, default_precision: float = 0.0, seed: Rng = None) -> None:
        self.default_precision = default_precision
        self.seed = seed

    def run(
        self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None
    ) -> PrimitiveJob[PrimitiveResult[PubResult]]:
        """Start a job that estimates each PUB at its own precision, else at ``precision``, else at the default one."""
        wanted = self.default_precision if precision is None else precision
        return _started(self._run_pub, [EstimatorPub.coerce(pub, wanted) for pub in pubs])

    def _run_pub(self, pub: EstimatorPub) -> PubResult:
        flat = _flattened(pub.circuit)
        angles = flat.angles(pub.parameter_values)
        distinct: dict[PauliSum, int] = {}
        observables = np.asarray(pub.observables).ravel()
        column = [distinct.setdefault(_pauli_sum(one), len(distinct)) for one in observables]
        values = np.zeros((len(angles), len(distinct)))
        for part in _parts(flat.circuit, len(angles)) if distinct else ():
            values[part] = Statevector().expectations(flat.circuit, angles[part], None, tuple(distinct)).values.numpy()
        rows = np.arange(len(angles)).reshape(pub.parameter_values.shape)
        columns = np.array(column, dtype=int).reshape(pub.observables.shape)
        evs = values[tuple(np.broadcast_arrays(rows, columns))]
        precision = pub.precision or 0.0
        if precision:
            evs = np.random.default_rng(self.seed).normal(evs, precision)
        return PubResult(
            DataBin(evs=evs, stds=np.full(evs.shape, precision), shape=evs.shape),
            metadata={"target_precision": precision, "circuit_metadata": pub.circuit.metadata},
        )


class QLMSampler(BaseSamplerV2):
    """Samples of PUBs (circuit, parameter values, shots) from exact probabilities, a ``BitArray`` per register.

    Measurements come last on their qubits; bits that none writes are 0. Raises ValueError for a measurement in
    mid-circuit, for control flow, and beyond 24 qubits (12 with resets). Cost r (ops 2**n + t).

    >>> made = QuantumCircuit(2)
    >>> _ = made.x(0), made.measure_all()
    >>> QLMSampler(seed=0).run([made], shots=5).result()[0].data.meas.get_counts()
    {'01': 5}
    """

    def __init__(self, *, default_shots: int = 1024, seed: Rng = None) -> None:
        self.default_shots = default_shots
        self.seed = seed

    def run(
        self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None
    ) -> PrimitiveJob[PrimitiveResult[SamplerPubResult]]:
        """Start a job that samples each PUB with its own shots, else with ``shots``, else with the default ones."""
        wanted = self.default_shots if shots is None else shots
        return _started(self._run_pub, [SamplerPub.coerce(pub, wanted) for pub in pubs])

    def _run_pub(self, pub: SamplerPub) -> SamplerPubResult:
        bare, sources = _unmeasured(pub.circuit)
        flat = _flattened(bare)
        angles, shots = flat.angles(pub.parameter_values), pub.shots or self.default_shots
        qubits = sorted(set(sources.values()))
        bits = np.zeros((len(angles), shots, len(qubits) + 1), dtype=bool)  # the last column: bits that none writes
        rng = np.random.default_rng(self.seed)
        wires = [bare.num_qubits - 1 - qubit for qubit in qubits]
        for part in _parts(flat.circuit, len(angles)) if qubits else ():
            seed = int(rng.integers(2**31))
            drawn = Statevector().samples(flat.circuit, angles[part], None, wires, shots=shots, seed=seed)
            bits[part, :, :-1] = drawn.values.numpy()
        place = {clbit: qubits.index(qubit) for clbit, qubit in sources.items()}
        data = {}
        for register in pub.circuit.cregs:
            columns = [place.get(pub.circuit.find_bit(clbit).index, -1) for clbit in register]
            chosen = bits[..., columns].reshape(*pub.shape, shots, len(columns))
            data[register.name] = BitArray.from_bool_array(chosen, order="little")
        return SamplerPubResult(
            DataBin(**data, shape=pub.shape), metadata={"shots": shots, "circuit_metadata": pub.circuit.metadata}
        )


def _started(run_pub: Any, pubs: list[Any]) -> PrimitiveJob[Any]:
    """A job that is running."""
    job = PrimitiveJob(lambda: PrimitiveResult([run_pub(pub) for pub in pubs], metadata={"version": 2}))
    job._submit()
    return job


@dataclass(frozen=True)
class _Flat:
    """A circuit of ours whose inputs are angles; Qiskit's parameters, and their expressions that give the angles."""

    circuit: Circuit
    parameters: tuple[Any, ...]
    expressions: tuple[Any, ...]

    def angles(self, bound: BindingsArray) -> NDArray[np.float64]:
        """Return the angles (r, a) of all sets of parameters: any expression is evaluated, set by set."""
        values = bound.as_array(self.parameters).reshape(prod(bound.shape), len(self.parameters))
        column = {parameter: number for number, parameter in enumerate(self.parameters)}
        out = np.empty((len(values), len(self.expressions)))
        for number, expression in enumerate(self.expressions):
            if isinstance(expression, Parameter):
                out[:, number] = values[:, column[expression]]
                continue
            own = [(parameter, column[parameter]) for parameter in expression.parameters]
            out[:, number] = [float(expression.bind({p: row[k] for p, k in own})) for row in values]
        return out


def _flattened(circuit: QuantumCircuit) -> _Flat:
    """Replace each angle that is not a number by a parameter of its own: expressions need not be polynomials then.

    Parametrised instructions beyond the standard gates are first written in those.
    """
    plain = circuit.copy()
    plain.global_phase = 0  # it changes no expectation
    expressions: dict[Any, int] = {}
    if plain.parameters:
        plain = transpile(plain, basis_gates=list(GATES), optimization_level=0)
        plain.global_phase = 0
    named = [p for step in plain.data for p in step.operation.params if isinstance(p, ParameterExpression)]
    for expression in named:
        expressions.setdefault(expression, len(expressions))
    vector = ParameterVector("angle", len(expressions))
    lifted = plain.copy_empty_like()
    for step in plain.data:
        if any(isinstance(parameter, ParameterExpression) for parameter in step.operation.params):
            operation = step.operation.to_mutable()
            operation.params = [
                vector[expressions[parameter]] if isinstance(parameter, ParameterExpression) else parameter
                for parameter in operation.params
            ]
            step = step.replace(operation=operation)
        lifted.append(step)
    read = from_qiskit(lifted, inputs=("angle",) if expressions else ())
    return _Flat(read, tuple(circuit.parameters), tuple(expressions))


def _unmeasured(circuit: QuantumCircuit) -> tuple[QuantumCircuit, dict[int, int]]:
    """The circuit without its measurements, and the qubit that each classical bit is read from."""
    bare, sources = circuit.copy_empty_like(), {}
    read: set[int] = set()
    for step in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in step.qubits]
        name = step.operation.name
        if name == "measure":
            sources[circuit.find_bit(step.clbits[0]).index] = qubits[0]
            read.add(qubits[0])
            continue
        if name != "barrier" and not read.isdisjoint(qubits):
            raise ValueError(f"QLMSampler expects measurements to come last, got '{name}' after one; measure later.")
        bare.append(step)
    return bare, sources


def _pauli_sum(observable: Mapping[str, float]) -> PauliSum:
    """One of Qiskit's observables, label by label: the first letter is the highest qubit, our wire 0."""
    terms: list[tuple[tuple[tuple[int, str], ...], float]] = []
    for label, coefficient in observable.items():
        for parts in product(*(_PROJECTORS[letter] for letter in label)):
            word = tuple((wire, letter) for wire, (letter, _) in enumerate(parts) if letter != "I")
            terms.append((word, coefficient * prod(factor for _, factor in parts)))
    return PauliSum(tuple(terms))


def _parts(circuit: Circuit, rows: int) -> Iterator[slice]:
    """Slices of the parameter sets whose states fit memory."""
    amplitudes = 2**circuit.n_wires if circuit.is_unitary else 4**circuit.n_wires
    size = max(1, _MAX_AMPLITUDES // amplitudes)
    return (slice(first, first + size) for first in range(0, rows, size))
