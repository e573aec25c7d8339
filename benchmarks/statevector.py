"""The compiled state-vector simulator against PennyLane, forward and gradient, in one process and on one thread.

    python -m benchmarks.statevector                  # five sizes; PennyLane's default.qubit and lightning.qubit
    python -m benchmarks.statevector --rounds 3

The work: RY(x) on each wire, three layers of (RX RY RZ on each wire, a ring of CNOTs), all <Z_i>; the gradient of a
random combination for inputs and weights. Results are compared before anything is timed: values to 1e-5 and gradients
to 1e-4, in single precision. Times are medians of interleaved rounds; peers that take over a minute for a call are left
out of a size, and the table says so.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from backends import open_backend
from circuits import Circuit, Z
from circuits.library import angle_encoding, hardware_efficient

SIZES = ((4, 1024), (4, 8192), (8, 512), (12, 64), (16, 4))
LAYERS = 3
PATIENCE = 60.0
"""Seconds."""
Step = Callable[[], tuple[Tensor, Tensor, Tensor]]
"""Values (b, n), gradient of inputs (b, n) and of weights (w,)."""


class Work:
    """The circuit and random data of one size."""

    def __init__(self, n_wires: int, batch: int) -> None:
        torch.manual_seed(0)
        self.n_wires, self.batch = n_wires, batch
        self.circuit: Circuit = angle_encoding(n_wires) + hardware_efficient(n_wires, LAYERS)
        self.inputs = (6 * torch.rand(batch, n_wires) - 3).requires_grad_()
        self.weights = (6 * torch.rand(self.circuit.n_weights) - 3).requires_grad_()
        self.cotangent = torch.randn(batch, n_wires)

    def finish(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The values with both gradients."""
        return values.detach(), *torch.autograd.grad(values, (self.inputs, self.weights), self.cotangent)


def ours(work: Work) -> Step:
    """Our backend, through its public method."""
    backend, observables = open_backend("statevector"), tuple(Z(wire) for wire in range(work.n_wires))
    return lambda: work.finish(backend.expectations(work.circuit, work.inputs, work.weights, observables).values)


def pennylane(device: str, method: str) -> Callable[[Work], Step]:
    """A device of PennyLane, through its torch interface and in its own broadcasting."""

    def prepare(work: Work) -> Step:
        import pennylane as qml

        @qml.qnode(qml.device(device, wires=work.n_wires), interface="torch", diff_method=method)
        def node(inputs: Tensor, weights: Tensor):
            for wire in range(work.n_wires):
                qml.RY(inputs[..., wire], wires=wire)
            for layer in weights.reshape(LAYERS, work.n_wires, 3):
                for wire in range(work.n_wires):
                    for gate, angle in zip((qml.RX, qml.RY, qml.RZ), layer[wire], strict=True):
                        gate(angle, wires=wire)
                for wire in range(work.n_wires):
                    qml.CNOT(wires=(wire, (wire + 1) % work.n_wires))
            return [qml.expval(qml.PauliZ(wire)) for wire in range(work.n_wires)]

        def step() -> tuple[Tensor, Tensor, Tensor]:
            return work.finish(torch.stack(tuple(node(work.inputs, work.weights)), -1).float())

        return step

    return prepare


PEERS: dict[str, Callable[[Work], Step]] = {
    "default.qubit": pennylane("default.qubit", "backprop"),
    "lightning.qubit": pennylane("lightning.qubit", "adjoint"),
}


def check(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...], name: str) -> None:
    """Raise AssertionError unless both computed the same."""
    for what, one, other, bound in zip(("values", "inputs", "weights"), mine, theirs, (1e-5, 1e-4, 1e-4), strict=True):
        error = float((one - other).norm() / other.norm())
        if not error < bound:
            raise AssertionError(f"{name}: {what} differ by {error:.1e} of their norm")


def seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure(work: Work, rounds: int) -> dict[str, list[float]]:
    """Times of our step and of each peer that is quick enough."""
    steps, found = {"ours": ours(work)}, ours(work)()
    for name, prepare in PEERS.items():
        step = prepare(work)
        started = time.perf_counter()
        check(found, step(), name)
        if time.perf_counter() - started < PATIENCE:
            steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"{'wires x batch':>14} {'ours, ms':>9}" + "".join(f"{name:>18}" for name in PEERS))
    for n_wires, batch in SIZES:
        times = {name: statistics.median(found) for name, found in measure(Work(n_wires, batch), rounds).items()}
        ratios = (f"{times[name] / times['ours']:.0f} x" if name in times else "over a minute" for name in PEERS)
        print(f"{f'{n_wires} x {batch}':>14} {1e3 * times['ours']:9.2f}" + "".join(f"{ratio:>18}" for ratio in ratios))


if __name__ == "__main__":
    main()
