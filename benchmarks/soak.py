"""Runs random programs for a while and shows that memory does not grow.

    python -m benchmarks.soak                         # ten minutes
    python -m benchmarks.soak --seconds 120

Each program is another circuit with another batch, one in sixteen on 14 to 16 wires: forward and backward for
expectations, and in turn for states, probabilities, entropies and Gram matrices. Memory is the process's resident set,
twice a second. Caches of programs and the allocator's arenas fill in the warm-up, the first 40 %. Over the rest, the
median of the last third may exceed that of the first third by 16 MiB; a leak of one batch's states in each program
would be some hundred times that.
"""

import argparse
import statistics
import time

import numpy as np
import psutil
import torch

from backends import Backend, open_backend
from benchmarks.from_tests import random_circuit, random_data
from circuits import Circuit, Input, Op, Weight, X, Z

BOUND = 16 * 2**20
"""Bytes that the resident set may grow by after the warm-up."""
WARM_UP = 0.4
EVERY = 0.5
"""Seconds between two looks at memory."""


def program(number: int) -> tuple[Circuit, torch.Tensor, torch.Tensor]:
    """Circuit ``number`` with its data, in single or double precision: 1 to 10 wires, one in sixteen 14 to 16."""
    rng = np.random.default_rng((23, number))
    large = number % 16 == 15
    n_wires = int(rng.integers(14, 17) if large else rng.integers(1, 11))
    circuit = random_circuit(rng, n_wires, int(rng.integers(1, 25)))
    circuit += Circuit(n_wires, (Op("rx", (0,), (Weight(0),)), Op("ry", (n_wires - 1,), (Input(0),))))
    inputs, weights = random_data(rng, circuit, int(rng.integers(1, 3 if large else 400)))
    dtype = (torch.float32, torch.float64)[number % 2]
    return circuit, *(torch.tensor(data, dtype=dtype, requires_grad=True) for data in (inputs, weights))


def run(backend: Backend, number: int) -> None:
    """One program, forward and backward."""
    circuit, inputs, weights = program(number)
    half = tuple(range(max(1, circuit.n_wires // 2)))
    values = backend.expectations(circuit, inputs, weights, (Z(0), 0.5 * X(0) - Z(circuit.n_wires - 1))).values
    values.sum().backward()
    kind = number % 5
    if kind == 0:
        backend.state(circuit, inputs, weights).values.abs().sum().backward()
    elif kind == 1:
        backend.probabilities(circuit, inputs, weights, half).values.square().sum().backward()
    elif kind == 2:
        backend.entropy(circuit, inputs[:32], weights, half[:3]).values.sum().backward()
    elif kind == 3:
        few = inputs[:32]
        pairs = backend.fidelity(circuit, few, inputs_b=few, weights_a=weights, weights_b=weights, gram=True).values
        pairs.sum().backward()
    if inputs.grad is None or not bool(torch.isfinite(inputs.grad).all()):
        raise AssertionError(f"program {number}: the gradient is missing or not finite")


def soak(seconds: float) -> tuple[int, list[tuple[float, int]]]:
    """Run programs; return how many, and (seconds, bytes resident) along the way."""
    backend, process, started = open_backend("statevector"), psutil.Process(), time.perf_counter()
    seen: list[tuple[float, int]] = []
    number = 0
    while (now := time.perf_counter() - started) < seconds:
        if not seen or now - seen[-1][0] >= EVERY:
            seen.append((now, process.memory_info().rss))
        run(backend, number)
        number += 1
    return number, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    count, seen = soak(arguments.seconds)
    warm = [(moment, size) for moment, size in seen if moment >= WARM_UP * arguments.seconds]
    third = len(warm) // 3
    if not third:
        raise SystemExit(f"{arguments.seconds:g} seconds are too short to see anything; give --seconds 30 or more")
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope
    first, last = (statistics.median(size for _, size in part) for part in (warm[:third], warm[-third:]))
    print(f"{count:,} programs in {arguments.seconds:g} s; resident {seen[0][1] / 2**20:.0f} MiB at the start")
    growth = f"{60 * slope / 2**20:+.2f} MiB/min"
    print(f"after the warm-up {first / 2**20:.0f} MiB, at the end {last / 2**20:.0f} MiB; {growth}")
    if last - first > BOUND:
        raise SystemExit(f"memory grew by {(last - first) / 2**20:.0f} MiB, more than {BOUND / 2**20:.0f}")


if __name__ == "__main__":
    main()
