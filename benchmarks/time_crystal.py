"""Time crystals: the phase diagram on state vectors, and a long chain on matrix product states.

    python -m benchmarks.time_crystal                   # the goals' sizes
    python -m benchmarks.time_crystal --kicks 10

Goals: 10 spins, 40 values of g, 20 disorder instances, 100 periods in 60 s; 40 spins, 20 periods at bond 64 in 120 s,
its truncation error shown. Correctness first: each part is checked against exact facts before it is timed. Times are of
one run on one thread.
"""

import argparse
import time

import torch

from backends.quimb_mps import QuimbMPS
from qlm.floquet import autocorrelators, draw_disorder, phase_diagram


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wires", type=int, default=10)
    parser.add_argument("--kicks", type=int, default=40)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--periods", type=int, default=100)
    parser.add_argument("--spins", type=int, default=40, help="of the matrix product state")
    parser.add_argument("--bond", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    check()
    measure_phase_diagram(arguments.wires, arguments.kicks, arguments.instances, arguments.periods)
    measure_chain(arguments.spins, 20, arguments.bond)


def check() -> None:
    """A(t) = (-1)^t at g = 1; chains on matrix product states within their bound of the exact ones."""
    disorder = draw_disorder(6, 3, dtype=torch.float64)
    doubled = autocorrelators(disorder, 1.0, 10).bulk.values
    signs = 1.0 - 2.0 * (torch.arange(11) % 2)
    if float((doubled - signs).abs().max()) > 1e-10:
        raise AssertionError(f"g = 1 does not double the period: off by {(doubled - signs).abs().max():.1e}")
    truth = autocorrelators(disorder, 0.8, 8).bulk.values
    for bond in (3, 8):
        found = autocorrelators(disorder, 0.8, 8, QuimbMPS(max_bond=bond)).bulk
        error = (found.values - truth).abs()
        if not bool((error <= found.truncation_error + 1e-9).all()):
            raise AssertionError(f"bond {bond}: an error of {error.max():.1e} beyond its bound")


def measure_phase_diagram(wires: int, kicks: int, instances: int, periods: int) -> None:
    start = time.perf_counter()
    g = torch.linspace(0.5, 1.0, kicks)
    diagram = phase_diagram(g, draw_disorder(wires, instances), periods, initial=("0110100110010110" * 2)[:wires])
    seconds = time.perf_counter() - start
    if abs(float(diagram.weight.values[-1]) - 1) > 1e-3:
        raise AssertionError(f"weight at g = 1 expects 1, got {float(diagram.weight.values[-1]):.6f}")
    print(f"phase diagram, {wires} spins, {kicks} kicks, {instances} instances, {periods} periods: {seconds:.1f} s")
    for row in range(0, kicks, max(1, kicks // 5)):
        print(
            f"  g {float(g[row]):.3f}  weight {float(diagram.weight.values[row]):.4f} +- "
            f"{float(diagram.weight.stderr[row]):.4f}  glass order {float(diagram.spin_glass.values[row]):.3f} +- "
            f"{float(diagram.spin_glass.stderr[row]):.3f}"
        )


def measure_chain(spins: int, periods: int, bond: int) -> None:
    disorder = draw_disorder(spins, 1, dtype=torch.float64)
    backend = QuimbMPS(max_bond=bond)
    print(f"matrix product state, {spins} spins, {periods} periods, bond {bond}, one pass")
    for g in (0.97, 0.9, 0.8):
        start = time.perf_counter()
        bulk = autocorrelators(disorder, g, periods, backend, initial=("01" * spins)[:spins]).bulk
        seconds = time.perf_counter() - start
        print(
            f"  g {g}: {seconds:.1f} s, A({periods}) = {float(bulk.values[0, -1]):.4f}, "
            f"truncation error at most {float(bulk.truncation_error[0, -1]):.1e}"
        )


if __name__ == "__main__":
    main()
