"""Statements of OpenQASM 2 and 3: the gate-level subset; everything else is refused with its line."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from circuits.interop.openqasm_definitions import Head, Scope, definition, head, integer
from circuits.interop.openqasm_expressions import RESERVED, Value, expression
from circuits.interop.openqasm_gates import Builder, Call
from circuits.interop.openqasm_lexer import MAX_OPS, MAX_WIRES, Cursor, OpenQASMError
from circuits.interop.openqasm_standard import INCLUDES, built_in, included, recognised
from circuits.interop.parameters import numbered
from circuits.ir import Circuit

_NUMBERS = ("float", "angle", "int", "uint")
_REFUSED = {
    **dict.fromkeys(("if", "else", "for", "while", "switch", "break", "continue", "end", "return"), "control flow"),
    **dict.fromkeys(("def", "extern", "defcal", "cal", "defcalgrammar", "opaque"), "subroutines and calibrations"),
    **dict.fromkeys(("delay", "box", "duration", "stretch", "durationof", "nop"), "timing"),
    **dict.fromkeys((*_NUMBERS, "bool", "complex", "array", "output", "let", "mutable", "readonly"), "variables"),
    **dict.fromkeys(("pragma", "#", "@", "$"), "pragmas, annotations and hardware qubits"),
}
_MAX_PARAMETERS = 1_000_000


@dataclass(slots=True)
class Program:
    """A text read statement by statement. Calls wait until all free parameters are known, which number them."""

    cursor: Cursor
    drop_measurements: bool = False
    scope: Scope = field(default_factory=lambda: Scope(3, {}))
    qubits: dict[str, tuple[int, int | None]] = field(default_factory=dict)  # first wire and size, None: one qubit
    bits: dict[str, int | None] = field(default_factory=dict)
    free: list[str] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    measured: set[int] = field(default_factory=set)
    steps: list[Call | tuple[int, int]] = field(default_factory=list)  # a call, or a reset as (wire, line)
    n_wires: int = 0

    def read(self) -> None:
        """Read the whole text; raises OpenQASMError with the line of whatever is not understood."""
        self._version()
        while self.cursor.token.kind != "end":
            self._statement()
        if not self.n_wires:
            raise OpenQASMError(self.cursor.line, "expects at least one qubit to be declared, got none; declare it.")

    def circuit(self, inputs: Sequence[str]) -> Circuit:
        """Return what was read, expanded."""
        environment: dict[str, Value] = {name: (slot,) for name, slot in numbered(self.free, inputs).items()}
        environment |= self.scope.constants
        built = Builder()
        for step in self.steps:
            if isinstance(step, Call):
                built.apply(step, environment, step.wires)
            else:
                built.reset(*step)
        return Circuit(self.n_wires, tuple(built.ops), tuple(built.phase))

    def _version(self) -> None:
        if self.cursor.accept("OPENQASM"):
            line, number = self.cursor.line, self.cursor.take().text
            if number not in ("2", "2.0", "3", "3.0", "3.1"):
                raise OpenQASMError(line, f"expects OpenQASM 2.0, 3.0 or 3.1, got '{number[:20]}'; translate the text.")
            self.scope.version = int(number[0])
            self.cursor.expect(";")
        self.scope.gates.update(built_in(self.scope.version))

    def _statement(self) -> None:
        token = self.cursor.token
        handler = self._handlers().get(token.text) if token.kind in ("name", "symbol") else None
        if handler is not None:
            self.cursor.take()
            handler()
        elif token.text[:1] == "$" or (token.text in _REFUSED and token.text not in self.scope.gates):
            what = _REFUSED["$" if token.text[:1] == "$" else token.text]
            raise OpenQASMError(token.line, f"expects gates and resets, got '{token.text}': {what} are not read.")
        elif token.text in self.bits:
            self._assigned_measurement()
        elif token.kind == "name":
            self._call()
        else:
            raise self.cursor.unexpected("a statement")

    def _handlers(self) -> dict[str, Callable[[], None]]:
        common = {
            "include": self._include,
            "gate": self._gate,
            "qreg": self._qreg,
            "creg": self._creg,
            "barrier": self._barrier,
            "reset": self._reset,
            "measure": lambda: self._measured_into(None),
            ";": lambda: None,
        }
        newer = {"qubit": self._qubit, "bit": self._bit, "input": self._input, "const": self._const}
        return common | newer if self.scope.version == 3 else common

    def _include(self) -> None:
        line, known = self.cursor.line, INCLUDES[self.scope.version]
        name = self.cursor.expect_kind("string", "the name of an include in quotes").strip("\"'")
        self.cursor.expect(";")
        if name != known:
            raise OpenQASMError(line, f"expects the include \"{known}\" alone, got '{name[:40]}'; inline its gates.")
        self.scope.gates = included(self.scope.version) | self.scope.gates

    def _gate(self) -> None:
        line = self.cursor.line
        gate = definition(self.cursor, self.scope)
        if gate.name in self.own or gate.name in built_in(self.scope.version):
            raise OpenQASMError(line, f"expects a new name for a gate, got '{gate.name}' again; rename it.")
        self._declare(gate.name, line)
        self.scope.gates[gate.name] = recognised(gate)

    def _declare(self, name: str, line: int) -> None:
        if name in self.own or name in RESERVED:
            raise OpenQASMError(line, f"expects a name that is free, got '{name[:40]}'; rename it.")
        self.own.add(name)

    def _name(self) -> str:
        line, name = self.cursor.line, self.cursor.expect_kind("name", "a name")
        self._declare(name, line)
        return name

    def _size(self, most: int) -> int | None:
        """The size in brackets, None without them."""
        if not self.cursor.accept("["):
            return None
        line = self.cursor.line
        size = integer(self.cursor, self.scope.constants, self.scope.version, "in brackets")
        self.cursor.expect("]")
        if not 1 <= size <= most:
            raise OpenQASMError(line, f"expects a size from 1 to {most}, got {size}; correct it.")
        return size

    def _qubit(self) -> None:
        size = self._size(MAX_WIRES)
        self._add_qubits(self._name(), size)

    def _qreg(self) -> None:
        name = self._name()
        self._add_qubits(name, self._size(MAX_WIRES))

    def _add_qubits(self, name: str, size: int | None) -> None:
        line = self.cursor.line
        self.cursor.expect(";")
        self.qubits[name] = (self.n_wires, size)
        self.n_wires += size or 1
        if self.n_wires > MAX_WIRES:
            raise OpenQASMError(line, f"expects at most {MAX_WIRES} qubits, got {self.n_wires}; split the circuit.")

    def _creg(self) -> None:
        name = self._name()
        self.bits[name] = self._size(_MAX_PARAMETERS)
        self.cursor.expect(";")

    def _bit(self) -> None:
        size = self._size(_MAX_PARAMETERS)
        name = self._name()
        self.bits[name] = size
        if self.cursor.accept("="):
            self.cursor.expect("measure")
            self._measured_into(lambda: size or 1)
        else:
            self.cursor.expect(";")

    def _number_type(self) -> str:
        kind = self.cursor.expect_kind("name", "a type of numbers")
        if kind not in _NUMBERS:
            raise OpenQASMError(
                self.cursor.line, f"expects float, angle, int or uint here, got '{kind[:40]}'; declare a number."
            )
        self._size(64)
        return kind

    def _input(self) -> None:
        line, kind = self.cursor.line, self._number_type()
        if kind not in ("float", "angle"):
            raise OpenQASMError(line, f"expects inputs of type float or angle, got {kind}; declare a float.")
        self.free.append(self._name())
        self.cursor.expect(";")

    def _const(self) -> None:
        line, kind = self.cursor.line, self._number_type()
        name = self._name()
        self.cursor.expect("=")
        value = expression(self.cursor, set(self.scope.constants), self.scope.version).value(self.scope.constants)
        self.cursor.expect(";")
        assert not isinstance(value, tuple)  # constants alone are in scope
        if kind in ("int", "uint"):
            if not float(value).is_integer() or (kind == "uint" and value < 0):
                raise OpenQASMError(line, f"expects a value of type {kind} for '{name}', got {value}; correct it.")
            self.scope.constants[name] = int(value)
        else:
            self.scope.constants[name] = float(value) % math.tau if kind == "angle" else float(value)

    def _barrier(self) -> None:
        """Barriers constrain compilers and mean nothing to a circuit as a value: their operands are checked."""
        while not self.cursor.accept(";"):
            self._operand()
            if self.cursor.token.text != ";":
                self.cursor.expect(",")

    def _reset(self) -> None:
        line = self.cursor.line
        wires, _ = self._operand()
        self.cursor.expect(";")
        self._unmeasured(wires, line)
        self.steps += [(wire, line) for wire in wires]
        self._limit(line)

    def _assigned_measurement(self) -> None:
        width = self._bit_operand()
        self.cursor.expect("=")
        self.cursor.expect("measure")
        self._measured_into(lambda: width)

    def _measured_into(self, width: Callable[[], int] | None) -> None:
        """After the word ``measure``: qubits, and without ``width`` perhaps an arrow and bits."""
        line = self.cursor.line
        wires, _ = self._operand()
        bits = width() if width is not None else self._bit_operand() if self.cursor.accept("->") else len(wires)
        self.cursor.expect(";")
        if bits != len(wires):
            raise OpenQASMError(
                line, f"expects a bit for each qubit measured, got {bits} and {len(wires)}; match them."
            )
        if not self.drop_measurements:
            raise OpenQASMError(
                line, "expects gates and resets, got a measurement; pass drop_measurements=True if they all come last."
            )
        self._unmeasured(wires, line)
        self.measured.update(wires)

    def _bit_operand(self) -> int:
        line, name = self.cursor.line, self.cursor.expect_kind("name", "a bit")
        if name not in self.bits:
            raise OpenQASMError(line, f"expects a declared bit, got '{name[:40]}'; declare it.")
        size = self.bits[name]
        if self.cursor.token.text != "[":
            return size or 1
        self._index(size, name)
        return 1

    def _index(self, size: int | None, name: str) -> int:
        line = self.cursor.line
        self.cursor.expect("[")
        index = integer(self.cursor, self.scope.constants, self.scope.version, "as one index")
        self.cursor.expect("]")
        least = -(size or 0) if self.scope.version == 3 else 0
        if not least <= index < (size or 0):
            raise OpenQASMError(line, f"expects an index within '{name}' of size {size or 1}, got {index}; correct it.")
        return index % (size or 1)

    def _operand(self) -> tuple[range, bool]:
        """The wires of a qubit or a register, and whether it is a whole register."""
        line, kind = self.cursor.line, self.cursor.token.kind
        name = self.cursor.take().text
        if kind != "name" or name not in self.qubits:
            raise OpenQASMError(line, f"expects a declared qubit or register, got '{name[:40]}'; declare it.")
        first, size = self.qubits[name]
        if self.cursor.token.text == "[":
            wire = first + self._index(size, name)
            return range(wire, wire + 1), False
        return range(first, first + (size or 1)), size is not None

    def _call(self) -> None:
        call = head(self.cursor, self.scope, {*self.free, *self.scope.constants})
        operands: list[tuple[range, bool]] = []
        if call.n_wires or self.cursor.token.text != ";":
            operands.append(self._operand())
            while self.cursor.accept(","):
                operands.append(self._operand())
        self.cursor.expect(";")
        call.count(len(operands))
        self._unmeasured(chain.from_iterable(wires for wires, _ in operands), call.line)
        self.steps += [call.on(wires) for wires in _broadcast(operands, call)]
        self._limit(call.line)

    def _unmeasured(self, wires: Iterable[int], line: int) -> None:
        if not self.measured.isdisjoint(wires):
            raise OpenQASMError(line, "expects measurements to come last, got a measured qubit in use; measure later.")

    def _limit(self, line: int) -> None:
        if len(self.steps) > MAX_OPS:
            raise OpenQASMError(line, f"expects at most {MAX_OPS} gates and resets, got more; split the circuit.")


def _broadcast(operands: list[tuple[range, bool]], call: Head) -> list[tuple[int, ...]]:
    """One tuple of wires for each position of the registers among the operands, which are of one size."""
    sizes = {len(wires) for wires, whole in operands if whole}
    if len(sizes) > 1:
        raise OpenQASMError(
            call.line, f"expects registers of one size, got {' and '.join(map(str, sorted(sizes)))}; name qubits."
        )
    times = sizes.pop() if sizes else 1
    return [tuple(wires[k] if whole else wires[0] for wires, whole in operands) for k in range(times)]
