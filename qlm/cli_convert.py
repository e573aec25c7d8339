"""``qlm convert``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from qlm.conversion.run import Conversion

_SCORED_BYTES = 65536
"""Of validation text, on which each stage is measured."""
_STAGES = {
    "teacher": "the original",
    "replaced": "with fresh blocks",
    "aligned": "after alignment",
    "distilled": "after distillation",
}


def convert(
    model: Annotated[Path, typer.Argument(help="The folder of a model of Llama's layout, with its tokenizer.")],
    out: Annotated[Path, typer.Option(help="The folder of the converted model; a new one.")],
    block: Annotated[str, typer.Option(help="What replaces attention: harmonic, mamba, rotational, ...")] = "harmonic",
    layers: Annotated[str, typer.Option(help="all, or the layers' numbers from 0, such as 0,2.")] = "all",
    data: Annotated[str, typer.Option(help="python-docs, or a text file or folder.")] = "python-docs",
    align_steps: Annotated[int | None, typer.Option(help="Steps of each block alone on attention's outputs.")] = None,
    distil_steps: Annotated[int | None, typer.Option(help="Steps of the whole model on the original's logits.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows a step.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a window.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the blocks and of the windows.")] = None,
) -> None:
    """Replace attention layers of a pretrained model by recurrent blocks, distil, and refuse to save what leaks."""
    chosen = None if layers == "all" else _numbers(layers)
    if not model.is_dir():
        raise ValueError(f"convert expects the folder of a model, got {model}, which is no folder; check it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out expects a new or empty folder, got {out}, which is not; choose another.")
    from rich.console import Console

    from qlm.conversion import run
    from qlm.conversion.config import complete_block
    from qlm.conversion.distil import ConversionRecipe
    from qlm.conversion.text import read_tokens
    from qlm.data import load_corpus
    from qlm.threads import use_cores

    use_cores()
    changes = {
        "align_steps": align_steps,
        "distil_steps": distil_steps,
        "batch_size": batch_size,
        "context": context,
        "seed": seed,
    }
    recipe = ConversionRecipe(**{name: value for name, value in changes.items() if value is not None})
    entry = complete_block({"kind": block})
    corpus = load_corpus(data, recipe.context)
    tokenizer, teacher = run.load_tokenizer(model), run.load_teacher(model)
    vocab_size = teacher.config.get_text_config().vocab_size
    train = read_tokens(corpus.train, tokenizer, vocab_size)
    valid = read_tokens(_beginning(corpus.valid), tokenizer, vocab_size)
    console = Console()
    with _Progress(console, {"align": recipe.align_steps, "distil": recipe.distil_steps}) as progress:
        made = run.convert(teacher, train, valid, recipe, entry, chosen, progress.tell)
    console.print(conversion_table(made))
    made.save(out, tokenizer)
    console.print(f"Saved in {out}; read it with ConvertedForCausalLM.from_pretrained", soft_wrap=True, highlight=False)


def conversion_table(made: "Conversion") -> Any:
    """Return a rich table of what each stage is worth, how near the blocks came, and whether the model is causal."""
    from rich.table import Table

    table = Table("", "bits per byte", "perplexity per token")
    for stage, label in _STAGES.items():
        found = made.scores[stage]
        table.add_row(label, f"{found.bits_per_byte:.4f}", f"{found.perplexity:.3f}", end_section=stage == "distilled")
    for index, (before, after) in made.errors.items():
        table.add_row(f"layer {index}: square error", f"{before:.3f} before", f"{after:.3f} aligned")
    gate = made.causality
    table.add_section()
    verdict = "causal" if gate.holds else "LEAKS"
    table.add_row(f"{verdict}: the future's effect", f"{gate.by_value:.1e} value", f"{gate.by_gradient:.1e} gradient")
    table.add_row(f"the first token's, {gate.length} tokens on", f"{gate.reach:.1e} value", "")
    return table


class _Progress:
    """A bar for each stage with steps, with its loss; nothing where the console is no terminal."""

    def __init__(self, console: "Console", steps: dict[str, int]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, refresh_per_second=4)
        self.tasks = {stage: self.bar.add_task(stage, total=n, note="") for stage, n in steps.items() if n}

    def __enter__(self) -> "_Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def tell(self, stage: str, step: int, loss: float) -> None:
        """Show a step's loss."""
        self.bar.update(self.tasks[stage], completed=step, note=f"loss {loss:.3f}")


def _beginning(text: bytes) -> bytes:
    """The first bytes of a text, cut between characters."""
    return text[:_SCORED_BYTES].decode("utf-8", "ignore").encode()


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--layers expects all, or numbers with commas such as 0,2, got '{text}'; correct it."
        ) from None
