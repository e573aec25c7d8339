"""Observables as bit masks, pulled back through the permutation that a program leaves to them.

A word is the sum over k of ``i**y (-1)**(k & z) |k ^ x><k|``: x marks its X and Y letters, z its Y and Z letters, y
counts its Y letters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from circuits import PauliSum
from circuits.observables import Word

Gates = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class Words:
    """Distinct words of observables. ``masks`` (w, 3): x, z, number of Y; those with x = 0 come first, ``n_diagonal``
    of them. ``table`` (w, o): coefficient, with the sign of pulling back, of each word in each observable."""

    masks: NDArray[np.int64]
    n_diagonal: int
    table: NDArray[np.float64]

    @cached_property
    def is_identity(self) -> bool:
        """Whether each word is an observable, in order."""
        return self.table.shape[0] == self.table.shape[1] and bool((self.table == np.eye(len(self.table))).all())


@lru_cache(maxsize=256)
def words_of(observables: tuple[PauliSum, ...], n_wires: int, sweep: Gates = ()) -> Words:
    """Return the observables' words before the gates of ``sweep``: ``<U^dagger W U>`` for each word W.

    >>> from circuits import Z
    >>> words_of((Z(1),), 2, (("cx", (0, 1)),)).masks.tolist()  # Z_1 after a CNOT is Z_0 Z_1 before it
    [[0, 3, 0]]
    """
    rows: dict[tuple[int, int], dict[int, float]] = {}
    for column, observable in enumerate(observables):
        for word, coefficient in observable.terms:
            (x, z), sign = _before(_masks(word, n_wires), sweep, n_wires)
            entry = rows.setdefault((x, z), {})
            entry[column] = entry.get(column, 0.0) + sign * coefficient
    order = sorted(rows, key=lambda masks: masks[0] != 0)
    table = np.zeros((len(order), len(observables)))
    for row, masks in enumerate(order):
        for column, coefficient in rows[masks].items():
            table[row, column] = coefficient
    listed = [(x, z, (x & z).bit_count()) for x, z in order]
    return Words(np.array(listed, dtype=np.int64).reshape(-1, 3), sum(x == 0 for x, _ in order), table)


def _masks(word: Word, n_wires: int) -> tuple[int, int]:
    x = sum(1 << (n_wires - 1 - wire) for wire, letter in word if letter in "XY")
    return x, sum(1 << (n_wires - 1 - wire) for wire, letter in word if letter in "YZ")


def _before(
    masks: tuple[int, int], sweep: Iterable[tuple[str, tuple[int, ...]]], n_wires: int
) -> tuple[tuple[int, int], float]:
    """``U^dagger W U`` for a product U of X, Z, CNOT, CZ and SWAP, each its own inverse; and its sign.

    Aaronson & Gottesman 2004, Phys. Rev. A 70, 052328, section III.
    """
    x, z = masks
    sign = 1.0
    for name, wires in reversed(tuple(sweep)):
        a, b = 1 << (n_wires - 1 - wires[0]), 1 << (n_wires - 1 - wires[-1])
        xa, za, xb, zb = bool(x & a), bool(z & a), bool(x & b), bool(z & b)
        if name == "cx":
            sign = -sign if xa and zb and xb == za else sign
            x, z = x ^ (b * xa), z ^ (a * zb)
        elif name == "cz":
            sign = -sign if xa and xb and za != zb else sign
            z ^= (a * xb) ^ (b * xa)
        elif name == "swap":
            x ^= (a | b) * (xa != xb)
            z ^= (a | b) * (za != zb)
        elif (name == "x" and za) or (name == "z" and xa):
            sign = -sign
    return (x, z), sign
