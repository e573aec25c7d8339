"""Circuits in a device's own gates, on its own qubits; and a large device cut down to the few that a circuit uses.

A density matrix of all 156 qubits of a device cannot be held; that of the six qubits in use takes milliseconds.

Axis legend: a angles.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuits import Circuit
from circuits.interop.qiskit_circuit import BASIS, to_qiskit

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector
    from qiskit.providers import BackendV2
    from qiskit.transpiler import Target
    from qiskit_aer.noise import NoiseModel

_OPTIMIZATION_LEVEL = 2
"""From here on the layout chooses qubits by their errors; 3 takes longer and gains little."""
_SEED = 0


@dataclass(frozen=True)
class Placed:
    """A circuit as an engine runs it.

    ``columns``: the columns of the angles that its parameters, in their order, are; ``qubits``: where each wire is
    found at the end, by wire; ``physical``: the device's number of each qubit of the circuit.
    """

    circuit: "QuantumCircuit"
    columns: tuple[int, ...]
    qubits: tuple[int, ...]
    physical: tuple[int, ...] = ()


def place(device: Any, circuit: Circuit, wires: tuple[int, ...] = (), rotated: tuple[int, ...] = ()) -> Placed:
    """Transpile a circuit for a device: its gates, its couplings, a layout (level 2 of 3, fixed seed).

    ``wires`` are then measured, as ``interop.qiskit_circuit.measured`` does it, where the layout has put them: what is
    measured, and in which bases, does not move the circuit. Columns count the angles, then the two parameters of each
    of the ``rotated`` wires. Raises ValueError where the device is too small.

    >>> from backends.ibm.devices import open_device
    >>> from circuits import Op
    >>> placed = place(open_device("fake_manila"), Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))), wires=(0,))
    >>> sorted(placed.circuit.count_ops()), placed.circuit.num_qubits, len(placed.qubits)
    (['cx', 'measure', 'rz', 'sx'], 5, 2)
    """
    from qiskit import transpile

    if circuit.n_wires > device.num_qubits:
        raise ValueError(
            f"device '{device.name}' expects at most {device.num_qubits} wires, got {circuit.n_wires}; use fewer."
        )
    made = to_qiskit(circuit)
    isa = transpile(made, device, optimization_level=_OPTIMIZATION_LEVEL, seed_transpiler=_SEED)
    isa.global_phase = 0  # it changes no result, and Aer takes no phase that depends on a parameter
    column = {parameter: number for number, parameter in enumerate(made.parameters)}
    final = isa.layout.final_index_layout() if isa.layout else range(circuit.n_wires)
    qubits = tuple(reversed(final))
    if wires:
        readout, basis = _readout(device, qubits, wires, rotated)
        isa.add_register(*readout.cregs)
        isa.compose(readout, inplace=True)
        column |= {parameter: circuit.n_angles + number for number, parameter in enumerate(basis)}
    columns = tuple(column[parameter] for parameter in isa.parameters)
    return Placed(isa, columns, qubits, tuple(range(isa.num_qubits)))


def _readout(
    device: Any, qubits: tuple[int, ...], wires: tuple[int, ...], rotated: tuple[int, ...]
) -> tuple["QuantumCircuit", "ParameterVector"]:
    """RZ, RY on the rotated wires and measurements, in the device's gates on its qubits; and the angles' parameters."""
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
    from qiskit.circuit import ParameterVector

    bits, basis = ClassicalRegister(len(wires), "bits"), ParameterVector(BASIS, 2 * len(rotated))
    made = QuantumCircuit(QuantumRegister(device.num_qubits), bits)
    for position, wire in enumerate(rotated):
        made.rz(basis[2 * position], qubits[wire])
        made.ry(basis[2 * position + 1], qubits[wire])
    for position, wire in enumerate(wires):
        made.measure(qubits[wire], bits[len(wires) - 1 - position])
    isa = transpile(made, device, optimization_level=0, initial_layout=list(range(device.num_qubits)))
    isa.global_phase = 0
    return isa, basis


def narrowed(placed: Placed) -> Placed:
    """Return the same circuit on the qubits that it uses alone, in ascending order of the device's numbers.

    >>> from qiskit import QuantumCircuit
    >>> made = QuantumCircuit(5)
    >>> _ = made.x(3)
    >>> small = narrowed(Placed(made, (), (3, 1), (0, 1, 2, 3, 4)))
    >>> small.circuit.num_qubits, small.qubits, small.physical
    (2, (1, 0), (1, 3))
    """
    from qiskit import QuantumCircuit, QuantumRegister

    wide = placed.circuit
    numbers = {qubit: index for index, qubit in enumerate(wide.qubits)}
    used = {numbers[qubit] for step in wide.data if step.operation.name != "barrier" for qubit in step.qubits}
    kept = sorted(used | set(placed.qubits))
    place_of = {number: index for index, number in enumerate(kept)}
    small = QuantumCircuit(QuantumRegister(len(kept), "q"), *wide.cregs)  # the name that marks physical qubits
    for step in wide.data:
        qubits = [place_of[numbers[qubit]] for qubit in step.qubits if numbers[qubit] in place_of]
        if step.operation.name == "barrier":
            small.barrier(qubits)
        else:
            small.append(step.operation, qubits, step.clbits)
    return Placed(
        small,
        placed.columns,
        tuple(place_of[qubit] for qubit in placed.qubits),
        tuple(placed.physical[number] for number in kept),
    )


def part(device: Any, physical: tuple[int, ...]) -> "BackendV2":
    """Return a few qubits of a device, numbered in the order given: the gates among them, errors and times.

    It cannot run anything; noise models and simulators are made from it, at the cost of the qubits kept, not of all.

    >>> from backends.ibm.devices import open_device
    >>> part(open_device("fake_fez"), (140, 141)).num_qubits
    2
    """
    from qiskit.providers import BackendV2, Options

    kept = _sub_target(device.target, physical)

    class Part(BackendV2):
        """A few qubits of a device."""

        @property
        def target(self) -> Any:
            return kept

        @property
        def max_circuits(self) -> Any:
            return None

        @classmethod
        def _default_options(cls) -> Any:
            return Options()

        def run(self, run_input: Any, **options: Any) -> Any:
            raise NotImplementedError("a part of a device expects to be simulated, not run; use AerSimulator.")

    return Part(name=device.name)


def noise_model(device: Any, physical: tuple[int, ...]) -> "NoiseModel":
    """Return the noise of a device's gates and readout on a few of its qubits, numbered in the order given.

    Depolarising noise of each gate's error beside T1 and T2 during its time, and each qubit's readout error, from the
    device's calibration. Idle times make no noise: circuits are not scheduled.

    >>> from backends.ibm.devices import open_device
    >>> noise_model(open_device("fake_fez"), (140, 141)).noise_qubits
    [0, 1]
    """
    from qiskit_aer.noise import NoiseModel

    return NoiseModel.from_backend(part(device, physical))


def _sub_target(target: "Target", physical: tuple[int, ...]) -> "Target":
    """The gates among some qubits, with their errors and times; qubits renumbered in the order given."""
    from qiskit.transpiler import Target

    place_of = {number: index for index, number in enumerate(physical)}
    properties = target.qubit_properties
    small = Target(
        num_qubits=len(physical),
        dt=target.dt,
        granularity=target.granularity,
        qubit_properties=[properties[number] for number in physical] if properties else None,
    )
    for name in target.operation_names:
        operation, places = target.operation_from_name(name), target[name]
        if isinstance(operation, type) or not places:
            continue  # control flow, and gates on no qubits in particular, have no noise of their own
        kept = {
            tuple(place_of[qubit] for qubit in qubits): found
            for qubits, found in places.items()
            if qubits and all(qubit in place_of for qubit in qubits)
        }
        if kept:
            small.add_instruction(operation, kept, name=name)
    return small
