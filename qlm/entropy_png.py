"""The entropy view as a PNG.

Lengths are points (1/72 inch), y grows downwards.
"""

import textwrap
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qlm.entropy_views import Glyph, Panel, Sheet, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path as Outline

_WIDTH, _MARGIN, _GAP = 1008.0, 36.0, 28.0
_SIZE, _LINE = 9.5, 15.0
_COLUMN = (_WIDTH - 2 * _MARGIN - 2 * _GAP) / 3
_ADVANCE = 0.602 * _SIZE
"""Width of a character of DejaVu Sans Mono, the monospaced font that matplotlib brings."""
_N_COLUMNS = int(_COLUMN / _ADVANCE)
_TITLE, _BAR, _HEAD, _CAPTION_LINE = 66.0, 62.0, 40.0, 16.0
_CAPTION_CHARACTERS = 180
_DPI = 150


def draw(sheets: Sequence[Sheet], path: Path) -> None:
    """Draw all sheets below each other and save them. Characters that the font lacks are drawn as ▯."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = sum(_height(sheet) for sheet in sheets) + _MARGIN
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    y = _MARGIN
    for sheet in sheets:
        _draw_sheet(axes, sheet, y)
        y += _height(sheet)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _height(sheet: Sheet) -> float:
    n_lines = max(len(_lines(panel.glyphs)) for panel in sheet.panels)
    return _TITLE + _BAR + _HEAD + n_lines * _LINE + 22 + len(_caption(sheet)) * _CAPTION_LINE + _MARGIN / 2


def _caption(sheet: Sheet) -> list[str]:
    return [
        line
        for sentence in sheet.caption
        for line in textwrap.wrap(sentence, _CAPTION_CHARACTERS, initial_indent="• ", subsequent_indent="   ")
    ]


def _draw_sheet(axes: "Axes", sheet: Sheet, y: float) -> None:
    def say(x: float, y: float, text: str, size: float, colour: str = "#1a1a1a", **style: Any) -> None:
        axes.text(x, y, text, fontsize=size, color=colour, family="DejaVu Sans", parse_math=False, **style)

    say(_MARGIN, y + 12, sheet.heading, 17, weight="bold")
    say(_MARGIN, y + 32, sheet.subtitle, 9.5, "#555555")
    y += _TITLE
    width = _WIDTH - 2 * _MARGIN
    gradient = np.linspace(0, 1, 512)[None]
    axes.imshow(gradient, cmap="viridis", extent=(_MARGIN, _WIDTH - _MARGIN, y + 14, y), aspect="auto")
    axes.set(xlim=(0, _WIDTH), ylim=axes.get_ylim())
    value, label = sheet.reference
    marks = (
        (0.0, "0 nats", "left", 27.0),
        (value, f"{label} {value:.3f}", "right" if value > 0.8 * sheet.top else "center", -7.0),
        (sheet.max_entropy, f"S_max {sheet.max_entropy:.3f}", "right", 27.0),
    )
    for nats, name, side, below in marks:
        x = _MARGIN + width * nats / sheet.top
        axes.plot((x, x), (y - 3, y + 14) if below < 0 else (y, y + 17), color="#1a1a1a", linewidth=1.4)
        say(x, y + below, name, 9, ha=side)
    y += _BAR
    for number, panel in enumerate(sheet.panels):
        x = _MARGIN + number * (_COLUMN + _GAP)
        say(x, y, panel.title, 11, weight="bold")
        say(x, y + 16, panel.note, 9.5, "#555555")
        _draw_text(axes, panel, sheet.top, x, y + _HEAD - 12)
    y += _HEAD + max(len(_lines(panel.glyphs)) for panel in sheet.panels) * _LINE + 22
    for line in _caption(sheet):
        say(_MARGIN, y, line, 9.5)
        y += _CAPTION_LINE


def _lines(glyphs: Sequence[Glyph]) -> list[list[Glyph]]:
    """Break at line ends and, where a line is full, after its last white space (inside a word that fills a line)."""
    lines: list[list[Glyph]] = [[]]
    room = _N_COLUMNS
    for word in _words(glyphs):
        width = sum(len(glyph.shown) for glyph in word)
        if width > room and lines[-1]:
            lines.append([])
            room = _N_COLUMNS
        for glyph in word:
            if len(glyph.shown) > room:
                lines.append([])
                room = _N_COLUMNS
            lines[-1].append(glyph)
            room -= len(glyph.shown)
        if word[-1].ends_line:
            lines.append([])
            room = _N_COLUMNS
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]


def _words(glyphs: Sequence[Glyph]) -> Iterator[list[Glyph]]:
    word: list[Glyph] = []
    for glyph in glyphs:
        word.append(glyph)
        if glyph.faint:
            yield word
            word = []
    if word:
        yield word


def _draw_text(axes: "Axes", panel: Panel, top: float, x: float, y: float) -> None:
    """Cells of colour, and all characters of one ink as one path: exact places, and quick for long texts."""
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.path import Path as Outline

    colours = scale(top)
    cells, fills = [], []
    outlines: dict[tuple[str, float], list[Outline]] = {}
    for number, line in enumerate(_lines(panel.glyphs)):
        left, upper = x, y + number * _LINE
        for glyph in line:
            right = left + len(glyph.shown) * _ADVANCE
            background, ink = colours(glyph.entropy)
            cells.append([(left, upper), (right, upper), (right, upper + _LINE - 1), (left, upper + _LINE - 1)])
            fills.append(background)
            shapes = outlines.setdefault((ink, 0.55 if glyph.faint else 1.0), [])
            for offset, character in enumerate(glyph.shown):
                shape = _outline(character)
                move = np.array((left + offset * _ADVANCE, upper + 0.72 * _LINE))
                shapes.append(Outline(np.asarray(shape.vertices) + move, shape.codes))
            left = right
    axes.add_collection(PolyCollection(cells, facecolors=fills, edgecolors=fills, linewidths=0.3), autolim=False)
    for (ink, alpha), shapes in outlines.items():
        compound = Outline.make_compound_path(*shapes)
        signs = PathCollection([compound], facecolors=ink, linewidths=0, alpha=alpha, zorder=3)
        axes.add_collection(signs, autolim=False)


@lru_cache(maxsize=4096)
def _outline(character: str) -> "Outline":
    """The character's shape at the origin of its baseline, y downwards."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.path import Path as Outline
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans Mono")
    known = get_font(findfont(font)).get_char_index(ord(character))
    path = TextPath((0, 0), character if known else "▯", size=_SIZE, prop=font, usetex=False)
    return Outline(np.asarray(path.vertices) * (1, -1), path.codes)
