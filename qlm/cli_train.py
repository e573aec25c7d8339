"""``qlm train``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from qlm.config import QLMConfig
    from qlm.data import Corpus
    from qlm.evaluation import Evaluation
    from qlm.ordered import OrderedCorpus
    from qlm.recipe import Plan

DEFAULT_PRESET = "tiny-hybrid"
EXIT_BUDGET = 3
"""The run stopped at its budget of QPU seconds, with a checkpoint."""


def train(
    data: Annotated[
        str | None, typer.Option(help="python-docs (the default), a text file or folder, or hf:DATASET[:CONFIG].")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A named configuration; tiny-hybrid when nothing is said.")] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file of configuration keys, laid over --preset.")] = None,
    quantum: Annotated[str | None, typer.Option(help="circuit, twin, separable, frozen or off.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="bytes (the default), bpe:N to train one of N tokens, or hf:NAME or hf:FOLDER.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows a step.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a window.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data and routing.")] = None,
    stateful: Annotated[
        bool, typer.Option("--stateful", help="Read the text in order and carry the state from step to step.")
    ] = False,
    backend: Annotated[str, typer.Option(help="Where circuits run; see qlm backends.")] = "statevector",
    allow_qpu_seconds: Annotated[
        int | None, typer.Option(help="QPU seconds that the run may take in all; with --resume, the new total.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Send requests that the ledger could answer: each is paid for again.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard's event files too, in tensorboard/ of the run.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The run folder; a new, numbered one in runs/ by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
) -> None:
    """Train a model and save it, its metrics and loss curve in a run folder; Ctrl-C or SIGTERM saves a checkpoint."""
    if resume and overwrite:
        raise ValueError("train expects --resume or --overwrite, got both; choose one.")
    changes = {
        "steps": steps,
        "batch_size": batch_size,
        "context": context,
        "learning_rate": learning_rate,
        "seed": seed,
        "stateful": stateful or None,
        "tokenizer": tokenizer,
    }
    allowed: dict[str, Any] = {"allow_qpu_seconds": allow_qpu_seconds, "fresh": fresh, "tensorboard": tensorboard}
    if resume:
        if preset or config or quantum:
            raise ValueError(
                "--resume reads the model from the run folder; leave --preset, --config and --quantum out."
            )
        if out is None:
            raise ValueError("--resume expects --out with the run folder, got none; name it.")
    from qlm.runs import RunFolder, next_name
    from qlm.threads import use_cores

    use_cores()
    if resume and out is not None:
        if RunFolder(out).finished:
            typer.echo(f"The run in {out} is finished; its figures are in {RunFolder(out).summary}.")
            return
        _run(
            replace(_resumed(out, data, backend, changes), **allowed),
            out,
            "resume",
        )
        return
    name = preset or (config.stem if config else DEFAULT_PRESET)
    plan = _fresh(lambda **keys: _config(preset, config, quantum, **keys), data or "python-docs", backend, changes)
    plan = replace(plan, **allowed)
    _run(plan, out or next_name(Path("runs"), name), "overwrite" if overwrite else "refuse")


def _config(preset: str | None, file: Path | None, quantum: str | None, **more: Any) -> "QLMConfig":
    """The configuration that the flags describe: a preset, a file's keys laid over it, and the quantum mode on top,
    with what the tokenizer asks for."""
    from qlm.checkpoint_files import read_keys

    keys = {} if file is None else _read_keys(file)
    for name, value in more.items():
        if keys.setdefault(name, value) != value:
            raise ValueError(f"--tokenizer sets {name} to {value}, got {keys[name]} in {file}; leave it out there.")
    if quantum is not None:
        keys["quantum"] = quantum
        for block in keys.get("blocks") or ():
            if isinstance(block, dict) and "quantum" in block:
                block["quantum"] = quantum
    if preset is None and file is None:
        preset = DEFAULT_PRESET
    return read_keys(keys, "the flags" if file is None else str(file), preset)


def _read_keys(file: Path) -> dict[str, Any]:
    import json

    try:
        keys = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config expects a readable file, got '{error.strerror}' for {file}; check it.") from None
    except ValueError as error:
        raise ValueError(f"--config expects a JSON file, got {file} ({error}); correct it.") from None
    if not isinstance(keys, dict):
        raise ValueError(
            f"--config expects a JSON object of configuration keys, got a {type(keys).__name__} in {file}."
        )
    return keys


def _fresh(configure: "Callable[..., QLMConfig]", data: str, backend: str, changes: dict[str, Any]) -> "Plan":
    """The plan of a new run; what is quick to check comes before texts are read and tokenizers trained."""
    from qlm.bpe import check_tokenizer, make_encoder
    from qlm.encoders import BYTES
    from qlm.recipe import Plan, TrainingRecipe, with_changes

    config, recipe = configure(), with_changes(TrainingRecipe(), **changes)
    check_tokenizer(recipe.tokenizer)
    corpus = read_corpus(data, recipe.context, recipe.stateful)
    encoder = make_encoder(recipe.tokenizer, corpus.train)
    if recipe.tokenizer != BYTES:
        special = {"bos_token_id": encoder.start_id, "eos_token_id": encoder.start_id, "pad_token_id": encoder.pad_id}
        config = configure(vocab_size=encoder.n_ids, **special)
    return Plan(config, corpus, recipe, _absolute(data), backend, encoder=encoder)


def _resumed(out: Path, data: str | None, backend: str, changes: dict[str, Any]) -> "Plan":
    """The recorded plan, with what the flags say in its place: a difference is refused when the folder is opened."""
    from qlm.checkpoint_files import read_config
    from qlm.encoders import load_encoder
    from qlm.recipe import Plan, TrainingRecipe, with_changes
    from qlm.runs import RunFolder

    record = RunFolder(out).record()
    recipe = with_changes(TrainingRecipe(**record.recipe), **changes)
    source = record.data if data is None else _absolute(data)
    corpus = read_corpus(source, recipe.context, recipe.stateful)
    return Plan(read_config(out), corpus, recipe, source, backend, encoder=load_encoder(out))


def read_corpus(source: str, context: int, stateful: bool) -> "Corpus | OrderedCorpus":
    """Return a source's corpus, in its order for stateful training."""
    from qlm.data import load_corpus
    from qlm.ordered import load_ordered

    return load_ordered(source, context) if stateful else load_corpus(source, context)


def _absolute(data: str) -> str:
    """The corpus' source as a run records it: a path that does not depend on where one stands."""
    prefix, path = ("hf:", Path(data[3:])) if data.startswith("hf:") else ("", Path(data))
    return prefix + str(path.resolve()) if path.exists() else data


def _run(plan: "Plan", out: Path, existing: str) -> None:
    from rich.console import Console

    from qlm.checkpoints import load_model
    from qlm.encoders import BYTES
    from qlm.qpu_budget import QpuBudgetReached
    from qlm.results import finish_run
    from qlm.training import train as train_model

    console = Console()
    try:
        run = train_model(plan, out, existing, console)
    except QpuBudgetReached as stop:
        console.print(f"Stopped: {stop}", soft_wrap=True, markup=False, highlight=False)
        raise typer.Exit(EXIT_BUDGET) from None
    if plan.allow_qpu_seconds is not None:
        console.print("The figures below are the exact simulator's: the validation text would cost more than the run.")
        run = replace(run, model=load_model(out, "statevector"))
    console.print(evaluation_table(finish_run(run, plan)))
    measurable = plan.recipe.tokenizer == BYTES and any(run.model.quantum_layers())
    command = "entropy" if measurable else "generate"
    console.print(f"Saved in {out}; try: qlm {command} --model {out}", soft_wrap=True, markup=False, highlight=False)


def evaluation_table(measured: "Evaluation") -> Any:
    """Return a rich table of one model's figures."""
    counted = measured.parameters
    return figures(
        {
            "bits per byte": f"{measured.bits_per_byte:.4f}",
            "perplexity per byte": f"{measured.perplexity:.4f}",
            "text": f"{measured.n_bytes:,} bytes",
            "parameters": f"{counted.core:,} core, {counted.embedding:,} embedding",
            "of them in circuits / in twins": f"{counted.circuit} / {counted.twin}",
            "tokens on the quantum path": f"{measured.routed_share:.1%}",
            "circuit executions, one pass": f"{measured.circuit_executions:,}",
            "circuit's gradient norm": f"{measured.circuit_gradient_norm:.2e}",
            "bits per byte lost with its mean output": f"{measured.ablation_change:+.4f}",
            "tokens per second": f"{measured.tokens_per_second:,.0f}",
        }
    )


def figures(rows: dict[str, str]) -> Any:
    """Return a rich table of names and values."""
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
