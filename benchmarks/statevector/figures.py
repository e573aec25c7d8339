"""The figures: none is told unless both sides compute the same.

Every function yields rows of the report; a goal stands where the project has one.
"""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from backends import open_backend
from benchmarks.statevector.peers import NEVER, PEERS, missing, reuploading_in_pennylane, w_in_pennylane
from benchmarks.statevector.roofline import Machine, roof
from benchmarks.statevector.specialised import specialised
from benchmarks.statevector.timing import Figure, compared
from benchmarks.statevector.work import LAYERS, SIZES, Step, Work, check, ours, workload
from circuits.library import reuploading
from qlm import QLMConfig, QLMForCausalLM

GOALS = {
    "default.qubit": (50, 60, 80, 60, 30),
    "pyqtorch": (33, 22, 40, 25, 15),
    "tensorcircuit-ng": (15, 15, 15, 15, 8),
}
"""How many times quicker than a peer, at each size."""
NEAR = 1.1
"""How much slower than W compiled by hand."""
SINGLE_ENTROPY = (1e-5, 1e-3, 1e-3)
"""In single precision, eigenvalues near its rounding have no gradient; PennyLane computes in double."""
HALF = {(4, 1024), (16, 4)}
"""Sizes at which half of its distance to the arithmetic's bound is the goal."""


def against_peer(rounds: int, name: str) -> Iterator[Figure]:
    """W, forward and backward, against one peer at each size."""
    reason = NEVER.get(name) or missing(PEERS[name][0])
    if reason is not None:
        yield Figure("peers", "all", name, None, note=reason)
        return
    for place, (n_wires, batch) in enumerate(SIZES):
        goal, work = GOALS[name][place] if name in GOALS else None, workload(n_wires, batch)
        yield compared("peers", f"{n_wires} x {batch}", {"ours": ours(work), name: PEERS[name][1](work)}, rounds, goal)


def against_hand(rounds: int, machine: Machine) -> Iterator[Figure]:
    """W against itself compiled by hand, and both against what the core could do."""
    for n_wires, batch in SIZES:
        work, size = workload(n_wires, batch), f"{n_wires} x {batch}"
        steps = {"ours": ours(work), "by hand": specialised(work)}
        figure = compared("by hand", size, steps, 5 * rounds, NEAR, at_most=True)
        yield figure
        best = roof(machine, n_wires, batch)
        flops, moved = 1e3 * best.seconds_of_flops, 1e3 * best.seconds_of_bytes
        note = f"{best.flops / 1e6:.3g} Mflop, {best.bytes / 1e6:.3g} MB"
        times = {"flops": flops, f"traffic in {best.level}": moved}
        for name, took in figure.times.items():
            yield Figure("roofline", size, f"reached, {name}", flops / took, times=times, note=note)
        distance = (figure.times["ours"] - flops) / (figure.times["by hand"] - flops)
        goal = 0.5 if (n_wires, batch) in HALF else None
        note = "our distance to the flops' time over that by hand"
        yield Figure("roofline", size, "distance", distance, goal, at_most=True, note=note)


def gram(rounds: int) -> Iterator[Figure]:
    """Fidelities between 64 tokens on 8 wires against PennyLane's states and a matrix product."""
    work, backend = Work(reuploading(8, LAYERS), 64), open_backend("statevector")

    def mine() -> tuple[Tensor, ...]:
        x, w = work.inputs, work.weights
        pairs = backend.fidelity(work.circuit, x, inputs_b=x, weights_a=w, weights_b=w, gram=True)
        return work.finish(pairs.values)

    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=8), interface="torch", diff_method="backprop")
    def states(inputs: Tensor, weights: Tensor):
        reuploading_in_pennylane(inputs, weights, 8)
        return qml.state()

    def theirs() -> tuple[Tensor, ...]:
        made = states(work.inputs, work.weights)
        return work.finish((made @ made.mH).abs().square().float())

    yield compared("gram", "8 x 64 x 64", {"ours": mine, "default.qubit": theirs}, rounds, 4)


def entropy(rounds: int) -> Iterator[Figure]:
    """Von Neumann entropy of the first half of the wires against PennyLane's."""
    for n_wires, batch, goal in ((4, 1024, 10), (8, 512, 60)):
        work = workload(n_wires, batch)
        steps = {"ours": _our_entropy(work), "default.qubit": _pennylanes_entropy(work)}
        steps["ours"]()  # draws the cotangent
        check(
            _our_entropy(work.double())(), steps["default.qubit"](), f"entropy on {n_wires} wires in double precision"
        )
        yield compared("entropy", f"{n_wires} x {batch}", steps, rounds, goal, bounds=SINGLE_ENTROPY)


def _our_entropy(work: Work) -> Step:
    backend, half = open_backend("statevector"), tuple(range(work.n_wires // 2))
    return lambda: work.finish(backend.entropy(work.circuit, work.inputs, work.weights, half).values)


def _pennylanes_entropy(work: Work) -> Step:
    import pennylane as qml

    @qml.qnode(qml.device("default.qubit", wires=work.n_wires), interface="torch", diff_method="backprop")
    def node(inputs: Tensor, weights: Tensor):
        w_in_pennylane(inputs, weights, work.n_wires)
        return qml.vn_entropy(wires=range(work.n_wires // 2))

    return lambda: work.finish(node(work.inputs, work.weights).float())  # pyright: ignore[reportAttributeAccessIssue] -- a torch tensor


def threads(rounds: int) -> Iterator[Figure]:
    """W at 8 x 512 on two threads against one."""
    work = workload(8, 512)
    step = ours(work)

    def on(n_threads: int) -> Step:
        def run() -> tuple[Tensor, ...]:
            torch.set_num_threads(n_threads)
            return step()

        return run

    steps = {"two threads": on(2), "one thread": on(1)}
    yield compared("threads", "8 x 512", steps, 3 * rounds, 1.7, clock=time.perf_counter)
    torch.set_num_threads(1)


class _Trained:
    """A model of the preset in one mode, with its optimizer and one batch of 16 rows of 128 bytes."""

    def __init__(self, mode: str) -> None:
        torch.manual_seed(0)
        self.model = QLMForCausalLM(QLMConfig.preset("tiny-hybrid", quantum=mode)).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.ids = torch.randint(256, (16, 128), generator=torch.Generator().manual_seed(1))

    def step(self) -> tuple[Tensor, ...]:
        self.optimizer.zero_grad()
        loss = self.model(self.ids, labels=self.ids).loss
        loss.backward()
        self.optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise AssertionError(f"the loss is {loss.item()}")
        return ()


def hybrid(rounds: int) -> Iterator[Figure]:
    """A training step of tiny-hybrid against the same model with its classical twin."""
    circuit, twin = _Trained("circuit"), _Trained("twin")
    before = [layer.weights.detach().clone() for _, layer in circuit.model.quantum_layers()]
    circuit.step()
    after = [layer.weights for _, layer in circuit.model.quantum_layers()]
    if not before or any(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
        raise AssertionError("a training step left the circuit's weights where they were")
    steps = {"circuit": circuit.step, "twin": twin.step}
    yield compared("hybrid", "16 x 128", steps, 2 * rounds, 1.15, at_most=True)
