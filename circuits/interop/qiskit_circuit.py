"""Circuits for Qiskit; wires reversed, because qubit 0 is the least significant bit. ``qiskit_import`` is the way back.

Axis legend: n wires, a angles, r rotated wires.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from circuits.gates import GATES
from circuits.ir import RESET, Circuit
from circuits.slots import Input, Product, Slot

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

ANGLE = "angle"
"""Name of the parameter vector that holds the angle columns."""
BASIS = "basis"
"""Name of the parameter vector that chooses the measurement basis."""


def to_qiskit(circuit: Circuit) -> "QuantumCircuit":
    """Return the circuit for Qiskit: wire w becomes qubit n-1-w, angle column k the k-th parameter of one vector.

    Bind ``circuit.angles(inputs, weights)`` to ``.parameters``, which are in column order. Numbers are parameters too,
    so that one Qiskit circuit serves the whole batch. The global phase, which changes no result, is dropped. Raises
    ImportError without Qiskit. Cost O(ops).

    >>> from circuits import Input, Op
    >>> made = to_qiskit(Circuit(2, (Op("rx", (0,), (Input(0),)), Op("cx", (0, 1)))))
    >>> [(step.name, [made.find_bit(qubit).index for qubit in step.qubits]) for step in made.data]
    [('rx', [1]), ('cx', [1, 0])]
    """
    from qiskit.circuit import ParameterVector

    angles = iter(ParameterVector(ANGLE, circuit.n_angles))
    return _made(circuit, lambda _: next(angles))


def with_parameters(circuit: Circuit) -> "QuantumCircuit":
    """Return the circuit for Qiskit with its own free parameters: ``input[i]`` and ``weight[j]``, in expressions.

    Numbers stay numbers, and the global phase is kept; ``from_qiskit`` gives the circuit back (products as sums and
    products of the same value). Wires are reversed as in ``to_qiskit``, which serves better to run a circuit. Raises
    ImportError without Qiskit. Cost O(ops).

    >>> from circuits import Op
    >>> made = with_parameters(Circuit(1, (Op("rx", (0,), (Input(3, scale=2.0, shift=0.5),)),)))
    >>> [parameter.name for parameter in made.parameters]
    ['input[3]']
    """
    from qiskit.circuit import ParameterVector

    inputs, weights = ParameterVector("input", circuit.n_inputs), ParameterVector("weight", circuit.n_weights)

    def value(slot: Slot) -> Any:
        if isinstance(slot, float | int):
            return slot
        if isinstance(slot, Product):
            core = value(slot.left) * value(slot.right)
        else:
            core = inputs[slot.index] if isinstance(slot, Input) else weights[slot.index]
        scaled = core if slot.scale == 1 else slot.scale * core
        return scaled if slot.shift == 0 else scaled + slot.shift

    made = _made(circuit, value)
    made.global_phase = sum(value(slot) for slot in circuit.global_phase)
    return made


def _made(circuit: Circuit, value: Callable[[Slot], Any]) -> "QuantumCircuit":
    """The circuit with each slot's value as ``value`` says, called in program order."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import library

    made = QuantumCircuit(circuit.n_wires)
    for op in circuit.ops:
        qubits = [circuit.n_wires - 1 - wire for wire in op.wires]
        if op.name == RESET:
            made.reset(qubits)
            continue
        gate = getattr(library, GATES[op.name].qiskit)
        made.append(gate(*(value(slot) for slot in op.slots)), qubits)
    return made


def measured(circuit: Circuit, wires: Sequence[int], rotated: Sequence[int] = ()) -> "QuantumCircuit":
    """Return ``to_qiskit(circuit)`` with ``wires`` measured; read as a number, the first wire is most significant.

    Each of the ``rotated`` wires first gets ``RY(b) RZ(a)`` with two parameters (a, b) of the vector "basis", so that
    one circuit measures every Pauli word: (0, 0) measures Z, (0, -pi/2) X and (-pi/2, -pi/2) Y.

    >>> made = measured(Circuit(2), (1,), rotated=(1,))
    >>> [step.name for step in made.data], len(made.parameters)
    (['rz', 'ry', 'measure'], 2)
    """
    from qiskit import ClassicalRegister
    from qiskit.circuit import ParameterVector

    made = to_qiskit(circuit)
    bits = ClassicalRegister(len(wires), "bits")
    made.add_register(bits)
    basis = ParameterVector(BASIS, 2 * len(rotated))
    for position, wire in enumerate(rotated):
        made.rz(basis[2 * position], circuit.n_wires - 1 - wire)
        made.ry(basis[2 * position + 1], circuit.n_wires - 1 - wire)
    for position, wire in enumerate(wires):
        made.measure(circuit.n_wires - 1 - wire, bits[len(wires) - 1 - position])
    return made
