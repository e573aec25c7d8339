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
from pathlib import Path
from typing import Any

from benchmarks.statevector.timing import Figure, seconds
from benchmarks.wide_peers import PEERS, Step, gates, ours

OUT = Path(__file__).resolve().parent / "results" / "wide_states.json"
PATIENCE = 20.0
"""Seconds of a step that is not repeated."""
GOALS = {"forward": 1.0, "gradient": 1.5}
"""How many times quicker than the quickest peer."""


def rounds_of(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each step."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, 1, time.perf_counter))
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


def threads(n_wires: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of ours on one thread and on two, by the time that passes."""
    import torch

    told: dict[str, dict[str, float]] = {}
    for what, step in zip(("forward", "gradient"), ours(n_wires), strict=True):

        def on(count: int, step: Step = step) -> Step:
            def run() -> None:
                torch.set_num_threads(count)
                step()

            return run

        median = rounds_of({"one thread": on(1), "two threads": on(2)}, 3 * rounds)
        told[what] = {name: 1e3 * found for name, found in median.items()}
    return told


def figures_of(n_wires: int, report: dict[str, Any], rounds: int) -> list[Figure]:
    """Ours beside each peer; the goals hold for the quickest of them."""
    found = []
    for what, goal in GOALS.items():
        ratios, times = report[what]["times ours"], report[what]["ms"]
        quickest = min(ratios, key=lambda name: ratios[name])
        for name, ratio in ratios.items():
            both = {"ours": times["ours"], name: times[name]}
            aim = goal if name == quickest else None
            found.append(Figure(what, f"{n_wires} wires", name, ratio, aim, times=both, rounds=rounds))
    bound = report["roofline"]
    reached = max(bound["ms of traffic"], bound["ms of operations"]) / bound["ms"]
    note = f"{bound['passes']} passes, {bound['matrices']} matrices"
    told = {name: bound[name] for name in ("ms of traffic", "ms of operations")}
    return [*found, Figure("forward", f"{n_wires} wires", "roofline, reached", reached, times=told, note=note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wires", type=int, nargs="*", default=[20, 24])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="*", default=[24], help="wires of the forward passes weighed")
    parser.add_argument("--two", type=int, nargs="*", default=[20], help="wires of the steps on two threads and on one")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--child", choices=("compare", "memory", "threads"), default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(_measured(given.child, given.wires[0], given.rounds)))
        return

    def child(what: str, n_wires: int, n_threads: int) -> Any:
        return _child(["--child", what, "--wires", str(n_wires), "--rounds", str(given.rounds)], n_threads)

    found = [f for n in given.wires for f in figures_of(n, child("compare", n, given.threads), given.rounds)]
    for n_wires in given.two:
        for what, times in child("threads", n_wires, 2).items():
            ratio = times["one thread"] / times["two threads"]
            found.append(Figure(f"{what}, two threads", f"{n_wires} wires", "one thread", ratio, 1.7, times=times))
    for n_wires in given.memory:
        grown = child("memory", n_wires, given.threads)
        found.append(Figure("memory, forward", f"{n_wires} wires", "the state's own", grown, 1.2, at_most=True))
    print(*(figure.line() for figure in found), sep="\n")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"threads": given.threads, "figures": [figure.record() for figure in found]}
    given.out.write_text(json.dumps(record, indent=1) + "\n")


def _measured(what: str, n_wires: int, rounds: int) -> Any:
    """What a child tells."""
    if what == "memory":
        return memory(n_wires)
    if what == "threads":
        return threads(n_wires, rounds)
    report = compare(n_wires, rounds)
    report["roofline"] = roofline(n_wires, report["forward"]["ms"]["ours"])
    return report


if __name__ == "__main__":
    main()
