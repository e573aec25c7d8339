"""Matrix product states: brickwork circuits of 60 wires and 10 layers, after a check against the exact state.

    python -m benchmarks.mps                      # bonds 16, 32 and 64
    python -m benchmarks.mps --wires 100 --bond 32

A layer is RY and RZ on every wire, then RXX and RZZ on every other pair of neighbours, with random angles: 300 pairs of
entangling gates at 60 wires and 10 layers. All <Z_i> are read. Times are of one run, on one thread.
"""

import argparse
import time

import numpy as np
import torch

from backends import Estimate, open_backend
from backends.quimb_mps import QuimbMPS
from circuits import Circuit, Op, Weight, Z


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wires", type=int, default=60)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--bond", type=int, nargs="+", default=[16, 32, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    check()
    circuit = brickwork(arguments.wires, arguments.layers)
    print(f"{arguments.wires} wires, {arguments.layers} layers: time, rehearsed and reported")
    print(f"{'bond':>5} {'seconds':>8} {'GFLOP':>8} {'MiB':>7} {'infidelity':>11} {'error at most':>14}")
    for bond in arguments.bond:
        backend = QuimbMPS(max_bond=bond)
        cost = backend.rehearse(circuit, observables(circuit))
        start = time.perf_counter()
        found = run(backend, circuit)
        seconds = time.perf_counter() - start
        print(
            f"{cost.bond:5} {seconds:8.2f} {cost.flops / 1e9:8.1f} {cost.peak_bytes / 2**20:7.1f} "
            f"{found.infidelity.item():11.2e} {found.truncation_error.max().item():14.2e}"
        )


def check() -> None:
    """Ten wires: without truncation equal to the exact state, with it within the declared error."""
    circuit = brickwork(10, 6)
    truth = run(open_backend("statevector"), circuit).values
    for bond in (4, 32):
        found = run(QuimbMPS(max_bond=bond), circuit)
        error = (found.values - truth).abs()
        if not bool((error <= found.truncation_error + 1e-10).all()):
            raise AssertionError(
                f"bond {bond}: an error of {error.max():.1e} beyond {found.truncation_error.max():.1e}"
            )


def run(backend, circuit: Circuit) -> Estimate:
    """All <Z_i> at fixed random angles, in double precision."""
    weights = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, circuit.n_weights))
    return backend.expectations(circuit, None, weights, observables(circuit))


def observables(circuit: Circuit):
    return tuple(Z(wire) for wire in range(circuit.n_wires))


def brickwork(n_wires: int, n_layers: int) -> Circuit:
    ops: list[Op] = []
    count = 0

    def turn(name: str, *wires: int) -> None:
        nonlocal count
        ops.append(Op(name, wires, (Weight(count),)))
        count += 1

    for layer in range(n_layers):
        for wire in range(n_wires):
            turn("ry", wire)
            turn("rz", wire)
        for wire in range(layer % 2, n_wires - 1, 2):
            turn("rxx", wire, wire + 1)
            turn("rzz", wire, wire + 1)
    return Circuit(n_wires, tuple(ops))


if __name__ == "__main__":
    main()
