"""One PennyLane operator as a circuit, exactly (global phase included), and the symbols that stand for free parameters.

Axis legend: k wires of one operator, in its own order, first most significant.
"""

import math
from dataclasses import dataclass, replace
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.decompositions import CONTROLLED
from circuits.gates import GATES, Matrix
from circuits.ir import Circuit
from circuits.ops import RESET, Op, as_ops, primitives
from circuits.passes import inverse, remap, repeat
from circuits.slots import Product, Slot, as_slot, scaled

if TYPE_CHECKING:
    from pennylane.operation import Operator

_UNITARY = 1e-6
"""What a matrix given as unitary may deviate from one, entry by entry: single precision's rounding."""


@dataclass(frozen=True)
class Symbol:
    """A slot as PennyLane's parameter: decompositions can negate, scale and shift it and multiply two of them.

    Everything else raises TypeError: it would leave what a slot can say.

    >>> from circuits import Input
    >>> (2 * Symbol(Input(0)) + 1) / 2
    Input(0, shift=0.5)
    """

    slot: Slot

    def __repr__(self) -> str:
        return repr(self.slot)

    def __format__(self, _: str) -> str:
        return repr(self.slot)

    def __mul__(self, other: "Symbol | float") -> "Symbol":
        if isinstance(other, Symbol):
            return Symbol(Product(self.slot, other.slot))
        return Symbol(scaled(self.slot, float(other))) if isinstance(other, Real) else NotImplemented

    def __add__(self, other: float) -> "Symbol":
        if not isinstance(other, Real):
            return NotImplemented
        if isinstance(self.slot, float | int):
            return Symbol(self.slot + float(other))
        return Symbol(replace(self.slot, shift=self.slot.shift + float(other)))

    def __neg__(self) -> "Symbol":
        return self * -1.0

    def __sub__(self, other: float) -> "Symbol":
        return self + -other

    def __rsub__(self, other: float) -> "Symbol":
        return -self + other

    def __truediv__(self, other: float) -> "Symbol":
        return self * (1 / other) if isinstance(other, Real) else NotImplemented

    __rmul__ = __mul__
    __radd__ = __add__


def boxed(slot: Slot) -> Any:
    """Return a slot as PennyLane takes it: a 0-dimensional object array with its symbol.

    >>> from circuits import Weight
    >>> boxed(Weight(1))
    array(Weight(1), dtype=object)
    """
    box = np.empty((), dtype=object)
    box[()] = Symbol(slot)
    return box


def slot_of(parameter: Any) -> Slot:
    """Return a scalar parameter as a slot: a symbol's own, else a number; ValueError or TypeError for anything else.

    >>> from circuits import Input
    >>> slot_of(boxed(Input(0))), slot_of(np.float32(0.5))
    (Input(0), 0.5)
    """
    held = parameter.item() if hasattr(parameter, "item") else parameter
    return held.slot if isinstance(held, Symbol) else as_slot(held)


_OURS: MappingProxyType[str, str] = MappingProxyType(
    {
        **{gate.pennylane: gate.name for gate in GATES.values()},
        "U1": "p",
        "U3": "u3",
        "ControlledPhaseShift": "cp",
        "CRX": "crx",
        "CRY": "cry",
        "CRZ": "crz",
        "Toffoli": "ccx",
        "CSWAP": "cswap",
        "CCZ": "mcz",
        "ECR": "ecr",
        "ISWAP": "iswap",
    }
)
"""PennyLane's operators by name that are ours with the same wires and angles; phases agree too."""

_PAIRS = ("swap", "rxx", "ryy", "rzz")
"""Gates on two targets: one control turns them into gates on one."""

_REFUSED: MappingProxyType[str, str] = MappingProxyType(
    {
        "Snapshot": "it records a state",
        "WireCut": "it marks where to cut a circuit",
        "Conditional": "it depends on a measurement",
        "PauliMeasure": "it is a measurement",
    }
)


def supported(operator: "Operator") -> bool:
    """Whether the operator is one of our gates (or a global phase), without any decomposition.

    >>> import pennylane as qml
    >>> supported(qml.CRX(0.5, (0, 1))), supported(qml.QFT((0, 1)))
    (True, False)
    """
    return (operator.name in _OURS and _is_closed(operator)) or operator.name == "GlobalPhase"


def as_circuit(operator: "Operator") -> Circuit:
    """Return the operator as a circuit whose wire j is ``operator.wires[j]``, equal to it, global phase included.

    Ours by name first; then adjoints, integer powers, controls (open ones between X gates), matrices on one wire, and
    resetting measurements; all else by PennyLane's own decomposition. Raises ValueError for what is no unitary
    (channels, measurements, a matrix that is none), what has no decomposition, and a free parameter that becomes more
    than a scaled and shifted angle on the way.

    >>> import pennylane as qml
    >>> as_circuit(qml.ctrl(qml.Z(1), 0, control_values=[0])).ops
    (Op('x', (0,)), Op('cz', (0, 1)), Op('x', (0,)))
    """
    from pennylane import ops
    from pennylane.ops import MidMeasure

    n_wires = max(1, len(operator.wires))
    reason = _REFUSED.get(operator.name.partition("(")[0])
    if reason:
        raise ValueError(f"a circuit expects gates and resets, got {operator.name}: {reason}; drop it.")
    if operator.name == "GlobalPhase":
        return Circuit(n_wires, (), (scaled(slot_of(operator.data[0]), -1.0),))
    if operator.name in _OURS and _is_closed(operator):
        return _named(operator, n_wires)
    if isinstance(operator, MidMeasure):
        return _reset(operator)
    if isinstance(operator, ops.Adjoint):
        return inverse(as_circuit(operator.base))
    if isinstance(operator, ops.Pow) and float(operator.z).is_integer():
        base = as_circuit(operator.base)
        return repeat(base if operator.z >= 0 else inverse(base), abs(int(operator.z)))
    if isinstance(operator, ops.Controlled):
        return _controlled(operator)
    if isinstance(operator, ops.QubitUnitary | ops.DiagonalQubitUnitary):
        matrix = _unitary(operator)
        if len(matrix) == 2:
            return _turn(matrix)
    return _decomposed(operator, n_wires)


def _is_closed(operator: "Operator") -> bool:
    """Whether all controls, if any, wait for 1."""
    return all(getattr(operator, "control_values", ()))


def _named(operator: "Operator", n_wires: int) -> Circuit:
    return Circuit(n_wires, (Op(_OURS[operator.name], tuple(range(n_wires)), tuple(map(slot_of, operator.data))),))


def _reset(measurement: Any) -> Circuit:
    if not measurement.reset or measurement.postselect is not None:
        raise ValueError(
            "a circuit expects no measurement in its middle, got one; measure at the end, or reset without postselect."
        )
    return Circuit(1, (Op(RESET, (0,)),))


def _controlled(operator: Any) -> Circuit:
    """Controls first, then the base's wires, as PennyLane orders them; exact for any number of controls."""
    base, values = as_circuit(operator.base), operator.control_values
    controls, n_wires = tuple(range(len(values))), len(operator.wires)
    flips = Circuit(n_wires, tuple(Op("x", (wire,)) for wire in controls if not values[wire]))
    ops = [
        part
        for op in base.ops
        for part in _under(controls, Op(op.name, tuple(w + len(values) for w in op.wires), op.slots))
    ]
    ops += [Op("p" if len(values) == 1 else "mcp", controls, (slot,)) for slot in base.global_phase]
    return flips + Circuit(n_wires, tuple(ops)) + flips


def _under(controls: tuple[int, ...], op: Op) -> tuple[Op, ...]:
    """A primitive gate under several controls; the table's entries for gates with one target take any number."""
    if op.name == RESET:
        raise ValueError("a control expects a unitary, got a reset; reset outside of it.")
    if op.name in _PAIRS and len(controls) > 1:
        once = as_ops(CONTROLLED[op.name]((controls[-1], *op.wires), op.slots))
        return tuple(part for inner in once for one in primitives(inner) for part in _under(controls[:-1], one))
    return as_ops(CONTROLLED["ch" if op.name == "h" else op.name]((*controls, *op.wires), op.slots))


def _unitary(operator: Any) -> Matrix:
    """The matrix of a concrete unitary; ValueError where it is free or no unitary."""
    try:
        matrix = np.asarray(operator.matrix(), dtype=complex)
    except TypeError as error:
        raise ValueError(_not_free(operator)) from error
    if not np.abs(matrix @ matrix.conj().T - np.eye(len(matrix))).max() < _UNITARY:
        raise ValueError(f"{operator.name} expects a unitary matrix, got one that is not; normalise it.")
    return matrix


def _turn(matrix: Matrix) -> Circuit:
    """``exp(i phase) RZ(left) RY(tilt) RZ(right)``."""
    phase = np.angle(np.linalg.det(matrix)) / 2
    special = matrix * np.exp(-1j * phase)
    tilt = 2 * math.atan2(abs(special[1, 0]), abs(special[0, 0]))
    total, difference = 2 * np.angle(special[1, 1]), 2 * np.angle(special[1, 0])
    right, left = (total - difference) / 2, (total + difference) / 2
    return Circuit(1, (Op("rz", (0,), (right,)), Op("ry", (0,), (tilt,)), Op("rz", (0,), (left,))), (float(phase),))


def _decomposed(operator: "Operator", n_wires: int) -> Circuit:
    from pennylane import QueuingManager
    from pennylane.operation import Channel

    if isinstance(operator, Channel):
        raise ValueError(f"a circuit expects gates and resets, got {operator.name}: noise belongs to the backend.")
    if not operator.has_decomposition:
        raise ValueError(
            f"a circuit expects gates, got {operator.name}, which has no decomposition; write it in gates."
        )
    try:
        with QueuingManager.stop_recording():
            parts = operator.decomposition()
    except (TypeError, AttributeError) as error:
        raise ValueError(_not_free(operator)) from error
    return joined(parts, operator.wires, n_wires)


def _not_free(operator: "Operator") -> str:
    return (
        f"{operator.name} expects numbers, got a free parameter, of which its gates need more than a multiple; bind it "
        "or write the gates out."
    )


def joined(parts: Any, labels: Any, n_wires: int) -> Circuit:
    """Return operators in a row as one circuit; a label's wire is its place in ``labels``.

    >>> import pennylane as qml
    >>> joined([qml.X("b"), qml.GlobalPhase(0.5)], ["a", "b"], 2)
    Circuit(2, (Op('x', (1,)),), global_phase=(-0.5,))
    """
    place = {label: wire for wire, label in enumerate(labels)}
    done: list[Op] = []
    phase: list[Slot] = []
    for part in parts:
        made = as_circuit(part)
        if part.wires:
            made = remap(made, [place[label] for label in part.wires], n_wires)
        done += made.ops
        phase += made.global_phase
    return Circuit(n_wires, tuple(done), tuple(phase))
