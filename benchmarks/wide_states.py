"""One large circuit, W with three layers, on a CPU: ours against lightning.qubit and qulacs, forward and gradient.

W: RY(x) on each wire, three layers of (RX RY RZ on each wire, a ring of CNOTs). Forward: all <Z_i>; gradient: of their
weighted sum, for inputs and weights, by the adjoint method. Each peer is given its best form: circuits and tapes are
built beforehand, lightning differentiates one observable (the sum) and not n of them, and qulacs also runs with its
gates merged by its own optimiser (built beforehand too, and without a gradient). Ours runs through the backend, from
torch tensors, with everything that a training step pays for. qulacs computes in double precision, which it always does.

    python -m benchmarks.wide_states --wires 20 24 --threads 1

Before anything is measured, all must agree to 1e-4 (at 24 wires it is lightning's sums in single precision that are
off: ours agree with double precision to 1e-6). Ratios of medians over interleaved rounds. The roofline: bytes that the
passes move at the machine's copy bandwidth, and operations at its FMA rate.

Axis legend: n wires, N = 2**n amplitudes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent / "results" / "wide_states.json"
LAYERS = 3
PATIENCE = 20.0
"""Seconds of a step that is not repeated."""
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


def rounds_of(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each step."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def compare(n_wires: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds, and peers' over ours. Whoever takes long runs once, and has no gradient after that."""
    import numpy as np

    everyone: dict[str, tuple[Step, Step | None]] = {"ours": ours(n_wires)}
    everyone |= {name: prepare(n_wires) for name, prepare in PEERS.items()}
    report: dict[str, Any] = {}
    slow: dict[str, float] = {}
    for place, what in enumerate(("forward", "gradient")):
        steps = {name: step for name, both in everyone.items() if (step := both[place]) and name not in slow}
        answers: dict[str, Any] = {}
        errors: dict[str, float] = {}
        for name, step in steps.items():
            started = time.perf_counter()
            answers[name] = step()
            if (took := time.perf_counter() - started) > PATIENCE:
                slow[name] = took
        for name, answer in answers.items():
            errors[name] = float(np.abs(answer - answers["ours"]).max())
            if not errors[name] < 1e-4:
                raise AssertionError(f"{what} of {name} on {n_wires} wires differs from ours by {errors[name]:.1e}")
        median = rounds_of({name: step for name, step in steps.items() if name not in slow}, rounds)
        median |= {name: found for name, found in slow.items() if name in steps}
        report[what] = {
            "ms": {name: 1e3 * found for name, found in median.items()},
            "times ours": {name: found / median["ours"] for name, found in median.items() if name != "ours"},
            "differs from ours by": errors,
        }
    return report


def roofline(n_wires: int, milliseconds: float) -> dict[str, float]:
    """What bounds the forward pass: its traffic at the speed of copying, its operations at that of a matrix product."""
    import numpy as np
    import torch

    from backends.statevector.wide_lowering import lower_observed
    from backends.statevector.wide_schedule import MATRIX

    ops = tuple((name, wires) for name, wires, _ in gates(n_wires))
    program = lower_observed(n_wires, ops, (len(ops),), frozenset(range(n_wires)))
    size, passes = 8 << n_wires, program.stretches[0]
    n_matrices = sum(int((passed.code[:, 0] == MATRIX).sum()) for passed in passes)
    moved = size * (2 * len(passes) - 1 + 1)  # the first pass only writes, measuring only reads
    source, target = np.ones(size // 4, np.float32), np.ones(size // 4, np.float32)
    square = torch.ones(1024, 1024)
    copy = rounds_of({"copy": lambda: np.copyto(target, source)}, 7)["copy"]
    product = rounds_of({"product": lambda: square @ square}, 7)["product"]
    operations = 14.0 * n_matrices * 2**n_wires
    return {
        "passes": len(passes),
        "matrices": n_matrices,
        "ms of traffic": 1e3 * moved * copy / (2 * size),
        "ms of operations": 1e3 * operations * product / (2 * 1024**3),
        "ms": milliseconds,
    }


def memory(n_wires: int) -> float:
    """Peak growth of this process in a forward pass, over the state's own memory; run in a process of its own."""
    forward, _ = ours(17)
    forward()
    forward, _ = ours(n_wires)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (8 << n_wires)


def _child(arguments: list[str], threads: int) -> Any:
    names = ("OMP_NUM_THREADS", "QULACS_NUM_THREADS", "MKL_NUM_THREADS")
    command = [sys.executable, "-m", "benchmarks.wide_states", *arguments]
    told = subprocess.run(
        command, env=os.environ | dict.fromkeys(names, str(threads)), check=True, capture_output=True, text=True
    )
    return json.loads(told.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wires", type=int, nargs="*", default=[20, 24])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="*", default=[24], help="wires of the forward passes weighed")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--child", choices=("compare", "memory"), default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child == "compare":
        report = compare(given.wires[0], given.rounds)
        report["roofline"] = roofline(given.wires[0], report["forward"]["ms"]["ours"])
        print(json.dumps(report))
    elif given.child == "memory":
        print(json.dumps(memory(given.wires[0])))
    else:
        found: dict[str, Any] = {"threads": given.threads}
        for n_wires in given.wires:
            arguments = ["--child", "compare", "--wires", str(n_wires), "--rounds", str(given.rounds)]
            found[f"{n_wires} wires"] = _child(arguments, given.threads)
        for n_wires in given.memory:
            arguments = ["--child", "memory", "--wires", str(n_wires)]
            found[f"memory of {n_wires} wires, in states"] = _child(arguments, given.threads)
        print(json.dumps(found, indent=1))
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
