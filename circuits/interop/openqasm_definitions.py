"""Gate definitions and gate calls of OpenQASM, read from tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from circuits._suggest import nearest
from circuits.interop.openqasm_expressions import RESERVED, Environment, Expression, Value, expression
from circuits.interop.openqasm_gates import Call, Defined, GateLike, define
from circuits.interop.openqasm_lexer import MAX_NESTING, MAX_OPS, Cursor, OpenQASMError

MODIFIERS = ("ctrl", "negctrl", "inv", "pow")

Modifiers = tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Scope:
    """What names mean where a gate is called: gates, and constants with their values."""

    version: int
    gates: dict[str, GateLike]
    constants: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """A call up to its operands."""

    line: int
    gate: GateLike
    modifiers: Modifiers
    arguments: tuple[Expression, ...]

    @property
    def n_wires(self) -> int:
        """Number of operands that the gate and its controls take."""
        return self.gate.n_wires + sum(number for kind, number in self.modifiers if kind in ("ctrl", "negctrl"))

    def on(self, wires: tuple[int, ...]) -> Call:
        """Return the call on these wires; raises OpenQASMError for repeated ones."""
        if len(set(wires)) != len(wires):
            raise OpenQASMError(self.line, f"expects distinct qubits for '{self.gate.name}', got one twice; correct.")
        return Call(self.line, self.gate, self.modifiers, self.arguments, wires)

    def count(self, n_operands: int) -> None:
        """Raise OpenQASMError for a wrong number of operands."""
        if n_operands != self.n_wires:
            raise OpenQASMError(
                self.line,
                f"expects {self.n_wires} qubits for '{self.gate.name}' and its controls, got {n_operands}; correct it.",
            )


def definitions(text: str, gates: Mapping[str, GateLike]) -> dict[str, Defined]:
    """Return the gates that a text of definitions alone defines, in terms of ``gates`` and of one another.

    >>> from circuits.interop.openqasm_gates import Native
    >>> definitions("gate flip a { x a; }", {"x": Native("x", 0, 1)})["flip"].n_wires
    1
    """
    cursor, scope = Cursor(text), Scope(3, dict(gates))
    found: dict[str, Defined] = {}
    while cursor.token.kind != "end":
        cursor.expect("gate")
        gate = definition(cursor, scope)
        scope.gates[gate.name] = found[gate.name] = gate
    return found


def definition(cursor: Cursor, scope: Scope) -> Defined:
    """Read a definition after the word ``gate``: name, parameters, qubits, and a body of calls."""
    line, name = cursor.line, cursor.expect_kind("name", "the name of a gate")
    params: list[str] = []
    if cursor.accept("(") and not cursor.accept(")"):
        params = _names(cursor, "a parameter")
        cursor.expect(")")
    qubits = _names(cursor, "a qubit")
    if clash := sorted({one for one in (*params, *qubits) if (*params, *qubits).count(one) > 1}):
        raise OpenQASMError(line, f"expects distinct names in the gate '{name}', got '{clash[0]}' twice; rename one.")
    if taken := sorted(RESERVED.intersection(params)):
        raise OpenQASMError(line, f"expects free names for parameters, got '{taken[0]}'; rename it.")
    known = {*params, *scope.constants}
    cursor.expect("{")
    body: list[Call] = []
    while not cursor.accept("}"):
        if cursor.accept("barrier"):  # orders nothing that an exact expansion could reorder
            while not cursor.accept(";"):
                if cursor.take().kind == "end":
                    raise cursor.unexpected("';'")
            continue
        call = head(cursor, scope, known)
        body.append(call.on(_operands(cursor, qubits, call)))
        if len(body) > MAX_OPS:
            raise OpenQASMError(line, f"expects at most {MAX_OPS} statements in a gate, got more; split it.")
    return define(name, params, len(qubits), body, dict(scope.constants))


def _names(cursor: Cursor, what: str) -> list[str]:
    names = [cursor.expect_kind("name", what)]
    while cursor.accept(","):
        names.append(cursor.expect_kind("name", what))
    return names


def _operands(cursor: Cursor, qubits: list[str], call: Head) -> tuple[int, ...]:
    names = [] if cursor.token.text == ";" else _names(cursor, "a qubit")
    cursor.expect(";")
    for one in names:
        if one not in qubits:
            raise OpenQASMError(
                call.line,
                f"expects a qubit of this gate, got '{one[:40]}';{nearest(one, qubits)} Correct it.",
            )
    call.count(len(names))
    return tuple(qubits.index(one) for one in names)


def head(cursor: Cursor, scope: Scope, names: set[str]) -> Head:
    """Read modifiers, a gate's name and its arguments; raises OpenQASMError for an unknown gate or a wrong number."""
    line, modifiers = cursor.line, _modifiers(cursor, scope)
    name = cursor.expect_kind("name", "a gate")
    gate = scope.gates.get(name)
    if gate is None:
        raise OpenQASMError(line, f"expects a gate that is known here, got '{name[:40]}';{_hint(name, scope.gates)}")
    arguments: list[Expression] = []
    if cursor.accept("(") and not cursor.accept(")"):
        arguments = [expression(cursor, names, scope.version)]
        while cursor.accept(","):
            arguments.append(expression(cursor, names, scope.version))
        cursor.expect(")")
    if len(arguments) != gate.n_params:
        raise OpenQASMError(
            line, f"expects {gate.n_params} parameters for '{name}', got {len(arguments)}; pass that many."
        )
    return Head(line, gate, modifiers, tuple(arguments))


def _hint(name: str, gates: Mapping[str, GateLike]) -> str:

    return f"{nearest(name, gates)} Define it, or include the standard gates."


def _modifiers(cursor: Cursor, scope: Scope) -> Modifiers:
    found: list[tuple[str, int]] = []
    while scope.version == 3 and cursor.token.text in MODIFIERS and cursor.token.kind == "name":
        word = cursor.take()
        number = 1
        if word.text != "inv" and cursor.accept("("):
            number = integer(cursor, scope.constants, scope.version, f"in {word.text}(...)")
            cursor.expect(")")
        elif word.text == "pow":
            raise cursor.unexpected("'('")
        if word.text in ("ctrl", "negctrl") and number < 1:
            raise OpenQASMError(word.line, f"expects at least 1 control, got {number}; leave the modifier out.")
        cursor.expect("@")
        found.append((word.text, number))
        if len(found) > MAX_NESTING:
            raise OpenQASMError(word.line, f"expects at most {MAX_NESTING} modifiers, got more; define a gate.")
    return tuple(found)


def integer(cursor: Cursor, constants: Environment, version: int, place: str) -> int:
    """Read a constant integer; raises OpenQASMError for anything else."""
    line = cursor.line
    value = expression(cursor, set(constants), version).value(constants)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, int):
        shown = "a free parameter" if isinstance(value, tuple) else f"{value}"
        raise OpenQASMError(line, f"expects an integer {place}, got {shown}; correct it.")
    return value
