"""Resets as fresh wires, for engines that hold pure states: the thrown-away wire is simply not looked at again."""

from functools import lru_cache

from circuits import Circuit, Op
from circuits.ir import RESET


@lru_cache(maxsize=256)
def deferred(circuit: Circuit, max_wires: int) -> tuple[Circuit, tuple[int, ...]]:
    """Return a unitary circuit with the same angles, and where each wire of the given circuit ends up in it.

    Each reset of a wire that a gate has touched takes one more wire; all results on the returned wires are those of the
    circuit with resets. Raises ValueError for more than ``max_wires`` wires. Cost O(ops).

    >>> from circuits import Reset
    >>> deferred(Circuit(2, (Op("h", (0,)), *Reset((0, 1)), Op("cx", (0, 1)))), 3)
    (Circuit(3, (Op('h', (0,)), Op('cx', (2, 1)))), (2, 1))
    """
    place, n_wires = list(range(circuit.n_wires)), circuit.n_wires
    touched: set[int] = set()
    ops: list[Op] = []
    for op in circuit.ops:
        if op.name != RESET:
            touched.update(op.wires)
            ops.append(Op(op.name, tuple(place[wire] for wire in op.wires), op.slots))
        elif op.wires[0] in touched:
            touched.remove(op.wires[0])
            place[op.wires[0]] = n_wires
            n_wires += 1
    if n_wires > max_wires:
        raise ValueError(
            f"this backend expects at most {max_wires} wires, got {circuit.n_wires} and {n_wires - circuit.n_wires} "
            "resets, each of which takes a fresh one; use fewer resets or backend 'aer'."
        )
    return Circuit(n_wires, tuple(ops)), tuple(place)
