"""Observables: real sums of Pauli words, built with ``@``, ``+`` and ``*``."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Number, Real

import numpy as np

_ROUNDING = 1e-12
"""Imaginary parts below this share of what was summed are the rounding of a real sum."""

Word = tuple[tuple[int, str], ...]
"""A Pauli word: (wire, letter) pairs sorted by wire; () is the identity."""

_PRODUCT: Mapping[tuple[str, str], tuple[complex, str]] = {
    **{(letter, letter): (1, "I") for letter in "XYZ"},
    ("X", "Y"): (1j, "Z"),
    ("Y", "Z"): (1j, "X"),
    ("Z", "X"): (1j, "Y"),
    ("Y", "X"): (-1j, "Z"),
    ("Z", "Y"): (-1j, "X"),
    ("X", "Z"): (-1j, "Y"),
}


@dataclass(frozen=True, slots=True)
class PauliSum:
    """``sum_k c_k P_k`` with real c_k and Pauli words P_k; terms sorted by word, equal words merged, zeros dropped.

    Build it from ``X(wire)``, ``Y(wire)``, ``Z(wire)`` and ``I()``: ``0.5 * Z(0) + X(1) @ Z(2)``. Raises ValueError for
    a product that is not Hermitian (``X(0) @ Y(0)``) and for a coefficient that is not a finite real number.

    >>> X(0) @ Z(2) + 0.5 * Z(0)
    X(0) @ Z(2) + 0.5 * Z(0)
    """

    terms: tuple[tuple[Word, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", _merged((_word(word), coefficient) for word, coefficient in self.terms))

    @property
    def wires(self) -> tuple[int, ...]:
        """The wires that some term acts on, ascending."""
        return tuple(sorted({wire for word, _ in self.terms for wire, _ in word}))

    @property
    def is_diagonal(self) -> bool:
        """Whether every word holds Z alone, so that probabilities suffice."""
        return all(letter == "Z" for word, _ in self.terms for _, letter in word)

    @property
    def one_norm(self) -> float:
        """``sum_k |c_k|``: a bound on the absolute expectation."""
        return math.fsum(abs(coefficient) for _, coefficient in self.terms)

    def __matmul__(self, other: "PauliSum") -> "PauliSum":
        if not isinstance(other, PauliSum):
            return NotImplemented
        products = ((*_multiply(left, right), a * b) for left, a in self.terms for right, b in other.terms)
        return PauliSum(_merged((word, phase * factor) for word, phase, factor in products))

    def __add__(self, other: "PauliSum | float") -> "PauliSum":
        addend = _as_sum(other)
        return NotImplemented if addend is None else PauliSum((*self.terms, *addend.terms))

    def __sub__(self, other: "PauliSum | float") -> "PauliSum":
        subtrahend = _as_sum(other)
        return NotImplemented if subtrahend is None else self + -subtrahend

    def __mul__(self, factor: float) -> "PauliSum":
        if isinstance(factor, PauliSum):
            raise TypeError("'*' expects a real number, got an observable; multiply observables with '@'.")
        if not isinstance(factor, Number):
            return NotImplemented
        return PauliSum(tuple((word, coefficient * factor) for word, coefficient in self.terms))

    def __truediv__(self, divisor: float) -> "PauliSum":
        if not isinstance(divisor, Number):
            return NotImplemented
        if divisor == 0:
            raise ValueError("'/' expects a divisor other than 0, got 0; divide by a non-zero number.")
        return self * (1 / divisor)

    def __neg__(self) -> "PauliSum":
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> "PauliSum":
        return -self + other

    def __repr__(self) -> str:
        return " + ".join(_term(word, coefficient) for word, coefficient in self.terms) or "0.0 * I()"


def _term(word: Word, coefficient: float) -> str:
    letters = " @ ".join(f"{letter}({wire})" for wire, letter in word) or "I()"
    return letters if coefficient == 1 else f"{coefficient!r} * {letters}"


def _as_sum(value: object) -> PauliSum | None:
    if isinstance(value, PauliSum):
        return value
    return PauliSum((((), float(value)),)) if isinstance(value, Real) else None


def _multiply(left: Word, right: Word) -> tuple[Word, complex]:
    letters = dict(left)
    phase: complex = 1
    for wire, letter in right:
        if wire in letters:
            factor, product = _PRODUCT[letters[wire], letter]
            phase *= factor
            letters[wire] = product
        else:
            letters[wire] = letter
    return tuple(sorted((wire, letter) for wire, letter in letters.items() if letter != "I")), phase


def _word(pairs: Iterable[tuple[int, str]]) -> Word:
    """A checked word: known letters, distinct wires, sorted, I dropped."""
    letters: dict[int, str] = {}
    for wire, letter in pairs:
        if isinstance(wire, bool) or not isinstance(wire, int | np.integer) or wire < 0:
            raise ValueError(f"{letter} expects a wire numbered from 0, got {wire!r}; use a non-negative integer.")
        if letter not in ("I", "X", "Y", "Z"):
            raise ValueError(f"a Pauli word expects the letters I, X, Y and Z, got {letter!r}; correct it.")
        if int(wire) in letters:
            raise ValueError(f"a Pauli word expects distinct wires, got wire {wire} twice; multiply with '@'.")
        letters[int(wire)] = letter
    return tuple(sorted((wire, letter) for wire, letter in letters.items() if letter != "I"))


def _merged(terms: Iterable[tuple[Word, complex]]) -> tuple[tuple[Word, float], ...]:
    """Terms sorted by word, equal words summed, zeros dropped; ValueError for what is not real and finite."""
    groups: dict[Word, list[complex]] = {}
    for word, coefficient in terms:
        groups.setdefault(word, []).append(complex(coefficient))
    merged: list[tuple[Word, float]] = []
    for word in sorted(groups):
        addends = groups[word]
        # Products like A @ A cancel in pairs, which exact sums keep; longer ones leave their factors' rounding.
        real, imaginary = math.fsum(c.real for c in addends), math.fsum(c.imag for c in addends)
        if not abs(imaginary) <= _ROUNDING * math.fsum(abs(c) for c in addends) or not math.isfinite(real):
            raise ValueError(
                f"an observable expects finite real coefficients, got {complex(real, imaginary)} for {_term(word, 1.0)}"
                "; a product of different Paulis on one wire is not Hermitian."
            )
        if real != 0:
            merged.append((word, real))
    return tuple(merged)


def _pauli(letter: str, wire: int) -> PauliSum:
    return PauliSum(((((wire, letter),), 1.0),))


def X(wire: int) -> PauliSum:
    """Return Pauli X on a wire; raises ValueError for a negative wire.

    >>> X(1)
    X(1)
    """
    return _pauli("X", wire)


def Y(wire: int) -> PauliSum:
    """Return Pauli Y on a wire; raises ValueError for a negative wire.

    >>> Y(0) @ Y(0)
    I()
    """
    return _pauli("Y", wire)


def Z(wire: int) -> PauliSum:
    """Return Pauli Z on a wire; raises ValueError for a negative wire.

    >>> 2 * Z(0) - Z(0)
    Z(0)
    """
    return _pauli("Z", wire)


def I() -> PauliSum:  # noqa: E743 -- the identity has no other name
    """Return the identity.

    >>> I() + 1
    2.0 * I()
    """
    return PauliSum((((), 1.0),))


def pauli_word(letters: str, wires: Iterable[int]) -> PauliSum:
    """Return the word with the k-th letter on the k-th wire; I letters are dropped.

    Raises ValueError for a letter outside IXYZ, a repeated wire, or unequal lengths.

    >>> pauli_word("XIZ", (0, 1, 2))
    X(0) @ Z(2)
    """
    chosen = tuple(wires)
    if len(chosen) != len(letters):
        raise ValueError(f"pauli_word expects one wire per letter, got {len(chosen)} for {letters!r}; match them.")
    return PauliSum(((tuple(zip(chosen, letters, strict=True)), 1.0),))


def commuting_groups(observables: Iterable[PauliSum]) -> tuple[tuple[dict[int, str], tuple[Word, ...]], ...]:
    """Group all words of the observables into sets that commute wire by wire, so that each is measured in one basis.

    Returns (basis, words) per group, the basis giving the letter to measure on each wire. First fit over words by
    falling weight: cost O(words groups). The identity joins the first group.

    >>> groups = commuting_groups((Z(0), Z(0) @ Z(1), X(1), X(0) @ X(1)))
    >>> [basis for basis, _ in groups]
    [{0: 'X', 1: 'X'}, {0: 'Z', 1: 'Z'}]
    """
    words = {word for observable in observables for word, _ in observable.terms}
    groups: list[tuple[dict[int, str], list[Word]]] = []
    for word in sorted(words, key=lambda word: (-len(word), word)):
        for basis, members in groups:
            if all(basis.get(wire, letter) == letter for wire, letter in word):
                basis.update(word)
                members.append(word)
                break
        else:
            groups.append((dict(word), [word]))
    return tuple((dict(sorted(basis.items())), tuple(members)) for basis, members in groups)
