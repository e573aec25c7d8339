"""The main job, ``make run``: a hybrid and its twin on real English, one table, and the entropy of a paragraph."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlm.cli_errors import reported

if TYPE_CHECKING:
    from rich.console import Console

    from qlm.comparison import Pair, Result
    from qlm.data import Corpus
    from qlm.recipe import TrainingRecipe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Job:
    """What the main job compares: one preset, as circuit and as twin."""

    preset: str
    data: str
    corpus: "Corpus"
    recipe: "TrainingRecipe"
    root: Path


@app.command()
@reported
def run(
    seeds: Annotated[int, typer.Option(min=1, help="Pairs to train, each with its own seed.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Training steps of each model.")] = None,
    data: Annotated[str, typer.Option(help="python-docs, or a text file or folder.")] = "python-docs",
    preset: Annotated[str, typer.Option(help="Which model to compare with its twin.")] = "tiny-hybrid",
    out: Annotated[Path, typer.Option(help="Where the run folders go; each job takes new, numbered ones.")] = Path(
        "runs"
    ),
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
) -> None:
    """Train a hybrid language model and its classical twin, compare them with baselines, draw per-token entropy."""
    started = time.perf_counter()
    console = open_console()
    console.print(f"Training [bold]{preset}[/] and its classical twin on {data}; this takes a few minutes.")
    from qlm.data import load_corpus
    from qlm.recipe import TrainingRecipe, with_changes

    recipe = with_changes(TrainingRecipe(), steps=steps, seed=seed)
    job = Job(preset, data, load_corpus(data, recipe.context), recipe, out)
    pairs = train_pairs(job, seeds, console)
    report(job, pairs, console)
    console.print(f"Done in {time.perf_counter() - started:.0f} s.")


def train_pairs(job: Job, seeds: int, console: "Console") -> "list[Pair]":
    """Train a hybrid and a twin for each seed, in run folders ``<preset>-001``, ``<preset>-001-twin``, ...

    The twin trains in a process of its own beside the hybrid, half the cores each: faster than one after the other,
    since small models gain little from a second thread, and both are timed under the same conditions.
    """
    from qlm.comparison import Pair
    from qlm.recipe import with_changes
    from qlm.runs import next_name

    first = next_name(job.root, job.preset)
    pairs = []
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        for seed in range(job.recipe.seed, job.recipe.seed + seeds):
            recipe = with_changes(job.recipe, seed=seed)
            suffix = "" if seed == job.recipe.seed else f"-seed{seed}"
            path, twin_path = (first.with_name(first.name + name + suffix) for name in ("", "-twin"))
            waiting = beside.submit(train_one, job, recipe, twin_path, "twin")
            hybrid = train_one(job, recipe, path, "circuit", console)
            with console.status("The twin is finishing ..."):
                pairs.append(Pair(seed, hybrid, waiting.result()))
    return pairs


def train_one(job: Job, recipe: "TrainingRecipe", path: Path, mode: str, console: "Console | None" = None) -> "Result":
    """Train and measure one model on half the cores."""
    from qlm.comparison import Result
    from qlm.config import QLMConfig
    from qlm.recipe import Plan
    from qlm.results import finish_run
    from qlm.threads import use_cores
    from qlm.training import train

    use_cores(share=2)
    plan = Plan(QLMConfig.preset(job.preset, quantum=mode), job.corpus, recipe, job.data)
    trained = train(plan, path, console=console)
    measured = finish_run(trained, plan)
    return Result(trained.folder, trained.tokens_per_second, trained.circuit_executions, measured)


def report(job: Job, pairs: "list[Pair]", console: "Console") -> None:
    """Print the table and what it says, draw losses and entropies of the first hybrid, print what to try next."""
    from qlm.checkpoints import load_model
    from qlm.comparison import comparison_table, measure_baselines, verdicts
    from qlm.entropy import measure_entropy
    from qlm.entropy_views import terminal_view, write_entropy_views
    from qlm.results import plot_losses

    folder = pairs[0].hybrid.folder
    model = load_model(folder.path)
    baselines = measure_baselines(job.corpus)
    console.print()
    console.print(comparison_table(pairs, baselines))
    for line in verdicts(pairs, baselines):
        console.print(f"- {line}", highlight=False)
    plot_losses({"hybrid": folder, "twin": pairs[0].twin.folder}, folder.path / "loss.png")
    table = measure_entropy(model, folder.paragraph.read_text(encoding="utf-8"), seed=job.recipe.seed)
    table.to_csv(folder.path / "entropy.csv")
    written = write_entropy_views(table, folder.path)
    console.print()
    console.print(terminal_view(table))
    console.print(f"Written: {', '.join(map(str, (folder.path / 'loss.png', *written)))}", soft_wrap=True)
    console.print("The same circuits on another backend (the fake IBM device's entropy includes its noise):")
    for backend in ("aer", "ibm:fake_manila"):
        command = f"  {_command()} entropy --model {folder.path} --backend {backend} --tokens 64"
        console.print(command, soft_wrap=True, highlight=False, markup=False)


def _command() -> str:
    """How a person starts ``qlm`` from here."""
    script = Path(sys.executable).with_name("qlm")
    if not script.is_file():
        return f"{Path(sys.executable).name} -m qlm.cli"
    relative = os.path.relpath(script)
    return str(script) if relative.startswith("..") else relative


def open_console() -> "Console":
    """Return a console for people, wide enough for the table; wider where output goes to a file."""
    from rich.console import Console

    console = Console()
    return Console(width=max(console.width, 98) if console.is_terminal else 120)


def main() -> None:
    """Entry point of ``python -m qlm.mainjob``."""
    app()


if __name__ == "__main__":
    main()
