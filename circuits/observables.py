"""Observables: real sums of Pauli words, built with ``@``, ``+`` and ``*``."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

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
        return _collect((word, phase * factor) for word, phase, factor in products)

    def __add__(self, other: "PauliSum | float") -> "PauliSum":
        addend = _as_sum(other)
        return NotImplemented if addend is None else _collect((*self.terms, *addend.terms))

    def __sub__(self, other: "PauliSum | float") -> "PauliSum":
        subtrahend = _as_sum(other)
        return NotImplemented if subtrahend is None else self + -subtrahend

    def __mul__(self, factor: float) -> "PauliSum":
        if isinstance(factor, PauliSum):
            raise TypeError("'*' expects a real number; multiply observables with '@'.")
        return _collect((word, coefficient * factor) for word, coefficient in self.terms)

    def __truediv__(self, divisor: float) -> "PauliSum":
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
    return _collect([((), value)]) if isinstance(value, int | float | np.number) else None


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


def _collect(terms: Iterable[tuple[Word, complex]]) -> PauliSum:
    totals: dict[Word, complex] = {}
    for word, coefficient in terms:
        totals[word] = totals.get(word, 0) + complex(coefficient)
    for word, total in totals.items():
        if total.imag != 0 or not math.isfinite(total.real):
            raise ValueError(
                f"an observable expects finite real coefficients, got {total} for {_term(word, 1.0)}; a product of "
                "different Paulis on one wire is not Hermitian."
            )
    return PauliSum(tuple((word, totals[word].real) for word in sorted(totals) if totals[word] != 0))


def _pauli(letter: str, wire: int) -> PauliSum:
    if isinstance(wire, bool) or not isinstance(wire, int | np.integer) or wire < 0:
        raise ValueError(f"{letter} expects a wire numbered from 0, got {wire!r}; use a non-negative integer.")
    return PauliSum(((((int(wire), letter),), 1.0),))


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


def I() -> PauliSum:  # noqa: E743
    """Return the identity.

    >>> I() + 1
    2.0 * I()
    """
    return PauliSum((((), 1.0),))


def pauli_word(letters: str, wires: Iterable[int]) -> PauliSum:
    """Return the word with the k-th letter on the k-th wire; I letters are dropped.

    >>> pauli_word("XIZ", (0, 1, 2))
    X(0) @ Z(2)
    """
    pairs = zip(wires, letters, strict=True)
    return PauliSum(((tuple(sorted((wire, letter) for wire, letter in pairs if letter != "I")), 1.0),))


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
