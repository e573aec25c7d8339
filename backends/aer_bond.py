"""What a bond dimension that is capped may do to a result.

Aer tells what a truncation discards in one log alone, which all simulators of a process share and which is never
emptied; it is of no use here. What is known without it: whether the cap can bind at all.
"""

import math
from functools import lru_cache

from circuits import Circuit

_RANK = {"swap": 4}
"""Operator Schmidt rank of a gate on two wires: 2 but for those named here, which bound every cut's growth."""


@lru_cache(maxsize=256)
def may_truncate(circuit: Circuit, max_bond: int) -> bool:
    """Return whether the state may need a bond dimension above ``max_bond`` somewhere along the circuit.

    A cut's bond grows by at most the operator Schmidt rank (2; swap 4) of each gate across it, is at most twice either
    neighbour's, and at most ``2**(n // 2)``. Gates between neighbours cross one cut each; a circuit with any other gate
    is simulated with its wires in an order that changes, so that every gate may cross every cut. Cost O(ops n).

    >>> from circuits import Op
    >>> ghz = Circuit(40, (Op("h", (0,)), *(Op("cx", (k, k + 1)) for k in range(39))))
    >>> may_truncate(ghz, 2), may_truncate(Circuit(40, ghz.ops + ghz.ops[1:]), 2)
    (False, True)
    """
    n_wires = circuit.n_wires
    pairs = [(op.name, *sorted(op.wires)) for op in circuit.ops if len(op.wires) == 2]
    if any(high - low > 1 for _, low, high in pairs):
        bond = math.prod(_RANK.get(name, 2) for name, *_ in pairs)
        return min(bond, 2 ** (n_wires // 2)) > max_bond
    bonds = [1] * (n_wires + 1)  # bonds[k]: between wires k-1 and k; nothing to the left of 0 and right of n
    for name, _, high in pairs:
        bonds[high] = min(bonds[high] * _RANK.get(name, 2), 2 * bonds[high - 1], 2 * bonds[high + 1])
        if bonds[high] > max_bond:
            return True
    return False
