"""The state-vector simulator measured: against other simulators, against W compiled by hand, against the core.

    make bench-statevector                            # everything; some twenty minutes
    python -m benchmarks.statevector --figures by-hand pyqtorch threads
    python -m benchmarks.statevector --rounds 3 --out /tmp/figures.json

Ratios of medians of interleaved rounds in one process, on one thread unless told; nothing is told unless both sides
gave the same values and gradients. Times are the process's on the core, which other work on the machine lengthens
little; only threads are compared by the time that passes. Slow steps get fewer rounds, three at least; one that takes
over two minutes is left out, and the report says so. Writes a JSON file and, beside it, a PNG.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.statevector import figures, random_circuits
from benchmarks.statevector.peers import NEVER, PEERS, versions
from benchmarks.statevector.plot import draw
from benchmarks.statevector.roofline import Machine, measured
from benchmarks.statevector.timing import Figure

OUT = Path(__file__).resolve().parent.parent / "results" / "statevector.json"
FIGURES: dict[str, Callable[[int], Iterable[Figure]]] = {
    **{name: partial(figures.against_peer, name=name) for name in (*PEERS, *NEVER)},
    "random": random_circuits.figures,
    "gram": figures.gram,
    "entropy": figures.entropy,
    "threads": figures.threads,
    "hybrid": figures.hybrid,
}
"""What can be asked for by name; ``by-hand`` needs the machine too."""
_FLAGS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "neon", "asimd", "sve")


def described(machine: Machine) -> dict[str, Any]:
    """The machine, as far as the figures depend on it."""
    path = Path("/proc/cpuinfo")
    listed = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    told = {key.strip(): value.strip() for key, _, value in reversed(listed)}
    flags = (told.get("flags") or told.get("Features") or "").split()
    return {
        "cpu": told.get("model name", platform.processor()),
        "family and model": f"{told.get('cpu family', '?')}, {told.get('model', '?')}",
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": versions(),
        "fma, Gflop/s": round(machine.flops / 1e9, 1),
        "read and written, GB/s": {name: round(rate / 1e9, 1) for name, (_, rate) in machine.levels.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = ["by-hand", *FIGURES]
    parser.add_argument("--figures", nargs="+", choices=everything, default=everything)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = measured()
    about = described(machine)
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    found: list[Figure] = []
    for name in arguments.figures:
        measure = FIGURES.get(name, partial(figures.against_hand, machine=machine))
        for figure in measure(arguments.rounds):
            print(figure.line(), flush=True)
            found.append(figure)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": about, "figures": [figure.record() for figure in found]}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    draw(found, arguments.out.with_suffix(".png"))
    goals = [figure.met for figure in found if figure.met is not None]
    print(f"{sum(goals)} of {len(goals)} goals met; written to {arguments.out} and a PNG beside it")


if __name__ == "__main__":
    main()
