"""Other simulators at the work of `work.py`, each in the quickest of the forms its own interface offers.

Each peer's expectations are taken from its state vector where it gives one, since that was quicker with all of them
than its own observables.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor

from benchmarks.statevector.work import LAYERS, Step, Work
from circuits import Circuit

Prepare = Callable[[Work], Step]


def signs(n_wires: int) -> Tensor:
    """Z on each wire as signs of the basis states, (2**n, n)."""
    shifts = torch.arange(n_wires - 1, -1, -1)
    return 1.0 - 2.0 * ((torch.arange(2**n_wires)[:, None] >> shifts) & 1)


def pennylane(device: str, method: str, work: Work) -> Step:
    """A device of PennyLane, through its torch interface and in its own broadcasting."""
    import pennylane as qml

    @qml.qnode(qml.device(device, wires=work.n_wires), interface="torch", diff_method=method)
    def node(inputs: Tensor, weights: Tensor):
        w_in_pennylane(inputs, weights, work.n_wires)
        return [qml.expval(qml.PauliZ(wire)) for wire in range(work.n_wires)]

    return lambda: work.finish(torch.stack(tuple(node(work.inputs, work.weights)), -1).float())


def w_in_pennylane(inputs: Tensor, weights: Tensor, n_wires: int) -> None:
    """W's gates on PennyLane's queue."""
    _encode(inputs, n_wires)
    for layer in weights.reshape(LAYERS, n_wires, 3):
        _layer(layer, n_wires)


def reuploading_in_pennylane(inputs: Tensor, weights: Tensor, n_wires: int) -> None:
    """W with the encoding before each layer: without that, fidelities would not depend on the weights."""
    for layer in weights.reshape(LAYERS, n_wires, 3):
        _encode(inputs, n_wires)
        _layer(layer, n_wires)


def _encode(inputs: Tensor, n_wires: int) -> None:
    import pennylane as qml

    for wire in range(n_wires):
        qml.RY(inputs[..., wire], wires=wire)


def _layer(weights: Tensor, n_wires: int) -> None:
    import pennylane as qml

    for wire in range(n_wires):
        for gate, angle in zip((qml.RX, qml.RY, qml.RZ), weights[wire], strict=True):
            gate(angle, wires=wire)
    for wire in range(n_wires):
        qml.CNOT(wires=(wire, (wire + 1) % n_wires))


def pyqtorch(work: Work) -> Step:
    """pyqtorch, backpropagation, any circuit of ours gate by gate; <Z> on each wire."""
    run, table = pyqtorch_states(work.circuit), signs(work.n_wires)

    def step() -> tuple[Tensor, ...]:
        states = run(work.circuit.angles(work.inputs, work.weights))
        return work.finish(states.abs().square().T @ table)

    return step


def pyqtorch_states(circuit: Circuit) -> Callable[[Tensor], Tensor]:
    """The circuit in pyqtorch: states (2**n, b) at angles (b, a); shared angles are bound once."""
    import pyqtorch as pyq

    plain = {"x": pyq.X, "y": pyq.Y, "z": pyq.Z, "h": pyq.H, "s": pyq.S, "sdg": pyq.SDagger, "t": pyq.T}
    plain |= {"cx": pyq.CNOT, "cy": pyq.CY, "cz": pyq.CZ, "swap": pyq.SWAP}
    turned = {"rx": pyq.RX, "ry": pyq.RY, "rz": pyq.RZ, "p": pyq.PHASE}
    fixed = {"tdg": (pyq.PHASE, -torch.pi / 4), "sx": (pyq.RX, torch.pi / 2), "sxdg": (pyq.RX, -torch.pi / 2)}
    gates = []
    columns = iter(range(circuit.n_angles))
    for op in circuit.ops:
        if op.name in plain:
            gates.append(plain[op.name](*op.wires))
        elif op.name in turned:
            gates.append(turned[op.name](op.wires[0], f"a{next(columns)}"))
        elif op.name in fixed:
            kind, angle = fixed[op.name]
            gates.append(kind(op.wires[0], angle))
        elif op.name == "ch":
            first, second = op.wires
            gates += [pyq.RY(second, -torch.pi / 4), pyq.CZ(first, second), pyq.RY(second, torch.pi / 4)]
        elif op.name in ("rxx", "ryy", "rzz"):
            gates += _pair(op.name, op.wires, f"a{next(columns)}")
        elif op.name != "id":
            raise ValueError(f"pyqtorch has no gate {op.name!r}; leave it out of what is measured.")
    prepared = pyq.QuantumCircuit(circuit.n_wires, gates).to(dtype=torch.complex64)
    shared = circuit.shared

    def run(angles: Tensor) -> Tensor:
        values = {f"a{k}": angles[0, k] if common else angles[:, k] for k, common in enumerate(shared)}
        return pyq.run(prepared, prepared.init_state(len(angles)), values).reshape(2**circuit.n_wires, -1)

    return run


def _pair(name: str, wires: tuple[int, ...], angle: str) -> list[torch.nn.Module]:
    """A rotation about XX, YY or ZZ as RZ between two CNOTs, in the basis of its letter."""
    import pyqtorch as pyq

    first, second = wires
    into = {"rxx": lambda wire, _: pyq.H(wire), "ryy": lambda wire, sign: pyq.RX(wire, sign * torch.pi / 2)}.get(name)
    before = [into(wire, 1) for wire in wires] if into else []
    after = [into(wire, -1) for wire in wires] if into else []
    return [*before, pyq.CNOT(first, second), pyq.RZ(second, angle), pyq.CNOT(first, second), *after]


def tensorcircuit(work: Work) -> Step:
    """tensorcircuit-ng on torch, a sample at a time under vmap, backpropagation."""
    import tensorcircuit as tc

    tc.set_backend("pytorch")
    table, n_wires = signs(work.n_wires), work.n_wires

    def one(inputs: Tensor, weights: Tensor) -> Tensor:
        circuit = tc.Circuit(n_wires)
        for wire in range(n_wires):
            circuit.ry(wire, theta=inputs[wire])
        for layer in weights.reshape(LAYERS, n_wires, 3):
            for wire in range(n_wires):
                circuit.rx(wire, theta=layer[wire, 0])
                circuit.ry(wire, theta=layer[wire, 1])
                circuit.rz(wire, theta=layer[wire, 2])
            for wire in range(n_wires):
                circuit.cnot(wire, (wire + 1) % n_wires)
        state = circuit.state()
        return (state.real.square() + state.imag.square()) @ table

    batched = torch.vmap(one, in_dims=(0, None))
    return lambda: work.finish(batched(work.inputs, work.weights))


PEERS: dict[str, tuple[str, Prepare]] = {
    "default.qubit": ("pennylane", partial(pennylane, "default.qubit", "backprop")),
    "lightning.qubit": ("pennylane_lightning", partial(pennylane, "lightning.qubit", "adjoint")),
    "pyqtorch": ("pyqtorch", pyqtorch),
    "tensorcircuit-ng": ("tensorcircuit-ng", tensorcircuit),
}
"""Name: the distribution it comes in, and its step."""
NEVER = {
    "torchquantum": "0.1.8 asks for dill 0.3.4 and qiskit below 1.0, the extra qiskit for 2.6: not together",
}
"""Peers that cannot be installed here, and why."""


def missing(distribution: str) -> str | None:
    """Why a peer is not measured, or None."""
    try:
        version(distribution)
    except PackageNotFoundError:
        return f"{distribution} is not installed; the extra bench has it"
    return None


def versions() -> dict[str, str]:
    names = ("torch", "numpy", "numba", *(distribution for distribution, _ in PEERS.values()))
    return {name: version(name) for name in names if missing(name) is None}
