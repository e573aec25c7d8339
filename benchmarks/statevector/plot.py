"""The report's picture: how many times quicker we are, by size and peer, with the goals marked."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.statevector.timing import Figure

_COLOURS = ("#33608f", "#8a6d00", "#228833", "#aa3377", "#c0504d")


def draw(found: Sequence[Figure], path: Path) -> None:
    """Write a PNG of the ratios against peers, each group one workload; nothing where nothing was measured."""
    from matplotlib.figure import Figure as Canvas

    shown = [figure for figure in found if figure.ratio and not figure.at_most and figure.figure != "roofline"]
    shown = [figure for figure in shown if figure.figure != "random" or figure.size.startswith("median")]
    if not shown:
        return
    groups = list(dict.fromkeys(_group(figure) for figure in shown))
    peers = list(dict.fromkeys(figure.against for figure in shown))
    canvas = Canvas(figsize=(12, 5), layout="constrained")
    axes = canvas.subplots()
    for figure in shown:
        ratio = figure.ratio or 1.0
        group = groups.index(_group(figure))
        inside = [one.against for one in shown if _group(one) == groups[group]]
        width = 0.8 / max(4, len(inside))
        at = group + (inside.index(figure.against) - (len(inside) - 1) / 2) * width
        axes.bar(at, ratio, 0.92 * width, color=_COLOURS[peers.index(figure.against) % len(_COLOURS)])
        told = f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"
        inside_bar = {"ha": "center", "va": "bottom", "rotation": 90, "color": "white", "weight": "bold"}
        axes.text(at, 0.53, told, fontsize=8, **inside_bar)
        if figure.goal is not None:
            axes.plot([at - width / 2, at + width / 2], [figure.goal] * 2, color="black", linewidth=2)
    for peer in peers:
        axes.bar(0, 0, color=_COLOURS[peers.index(peer) % len(_COLOURS)], label=peer)
    axes.plot([], [], color="black", linewidth=2, label="goal")
    axes.set_yscale("log")
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_ylim(0.5, 2 * max(figure.ratio for figure in shown if figure.ratio))
    axes.set_ylabel("times quicker, forward and backward")
    axes.legend(ncols=3, fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    canvas.savefig(path, dpi=130)


def _group(figure: Figure) -> str:
    names = {"peers": "W", "random": "60 random\ncircuits", "gram": "Gram", "entropy": "entropy", "threads": "threads"}
    size = "" if figure.figure == "random" else f"\n{figure.size}"
    return names[figure.figure] + size
