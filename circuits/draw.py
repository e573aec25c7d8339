"""Text drawings of circuits: one row per wire, time to the right."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from circuits._check import integer
from circuits.ir import Circuit, Op
from circuits.slots import Input, Product, Slot, Weight

_SYMBOLS: dict[str, tuple[str, ...]] = {
    "id": ("┤I├",),
    "sdg": ("┤S†├",),
    "tdg": ("┤T†├",),
    "sx": ("┤√X├",),
    "sxdg": ("┤√X†├",),
    "cx": ("●", "⊕"),
    "cy": ("●", "┤Y├"),
    "cz": ("●", "●"),
    "ch": ("●", "┤H├"),
    "swap": ("×", "×"),
    "reset": ("|0⟩",),
}
"""What stands on each wire; a gate that is not here is a box with its name in capitals on each of its wires."""

_DENOMINATORS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
_NARROWEST = 20


@dataclass
class _Column:
    """One step in time: what stands on each wire, and the gaps (below wire k) that a vertical line crosses."""

    cells: dict[int, str] = field(default_factory=dict)
    gaps: set[int] = field(default_factory=set)

    @cached_property
    def width(self) -> int:
        """Read once the column is full."""
        return max(len(cell) for cell in self.cells.values())

    def on_wire(self, wire: int) -> str:
        cell = self.cells.get(wire, "─")
        left = (self.width - len(cell)) // 2
        return "─" * left + cell + "─" * (self.width - len(cell) - left)

    def below(self, wire: int) -> str:
        left = (self.width - 1) // 2
        return " " * left + ("│" if wire in self.gaps else " ") + " " * (self.width - 1 - left)


def text(circuit: Circuit, width: int = 100) -> str:
    """Return a drawing: ● controls, ⊕ targets, × swaps, |0⟩ resets, boxes with their angles in radians.

    ``x0`` is input 0 and ``w0`` weight 0. Ops move as far left as the wires that they cross allow; a long circuit is
    wrapped into blocks of ``width`` characters, ┄ marking the cut. Raises ValueError for a width below 20. Cost
    O(ops n_wires).

    >>> print(text(Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1)), Op("rz", (1,), (math.pi / 2,))))))
    0: ─┤RY(x0)├─●───────────
                 │
    1: ──────────⊕─┤RZ(π/2)├─
    """
    width = integer("a drawing", "width", width, _NARROWEST)
    gutter = len(f"{circuit.n_wires - 1}: ")
    columns = _columns(circuit, longest=width - gutter - 2)
    drawn = _blocks(columns, width - gutter - 2)
    blocks = [
        _block(circuit.n_wires, block, gutter, first=k == 0, last=k == len(drawn) - 1) for k, block in enumerate(drawn)
    ]
    if circuit.global_phase:
        blocks.append("global phase: " + " + ".join(angle(slot) for slot in circuit.global_phase))
    return "\n\n".join(blocks)


def angle(slot: Slot) -> str:
    """Return a slot as a formula: ``x0``, ``2·w3+0.5``, ``x0·x1``, ``π/2``; other numbers to four digits.

    >>> angle(Weight(3, scale=2.0, shift=0.5)), angle(Product(Input(0, shift=-math.pi), Input(1)))
    ('2·w3+0.5', '(x0-π)·x1')
    """
    if isinstance(slot, Product):
        core = "·".join(_factor(part) for part in (slot.left, slot.right))
    elif isinstance(slot, Input | Weight):
        core = f"{'x' if isinstance(slot, Input) else 'w'}{slot.index}"
    else:
        return _number(slot)
    scale = {"1": "", "-1": "-"}.get(_number(slot.scale), f"{_number(slot.scale)}·")
    shift = "" if slot.shift == 0 else f"{'+' if slot.shift > 0 else ''}{_number(slot.shift)}"
    return f"{scale}{core}{shift}"


def _factor(slot: Slot) -> str:
    """A slot inside a product: in brackets where a sign or a sum would be misread."""
    formula = angle(slot)
    summed = isinstance(slot, Input | Weight | Product) and slot.shift != 0
    return f"({formula})" if summed or formula.startswith("-") else formula


def _number(value: float) -> str:
    """A multiple of π as a fraction of it, anything else to four digits."""
    for denominator in _DENOMINATORS:
        numerator = round(value * denominator / math.pi)
        if numerator and abs(numerator) <= 64 and math.isclose(value, numerator * math.pi / denominator, rel_tol=1e-12):
            ratio = Fraction(numerator, denominator)
            times = {1: "π", -1: "-π"}.get(ratio.numerator, f"{ratio.numerator}π")
            return times if ratio.denominator == 1 else f"{times}/{ratio.denominator}"
    return f"{value:.4g}" if value else "0"


def _cells(op: Op, longest: int) -> dict[int, str]:
    """What an op puts on each of its wires."""
    if op.name in _SYMBOLS:
        return dict(zip(op.wires, _SYMBOLS[op.name], strict=True))
    name = op.name.upper()
    label = f"{name}({', '.join(angle(slot) for slot in op.slots)})" if op.slots else name
    if len(label) > longest - 2:
        label = f"{label[: longest - 3]}…"
    others = {wire: f"┤{name:^{len(label)}}├" for wire in op.wires[1:]}
    return {op.wires[0]: f"┤{label}├", **others}


def _columns(circuit: Circuit, longest: int) -> list[_Column]:
    """Ops by column: each as early as all the wires between its first and last allow."""
    columns: list[_Column] = []
    free = [0] * circuit.n_wires
    for op in circuit.ops:
        span = range(min(op.wires), max(op.wires) + 1)
        start = max(free[wire] for wire in span)
        if start == len(columns):
            columns.append(_Column())
        crossed = {wire: "┼" for wire in span if wire not in op.wires}
        columns[start].cells |= crossed | _cells(op, longest)
        columns[start].gaps |= set(span[:-1])
        for wire in span:
            free[wire] = start + 1
    return columns


def _blocks(columns: list[_Column], width: int) -> list[list[_Column]]:
    """Cut the columns into runs that fit ``width``, one character between two columns."""
    blocks: list[list[_Column]] = [[]]
    used = 0
    for column in columns:
        if blocks[-1] and used + column.width > width:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += column.width + 1
    return blocks


def _block(n_wires: int, columns: list[_Column], gutter: int, first: bool, last: bool) -> str:
    rows: list[str] = []
    start, end = "─" if first else "┄", "─" if last else "┄"
    for wire in range(n_wires):
        label = f"{wire}: ".rjust(gutter)
        rows.append(label + start + "─".join(column.on_wire(wire) for column in columns) + end)
        if any(wire in column.gaps for column in columns):
            rows.append((" " * (gutter + 1) + " ".join(column.below(wire) for column in columns)).rstrip())
    return "\n".join(rows)
