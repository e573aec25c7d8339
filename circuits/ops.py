"""One operation of a circuit, and how composite operations become primitive ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from circuits._suggest import unknown
from circuits.decompositions import COMPOSITES, MULTI_CONTROLLED, Parts
from circuits.gates import GATES
from circuits.slots import Slot, as_slot

RESET = "reset"
"""Name of the one op that is not a gate."""


@dataclass(frozen=True, slots=True)
class Op:
    """A named operation on wires with one slot per angle: ``Op("ry", (0,), (Input(0),))``.

    The name is a primitive gate, a composite one (decomposed when a circuit is built), or ``reset``. A single wire or
    slot may stand without its tuple. Raises ValueError for an unknown name, a wrong number of wires or slots, or
    repeated or negative wires; TypeError for a slot that is no slot.

    >>> Op("cx", (0, 1))
    Op('cx', (0, 1))
    """

    name: str
    wires: tuple[int, ...]
    slots: tuple[Slot, ...] = ()

    def __post_init__(self) -> None:
        wires = as_wires(f"op '{self.name}'", self.wires)
        raw = self.slots if isinstance(self.slots, tuple | list) else (self.slots,)
        slots = tuple(as_slot(slot) for slot in raw)
        n_wires, n_slots = _arity(self.name, len(wires))
        if len(wires) != n_wires or len(slots) != n_slots:
            raise ValueError(
                f"op '{self.name}' expects {_counted(n_wires, 'wire')} and {_counted(n_slots, 'angle')}, got "
                f"{len(wires)} and {len(slots)}; write Op(name, wires, slots) with that many."
            )
        if len(set(wires)) != len(wires):
            raise ValueError(f"op '{self.name}' expects distinct wires, got {wires}; remove the repeated one.")
        object.__setattr__(self, "wires", wires)
        object.__setattr__(self, "slots", slots)

    def __repr__(self) -> str:
        slots = f", {self.slots!r}" if self.slots else ""
        return f"Op({self.name!r}, {self.wires!r}{slots})"


def Reset(wires: int | Iterable[int]) -> tuple[Op, ...]:
    """Return the ops that discard the wires' states and put |0> there: the non-unitary op of the representation.

    Raises ValueError for a negative wire.

    >>> Reset((1,))
    (Op('reset', (1,)),)
    """
    return tuple(Op(RESET, (wire,)) for wire in as_wires("Reset", wires))


def as_wires(owner: str, wires: object) -> tuple[int, ...]:
    """Return one wire, or an iterable of them, as a tuple of Python ints; ValueError for what is no wire.

    >>> as_wires("Reset", range(2))
    (0, 1)
    """
    several = []
    for wire in wires if isinstance(wires, Iterable) else (wires,):
        if isinstance(wire, bool) or not isinstance(wire, int | np.integer) or wire < 0:
            raise ValueError(f"{owner} expects wires numbered from 0, got {wire!r}; use non-negative integers.")
        several.append(int(wire))
    return tuple(several)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _arity(name: str, n_wires: int) -> tuple[int, int]:
    """Expected wires and angles of an op."""
    if name == RESET:
        return max(n_wires, 1), 0
    if name in GATES:
        return GATES[name].n_wires, GATES[name].n_angles
    if name in COMPOSITES:
        return COMPOSITES[name].n_wires, COMPOSITES[name].n_angles
    if name in MULTI_CONTROLLED:
        return max(n_wires, 2), MULTI_CONTROLLED[name].n_angles
    raise ValueError(unknown("gate", str(name), [*GATES, *COMPOSITES, *MULTI_CONTROLLED, RESET]))


def primitives(op: Op) -> Iterator[Op]:
    """Yield an op as primitive gates and one-wire resets, in program order, exactly (global phase included).

    >>> [part.name for part in primitives(Op("crz", (0, 1), (0.5,)))]
    ['rz', 'cx', 'rz', 'cx']
    """
    if op.name in GATES:
        yield op
    elif op.name == RESET:
        yield from (op,) if len(op.wires) == 1 else Reset(op.wires)
    else:
        table = COMPOSITES if op.name in COMPOSITES else MULTI_CONTROLLED
        for part in as_ops(table[op.name].parts(op.wires, op.slots)):
            yield from primitives(part)


def as_ops(parts: Parts) -> tuple[Op, ...]:
    """Return (name, wires, slots) triples as ops.

    >>> as_ops((("x", (0,), ()),))
    (Op('x', (0,)),)
    """
    return tuple(Op(*part) for part in parts)
