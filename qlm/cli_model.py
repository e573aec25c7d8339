"""``qlm evaluate``, ``generate`` and ``entropy``: what one does with a trained model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qlm.data import Corpus
    from qlm.modeling import QLMForCausalLM
    from qlm.ordered import OrderedCorpus
    from qlm.runs import RunRecord

ModelOption = Annotated[Path, typer.Option(help="The folder of a trained model.")]
BackendOption = Annotated[str, typer.Option(help="Where circuits run; see qlm backends.")]
SPLITS = ("train", "valid", "test")


def evaluate(
    model: ModelOption,
    data: Annotated[
        str | None,
        typer.Option(help="python-docs, hf:DATASET[:CONFIG], a text file or folder; the run's own by default."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, valid (the default) or test.")] = None,
    backend: BackendOption = "statevector",
    context: Annotated[
        int | None, typer.Option(help="Tokens a window (512), or read at a time from a stream (4096).")
    ] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Read the text (- is standard input) once, as one document of any length."),
    ] = False,
) -> None:
    """Measure bits per byte of a model, and what its circuit contributes and costs."""
    from circuits._suggest import unknown

    if split is not None and split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    _check_folder(model)
    if stream:
        _evaluate_stream(model, data, split, backend, context)
        return
    from rich.console import Console

    from qlm.cli_train import evaluation_table
    from qlm.encoders import load_encoder
    from qlm.evaluation import CALIBRATION, CONTEXT, evaluate_model

    loaded = _load(model, backend)
    corpus = _corpus(model, data)
    context, encoder = CONTEXT if context is None else context, load_encoder(model)
    calibration = bytes(corpus.train[:CALIBRATION])
    measured = evaluate_model(loaded, corpus.split(split or "valid"), calibration, context, encoder=encoder)
    console = Console()
    console.print(evaluation_table(measured))
    console.print(f"{corpus.name}, {split or 'valid'}, SHA-256 {corpus.sha256[:16]}...", highlight=False)


def _evaluate_stream(model: Path, data: str | None, split: str | None, backend: str, context: int | None) -> None:
    """One pass over a whole file or standard input, or over a split of a corpus that is in memory anyway."""
    from rich.console import Console

    from qlm.cli_train import figures
    from qlm.console import progress_over
    from qlm.encoders import load_encoder
    from qlm.streaming import stream_evaluate
    from qlm.text_pieces import read_chunks

    whole = data is not None and (data == "-" or Path(data).is_file())
    if whole and split is not None:
        raise ValueError(f"--stream reads a file as a whole, got --split {split} for {data}; leave --split out.")
    loaded = _load(model, backend)
    if data is not None and whole:
        name, size = ("standard input", None) if data == "-" else (data, Path(data).stat().st_size)
        chunks = read_chunks(sys.stdin.buffer if data == "-" else data)
    else:
        corpus = _corpus(model, data)
        text = corpus.split(split or "valid")
        name, size, chunks = f"{corpus.name}, {split or 'valid'}", len(text), iter([bytes(text)])
    console = Console()
    with progress_over(console, name, size) as watch:
        measured = stream_evaluate(loaded, chunks, load_encoder(model), context, name, watch)
    rows = {
        "bits per byte": f"{measured.bits_per_byte:.4f}",
        "perplexity per byte": f"{measured.perplexity:.4f}",
        "text": f"{measured.n_bytes:,} bytes, {measured.n_tokens:,} tokens, in one pass",
        "tokens per second": f"{measured.tokens_per_second:,.0f}",
    }
    console.print(figures(rows))
    console.print(f"{name}, each token predicted from all before it", markup=False, highlight=False)


def generate(
    model: ModelOption,
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "The ",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens (bytes) to add at most.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    backend: BackendOption = "statevector",
) -> None:
    """Continue a text."""
    _check_folder(model)
    from qlm.encoders import load_encoder
    from qlm.generation import Sampling, generate_text

    sampling = Sampling(max_new_tokens, temperature, seed)
    typer.echo(prompt + generate_text(_load(model, backend), prompt, sampling, load_encoder(model)))


def entropy(
    model: ModelOption,
    text: Annotated[
        str | None, typer.Option(help="A text file, or - for standard input; a validation paragraph by default.")
    ] = None,
    backend: BackendOption = "statevector",
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens (bytes) of the text to measure.")] = 64,
    kind: Annotated[str, typer.Option(help="von_neumann or renyi2.")] = "von_neumann",
    wires: Annotated[str | None, typer.Option(help="The subsystem, such as 0,1; half of the wires by default.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Blocks, such as 1.quantum_router; all by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the controls and of shots; the run's by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures; in the model's by default.")] = None,
) -> None:
    """Measure per-token entropies of a model's circuits beside two controls; write them as CSV, JSON, HTML and PNG."""
    _check_folder(model)
    content = _text(model, text)
    from rich.console import Console

    from backends.registry import open_backend
    from qlm.encoders import ByteEncoder, load_encoder
    from qlm.entropy import measure_entropy
    from qlm.entropy_views import terminal_view, write_entropy_views

    if not isinstance(load_encoder(model), ByteEncoder):
        raise ValueError(
            f"entropy expects a model that reads bytes, got one with a tokenizer of its own in {model}; train one with "
            "--tokenizer bytes."
        )
    opened = open_backend(backend)
    table = measure_entropy(
        _load(model, "statevector"),  # the text's hidden states are exact; the circuits' entropies are the backend's
        content,
        backend=opened,
        kind=kind,
        blocks=None if blocks is None else blocks.split(","),
        wires=None if wires is None else _numbers(wires),
        seed=_recorded_seed(model) if seed is None else seed,
        n_tokens=tokens,
    )
    folder = out or model / f"entropy-{''.join(c if c.isalnum() else '-' for c in backend)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the pictures expect a writable folder, got '{error.strerror}' for {folder}; choose another --out."
        ) from None
    table.to_csv(folder / "entropy.csv")
    table.to_json(folder / "entropy.json")
    written = write_entropy_views(table, folder)
    console = Console()
    console.print(terminal_view(table))
    console.print(f"Written: {', '.join(map(str, written))}", soft_wrap=True, markup=False, highlight=False)


def _check_folder(model: Path) -> None:
    """Say what is wrong with --model before anything heavy is imported."""
    if not model.is_dir():
        raise ValueError(f"--model expects the folder of a trained model, got {model}, which is no folder; check it.")


def _load(model: Path, backend: str) -> "QLMForCausalLM":
    from qlm.checkpoints import load_model
    from qlm.threads import use_cores

    use_cores()
    return load_model(model, backend)


def _record(model: Path) -> "RunRecord | None":
    """What the run was asked to do; None for a model that was saved without a run."""
    from qlm.runs import MARKER, RunFolder

    return RunFolder(model).record() if (model / MARKER).is_file() else None


def _corpus(model: Path, data: str | None) -> "Corpus | OrderedCorpus":
    """The corpus that was named, or the one a model was trained on; python-docs where there is no record."""
    from qlm.cli_train import read_corpus

    record = _record(model)
    if data is not None or record is None:
        return read_corpus("python-docs" if data is None else data, 256, stateful=False)
    return read_corpus(record.data, 256, stateful=bool(record.recipe.get("stateful")))


def _recorded_seed(model: Path) -> int:
    """The seed the model started from, so that the untrained control is the model at step 0; 0 without a record."""
    record = _record(model)
    return 0 if record is None else int(record.recipe.get("seed", 0))


def _text(model: Path, given: str | None) -> bytes:
    """The text to measure: a file's, standard input's, or the paragraph that training left in the run folder."""
    from qlm.runs import RunFolder

    if given == "-":
        return sys.stdin.buffer.read()
    path = RunFolder(model).paragraph if given is None else Path(given)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"--text expects a readable file, or - for standard input, got '{error.strerror}' for {path}; name a text."
        ) from None


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--wires expects numbers with commas, such as 0,1, got '{text}'; correct it.") from None
