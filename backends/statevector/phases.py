"""Splits matrices into real rotations between diagonal phases, where neighbouring permutations take up the phases.

Any 2x2 unitary is ``left RY(b) right`` with diagonal sides. A permutation multiplies amplitudes by phases at hardly any
cost, so that what is left of the matrix takes half the arithmetic.
"""

from collections.abc import Iterable, Sequence

from backends.statevector.program import CNOT, CZ, MATRIX, MEASURE, PERMUTE, ROTATE, WORD, Diagonal

Row = tuple[int, ...]


def split(code: Sequence[Row], diagonal: bool) -> tuple[list[Row], list[Diagonal], list[int]]:
    """Return the code with ROTATE where both sides of a matrix can go, the sides, and the permutations of tables.

    ``diagonal``: what is measured at the end is, so that phases before it are lost.
    """
    rows = list(code)
    tables: dict[int, int] = {}
    diagonals: list[Diagonal] = []
    for position, (operation, *operands) in enumerate(code):
        if operation != MATRIX or operands[2] >= 0:
            continue
        bit, matrix = operands[:2]
        before = _absorbing(enumerate(code[:position][::-1], 1), bit)
        behind = _absorbing(enumerate(code[position + 1 :], 1), bit)
        lost = diagonal and behind is None and _is_free(code[position + 1 :], bit)
        if before is None or (behind is None and not lost):
            continue
        rows[position] = (ROTATE, bit, matrix, 0, 0, 0)
        diagonals.append(Diagonal(tables.setdefault(position - before, len(tables)), matrix, 1, bit))
        if behind is not None:
            diagonals.append(Diagonal(tables.setdefault(position + behind, len(tables)), matrix, 0, bit))
    for position, row in enumerate(rows):
        if row[0] == PERMUTE and row[2]:  # it has signs
            tables.setdefault(position, len(tables))
    for position, table in tables.items():
        rows[position] = (PERMUTE, rows[position][1], table, 0, 0, 0)
    for position, row in enumerate(rows):
        if row[0] == PERMUTE and position not in tables:
            rows[position] = (PERMUTE, row[1], -1, 0, 0, 0)
    return rows, diagonals, [rows[position][1] for position in tables]


def _absorbing(rows: Iterable[tuple[int, Row]], bit: int) -> int | None:
    """How far away the first permutation stands that phases of a bit reach, if one does."""
    for distance, row in rows:
        if row[0] == PERMUTE:
            return distance
        if not _commutes(row, bit):
            return None
    return None


def _is_free(rows: Sequence[Row], bit: int) -> bool:
    """Whether phases of a bit reach the end, where a diagonal measurement stands."""
    return all(row[0] == MEASURE or _commutes(row, bit) for row in rows)


def _commutes(row: Row, bit: int) -> bool:
    """Whether phases of a bit can be moved across an instruction."""
    operation, first, second = row[:3]
    if operation in (MATRIX, ROTATE):
        return first != bit
    if operation == WORD:
        return not first >> bit & 1
    if operation == CNOT:
        return not second >> bit & 1
    return operation == CZ
