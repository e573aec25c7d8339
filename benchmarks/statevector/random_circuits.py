"""Sixty random circuits, half of them from the library and half gate by gate, against pyqtorch.

Gates are those that both have: composite ones would reach pyqtorch decomposed, and it would pay for that.
"""

import statistics
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.from_tests import random_slot
from benchmarks.statevector.peers import missing, pyqtorch
from benchmarks.statevector.timing import Figure, compared
from benchmarks.statevector.work import Work, ours
from circuits import GATES, Circuit, Input, Op, Weight
from circuits.library import (
    angle_encoding,
    born_machine,
    conditional_born_machine,
    hardware_efficient,
    kernel_feature_map,
    kicked_ising,
    reuploading,
    vqc_router,
    zz_feature_map,
)

N_CIRCUITS, BATCH = 60, 256
GOAL = 20
_ENTANGLERS = ("ring", "chain", "cz-ring", "cz-chain")
_FAMILIES: tuple[Callable[[int, int], Circuit], ...] = (
    lambda n, depth: angle_encoding(n) + hardware_efficient(n, depth, _ENTANGLERS[n % 4]),
    reuploading,
    lambda n, depth: angle_encoding(n, "x") + born_machine(n, depth),
    conditional_born_machine,
    kernel_feature_map,
    lambda n, depth: zz_feature_map(n, 1) + hardware_efficient(n, depth),
    vqc_router,
    lambda n, depth: kicked_ising(n, depth) + hardware_efficient(n, 1),
)


def drawn(number: int) -> Circuit:
    """Circuit ``number``, of 3 to 12 wires: even ones from the library, odd ones gate by gate."""
    rng = np.random.default_rng((5, number))
    n_wires = int(rng.integers(3, 13))
    if number % 2 == 0:
        return _FAMILIES[number // 2 % len(_FAMILIES)](n_wires, int(rng.integers(1, 5)))
    names = sorted(GATES)
    ops = [Op("ry", (wire,), (Input(wire),)) for wire in range(n_wires)]
    for _ in range(int(rng.integers(2, 9)) * n_wires):
        gate = GATES[names[rng.integers(len(names))]]
        wires = tuple(int(wire) for wire in rng.permutation(n_wires)[: gate.n_wires])
        ops.append(Op(gate.name, wires, tuple(random_slot(rng, n_wires, 2 * n_wires) for _ in range(gate.n_angles))))
    ops.append(Op("rx", (0,), (Weight(0),)))
    return Circuit(n_wires, tuple(ops))


def figures(rounds: int) -> Iterator[Figure]:
    """The ratio of each circuit, and their median with the goal."""
    reason = missing("pyqtorch")
    if reason is not None:
        yield Figure("random", f"{N_CIRCUITS} circuits", "pyqtorch", None, GOAL, note=reason)
        return
    found = []
    for number in range(N_CIRCUITS):
        work = Work(drawn(number), BATCH, seed=number)
        steps = {"ours": ours(work), "pyqtorch": pyqtorch(work)}
        note = f"circuit {number}: {len(work.circuit.ops)} gates"
        found.append(compared("random", f"{work.n_wires} x {BATCH}", steps, rounds, note=note))
        yield found[-1]
    ratios = [figure.ratio for figure in found if figure.ratio is not None]
    note = f"from {min(ratios):.1f} to {max(ratios):.0f}; {N_CIRCUITS - len(ratios)} too slow to measure"
    yield Figure("random", "median of 60", "pyqtorch", statistics.median(ratios), GOAL, rounds=rounds, note=note)
