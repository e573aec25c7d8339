"""The state-vector simulator's values and gradients against PennyLane's default.qubit in double precision.

    python -m benchmarks.correctness                  # 2,000 random circuits, some minutes
    python -m benchmarks.correctness --circuits 200 --first 2000

Circuits hold every gate, with shared, scaled, shifted and product slots; observables are random Pauli sums; batches
lie between 1 and 257 samples; one case in four has multiples of pi/2 for angles only. Values are compared by their
largest difference, gradients of inputs and weights by the norm of the difference over the larger of the gradient's norm
and 1. Prints the worst of each with its case's number, and fails beyond 1e-10 in double and 1e-5 in single precision.
"""

import argparse
import time

import torch

from benchmarks.from_tests import draw, errors

BOUNDS = {"double": 1e-10, "single": 1e-5}
WHAT = ("value", "inputs", "weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--circuits", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worst = {(precision, what): (0.0, -1) for precision in BOUNDS for what in WHAT}
    beyond, started = 0, time.perf_counter()
    for number in range(arguments.first, arguments.first + arguments.circuits):
        for precision, found in errors(draw(number)).items():
            for what in WHAT:
                error = getattr(found, what)
                beyond += not error <= BOUNDS[precision]  # NaN is beyond too
                if not error <= worst[precision, what][0]:
                    worst[precision, what] = error, number
    print(f"{arguments.circuits} circuits in {time.perf_counter() - started:.0f} s")
    for (precision, what), (error, number) in worst.items():
        print(f"{precision:>7} {what:>8}: worst {error:.1e} (case {number}), bound {BOUNDS[precision]:.0e}")
    if beyond:
        raise SystemExit(f"{beyond} errors are beyond their bounds")


if __name__ == "__main__":
    main()
