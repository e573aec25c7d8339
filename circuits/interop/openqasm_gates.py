"""Gates of OpenQASM, native and defined, their modifiers, and their expansion to our ops."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from circuits.interop.openqasm_expressions import Environment, Expression, Value, terms
from circuits.interop.openqasm_lexer import MAX_NESTING, MAX_OPS, OpenQASMError
from circuits.ir import RESET, Circuit, Op
from circuits.ops import primitives
from circuits.passes import controlled, inverse
from circuits.slots import Input, Slot

_LARGEST_SIZE = 2**62


def _too_large(line: int) -> OpenQASMError:
    return OpenQASMError(line, f"expects a text that expands to at most {MAX_OPS} ops, got more; split it.")


@dataclass(frozen=True, slots=True)
class Native:
    """A gate of our own table, composite ones included; "gphase" is the one without wires."""

    name: str
    n_params: int
    n_wires: int
    size: int = 1
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Defined:
    """A gate that a text defines; ``size`` counts the gates it stands for, ``depth`` the definitions beneath it."""

    name: str
    params: tuple[str, ...]
    n_wires: int
    body: tuple["Call", ...]
    constants: Environment
    size: int
    depth: int

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        return len(self.params)


GateLike = Native | Defined


@dataclass(frozen=True, slots=True)
class Call:
    """A gate applied: modifiers from left to right as (kind, number), arguments, and wires."""

    line: int
    gate: GateLike
    modifiers: tuple[tuple[str, int], ...]
    arguments: tuple[Expression, ...]
    wires: tuple[int, ...]

    @property
    def size(self) -> int:
        """At least as many ops as this comes to."""
        size = self.gate.size
        for kind, number in self.modifiers:
            size = min(size * abs(number) if kind == "pow" else size, _LARGEST_SIZE)
        return max(size, 1)


def define(name: str, params: Sequence[str], n_wires: int, body: Sequence[Call], constants: Environment) -> Defined:
    """Return a gate; raises OpenQASMError where definitions nest too deep."""
    depth = 1 + max((call.gate.depth + len(call.modifiers) for call in body), default=0)
    if depth > MAX_NESTING:
        raise OpenQASMError(
            body[0].line, f"expects gate definitions nested at most {MAX_NESTING} deep, got more at '{name}'; inline."
        )
    size = min(sum(call.size for call in body), _LARGEST_SIZE)
    return Defined(name, tuple(params), n_wires, tuple(body), constants, size, depth)


@dataclass(slots=True)
class Builder:
    """Ops and phase as they are expanded; ``spent`` counts ops, those of fragments included, against the limit."""

    ops: list[Op] = field(default_factory=list)
    phase: list[Slot] = field(default_factory=list)
    spent: list[int] = field(default_factory=lambda: [0])

    def add(self, ops: Sequence[Op], line: int) -> None:
        """Add primitive ops; raises OpenQASMError beyond the limit."""
        self.spent[0] += len(ops)
        if self.spent[0] > MAX_OPS:
            raise _too_large(line)
        self.ops += ops

    def reset(self, wire: int, line: int) -> None:
        """Add a reset."""
        self.add((Op(RESET, (wire,)),), line)

    def apply(self, call: Call, environment: Environment, wires: Sequence[int]) -> None:
        """Expand a call on ``wires`` (of the circuit, or of the definition that it stands in)."""
        if call.size > MAX_OPS:
            raise OpenQASMError(
                call.line, f"expects a gate that expands to at most {MAX_OPS} ops, got {call.size}; split it."
            )
        values = [argument.value(environment) for argument in call.arguments]
        if not call.modifiers:
            self._run(call.gate, values, wires, call.line)
            return
        n_wires = max(call.gate.n_wires, 1)  # gphase gets a wire that nothing touches
        inner = Builder(spent=self.spent)
        inner._run(call.gate, values, range(call.gate.n_wires), call.line)
        fragment = Circuit(n_wires, tuple(inner.ops), tuple(inner.phase))
        for kind, number in reversed(call.modifiers):
            try:
                fragment = self._modified(fragment, kind, number, call.line)
            except OpenQASMError:
                raise
            except ValueError as error:
                raise OpenQASMError(call.line, str(error)) from None
        self.add(_moved(fragment.ops, wires), call.line)
        self.phase += fragment.global_phase

    def _run(self, gate: GateLike, values: Sequence[Value], wires: Sequence[int], line: int) -> None:
        if isinstance(gate, Defined):
            environment = {**gate.constants, **dict(zip(gate.params, values, strict=True))}
            for call in gate.body:
                self.apply(call, environment, [wires[wire] for wire in call.wires])
        elif gate.name == "gphase":
            self.phase += terms(values[0])
        elif values:  # a gate by a sum of angles is one gate for each, which all commute
            for term in terms(values[0]):
                self.add(tuple(primitives(Op(gate.name, tuple(wires), (term,)))), line)
        else:
            self.add(tuple(primitives(Op(gate.name, tuple(wires)))), line)

    def _modified(self, fragment: Circuit, kind: str, number: int, line: int) -> Circuit:
        if kind == "inv":
            return inverse(fragment)
        if kind == "pow":
            base = fragment if number >= 0 else inverse(fragment)
            self._room(abs(number) * (len(base.ops) + len(base.global_phase)), line)
            return Circuit(base.n_wires, base.ops * abs(number), base.global_phase * abs(number))
        self._room((len(fragment.ops) + len(fragment.global_phase)) << min(number + 2, 20), line)
        flips = tuple(Op("x", (wire,)) for wire in range(number)) if kind == "negctrl" else ()
        body = controlled(fragment, number)
        return Circuit(body.n_wires, flips + body.ops + flips, body.global_phase)

    def _room(self, n_ops: int, line: int) -> None:
        """Refuse before computing what would not fit."""
        if self.spent[0] + n_ops > MAX_OPS:
            raise _too_large(line)


def _moved(ops: Sequence[Op], wires: Sequence[int]) -> list[Op]:
    return [replace(op, wires=tuple(wires[wire] for wire in op.wires)) for op in ops]


def expansion(gate: Defined) -> Circuit:
    """Return a gate's ops with parameter k as Input(k).

    >>> from circuits.interop.openqasm_standard import included
    >>> expansion(included(2)["cu1"]).n_inputs
    1
    """
    inner = Builder()
    inner._run(gate, [(Input(k),) for k in range(gate.n_params)], range(gate.n_wires), 0)
    return Circuit(gate.n_wires, tuple(inner.ops), tuple(inner.phase))
