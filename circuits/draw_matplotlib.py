"""Pictures of circuits: one line per wire, time to the right, wrapped like text."""

from typing import TYPE_CHECKING, Any

from circuits.draw import angle
from circuits.ir import RESET, Circuit, Op

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = {"id": "I", "sdg": "S†", "tdg": "T†", "sx": "√X", "sxdg": "√X†", RESET: "|0⟩", "cy": "Y", "ch": "H"}
_CONTROLLED = ("cx", "cy", "cz", "ch")
_INK, _ANGLE, _FIXED, _RESET = "#1f2933", "#d6e6f5", "#fdf0d5", "#e4e7eb"
_INCH = 0.55
_GAP = 0.35


def figure(circuit: Circuit, width: float = 18.0) -> "Figure":
    """Return a matplotlib figure: blue boxes hold angles (radians, x0 input 0, w0 weight 0), yellow ones fixed gates.

    ``width`` is in units of a narrow gate, 0.55 inch; a longer circuit is wrapped into rows. Nothing is shown and no
    global state of matplotlib is touched: ``figure(circuit).savefig(path)``. Raises ValueError for a width below 4.
    Cost O(ops n_wires).

    >>> from circuits.library import reuploading
    >>> len(figure(reuploading(2, 1)).axes)
    1
    """
    if width < 4:
        raise ValueError(f"a picture expects a width of at least 4 gates, got {width}; widen it.")
    from matplotlib.figure import Figure

    rows = _rows(circuit, width)
    height = circuit.n_wires + 0.6
    longest = max((sum(size + _GAP for _, size in row) for row in rows), default=1.0) + 1.2
    total = height * len(rows) + 0.6 * bool(circuit.global_phase)
    made = Figure(figsize=(longest * _INCH, total * _INCH), dpi=160)
    axes = made.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.9, longest - 0.9), ylim=(total - 0.8, -0.8))
    axes.axis("off")
    for k, row in enumerate(rows):
        _draw_row(axes, circuit.n_wires, row, k * height)
    if circuit.global_phase:
        phase = "global phase: " + " + ".join(angle(slot) for slot in circuit.global_phase)
        axes.text(-0.6, total - 1.1, phase, fontsize=9, color=_INK, va="center")
    return made


def _label(op: Op) -> tuple[str, str]:
    """Name and angles of a box; long formulas are cut."""
    text = ", ".join(angle(slot) for slot in op.slots)
    return _LABELS.get(op.name, op.name.upper()), text if len(text) <= 24 else f"{text[:23]}…"


def _rows(circuit: Circuit, width: float) -> list[list[tuple[list[Op], float]]]:
    """Columns of ops that share no wire they cross, each with its width, cut into rows."""
    columns: list[list[Op]] = []
    free = [0] * circuit.n_wires
    for op in circuit.ops:
        span = range(min(op.wires), max(op.wires) + 1)
        start = max(free[wire] for wire in span)
        if start == len(columns):
            columns.append([])
        columns[start].append(op)
        for wire in span:
            free[wire] = start + 1
    rows: list[list[tuple[list[Op], float]]] = [[]]
    used = 0.0
    for column in columns:
        size = max(0.72, *(0.17 * len(_label(op)[1]) + 0.12 for op in column))
        if rows[-1] and used + size + _GAP > width:
            rows.append([])
            used = 0.0
        rows[-1].append((column, size))
        used += size + _GAP
    return rows


def _draw_row(axes: Any, n_wires: int, row: list[tuple[list[Op], float]], top: float) -> None:
    end = sum(size + _GAP for _, size in row)
    for wire in range(n_wires):
        axes.plot([-0.3, end], [top + wire] * 2, color=_INK, linewidth=0.9, zorder=1)
        axes.text(-0.42, top + wire, str(wire), fontsize=10, color=_INK, ha="right", va="center")
    x = 0.0
    for column, size in row:
        for op in column:
            _draw_op(axes, op, x + size / 2, size, top)
        x += size + _GAP


def _draw_op(axes: Any, op: Op, x: float, size: float, top: float) -> None:
    if len(op.wires) > 1:
        axes.plot([x, x], [top + min(op.wires), top + max(op.wires)], color=_INK, linewidth=1.2, zorder=2)
    boxed = op.wires
    if op.name == "swap":
        axes.plot([x, x], [top + wire for wire in op.wires], "x", color=_INK, markersize=8, mew=1.6, zorder=4)
        return
    if op.name in _CONTROLLED:
        dots = op.wires if op.name == "cz" else op.wires[:1]
        axes.plot([x] * len(dots), [top + wire for wire in dots], "o", color=_INK, markersize=6, zorder=4)
        boxed = op.wires[len(dots) :]
    if op.name == "cx":
        y = top + max(op.wires[1:])
        axes.plot(x, y, "o", markersize=14, markerfacecolor="white", markeredgecolor=_INK, mew=1.2, zorder=3)
        axes.plot(x, y, "+", color=_INK, markersize=14, mew=1.2, zorder=4)
        return
    for wire in boxed:
        _draw_box(axes, op, x, top + wire, size)


def _draw_box(axes: Any, op: Op, x: float, y: float, size: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = _RESET if op.name == RESET else _ANGLE if op.slots else _FIXED
    wide = size if op.slots else 0.62
    shape = FancyBboxPatch(
        (x - wide / 2, y - 0.34), wide, 0.68, "round,pad=0,rounding_size=0.08", fc=colour, ec=_INK, lw=0.9, zorder=3
    )
    axes.add_patch(shape)
    name, angles = _label(op)
    axes.text(x, y - 0.13 if angles else y, name, fontsize=9, color=_INK, ha="center", va="center", zorder=5)
    if angles:
        axes.text(x, y + 0.17, angles, fontsize=7, color=_INK, ha="center", va="center", zorder=5)
