"""How a chain of sites runs a circuit: gates on neighbours, and the swaps that bring wires together.

Axis legend: site k is the k-th tensor of the chain, bond k lies left of site k.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from backends.tensor_network.cost import Cost
from circuits import GATES, Circuit

_SVD_FLOPS = 22
"""Complex multiply-adds of an SVD of (m, n) in units of ``max(m, n) min(m, n)**2`` (Golub and Van Loan, R-SVD)."""
_COMPLEX = 8
"""Real operations of a complex multiply-add."""
_BYTES = 16
"""Of a complex number in double precision."""


@dataclass(frozen=True, slots=True)
class Step:
    """A gate of the circuit (``op``: its position; None: a swap) on site ``site`` and, of two, the next one.

    ``flipped``: the gate's first wire is on the right-hand site.
    """

    op: int | None
    site: int
    n_sites: int = 2
    flipped: bool = False


@lru_cache(maxsize=64)
def schedule(circuit: Circuit, permute: bool) -> tuple[tuple[Step, ...], ...]:
    """Return the steps of each op. Distant wires are swapped together; back again unless wires may stay permuted.

    >>> from circuits import Op
    >>> [step.site for step in schedule(Circuit(3, (Op("cx", (0, 2)),)), permute=False)[0]]
    [1, 0, 1]
    """
    order = list(range(circuit.n_wires))
    made: list[tuple[Step, ...]] = []
    for position, op in enumerate(circuit.ops):
        sites = [order.index(wire) for wire in op.wires]
        if len(sites) == 1:
            made.append((Step(position, sites[0], 1),))
            continue
        left, right = sorted(sites)
        closer = [Step(None, site) for site in range(right - 1, left, -1)]
        apart = [] if permute else closer[::-1]
        made.append((*closer, Step(position, left, 2, sites[0] > sites[1]), *apart))
        if permute:
            order.insert(left + 1, order.pop(right))
    return tuple(made)


@lru_cache(maxsize=64)
def rehearse(circuit: Circuit, permute: bool, max_bond: int) -> Cost:
    """Return what running a circuit costs at most, from bond dimensions alone. Cost O(ops).

    A bond grows by the gate's operator rank and never beyond the dimensions on either side or ``max_bond``. The peak is
    the state, its environments, and the largest pair of sites while it is decomposed.

    >>> from circuits import Op
    >>> rehearse(Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))), False, 64).bond
    2
    """
    bonds = [1] * (circuit.n_wires + 1)
    flops, peak, largest = 0.0, 0, 1
    for step in (step for steps in schedule(circuit, permute) for step in steps):
        left, right = bonds[step.site], bonds[step.site + step.n_sites]
        if step.n_sites == 1:
            flops += _COMPLEX * 4 * left * right
            continue
        middle, rows, columns = bonds[step.site + 1], 2 * left, 2 * right
        flops += _COMPLEX * (rows * middle * columns + 4 * rows * columns)
        flops += _COMPLEX * _SVD_FLOPS * max(rows, columns) * min(rows, columns) ** 2
        rank = 4 if step.op is None else _operator_rank(circuit.ops[step.op].name)
        bonds[step.site + 1] = min(middle * rank, rows, columns, max_bond)
        largest = max(largest, bonds[step.site + 1])
        state = sum(2 * a * b for a, b in pairwise(bonds))
        peak = max(peak, 2 * state + 2 * sum(bond**2 for bond in bonds) + 6 * rows * columns)
    return Cost(flops, _BYTES * max(peak, 4 * circuit.n_wires), largest)


@lru_cache(maxsize=64)
def _operator_rank(name: str) -> int:
    """Number of terms in ``sum_k A_k (x) B_k`` of a gate on two wires, at an angle that is not special."""
    gate = GATES[name]
    matrix = gate.matrix(0.7 if gate.n_angles else None)
    halves = matrix.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
    return int(np.linalg.matrix_rank(halves))


@lru_cache(maxsize=64)
def final_order(circuit: Circuit, permute: bool) -> tuple[int, ...]:
    """Return the wire on each site after the circuit.

    >>> from circuits import Op
    >>> final_order(Circuit(3, (Op("cx", (0, 2)),)), permute=True)
    (0, 2, 1)
    """
    order = list(range(circuit.n_wires))
    for step in (step for steps in schedule(circuit, permute) for step in steps):
        if step.op is None:
            order[step.site], order[step.site + 1] = order[step.site + 1], order[step.site]
    return tuple(order)


def separating_bond(order: tuple[int, ...], wires: tuple[int, ...]) -> int | None:
    """Return the bond that has the wires, and no others, on one side of a chain in this order; None without one.

    >>> separating_bond((0, 2, 1), (1, 2)), separating_bond((0, 1, 2), (1,))
    (1, None)
    """
    sites = [order.index(wire) for wire in wires]
    if max(sites) + 1 == len(sites):
        return len(sites)
    return min(sites) if min(sites) == len(order) - len(sites) else None
