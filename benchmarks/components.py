"""A training step with each quantum component against the same step with its classical twin.

    python -m benchmarks.components                   # every block that holds a circuit, and the head that does
    python -m benchmarks.components --rounds 9 --threads 2

The model is a small one: recurrence, the component, tensor-train layer, recurrence, 128 wide; a step is forward,
backward and Adam on 16 rows of 128 bytes. Medians of interleaved rounds in one process. Before it is timed, each model
must give a finite loss and move its circuit's weights.
"""

import argparse
import statistics
import time

import torch

from qlm import QLMConfig, QLMForCausalLM
from qlm.registry import BLOCKS, HEADS, block_class, head_class

BATCH, LENGTH, WIDTH = 16, 128, 128


def blocks(kind: str) -> list[dict[str, object]]:
    middle = [] if kind in HEADS else [{"kind": kind}]
    return [{"kind": "harmonic"}, *middle, {"kind": "tt_feed_forward"}, {"kind": "harmonic"}]


class Trained:
    """A model with one component in one mode, and its optimizer."""

    def __init__(self, kind: str, mode: str) -> None:
        torch.manual_seed(0)
        head = {"head": {"kind": kind}} if kind in HEADS else {}
        self.model = QLMForCausalLM(QLMConfig(d_model=WIDTH, blocks=blocks(kind), quantum=mode, **head)).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.ids = torch.randint(256, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))

    def step(self) -> float:
        """Seconds of one training step."""
        started = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.model(self.ids, labels=self.ids).loss
        loss.backward()
        self.optimizer.step()
        if not bool(torch.isfinite(loss)):
            raise AssertionError(f"the loss is {loss.item()}")
        return time.perf_counter() - started


def check(trained: Trained) -> int:
    """Raise AssertionError unless training moves the circuit; return the circuits of a step."""
    layers = [layer for _, layer in trained.model.quantum_layers()]
    before = [layer.weights.detach().clone() for layer in layers]
    trained.step()
    if any(torch.equal(old, layer.weights) for old, layer in zip(before, layers, strict=True)):
        raise AssertionError("a training step left the circuit's weights where they were")
    return sum(getattr(report, "executions", 0) for report in trained.model.reports().values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kinds = [kind for kind in BLOCKS if block_class(kind).holds_circuit]
    kinds += [kind for kind in HEADS if head_class(kind).holds_circuit]
    print(f"{'component':>17} {'circuit, ms':>12} {'twin, ms':>9} {'ratio':>6} {'circuits a step':>16}")
    for kind in kinds:
        circuit, twin = Trained(kind, "circuit"), Trained(kind, "twin")
        executions = check(circuit)
        twin.step()
        times = [(circuit.step(), twin.step()) for _ in range(arguments.rounds)]
        first, second = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        print(f"{kind:>17} {first:12.0f} {second:9.0f} {first / second:6.2f} {executions:16,}")


if __name__ == "__main__":
    main()
