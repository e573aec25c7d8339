"""Circuits for Qiskit: one parameter per angle column; wires reversed, because qubit 0 is the least significant bit.

Axis legend: n wires, a angles, r rotated wires.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from circuits.gates import GATES
from circuits.ir import RESET, Circuit

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
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector, library

    made = QuantumCircuit(circuit.n_wires)
    angles = iter(ParameterVector(ANGLE, circuit.n_angles))
    for op in circuit.ops:
        qubits = [circuit.n_wires - 1 - wire for wire in op.wires]
        if op.name == RESET:
            made.reset(qubits)
            continue
        gate = getattr(library, GATES[op.name].qiskit)
        made.append(gate(*(next(angles) for _ in op.slots)), qubits)
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
