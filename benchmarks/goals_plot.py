"""A picture of figures beside their goals, from the records that benchmarks leave.

    python -m benchmarks.goals_plot kernels scan selective_scan

draws ``benchmarks/results/kernels.png`` from ``scan.json`` and ``selective_scan.json``. A figure stands at how many
times it betters its goal, whether that is a least or a most; figures without one are left to the records.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Canvas

RESULTS = Path(__file__).resolve().parent / "results"
COLOURS = {True: "#228833", False: "#bb4444"}


def margin(figure: dict[str, Any]) -> float:
    """By what factor a figure betters its goal; below 1 it misses it."""
    ratio = figure["ratio"] / figure["goal"]
    return 1 / ratio if figure["at_most"] else ratio


def draw(figures: list[dict[str, Any]], path: Path) -> None:
    canvas = Canvas(figsize=(10, 1.0 + 0.32 * len(figures)), layout="constrained")
    axes = canvas.subplots()
    rows, margins = range(len(figures)), [margin(figure) for figure in figures]
    axes.hlines(rows, 1, margins, color=[COLOURS[found >= 1] for found in margins], linewidth=5)
    axes.axvline(1, color="black", linewidth=1.5)
    for row, found, figure in zip(rows, margins, figures, strict=True):
        said = f"{figure['ratio']:.3g}   ({'at most' if figure['at_most'] else 'at least'} {figure['goal']:g})"
        right = found >= 1
        axes.annotate(
            said,
            (found, row),
            (6 if right else -6, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(list(rows), [_name(figure) for figure in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(0.3, *margins) / 2.5, max(3.0, *margins) * 2.5)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times better than the goal")
    axes.grid(axis="x", color="#e5e5e5")
    axes.set_axisbelow(True)
    canvas.savefig(path, dpi=130)


def _name(figure: dict[str, Any]) -> str:
    return f"{figure['figure']}, {figure['size']}: {figure['against']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", help="name of the picture, without .png")
    parser.add_argument("records", nargs="+", help="names of the records, without .json")
    given = parser.parse_args()
    records = [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in given.records]
    figures = [f for record in records for f in record["figures"] if f["goal"] is not None and f["ratio"] is not None]
    if not figures:
        parser.error(f"expected a figure with a goal in {given.records}, got none; name others")
    draw(figures, RESULTS / f"{given.picture}.png")


if __name__ == "__main__":
    main()
