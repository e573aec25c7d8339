"""Pictures of an entropy table: coloured text in the terminal, a PNG and a self-contained HTML page.

All views show the same: the text under the trained circuit, the same circuit untrained, and its tokens shuffled, on
one scale from 0 to S_max, with a caption in plain words.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qlm.entropy_statistics import BlockSummary, Statistic, summarise
from qlm.entropy_table import CONTROLS, EntropyRow, EntropyTable

if TYPE_CHECKING:
    from rich.console import RenderableType

_DARK, _LIGHT = "#000000", "#ffffff"
_KINDS = {"von_neumann": "Von Neumann entropy", "renyi2": "Rényi-2 entropy"}


@dataclass(frozen=True, slots=True)
class Glyph:
    """A character as it is shown: its bytes' mean entropy and error (nats), and the sum of their surprisals.

    ``faint``: a sign that stands for white space; ``ends_line``: a line break follows.
    """

    shown: str
    n_bytes: int
    entropy: float
    stderr: float
    surprisal: float
    faint: bool = False
    ends_line: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One control of one block: title, glyphs, mean entropy."""

    title: str
    note: str
    glyphs: tuple[Glyph, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that a view shows of one block, on a scale from 0 to ``top`` nats.

    ``reference``: mean for random states and its name. ``max_entropy``: S_max; ``top`` is larger where noise passes it.
    """

    heading: str
    subtitle: str
    panels: tuple[Panel, ...]
    top: float
    max_entropy: float
    reference: tuple[float, str]
    caption: tuple[str, ...]


def sheets(table: EntropyTable) -> tuple[Sheet, ...]:
    """Return what the views show, one sheet per block; raises ValueError for an incomplete table."""
    for control in CONTROLS:
        if len(table.select(control=control)) * len(CONTROLS) != len(table) or not len(table):
            raise ValueError(
                f"views expect a table with all of {CONTROLS}, got {len(table)} rows; do not select first."
            )
    return tuple(_sheet(table, block) for block in table.blocks())


def _sheet(table: EntropyTable, block: str) -> Sheet:
    about, cut, summary = table.about, table.about.cut(block), summarise(table, block)
    orders = "one order" if about.n_shuffles == 1 else f"mean of {about.n_shuffles} orders"
    titles = ("Trained", "Same circuit, untrained", f"Tokens shuffled ({orders})")
    panels = []
    for control, title in zip(CONTROLS, titles, strict=True):
        spread = summary.spread[control]
        rows = table.select(control, block).rows()
        panels.append(Panel(title, f"mean {spread.mean:.3f}, sd {spread.sd:.3f} nats", _glyphs(about.text, rows)))
    shots = "exact" if about.shots is None else f"{about.shots} shots per circuit"
    wires = ", ".join(map(str, cut.wires))
    subtitle = (
        f"{_KINDS[about.kind]} of wires {wires} out of {cut.n_wires} in block {block}; {len(about.data)} tokens "
        f"(bytes), {about.executions} circuits on {about.backend} ({shots}), seed {about.seed}"
    )
    return Sheet(
        _heading(table, block),
        subtitle,
        tuple(panels),
        max(summary.max_entropy, *table.select(block=block).entropy),
        summary.max_entropy,
        (summary.haar_entropy, "random states (Page)" if about.kind == "von_neumann" else "random states"),
        _caption(table, block, summary),
    )


def _heading(table: EntropyTable, block: str) -> str:
    if table.about.noisy:
        return "Per-token subsystem entropy (includes noise)"
    if not table.about.is_pure(block):
        return "Per-token subsystem entropy (the circuit resets wires: the state is mixed)"
    return "Per-token entanglement entropy"


def _glyphs(text: str, rows: tuple[EntropyRow, ...]) -> tuple[Glyph, ...]:
    """The text's characters with their bytes' figures; a byte that is no text stands alone."""
    glyphs, start = [], 0
    for character in text:
        part = rows[start : start + len(character.encode("utf-8", "surrogateescape"))]
        start += len(part)
        shown, faint = _shown(character)
        entropy = sum(row.entropy for row in part) / len(part)
        stderr = sum(row.stderr**2 for row in part) ** 0.5 / len(part)
        surprisal = sum(row.surprisal for row in part)
        glyphs.append(Glyph(shown, len(part), entropy, stderr, surprisal, faint, character == "\n"))
    return tuple(glyphs)


def _shown(character: str) -> tuple[str, bool]:
    """What stands for a character, and whether it is a faint sign for white space."""
    signs = {" ": "·", "\n": "↵", "\t": "⇥"}
    if character in signs:
        return signs[character], True
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}", False
    if not character.isprintable():
        return character.encode("unicode_escape").decode("ascii"), False
    return ("◌" + character if unicodedata.combining(character) else character), False


def _caption(table: EntropyTable, block: str, summary: BlockSummary) -> tuple[str, ...]:
    """The figures in plain words."""
    noun = "entropy" if not table.about.noisy else "subsystem entropy"
    lines = [
        _against("the same circuit untrained", noun, summary.auc_untrained),
        _against("the shuffled text", noun, summary.auc_shuffled),
        _with_surprisal(noun, summary),
        *_controls_with_surprisal(summary),
    ]
    trained = table.select("trained", block)
    if any(trained.stderr):
        mean = sum(trained.stderr) / len(trained)
        lines.append(f"Each trained token's {noun} carries a standard error of {mean:.3f} nats on average.")
    if not table.about.is_pure(block):
        lines.append(_certificate(summary))
    purities = [purity for purity in trained.purity if purity is not None]
    if purities:
        lines.append(f"The global purity Tr rho^2 is {sum(purities) / len(purities):.3f} on average (1: a pure state).")
    narrowed = " Averaging over orders narrows the spread of the shuffled panel." if table.about.n_shuffles > 1 else ""
    lines.append(
        "Brackets: 95 % bootstrap intervals over the tokens of this one text under this one model; another training "
        f"seed may differ by more.{narrowed}"
    )
    return tuple(lines)


def _interval(statistic: Statistic) -> str:
    return f"{statistic.value:.3f} [{statistic.low:.3f}, {statistic.high:.3f}]".replace("-", "\N{MINUS SIGN}")


def _against(control: str, noun: str, found: Statistic) -> str:
    side = "above" if found.value > 0.5 else "below"
    verdict = f"lies {side} that of" if found.excludes(0.5) else "cannot be told from that of"
    return (
        f"The trained circuit's {noun} {verdict} {control}: a random token of the first exceeds a random token of the "
        f"second with probability (AUC) {_interval(found)}, where 0.5 means no difference."
    )


def _with_surprisal(noun: str, summary: BlockSummary) -> str:
    rank, linear = summary.spearman, summary.pearson
    if rank is None or linear is None:
        return f"The {noun} or the surprisal does not vary over this text, so they have no correlation."
    how = "rises" if rank.value > 0 else "falls"
    verdict = f"{how} with" if rank.excludes(0.0) else "shows no clear trend with"
    return (
        f"The trained {noun} {verdict} the token's surprisal: rank correlation {_interval(rank)}, linear correlation "
        f"{_interval(linear)}."
    )


def _controls_with_surprisal(summary: BlockSummary) -> list[str]:
    """How the controls' entropies follow surprisal, and whether the trained one's do so more."""
    lines = []
    for control, name in (("untrained", "the same circuit untrained"), ("shuffled", "the shuffled text")):
        own, beyond = summary.spearman_controls[control], summary.spearman_beyond[control]
        if own is None or beyond is None:
            continue
        verdict = "larger" if beyond.value > 0 else "smaller"
        found = f"is {verdict}" if beyond.excludes(0.0) else "cannot be told apart"
        lines.append(
            f"For {name} that rank correlation is {_interval(own)}; the trained one {found}: difference "
            f"{_interval(beyond)}."
        )
    return lines


def _certificate(summary: BlockSummary) -> str:
    if summary.certified is None:
        return (
            "The states are mixed, so this is no measure of entanglement; whether S2(A) > S2(AB), which would prove "
            "some, was not tested (it needs kind='renyi2' and a backend that reports the global purity)."
        )
    return (
        f"The states are mixed, so the figure alone is no measure of entanglement; S2(A) > S2(AB), which proves some, "
        f"holds beyond the error for {summary.certified:.0%} of the trained tokens."
    )


def scale(top: float) -> Callable[[float], tuple[str, str]]:
    """Return the map from nats in [0, top] to (background, ink) as hex strings.

    Viridis, which is perceptually uniform and safe for colour-blind readers; the ink is the one of black and white with
    the larger contrast, at least 4.5 (WCAG 2.2, level AA) on every background.

    >>> scale(1.0)(0.0), scale(1.0)(1.0)
    (('#440154', '#ffffff'), ('#fde725', '#000000'))
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    viridis = colormaps["viridis"]

    def colours(value: float) -> tuple[str, str]:
        background = to_hex(viridis(min(1.0, max(0.0, value / top))))
        return background, max((_DARK, _LIGHT), key=lambda ink: contrast(ink, background))

    return colours


def contrast(one: str, other: str) -> float:
    """Return the WCAG contrast ratio of two hex colours, from 1 to 21.

    >>> round(contrast("#000000", "#ffffff"), 6)
    21.0
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def terminal_view(table: EntropyTable) -> "RenderableType":
    """Return the view for a terminal (print it with ``rich``): the three texts in colour, the scale, the caption."""
    from rich.console import Group
    from rich.panel import Panel as Frame
    from rich.text import Text

    parts = []
    for sheet in sheets(table):
        colours = scale(sheet.top)
        parts += [Text(sheet.heading, style="bold"), Text(sheet.subtitle, style="dim"), _terminal_scale(sheet)]
        for panel in sheet.panels:
            text = Text()
            for glyph in panel.glyphs:
                background, ink = colours(glyph.entropy)
                text.append(glyph.shown, style=f"{ink} on {background}")
                text.append("\n" if glyph.ends_line else "")
            text.rstrip()
            parts.append(Frame(text, title=f"{panel.title}: {panel.note}", title_align="left", border_style="dim"))
        parts += [Text("• " + line) for line in sheet.caption]
    return Group(*parts)


def _terminal_scale(sheet: Sheet, width: int = 40) -> "RenderableType":
    from rich.text import Text

    colours = scale(1.0)
    text = Text("Scale 0 ")
    for k in range(width):
        background, ink = colours(k / (width - 1))
        here = any(round(value / sheet.top * (width - 1)) == k for value in (sheet.reference[0], sheet.max_entropy))
        text.append("|" if here else " ", style=f"{ink} on {background}")
    text.append(f" {sheet.top:.3f} nats; marked: {sheet.reference[1]} {sheet.reference[0]:.3f}, ")
    text.append(f"S_max {sheet.max_entropy:.3f}")
    return text


def write_entropy_views(table: EntropyTable, folder: str | Path) -> tuple[Path, Path]:
    """Write ``entropy.png`` and ``entropy.html`` into a folder (made where absent) and return their paths.

    The page is one file without links, fonts or scripts from elsewhere. Raises ValueError for an incomplete table.
    """
    from qlm.entropy_html import page
    from qlm.entropy_png import draw

    shown = sheets(table)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    picture, document = target / "entropy.png", target / "entropy.html"
    draw(shown, picture)
    document.write_text(page(shown), encoding="utf-8")
    return picture, document
