"""W with three layers on many wires, as ours and each peer run it: forward and gradient.

Axis legend: n wires, N = 2**n amplitudes.
"""

from collections.abc import Callable
from typing import Any

LAYERS = 3
Step = Callable[[], Any]


def angles_of(n_wires: int) -> tuple[Any, Any, Any]:
    """Inputs (n,), weights (3 3 n,) and the coefficients (n,) of the observables' sum."""
    import numpy as np

    draw = np.random.default_rng(n_wires)
    return (
        draw.uniform(-1, 1, n_wires),
        draw.uniform(-np.pi, np.pi, LAYERS * 3 * n_wires),
        draw.uniform(-1, 1, n_wires),
    )


def gates(n_wires: int) -> list[tuple[str, tuple[int, ...], int]]:
    """W as (name, wires, number of its angle among inputs and weights, or -1)."""
    found: list[tuple[str, tuple[int, ...], int]] = [("ry", (wire,), wire) for wire in range(n_wires)]
    number = n_wires
    for _ in range(LAYERS):
        for wire in range(n_wires):
            for name in ("rx", "ry", "rz"):
                found.append((name, (wire,), number))
                number += 1
        found += [("cx", (wire, (wire + 1) % n_wires), -1) for wire in range(n_wires)]
    return found


def ours(n_wires: int) -> tuple[Step, Step]:
    import torch

    from backends import open_backend
    from circuits import Circuit, Input, Op, Weight, Z

    def slot(number: int) -> tuple[Input | Weight, ...]:
        return () if number < 0 else (Input(number) if number < n_wires else Weight(number - n_wires),)

    circuit = Circuit(n_wires, tuple(Op(name, wires, slot(number)) for name, wires, number in gates(n_wires)))
    backend, observables = open_backend("statevector"), tuple(Z(wire) for wire in range(n_wires))
    x, w, c = (torch.tensor(part, dtype=torch.float32) for part in angles_of(n_wires))

    def forward() -> Any:
        with torch.no_grad():
            return backend.expectations(circuit, x[None], w, observables).values[0].numpy()

    def gradient() -> Any:
        inputs, weights = x[None].clone().requires_grad_(), w.clone().requires_grad_()
        (backend.expectations(circuit, inputs, weights, observables).values[0] @ c).backward()
        return torch.cat((inputs.grad[0], weights.grad)).numpy()  # pyright: ignore[reportOptionalSubscript] -- after backward

    return forward, gradient


def lightning(n_wires: int, batch_obs: bool = False) -> tuple[Step, Step]:
    import numpy as np
    import pennylane as qml
    from pennylane.devices import ExecutionConfig

    x, w, c = angles_of(n_wires)
    numbers = np.concatenate((x, w))
    names = {"rx": qml.RX, "ry": qml.RY, "rz": qml.RZ}
    ops = [
        qml.CNOT(wires=wires) if number < 0 else names[name](numbers[number], wires=wires)
        for name, wires, number in gates(n_wires)
    ]
    device = qml.device("lightning.qubit", wires=n_wires, c_dtype=np.complex64, batch_obs=batch_obs)
    values = qml.tape.QuantumScript(ops, [qml.expval(qml.Z(wire)) for wire in range(n_wires)])
    whole = qml.Hamiltonian(c, [qml.Z(wire) for wire in range(n_wires)])
    total = qml.tape.QuantumScript(ops, [qml.expval(whole)], trainable_params=list(range(len(numbers))))
    order = [number for *_, number in gates(n_wires) if number >= 0]
    config = device.setup_execution_config(ExecutionConfig(gradient_method="adjoint"), total)

    def gradient() -> Any:
        found = np.empty(len(numbers))
        found[order] = np.array(device.compute_derivatives(total, config)).reshape(-1)
        return found

    return lambda: np.array(device.execute(values)), gradient


def qulacs(n_wires: int, merged: bool = False) -> tuple[Step, Step | None]:
    import numpy as np
    from qulacs import Observable, ParametricQuantumCircuit, QuantumCircuit, QuantumState
    from qulacs.circuit import QuantumCircuitOptimizer

    x, w, c = angles_of(n_wires)
    numbers = np.concatenate((x, w))
    fixed, parametric = QuantumCircuit(n_wires), ParametricQuantumCircuit(n_wires)
    for name, wires, number in gates(n_wires):
        for circuit, kind in ((fixed, "add_{}_gate"), (parametric, "add_parametric_{}_gate")):
            if number < 0:
                circuit.add_CNOT_gate(*wires)
            else:  # its rotations are exp(+i t P / 2)
                getattr(circuit, kind.format(name.upper()))(wires[0], -numbers[number])
    singles = [Observable(n_wires) for _ in range(n_wires)]
    whole = Observable(n_wires)
    for wire in range(n_wires):
        singles[wire].add_operator(1.0, f"Z {wire}")
        whole.add_operator(c[wire], f"Z {wire}")
    if merged:
        QuantumCircuitOptimizer().optimize(fixed, 2)
    order = [number for *_, number in gates(n_wires) if number >= 0]

    def forward() -> Any:
        state = QuantumState(n_wires)
        fixed.update_quantum_state(state)
        return np.array([single.get_expectation_value(state) for single in singles])

    def gradient() -> Any:
        found = np.empty(len(numbers))
        found[order] = -np.array(parametric.backprop(whole))
        return found

    return forward, None if merged else gradient


PEERS: dict[str, Callable[[int], tuple[Step, Step | None]]] = {
    "lightning": lightning,
    "lightning, batch_obs": lambda n_wires: lightning(n_wires, True),
    "qulacs": qulacs,
    "qulacs, merged": lambda n_wires: qulacs(n_wires, True),
}
