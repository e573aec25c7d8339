"""Circuits to and from PennyLane's tapes (``qml.tape.QuantumScript``), free parameters kept.

PennyLane's tapes hold numbers, not names. A free parameter is therefore a 0-dimensional object array with a ``Symbol``,
which PennyLane passes on untouched, and can negate, scale and shift while it decomposes.

Axis legend: b batch, a angles, i inputs, w weights.
"""

from collections.abc import Collection, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from circuits.gates import GATES
from circuits.interop.pennylane_ops import Symbol, boxed, joined
from circuits.ir import Circuit
from circuits.observables import PauliSum
from circuits.ops import RESET
from circuits.slots import Input, Slot, Weight, scaled

if TYPE_CHECKING:
    from pennylane.measurements import MeasurementProcess
    from pennylane.operation import Operator
    from pennylane.tape import QuantumScript


def _pennylane() -> Any:
    """The package, whose ``math`` and ``tape`` are made at run time, so that no type checker sees them."""
    return import_module("pennylane")


def to_tape(
    circuit: Circuit, angles: Any = None, measurements: Iterable["MeasurementProcess"] = (), shots: int | None = None
) -> "QuantumScript":
    """Return the circuit as a tape on wires 0 to n-1, wire 0 most significant in both; parameter k is angle column k.

    ``angles`` (b, a) or (a,) from ``circuit.angles`` are bound, gradients kept; columns that are equal for all samples
    (``circuit.shared``) are bound once. The global phase, which changes no result, is dropped then. Without ``angles``
    parameters stay free: numbers are numbers, and ``tape.bind_new_parameters(values, range(a))`` binds in the order of
    the columns; ``from_tape`` gives the circuit back. Raises ImportError without PennyLane. Cost O(ops).

    >>> from circuits import Op
    >>> tape = to_tape(Circuit(2, (Op("rx", (0,), (Input(0, scale=2.0),)), Op("cx", (0, 1)))))
    >>> tape.operations[1], tape.get_parameters()
    (CNOT(wires=[0, 1]), [array(Input(0, scale=2.0), dtype=object)])
    """
    qml = _pennylane()
    columns = iter(_columns(circuit, angles))
    operations: list[Any] = []
    with qml.QueuingManager.stop_recording():
        for op in circuit.ops:
            if op.name == RESET:
                (measurement,) = qml.measure(op.wires[0], reset=True).measurements
                operations.append(measurement)
                continue
            name, wires = GATES[op.name].pennylane, list(op.wires)
            bare = name.removeprefix("Adjoint(").removesuffix(")")
            gate = getattr(qml, bare)(*(next(columns) for _ in op.slots), wires=wires)
            operations.append(gate if bare == name else qml.adjoint(gate))
        if angles is None:
            operations += [qml.GlobalPhase(_parameter(scaled(slot, -1.0))) for slot in circuit.global_phase]
    return qml.tape.QuantumScript(operations, list(measurements), shots=shots)


def _columns(circuit: Circuit, angles: Any) -> list[Any]:
    if angles is None:
        return [_parameter(slot) for slot in circuit.slots]
    if angles.ndim not in (1, 2) or angles.shape[-1] != circuit.n_angles:
        raise ValueError(
            f"to_tape expects angles (batch, {circuit.n_angles}), got shape {tuple(angles.shape)}; use circuit.angles."
        )
    if angles.ndim == 1:
        return [angles[k] for k in range(circuit.n_angles)]
    return [angles[0, k] if shared else angles[:, k] for k, shared in enumerate(circuit.shared)]


def _parameter(slot: Slot) -> Any:
    return slot if isinstance(slot, float) else boxed(slot)


class FromTape(NamedTuple):
    """A circuit and the data that a tape held: inputs (b, i) and weights (w,), None where there are none.

    ``wires`` are the tape's labels: wire k of the circuit is ``wires[k]``.
    """

    circuit: Circuit
    inputs: Any
    weights: Any
    wires: tuple[Any, ...]


def from_tape(
    tape: "QuantumScript", free: Collection[int] | None = None, wires: Iterable[Any] | None = None
) -> FromTape:
    """Return a tape's operations as a circuit, exactly, global phase included, and the data of its free parameters.

    Symbols (of ``to_tape``) keep their slots. Otherwise entries with a batch axis become ``Input(0)``, ``Input(1)``,
    and free ones ``Weight(0)``, ``Weight(1)``, in the order of the tape, array by array; one array used twice is one.
    ``free`` are indices of tape parameters, by default those that require a gradient. All other entries become numbers.
    ``wires`` orders the labels; by default those that number 0 to n-1 keep their numbers, others count as they appear.
    Measurements at the end are not part of a circuit: see ``from_observable``.

    Raises ValueError (one sentence) for what a circuit cannot hold: channels, measurements in the middle, matrices that
    are free or not unitary, states prepared after gates. Cost O(ops), decompositions included.

    >>> import pennylane as qml
    >>> x = np.array([0.1, 0.2])
    >>> tape = qml.tape.QuantumScript([qml.RX(x, "a"), qml.CRZ(0.5, ("b", "a"))], [])
    >>> circuit, inputs, weights, labels = from_tape(tape)
    >>> circuit.ops[0], inputs.shape, weights, labels
    (Op('rx', (0,), (Input(0),)), (2, 1), None, ('a', 'b'))
    """
    labels = _labels(tape, wires)
    reader = _Reader(free)
    operations = [reader.read(operation) for operation in tape.operations]
    _check_preparations(tape)
    circuit = joined(operations, labels, max(1, len(labels)))
    return FromTape(circuit, reader.data(Input), reader.data(Weight), labels)


def _labels(tape: "QuantumScript", wires: Iterable[Any] | None) -> tuple[Any, ...]:
    used = tuple(tape.wires)
    labels = used if wires is None else tuple(wires)
    if wires is None and set(used) == set(range(len(used))):
        return tuple(range(len(used)))
    missing = [label for label in used if label not in labels]
    if missing or len(set(labels)) != len(labels):
        raise ValueError(f"wires expect each label of the tape once, got {labels}, without {missing}; name them all.")
    return labels


def _check_preparations(tape: "QuantumScript") -> None:
    from pennylane.operation import StatePrepBase

    touched: set[Any] = set()
    for operation in tape.operations:
        if isinstance(operation, StatePrepBase) and touched.intersection(operation.wires):
            raise ValueError(f"{operation.name} expects untouched wires, got some after gates; prepare states first.")
        touched.update(operation.wires)


class _Reader:
    """Replaces parameters by symbols, in the order of the tape, and collects the data they stood for."""

    def __init__(self, free: Collection[int] | None) -> None:
        self._free = free
        self._number = -1
        self._symbolic = False
        self._known: dict[int, tuple[Any, Any]] = {}  # by identity: the array, kept alive, and its symbols
        self._found: dict[type, list[Any]] = {Input: [], Weight: []}
        self._counts = {Input: 0, Weight: 0}

    def data(self, kind: type) -> Any:
        """All inputs (b, i) or weights (w,); None without any."""
        qml = _pennylane()
        return qml.math.concatenate(self._found[kind], -1) if self._found[kind] else None

    def read(self, operation: Any) -> "Operator":
        """The operation with its free parameters as symbols."""
        qml = _pennylane()
        data, batched = operation.data, operation.batch_size is not None
        ranks = operation.ndim_params if batched else [qml.math.ndim(entry) for entry in data]
        read = [self._entry(operation.name, entry, rank) for entry, rank in zip(data, ranks, strict=True)]
        if all(old is new for old, new in zip(data, read, strict=True)):
            return operation
        try:
            with qml.QueuingManager.stop_recording():
                return qml.ops.functions.bind_new_parameters(operation, read)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{operation.name} expects numbers, got a free parameter; bind it first.") from error

    def _entry(self, name: str, entry: Any, rank: int) -> Any:
        qml = _pennylane()
        self._number += 1
        symbolic = isinstance(entry, np.ndarray) and entry.dtype == object
        batched = not symbolic and qml.math.ndim(entry) > rank
        free = qml.math.requires_grad(entry) if self._free is None else self._number in self._free
        if not (symbolic or batched or free):
            return entry
        self._symbolic |= symbolic
        if not symbolic and id(entry) not in self._known:
            if "complex" in qml.math.get_dtype_name(entry):
                raise ValueError(f"{name} expects numbers, got a free complex parameter; bind it first.")
            self._known[id(entry)] = entry, self._fresh(entry, Input if batched else Weight)
        if self._symbolic and self._known:
            raise ValueError("a tape expects symbols or data for its free parameters, got both; bind the symbols.")
        return entry if symbolic else self._known[id(entry)][1]

    def _fresh(self, entry: Any, kind: type) -> Any:
        """An object array of new symbols, one per entry (of one sample)."""
        qml = _pennylane()
        shape = tuple(qml.math.shape(entry))
        columns = qml.math.reshape(entry, (shape[0], -1) if kind is Input else (-1,))
        self._found[kind].append(columns)
        first, size = self._counts[kind], columns.shape[-1]
        self._counts[kind] += size
        symbols = np.empty(size, dtype=object)
        symbols[:] = [Symbol(kind(first + k)) for k in range(size)]
        return symbols.reshape(shape[1:] if kind is Input else shape)


def to_observable(observable: PauliSum) -> "Operator":
    """Return a Pauli sum as PennyLane's operator on the same wires.

    >>> from circuits import X, Z
    >>> to_observable(0.5 * Z(0) @ X(1))
    0.5 * (Z(0) @ X(1))
    """
    qml = _pennylane()
    words = [qml.pauli.PauliWord(dict(word)) for word, _ in observable.terms]
    with qml.QueuingManager.stop_recording():
        made = [qml.Identity(0) if not word else word.operation() for word in words]
        if [c for _, c in observable.terms] == [1.0]:
            return made[0]
        return qml.dot([c for _, c in observable.terms] or [0.0], made or [qml.Identity(0)])


def from_observable(operator: "Operator", wires: Sequence[Any] | None = None) -> PauliSum:
    """Return a PennyLane operator that is a real sum of Pauli words; wire k is the label ``wires[k]`` (None: numbers).

    Raises ValueError for an operator that PennyLane does not write in Pauli words, and for complex coefficients.

    >>> import pennylane as qml
    >>> from_observable(2 * qml.X("b") @ qml.Z("a"), wires=("a", "b"))
    2.0 * Z(0) @ X(1)
    """
    sentence: Any = operator.pauli_rep
    if sentence is None:
        raise ValueError(f"an observable expects a sum of Pauli words, got {operator.name}; see qml.pauli_decompose.")
    place: dict[Any, Any] = {w: w for w in operator.wires} if wires is None else {w: k for k, w in enumerate(wires)}
    terms = ((tuple((place[label], letter) for label, letter in word.items()), c) for word, c in sentence.items())
    return PauliSum(tuple(terms))
