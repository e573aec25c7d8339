"""Arithmetic of OpenQASM on numbers and free parameters.

A value is a number or a sum of slots. Sums stay sums, because a gate by a sum of angles is one gate per term; what no
sum of slots can hold (a sine of a parameter, a quotient by one) is refused. Angles are in radians.
"""

import cmath
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from circuits.interop.openqasm_lexer import MAX_NESTING, Cursor, OpenQASMError
from circuits.slots import Input, Product, Slot, Weight, leaves

Symbolic = Input | Weight | Product
Sum = tuple[Symbolic, ...]
Value = int | float | Sum
Environment = Mapping[str, Value]

_MAX_TERMS = 64
_MAX_INTEGER = 2**53
_MAX_PRODUCTS = 16
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "exp": math.exp,
    "ln": math.log,
    "log": math.log,
    "sqrt": math.sqrt,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
}
_CONSTANTS = {"pi": math.pi, "π": math.pi, "tau": math.tau, "τ": math.tau, "euler": math.e, "ℇ": math.e}
RESERVED = frozenset((*_FUNCTIONS, *_CONSTANTS))
"""Names that no declaration may take."""


@dataclass(frozen=True, slots=True)
class Expression:
    """What an expression is worth, given its names' values; ``depth`` bounds the recursion."""

    value: Callable[[Environment], Value]
    depth: int = 1


def terms(value: Value) -> tuple[Slot, ...]:
    """Return a value as the slots whose sum it is.

    >>> terms(2)
    (2.0,)
    """
    return value if isinstance(value, tuple) else (float(value),)


def expression(cursor: Cursor, names: frozenset[str] | set[str], version: int) -> Expression:
    """Read an expression over ``names``; raises OpenQASMError at a name outside them, or nested beyond the limit.

    >>> expression(Cursor("-3 * pi / 4"), frozenset(), 3).value({}) == -3 * math.pi / 4
    True
    """
    return _Reader(cursor, names, version).sum()


@dataclass(frozen=True, slots=True)
class _Reader:
    cursor: Cursor
    names: frozenset[str] | set[str]
    version: int

    def sum(self) -> Expression:
        return self._chain("+-", self._product)

    def _product(self) -> Expression:
        return self._chain("*/", self._signed)

    def _chain(self, operators: str, operand: Callable[[], Expression]) -> Expression:
        left = operand()
        while self.cursor.token.kind == "symbol" and self.cursor.token.text in operators:
            sign = self.cursor.take()
            left = self._binary(sign.text, left, operand(), sign.line)
        return left

    def _binary(self, sign: str, left: Expression, right: Expression, line: int) -> Expression:
        depth = 1 + max(left.depth, right.depth)
        self._limit(depth)
        apply, exact = _OPERATORS[sign], self.version == 3

        def value(env: Environment) -> Value:
            return apply(left.value(env), right.value(env), line, exact)

        return Expression(value, depth)

    def _signed(self) -> Expression:
        if self.cursor.token.text in ("+", "-"):
            sign = self.cursor.take()
            self._nest()
            operand = self._signed()
            self.cursor.nesting -= 1
            return self._binary("*", Expression(lambda _: -1), operand, sign.line) if sign.text == "-" else operand
        return self._power()

    def _power(self) -> Expression:
        base, sign = self._atom(), "^" if self.version == 2 else "**"
        line = self.cursor.line
        if not self.cursor.accept(sign):
            return base
        self._nest()
        exponent = self._signed()
        self.cursor.nesting -= 1
        return self._binary("**", base, exponent, line)

    def _atom(self) -> Expression:
        token = self.cursor.token
        if token.kind in ("int", "float"):
            self.cursor.take()
            number = _number(token.kind, token.text.replace("_", ""), token.line)
            return Expression(lambda _: number)
        if self.cursor.accept("("):
            return self._bracketed()
        name = self.cursor.expect_kind("name", "a number, a name or a bracket")
        if name in self.names:
            return Expression(lambda env: env[name])
        if name in _FUNCTIONS:
            self.cursor.expect("(")
            argument = self._bracketed()
            return Expression(lambda env: _call(name, argument.value(env), token.line), argument.depth + 1)
        if name in _CONSTANTS:
            constant = _CONSTANTS[name]
            return Expression(lambda _: constant)
        raise OpenQASMError(
            token.line,
            f"expects a parameter, a constant or one of {', '.join(_FUNCTIONS)}, got '{name[:40]}'; declare it first.",
        )

    def _bracketed(self) -> Expression:
        self._nest()
        inner = self.sum()
        self.cursor.expect(")")
        self.cursor.nesting -= 1
        self._limit(inner.depth + 1)
        return inner

    def _nest(self) -> None:
        self.cursor.nesting += 1
        self._limit(self.cursor.nesting)

    def _limit(self, depth: int) -> None:
        if depth > MAX_NESTING:
            raise OpenQASMError(
                self.cursor.line, f"expects an expression of at most {MAX_NESTING} levels, got more; split it."
            )


def _number(kind: str, text: str, line: int) -> int | float:
    return _finite(float(text) if kind == "float" or len(text) > 15 else int(text), line)


def _finite(value: float, line: int) -> int | float:
    if cmath.isfinite(value) and (isinstance(value, float) or abs(value) <= _MAX_INTEGER):
        return value
    raise OpenQASMError(line, "expects finite numbers, got one that is too large; write angles in radians.")


def _add(left: Value, right: Value, line: int, exact: bool) -> Value:
    del exact
    if not isinstance(left, tuple) and not isinstance(right, tuple):
        return _finite(left + right, line)
    if isinstance(left, tuple) and isinstance(right, tuple):
        total = left
        for term in right:
            total = _merged(total, term)
        if len(total) > _MAX_TERMS:
            raise OpenQASMError(line, f"expects at most {_MAX_TERMS} terms of free parameters, got more; split it.")
        return total
    symbolic, number = (left, right) if isinstance(left, tuple) else (right, left)
    assert isinstance(symbolic, tuple)
    assert not isinstance(number, tuple)
    first = symbolic[0]
    return (replace(first, shift=float(_finite(first.shift + number, line))), *symbolic[1:])


def _merged(total: Sum, term: Symbolic) -> Sum:
    """The sum with one more term: added to the one that reads the same parameter, else appended."""
    for k, old in enumerate(total):
        if isinstance(old, Input | Weight) and type(old) is type(term) and old.index == leaves(term)[0].index:
            new = replace(old, scale=old.scale + term.scale, shift=old.shift + term.shift)
            return (*total[:k], new, *total[k + 1 :])
    return (*total, term)


def _subtract(left: Value, right: Value, line: int, exact: bool) -> Value:
    return _add(left, _multiply(-1, right, line, exact), line, exact)


def _multiply(left: Value, right: Value, line: int, exact: bool) -> Value:
    del exact
    if isinstance(left, tuple) and isinstance(right, tuple):
        if not len(left) == len(right) == 1:
            raise OpenQASMError(line, "expects products of two parameters, got one of sums; multiply it out.")
        (a,), (b,) = left, right
        return (_limited(Product(a, b), line),)
    if isinstance(left, tuple):
        left, right = right, left
    assert not isinstance(left, tuple)
    if isinstance(right, tuple):
        return _scaled(right, left, line)
    return _finite(left * right, line)


def _scaled(symbolic: Sum, factor: float, line: int) -> Sum:
    try:
        return tuple(replace(term, scale=term.scale * factor, shift=term.shift * factor) for term in symbolic)
    except (ValueError, OverflowError):
        raise OpenQASMError(line, "expects finite coefficients, got one that overflows; scale it down.") from None


def _limited(product: Product, line: int) -> Product:
    if _depth(product) > _MAX_PRODUCTS:
        raise OpenQASMError(line, f"expects products nested at most {_MAX_PRODUCTS} deep, got more; split it.")
    return product


def _depth(slot: Slot) -> int:
    return 1 + max(_depth(slot.left), _depth(slot.right)) if isinstance(slot, Product) else 0


def _divide(left: Value, right: Value, line: int, exact: bool) -> Value:
    if isinstance(right, tuple):
        raise OpenQASMError(line, "expects a number below the fraction bar, got a free parameter; bind it first.")
    if right == 0:
        raise OpenQASMError(line, "expects a divisor other than 0, got 0; correct it.")
    if isinstance(left, tuple):
        return tuple(replace(term, scale=term.scale / right, shift=term.shift / right) for term in left)
    if isinstance(left, int) and isinstance(right, int):
        if left % right == 0:
            return left // right
        if exact:  # OpenQASM 3 truncates as C does, but many writers and readers mean the fraction
            raise OpenQASMError(line, f"expects integers that divide evenly, got {left}/{right}; write {left}.0.")
    return _finite(left / right, line)


def _power(base: Value, exponent: Value, line: int, exact: bool) -> Value:
    if isinstance(exponent, tuple):
        raise OpenQASMError(line, "expects a number as exponent, got a free parameter; bind it first.")
    if isinstance(base, tuple):
        if exponent not in (1, 2):
            raise OpenQASMError(line, f"expects a free parameter to the power 1 or 2, got {exponent}; bind it first.")
        return _multiply(base, base, line, exact) if exponent == 2 else base
    try:
        power = math.pow(base, exponent)
    except (ValueError, OverflowError):
        raise OpenQASMError(line, f"expects a finite real power, got {base} to {exponent}; correct it.") from None
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent >= 0 and abs(power) <= _MAX_INTEGER
    return int(power) if whole else power


def _call(name: str, argument: Value, line: int) -> float:
    if isinstance(argument, tuple):
        raise OpenQASMError(line, f"expects a number in {name}(...), got a free parameter; compute it outside.")
    try:
        return float(_finite(_FUNCTIONS[name](argument), line))
    except (ValueError, OverflowError):
        raise OpenQASMError(line, f"expects a number in the domain of {name}, got {argument}; correct it.") from None


_OPERATORS: dict[str, Callable[[Value, Value, int, bool], Value]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "**": _power,
}
