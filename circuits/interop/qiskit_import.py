"""Qiskit circuits as ours, exactly, global phase included; what has no exact counterpart is refused by name.

Qubit q of n becomes wire n-1-q, because Qiskit's qubit 0 is the least significant bit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from circuits.gates import GATES
from circuits.interop.parameters import natural, numbered
from circuits.ir import RESET, Circuit, Op
from circuits.ops import primitives
from circuits.passes import controlled, inverse
from circuits.slots import Input, Product, Slot, Weight, leaves, scaled

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

_MAX_OPS = 1_000_000
_MAX_NESTING = 64
_NOTHING = 1e-14
"""Slope, in radians, below which an angle does not depend on a parameter: the rounding of one that has cancelled."""


def from_qiskit(circuit: "QuantumCircuit", inputs: Sequence[Any] = (), drop_measurements: bool = False) -> Circuit:
    """Return a Qiskit circuit as ours: qubit q of n becomes wire n-1-q, free parameters inputs and weights.

    Parameters named ``input[i]`` and ``weight[j]``, as ``with_parameters`` names them, keep kind and number. Otherwise
    those in ``inputs`` (parameters, vectors or names) become inputs in that order, all others weights in natural order
    (p2 before p10, vectors by index). Angles may be polynomials without powers above 2. Custom gates, unitaries and
    compound instructions are read by Qiskit's definition of them, controls and open controls from the gate that they
    control. Barriers are dropped; measurements are refused, or with ``drop_measurements`` dropped where their qubits
    are not used afterwards.

    Raises ValueError for control flow, delays, instructions without a definition or with an approximate one, other
    angles, and circuits beyond a million ops or 64 levels of definitions; TypeError for what is no QuantumCircuit.
    Cost O(ops).

    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> made = QuantumCircuit(2)
    >>> _ = made.rx(2 * Parameter("t"), 0), made.cx(0, 1, ctrl_state=0)
    >>> from_qiskit(made).ops
    (Op('rx', (1,), (Weight(0, scale=2.0),)), Op('x', (1,)), Op('cx', (1, 0)), Op('x', (1,)))
    """
    from qiskit import QuantumCircuit

    if not isinstance(circuit, QuantumCircuit):
        raise TypeError(f"from_qiskit expects a QuantumCircuit, got {type(circuit).__name__}; pass one.")
    if not circuit.num_qubits:
        raise ValueError("from_qiskit expects at least one qubit, got none; add a qubit.")
    names = [str(getattr(one, "name", one)) for one in inputs]
    reader = _Reader(numbered([one.name for one in circuit.parameters], names), drop_measurements)
    n_wires = circuit.num_qubits
    reader.circuit(circuit, range(n_wires)[::-1])
    return Circuit(n_wires, tuple(reader.ops), tuple(reader.phase))


@dataclass(slots=True)
class _Reader:
    slots: Mapping[str, Slot]
    drop_measurements: bool = False
    ops: list[Op] = field(default_factory=list)
    phase: list[Slot] = field(default_factory=list)
    measured: set[int] = field(default_factory=set)
    spent: list[int] = field(default_factory=lambda: [0])
    depth: int = 0

    def circuit(self, circuit: "QuantumCircuit", wires: Sequence[int]) -> None:
        """Read a circuit whose qubit q stands on ``wires[q]``."""
        self.phase += _terms(circuit.global_phase, self.slots)
        for step in circuit.data:
            where = [wires[circuit.find_bit(qubit).index] for qubit in step.qubits]
            self._step(step.operation, where, bool(step.clbits))

    def _step(self, operation: Any, wires: list[int], classical: bool) -> None:
        from qiskit.circuit import Barrier, Measure, Reset

        if isinstance(operation, Barrier):
            return
        if not self.measured.isdisjoint(wires):
            raise ValueError(
                f"from_qiskit expects measurements to come last, got '{operation.name}' after one; measure later."
            )
        if isinstance(operation, Measure):
            if not self.drop_measurements:
                raise ValueError(
                    "from_qiskit expects gates and resets, got a measurement; pass drop_measurements=True if they all "
                    "come last."
                )
            self.measured.update(wires)
        elif isinstance(operation, Reset):
            self._add([Op(RESET, (wire,)) for wire in wires])
        elif classical:
            raise ValueError(f"from_qiskit expects gates and resets, got '{operation.name}' with bits; leave it out.")
        else:
            self._gate(operation, wires)

    def _add(self, ops: Sequence[Op]) -> None:
        self._room(len(ops))
        self.spent[0] += len(ops)
        self.ops += ops

    def _room(self, n_ops: int) -> None:
        if self.spent[0] + n_ops > _MAX_OPS:
            raise ValueError(f"from_qiskit expects a circuit of at most {_MAX_OPS} ops, got more; split it.")

    def _native(self, name: str, wires: Sequence[int], *angles: Any) -> None:
        """Add a gate of ours; by a sum of angles it is one gate for each term, which all commute."""
        several = [(term,) for term in _terms(angles[0], self.slots)] if angles else [()]
        for slots in several:
            self._add(tuple(primitives(Op(name, tuple(wires), slots))))

    def _gate(self, operation: Any, wires: Sequence[int]) -> None:
        from qiskit.circuit import AnnotatedOperation, ControlledGate, library

        kind = getattr(operation, "base_class", type(operation))
        params = list(getattr(operation, "params", ()))
        # A class alone does not tell an open control from a closed one.
        closed = getattr(operation, "ctrl_state", None) in (None, (1 << getattr(operation, "num_ctrl_qubits", 0)) - 1)
        if kind in _natives() and closed:
            self._native(_natives()[kind], wires, *params)
        elif kind in (library.UGate, library.U3Gate, library.U2Gate):
            theta, phi, lam = params if len(params) == 3 else [math.pi / 2, *params]
            for name, angle in (("p", lam), ("ry", theta), ("p", phi)):
                self._native(name, wires, angle)
        elif kind is library.GlobalPhaseGate:
            self.phase += _terms(params[0], self.slots)
        elif isinstance(operation, AnnotatedOperation):
            self._place(self._annotated(operation), wires)
        elif (
            isinstance(operation, ControlledGate)
            and (base_gate := operation.base_gate) is not None
            and operation.num_qubits == operation.num_ctrl_qubits + base_gate.num_qubits
        ):
            base = self._fragment(base_gate)
            if kind is library.CUGate:  # its fourth angle is a phase of the gate that is controlled
                base = replace(base, global_phase=(*base.global_phase, *_terms(params[3], self.slots)))
            self._place(self._controlled(base, operation.num_ctrl_qubits, operation.ctrl_state), wires)
        else:
            self._defined(operation, wires)

    def _annotated(self, operation: Any) -> Circuit:
        from qiskit.circuit import ControlModifier, InverseModifier, PowerModifier

        fragment = self._fragment(operation.base_op)
        for modifier in operation.modifiers:
            if isinstance(modifier, InverseModifier):
                fragment = inverse(fragment)
            elif isinstance(modifier, ControlModifier):
                state = 2**modifier.num_ctrl_qubits - 1 if modifier.ctrl_state is None else int(modifier.ctrl_state)
                fragment = self._controlled(fragment, modifier.num_ctrl_qubits, state)
            elif isinstance(modifier, PowerModifier) and float(modifier.power).is_integer():
                base, times = (fragment if modifier.power >= 0 else inverse(fragment)), abs(int(modifier.power))
                self._room(times * len(base.ops))
                fragment = Circuit(base.n_wires, base.ops * times, base.global_phase * times)
            else:
                raise ValueError(f"from_qiskit expects inverses, controls and whole powers, got {modifier}; expand it.")
        return fragment

    def _controlled(self, fragment: Circuit, n_controls: int, state: int) -> Circuit:
        """The fragment under controls 0 to n-1, of which control k opens at bit k of ``state``."""
        self._room((len(fragment.ops) + len(fragment.global_phase)) << min(n_controls + 2, 20))
        flips = tuple(Op("x", (wire,)) for wire in range(n_controls) if not state >> wire & 1)
        body = controlled(fragment, n_controls)
        return Circuit(body.n_wires, flips + body.ops + flips, body.global_phase)

    def _fragment(self, operation: Any) -> Circuit:
        """An operation on wires of its own, wire k for its qubit k."""
        inner = _Reader(self.slots, spent=self.spent, depth=self.depth)
        inner._gate(operation, range(operation.num_qubits))
        return Circuit(max(operation.num_qubits, 1), tuple(inner.ops), tuple(inner.phase))

    def _place(self, fragment: Circuit, wires: Sequence[int]) -> None:
        self._add([replace(op, wires=tuple(wires[wire] for wire in op.wires)) for op in fragment.ops])
        self.phase += fragment.global_phase

    def _defined(self, operation: Any, wires: Sequence[int]) -> None:
        from qiskit.circuit import ControlFlowOp, Delay, Store
        from qiskit.circuit.library import PauliEvolutionGate, UnitaryGate

        name = operation.name
        if isinstance(operation, ControlFlowOp | Delay | Store):
            raise ValueError(f"from_qiskit expects gates and resets, got '{name}'; leave it out.")
        if isinstance(operation, PauliEvolutionGate):
            raise ValueError(f"from_qiskit expects exact gates, got '{name}', whose definition is a product formula; "
                             "decompose it first if that is meant.")  # fmt: skip
        definition = getattr(operation, "definition", None)
        if definition is None and operation.num_qubits <= 2 and hasattr(operation, "__array__"):
            definition = UnitaryGate(operation.to_matrix()).definition
        if definition is None:
            raise ValueError(f"from_qiskit expects gates with a definition, got '{name}'; decompose it first.")
        self.depth += 1
        self.spent[0] += 1  # so that definitions of nothing, too, come to an end
        if self.depth > _MAX_NESTING:
            raise ValueError(f"from_qiskit expects at most {_MAX_NESTING} levels of definitions, got more; decompose.")
        self._room(0)
        self.circuit(definition, wires)
        self.depth -= 1


@cache
def _natives() -> Mapping[type, str]:
    """Our gates by Qiskit's class."""
    from qiskit.circuit import library

    named = {getattr(library, gate.qiskit): gate.name for gate in GATES.values()}
    return MappingProxyType({**named, library.U1Gate: "p", library.ECRGate: "ecr", library.iSwapGate: "iswap"})


def _terms(value: Any, slots: Mapping[str, Slot]) -> tuple[Slot, ...]:
    """A number or a polynomial of Qiskit's parameters as the slots whose sum it is.

    Written as f = p g + h in one parameter p after the other; a g or h that is none of these has no gradient without p.
    """
    names = _names(value)
    if not names:
        return (_number(value.bind(dict.fromkeys(value.parameters, 0)) if hasattr(value, "parameters") else value),)
    parameter = next(one for one in value.parameters if one.name == min(names, key=natural))
    own = slots[parameter.name]
    assert isinstance(own, Input | Weight)
    slope = value.gradient(parameter)
    if parameter.name in _names(slope):
        curve = slope.gradient(parameter)
        if parameter.name in _names(curve):
            raise ValueError(f"from_qiskit expects angles quadratic in '{parameter.name}', got {value}; bind it.")
        half = tuple(scaled(one, 0.5) for one in _terms(curve, slots))
        factor = _combined(own, half, _terms(slope.bind({parameter: 0}), slots))
    else:
        factor = _terms(slope, slots)
    return _combined(own, factor, _terms(value.bind({parameter: 0}), slots))


def _names(value: Any) -> set[str]:
    """The parameters that a value depends on; ``parameters`` of a derivative lists some that have cancelled.

    Asked of its slopes at two points, because ``sympify`` of a derivative can name another parameter.
    """
    from qiskit.circuit import Parameter, ParameterExpression

    if isinstance(value, Parameter):
        return {value.name}
    if not isinstance(value, ParameterExpression):
        return set()
    return {one.name for one in value.parameters if _is_felt(value.gradient(one))}


def _is_felt(slope: Any) -> bool:
    """Whether a slope differs from 0 at one of two points of no special kind."""
    if not hasattr(slope, "bind"):
        return slope != 0
    free = sorted(slope.parameters, key=lambda one: natural(one.name))
    points = ({one: math.cos(shift + k) for k, one in enumerate(free)} for shift in (0.7, 2.9))
    return any(abs(complex(slope.bind(point))) > _NOTHING for point in points)


def _number(value: Any) -> float:
    number = complex(value)
    if number.imag:
        raise ValueError(f"from_qiskit expects real angles, got {number}; correct it.")
    return number.real


def _combined(own: Input | Weight, factor: tuple[Slot, ...], rest: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """``own * factor + rest``, as one slot where ``rest`` reads what ``factor`` reads."""
    if len(factor) != 1:
        return _sum(tuple(Product(own, one) for one in factor), rest)
    one = factor[0]
    if isinstance(one, float):
        return _sum((scaled(own, one),), rest)
    if len(rest) == 1 and isinstance(one, Input | Weight) and _same(one, rest[0]):
        other = rest[0]
        assert isinstance(other, Input | Weight)
        ratio = other.scale / one.scale  # own one + other = (own + ratio) one + other.shift - ratio one.shift
        own, rest = replace(own, shift=ratio), (other.shift - ratio * one.shift,)
    if isinstance(one, Input | Weight) and one.scale:
        product = Product(own, replace(one, scale=1.0, shift=one.shift / one.scale), one.scale)
    else:
        product = Product(own, one)
    return _sum((product,), rest)


def _same(slot: Slot, other: Slot) -> bool:
    return type(slot) is type(other) and isinstance(other, Input | Weight) and leaves(slot)[0].index == other.index


def _sum(terms: tuple[Slot, ...], rest: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Two sums as one; a number becomes a shift."""
    number = sum(one for one in rest if isinstance(one, float))
    first, *others = (*terms, *(one for one in rest if not isinstance(one, float)))
    assert not isinstance(first, float | int)
    return (replace(first, shift=first.shift + number), *others)
