"""Circuit -> Circuit. Each pass is a pure function; those that need a unitary circuit refuse resets."""

from collections.abc import Sequence
from dataclasses import replace

from circuits.decompositions import CONTROLLED
from circuits.gates import GATES
from circuits.ir import Circuit
from circuits.ops import RESET, Op, as_ops, as_wires
from circuits.slots import Input, Product, Slot, Weight, scaled


def require_unitary(circuit: Circuit, purpose: str) -> None:
    """Raise ValueError when the circuit holds a reset, naming what needed it to be unitary."""
    if not circuit.is_unitary:
        position = next(k for k, op in enumerate(circuit.ops) if op.name == RESET)
        raise ValueError(f"{purpose} expects a unitary circuit, got a reset at op {position}; remove the resets.")


def inverse(circuit: Circuit) -> Circuit:
    """Return the adjoint ``U^dagger``: ops reversed, angles negated, fixed gates replaced by their inverses.

    Raises ValueError for a circuit with resets. Cost O(ops).

    >>> from circuits import Input
    >>> inverse(Circuit(1, (Op("s", (0,)), Op("rx", (0,), (Input(0),))))).ops
    (Op('rx', (0,), (Input(0, scale=-1.0),)), Op('sdg', (0,)))
    """
    require_unitary(circuit, "inverse")
    ops = tuple(
        Op(GATES[op.name].inverse, op.wires, tuple(scaled(slot, -1.0) for slot in op.slots))
        for op in reversed(circuit.ops)
    )
    return Circuit(circuit.n_wires, ops, tuple(scaled(slot, -1.0) for slot in circuit.global_phase))


def controlled(circuit: Circuit) -> Circuit:
    """Return ``|0><0| (x) 1 + |1><1| (x) U`` with the control as the new wire 0, exactly, global phase included.

    Old wire k becomes wire k + 1; the circuit's global phase becomes a phase gate on the control. Raises ValueError
    for a circuit with resets. Cost O(ops).

    >>> controlled(Circuit(1, (Op("x", (0,)),), global_phase=(0.5,))).ops
    (Op('cx', (0, 1)), Op('p', (0,), (0.5,)))
    """
    require_unitary(circuit, "controlled")
    ops: list[Op] = []
    for op in circuit.ops:
        ops += as_ops(CONTROLLED[op.name]((0, *(wire + 1 for wire in op.wires)), op.slots))
    ops += [Op("p", (0,), (slot,)) for slot in circuit.global_phase]
    return Circuit(circuit.n_wires + 1, tuple(ops))


def _moved(slot: Slot, offset: int) -> Slot:
    """The slot with its weights renumbered by ``offset``."""
    if isinstance(slot, Weight):
        return replace(slot, index=slot.index + offset)
    if isinstance(slot, Product):
        return replace(slot, left=_moved(slot.left, offset), right=_moved(slot.right, offset))
    return slot


def repeat(circuit: Circuit, times: int, fresh_weights: bool = False) -> Circuit:
    """Return ``U**times``; with ``fresh_weights`` copy k reads weights ``k * n_weights ...`` instead of the same ones.

    Raises ValueError for negative ``times``. Cost O(times ops).

    >>> layer = Circuit(1, (Op("rx", (0,), (Weight(0),)),))
    >>> repeat(layer, 2, fresh_weights=True).ops
    (Op('rx', (0,), (Weight(0),)), Op('rx', (0,), (Weight(1),)))
    """
    if times < 0:
        raise ValueError(f"repeat expects 0 or more times, got {times}; use inverse for negative powers.")
    step = circuit.n_weights if fresh_weights else 0
    ops = [
        replace(op, slots=tuple(_moved(slot, copy * step) for slot in op.slots))
        for copy in range(times)
        for op in circuit.ops
    ]
    phase = [_moved(slot, copy * step) for copy in range(times) for slot in circuit.global_phase]
    return Circuit(circuit.n_wires, tuple(ops), tuple(phase))


def remap(circuit: Circuit, wires: Sequence[int], n_wires: int | None = None) -> Circuit:
    """Return the circuit with wire k moved to ``wires[k]``, on ``n_wires`` wires (default: as many as needed).

    Raises ValueError for a wrong number of wires or repeated ones. Cost O(ops).

    >>> remap(Circuit(2, (Op("cx", (0, 1)),)), (2, 0)).ops
    (Op('cx', (2, 0)),)
    """
    targets = as_wires("remap", wires)
    if len(targets) != circuit.n_wires or len(set(targets)) != len(targets):
        raise ValueError(f"remap expects {circuit.n_wires} distinct wires, got {targets}; name each wire once.")
    ops = tuple(replace(op, wires=tuple(targets[wire] for wire in op.wires)) for op in circuit.ops)
    return Circuit(max(targets) + 1 if n_wires is None else n_wires, ops, circuit.global_phase)


def separable(circuit: Circuit) -> Circuit:
    """Return the circuit with every gate on two wires removed: the same local gates, no entanglement by construction.

    ``n_inputs`` and ``n_weights`` stay, so the same data and weights fit; those read by removed gates alone have no
    effect. Cost O(ops).

    >>> separable(Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))).ops
    (Op('h', (0,)),)
    """
    local = Circuit(circuit.n_wires, tuple(op for op in circuit.ops if len(op.wires) == 1), circuit.global_phase)
    # A global phase of 0 times the last input and weight keeps their numbers where removed gates alone read them.
    kept: list[Slot] = []
    if local.n_inputs < circuit.n_inputs:
        kept.append(Input(circuit.n_inputs - 1, scale=0.0))
    if local.n_weights < circuit.n_weights:
        kept.append(Weight(circuit.n_weights - 1, scale=0.0))
    return replace(local, global_phase=(*local.global_phase, *kept))
