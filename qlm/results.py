"""What a finished run leaves beside its model: metrics.json, loss.png, and a paragraph for the entropy views."""

import platform
import re
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qlm.evaluation import CALIBRATION, Evaluation, evaluate_model
from qlm.recipe import Plan
from qlm.runs import RunFolder, write_json, write_text
from qlm.training import TrainedRun

_PARAGRAPH = (240, 560)
_PROSE = 0.9
"""Share of letters, blanks aside, from which a paragraph counts as prose rather than as code or a table."""


def finish_run(run: TrainedRun, plan: Plan) -> Evaluation:
    """Measure a run's model on the whole validation text, and write metrics.json, loss.png and paragraph.txt.

    metrics.json holds the corpus' SHA-256 and the Python version: bits per byte compare only on equal hashes.
    """
    calibration = bytes(plan.corpus.train[:CALIBRATION])
    measured = evaluate_model(run.model, plan.corpus.valid, calibration, encoder=plan.encoder)
    write_text(run.folder.paragraph, paragraph(plan.corpus.valid))
    plot_losses({run.folder.path.name: run.folder}, run.folder.path / "loss.png")
    write_json(run.folder.summary, _summary(run, plan, measured))
    return measured


def _summary(run: TrainedRun, plan: Plan, measured: Evaluation) -> dict[str, Any]:
    return {
        "validation": {**asdict(measured), "perplexity": measured.perplexity},
        "training": {
            "steps": run.steps,
            "tokens_per_second": run.tokens_per_second,
            "circuit_executions": run.circuit_executions,
        },
        "corpus": plan.corpus.summary(),
        "recipe": asdict(plan.recipe),
        "backend": plan.record().backend,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "numpy", "numba")},
        },
    }


def paragraph(text: bytes) -> str:
    """Return the first paragraph of running prose, 240 to 560 bytes; the text's beginning where there is none.

    >>> paragraph(b"short")
    'short'
    """
    least, most = _PARAGRAPH
    blocks = re.split(r"\n\s*\n", text.decode("utf-8", "replace"))
    for candidate in (textwrap.dedent(block).strip() for block in blocks):
        characters = "".join(candidate.split())
        prose = sum(character.isalpha() for character in characters) >= _PROSE * len(characters)
        if prose and least <= len(candidate.encode()) <= most and candidate[0].isupper():
            return candidate
    return text[:most].decode("utf-8", "ignore").strip()


def plot_losses(runs: Mapping[str, RunFolder], path: Path) -> None:
    """Draw the training (thin) and validation (dots) bits per byte of runs over their steps, as a PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    colours = ("#7a3fb0", "#e08a1e", "#2a7f9e", "#b0413f")
    for number, (label, folder) in enumerate(runs.items()):
        colour = colours[number % len(colours)]
        lines = folder.lines()
        trained = [(line["step"], line["bits_per_byte"]) for line in lines if "bits_per_byte" in line]
        held_out = [
            (line["step"], line["validation_bits_per_byte"]) for line in lines if "validation_bits_per_byte" in line
        ]
        axes.plot(*_columns(trained), color=colour, alpha=0.55, linewidth=1.2, label=f"{label}, training")
        axes.plot(*_columns(held_out), color=colour, marker="o", linewidth=1.8, label=f"{label}, validation")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator((0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("step")
    axes.set_ylabel("bits per byte (logarithmic)")
    axes.set_title("Loss while training", loc="left")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
