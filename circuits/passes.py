"""Circuit -> Circuit. Each pass is a pure function; those that need a unitary circuit refuse resets."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from circuits._check import integer
from circuits.decompositions import CONTROLLED, MAX_CONTROLS
from circuits.gates import GATES
from circuits.ir import Circuit
from circuits.observables import PauliSum
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


def controlled(circuit: Circuit, n_controls: int = 1) -> Circuit:
    """Return ``1 - P (x) 1 + P (x) U`` with P = |1...1><1...1| on new first wires, exactly, global phase included.

    Old wire k becomes wire ``k + n_controls``; the circuit's global phase becomes a phase gate on the controls. Raises
    ValueError for a circuit with resets and for fewer than 1 or more than 11 controls. Cost O(2**n_controls ops).

    >>> controlled(Circuit(1, (Op("x", (0,)),), global_phase=(0.5,))).ops
    (Op('cx', (0, 1)), Op('p', (0,), (0.5,)))
    """
    require_unitary(circuit, "controlled")
    if not 1 <= n_controls <= MAX_CONTROLS:
        raise ValueError(
            f"controlled expects 1 to {MAX_CONTROLS} controls, got {n_controls}: without ancillas the size doubles "
            "with each; split the gate with ancilla wires."
        )
    controls = tuple(range(n_controls))
    ops: list[Op] = []
    for op in circuit.ops:
        ops += as_ops(CONTROLLED[op.name]((*controls, *(wire + n_controls for wire in op.wires)), op.slots))
    ops += [Op("p" if n_controls == 1 else "mcp", controls, (slot,)) for slot in circuit.global_phase]
    return Circuit(circuit.n_wires + n_controls, tuple(ops))


def _moved(slot: Slot, offset: int) -> Slot:
    """The slot with its weights renumbered by ``offset``."""
    if isinstance(slot, Weight):
        return replace(slot, index=slot.index + offset)
    if isinstance(slot, Product):
        return replace(slot, left=_moved(slot.left, offset), right=_moved(slot.right, offset))
    return slot


def repeat(circuit: Circuit, times: int, fresh_weights: bool = False) -> Circuit:
    """Return ``U**times``; with ``fresh_weights`` copy k reads weights ``k * n_weights ...`` instead of the same ones.

    Raises TypeError or ValueError unless ``times`` is an integer of 0 or more. Cost O(times ops).

    >>> layer = Circuit(1, (Op("rx", (0,), (Weight(0),)),))
    >>> repeat(layer, 2, fresh_weights=True).ops
    (Op('rx', (0,), (Weight(0),)), Op('rx', (0,), (Weight(1),)))
    """
    times = integer("repeat", "times", times, 0)
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
    size = max(targets) + 1 if n_wires is None else n_wires
    if max(targets) >= size:
        raise ValueError(f"remap expects wires below {size}, got {max(targets)}; raise n_wires or leave it out.")
    ops = tuple(replace(op, wires=tuple(targets[wire] for wire in op.wires)) for op in circuit.ops)
    return Circuit(size, ops, circuit.global_phase)


def separable(circuit: Circuit) -> Circuit:
    """Return the circuit with every gate on two wires removed: the same local gates, no entanglement by construction.

    ``n_inputs`` and ``n_weights`` stay, so the same data and weights fit; those read by removed gates alone have no
    effect. Cost O(ops).

    >>> separable(Circuit(2, (Op("h", (0,)), Op("cx", (0, 1))))).ops
    (Op('h', (0,)),)
    """
    return _with_ops(circuit, tuple(op for op in circuit.ops if len(op.wires) == 1))


def light_cone(circuit: Circuit, observed: Iterable[PauliSum | int] | PauliSum | int) -> Circuit:
    """Return the circuit without the ops that cannot influence what is observed: its past light cone.

    ``observed`` holds observables, or wires whose reduced state is wanted. Walking back from the end, a gate is kept
    where it touches a wire of the cone, which then takes in all the gate's wires; a reset is kept where its wire is in
    the cone, which the wire leaves there, because nothing before a reset reaches what comes after it on that wire.
    Expectations and reduced states of ``observed`` are unchanged, every other result may differ. ``n_wires``,
    ``n_inputs`` and ``n_weights`` stay. Raises ValueError for a wire outside the circuit. Cost O(ops).

    >>> from circuits import Z
    >>> ops = (Op("h", (0,)), Op("cx", (0, 1)), Op("cx", (0, 2)), Op("h", (1,)))
    >>> light_cone(Circuit(3, ops), Z(2)).ops
    (Op('h', (0,)), Op('cx', (0, 1)), Op('cx', (0, 2)))
    >>> light_cone(Circuit(3, ops[:2] + ops[3:]), Z(0)).ops
    (Op('h', (0,)), Op('cx', (0, 1)))
    """
    several = (observed,) if isinstance(observed, PauliSum | int) else tuple(observed)
    wires = [wire for one in several for wire in (one.wires if isinstance(one, PauliSum) else (one,))]
    cone = set(as_wires("light_cone", wires))
    if max(cone, default=0) >= circuit.n_wires:
        raise ValueError(f"light_cone expects wires below {circuit.n_wires}, got {max(cone)}; observe others.")
    kept: list[Op] = []
    for op in reversed(circuit.ops):
        if cone.isdisjoint(op.wires):
            continue
        kept.append(op)
        if op.name == RESET:
            cone.difference_update(op.wires)
        else:
            cone.update(op.wires)
    return _with_ops(circuit, tuple(reversed(kept)))


def _with_ops(circuit: Circuit, ops: tuple[Op, ...]) -> Circuit:
    """The circuit with some of its ops alone, reading as many inputs and weights as before."""
    local = replace(circuit, ops=ops)
    # A global phase of 0 times the last input and weight keeps their numbers where removed gates alone read them.
    kept: list[Slot] = []
    if local.n_inputs < circuit.n_inputs:
        kept.append(Input(circuit.n_inputs - 1, scale=0.0))
    if local.n_weights < circuit.n_weights:
        kept.append(Weight(circuit.n_weights - 1, scale=0.0))
    return replace(local, global_phase=(*local.global_phase, *kept)) if kept else local
