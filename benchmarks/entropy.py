"""Per-token entropy of 10,000 tokens: the circuits alone, and ``measure_entropy`` with both controls.

    python -m benchmarks.entropy              # 4, 6 and 8 wires, one thread

Before a size is timed, entropies of 50 tokens are compared with those of their states' singular values, in numpy.
"circuits": angles through the backend, in the parts that ``measure_entropy`` uses. "table": the whole of it for a model
of width 128, ten streams of the text (trained, untrained, eight permutations), surprisal and table included.
Goal: 20,000 entropies a second at 4 wires.
"""

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from backends import open_backend
from circuits import Circuit
from circuits.library import reuploading
from qlm import QLMConfig, QLMForCausalLM, measure_entropy
from qlm.data import load_corpus

DEPTH = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--wires", type=int, nargs="+", default=[4, 6, 8])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = load_corpus("python-docs").valid[: arguments.tokens]
    for n_wires in arguments.wires:
        circuit = reuploading(n_wires, DEPTH)
        inputs = (2 * torch.rand(len(text), n_wires, dtype=torch.float64) - 1) * torch.pi
        weights = 0.1 * torch.randn(circuit.n_weights, dtype=torch.float64)
        check(circuit, inputs[:50], weights)
        alone = circuits_alone(circuit, inputs, weights)
        print(f"{n_wires} wires: circuits {len(text) / alone:10,.0f} entropies/s", end="", flush=True)
        seconds, n_entropies = whole_table(n_wires, text)
        print(
            f"; table {n_entropies / seconds:10,.0f} entropies/s, {len(text) / seconds:8,.0f} tokens/s with controls",
            flush=True,
        )


def check(circuit: Circuit, inputs: Tensor, weights: Tensor) -> None:
    """Against the definition, ``-Tr rho_A log rho_A``, in numpy."""
    wires = tuple(range(circuit.n_wires // 2))
    backend = open_backend("statevector")
    states = backend.state(circuit, inputs, weights).values.numpy().reshape(len(inputs), 2 ** len(wires), -1)
    squares = np.linalg.svd(states, compute_uv=False) ** 2
    truth = -(squares * np.log(np.clip(squares, 1e-300, None))).sum(1)
    found = backend.entropy(circuit, inputs, weights, wires).values.numpy()
    if not np.allclose(found, truth, atol=1e-9):
        raise AssertionError(f"entropies differ by {np.abs(found - truth).max():.1e}")


def circuits_alone(circuit: Circuit, inputs: Tensor, weights: Tensor) -> float:
    backend, wires = open_backend("statevector"), tuple(range(circuit.n_wires // 2))
    parts = inputs.split(max(1024, 2**16 >> circuit.n_wires))
    with torch.no_grad():
        backend.entropy(circuit, parts[0], weights, wires)
        start = time.perf_counter()
        for part in parts:
            backend.entropy(circuit, part, weights, wires)
        return time.perf_counter() - start


def whole_table(n_wires: int, text: bytes) -> tuple[float, int]:
    blocks = [{"kind": "harmonic"}, {"kind": "quantum_router", "n_wires": n_wires, "depth": DEPTH}]
    model = QLMForCausalLM(QLMConfig(d_model=128, blocks=blocks)).eval()
    measure_entropy(model, text[:100])
    start = time.perf_counter()
    table = measure_entropy(model, text)
    return time.perf_counter() - start, table.about.executions


if __name__ == "__main__":
    main()
