"""A circuit without its numbers: what programs are compiled from and kept by."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from circuits import Circuit

Gate = tuple[str, tuple[int, ...]]
"""A gate's name and wires."""


class Angle(NamedTuple):
    """Where an op's angle comes from: number ``which`` among the shared angles, or among those of lanes."""

    which: int
    lane: bool


@dataclass(frozen=True)
class Structure:
    """A circuit without its numbers: (name, wires) of ops, and which column each angle reads."""

    n_wires: int
    ops: tuple[Gate, ...]
    angles: tuple[Angle, ...]


@lru_cache(maxsize=1024)
def structure(circuit: Circuit) -> tuple[Structure, tuple[int, ...], tuple[int, ...]]:
    """Return the circuit without its numbers, and the columns of its angles that are shared and that are of lanes.

    Lanes that read equal slots are one, since re-uploading circuits read the same input again and again.
    """
    shared: list[int] = []
    lanes: dict[object, tuple[int, int]] = {}
    angles: list[Angle] = []
    for column, (slot, common) in enumerate(zip(circuit.slots, circuit.shared, strict=True)):
        if common:
            angles.append(Angle(len(shared), False))
            shared.append(column)
        else:
            number, _ = lanes.setdefault(slot, (len(lanes), column))
            angles.append(Angle(number, True))
    ops = tuple((op.name, op.wires) for op in circuit.ops)
    return Structure(circuit.n_wires, ops, tuple(angles)), tuple(shared), tuple(column for _, column in lanes.values())
