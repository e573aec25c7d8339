"""The command line: ``qlm train | convert | evaluate | generate | entropy | backends | jobs | draw``.

Nothing heavy is imported here, so that ``--help`` is quick: each command imports what it needs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlm import cli_backends, cli_jobs
from qlm.cli_convert import convert
from qlm.cli_errors import reported
from qlm.cli_model import entropy, evaluate, generate
from qlm.cli_train import train

if TYPE_CHECKING:
    from circuits import Circuit

app = typer.Typer(
    name="qlm",
    help="Hybrid quantum/classical language models: train, evaluate, and see what their circuits do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing what draws boxes around help takes half as long again as everything else
)


def main() -> None:
    """Entry point of ``qlm``."""
    app()


app.command(short_help="Train a model into a run folder.")(reported(train))
app.command(short_help="Replace a pretrained model's attention by blocks.")(reported(convert))
app.command(short_help="Measure bits per byte, and the circuit's part.")(reported(evaluate))
app.command(short_help="Continue a text.")(reported(generate))
app.command(short_help="Measure per-token entropies of circuits.")(reported(entropy))


app.add_typer(cli_backends.app, name="backends", short_help="List backends, what to install; check one.")
app.add_typer(cli_jobs.app, name="jobs", short_help="List, resume, cancel and export jobs on paid machines.")


@app.command(short_help="Draw a circuit.")
@reported
def draw(
    circuit: Annotated[
        str | None, typer.Argument(help="A family of circuits.library, or a JSON file that holds a circuit.")
    ] = None,
    wires: Annotated[int, typer.Option(help="Wires of the family.")] = 4,
    depth: Annotated[int | None, typer.Option(help="Layers of the family.")] = None,
    model: Annotated[Path | None, typer.Option(help="Draw the circuits of a trained model instead.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a picture (png, svg or pdf) instead of text.")] = None,
) -> None:
    """Draw a circuit: a family by name, one from a JSON or OpenQASM file, or those inside a model."""
    from rich.console import Console

    from circuits.draw import text

    if (circuit is None) == (model is None):
        raise ValueError("draw expects a circuit's name or file, or --model; pass one of the two.")
    drawn = _circuits_of(model) if model is not None else {str(circuit): _circuit(str(circuit), wires, depth)}
    console = Console()
    if out is not None:
        _pictures(drawn, out)
        return
    for title, found in drawn.items():
        size = f"{found.n_wires} wires, {found.n_inputs} inputs, {found.n_weights} weights"
        console.print(f"{title}: {size}", markup=False, highlight=False)
        console.print(text(found, max(20, console.width)), markup=False, highlight=False, soft_wrap=True)


def _pictures(drawn: "dict[str, Circuit]", out: Path) -> None:
    """One picture per circuit; several are numbered before the ending."""
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"draw expects --out to end in .png, .svg or .pdf, got '{out.name}'; rename it.")
    for k, circuit in enumerate(drawn.values()):
        path = out if len(drawn) == 1 else out.with_stem(f"{out.stem}-{k}")
        try:
            circuit.figure().savefig(path)
        except OSError as error:
            raise ValueError(f"draw expects a path it can write, got {path} ({error.strerror}); check it.") from None
        typer.echo(f"wrote {path}")


def _circuit(name: str, n_wires: int, depth: int | None) -> "Circuit":
    """A family's circuit, or the one in a file."""
    from circuits import Circuit, library
    from circuits._suggest import unknown
    from circuits.interop import openqasm

    path = Path(name)
    if path.suffix in (".json", ".qasm") or path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            kind = "OpenQASM" if path.suffix == ".qasm" else "JSON"
            raise ValueError(f"draw expects a readable {kind} file, got {path} ({error}); check the path.") from None
        return openqasm.loads(text, drop_measurements=True) if path.suffix == ".qasm" else Circuit.from_json(text)
    families = _families()
    if name not in families and name in library.__all__:
        raise ValueError(f"'{name}' expects arguments that have no flag, got its name alone; draw it from Python.")
    if name not in families:
        raise ValueError(unknown("circuit family", name, families) + " A file ends in .json or .qasm.")
    values = {"n_wires": n_wires}
    repeats = families[name]
    if depth is not None and repeats is None:
        raise ValueError(f"the family '{name}' expects no depth, got {depth}; leave --depth out.")
    if repeats is not None:
        values[repeats] = 1 if depth is None else depth
    return getattr(library, name)(**values)


def _families() -> "dict[str, str | None]":
    """Circuit families that are a number of wires and of layers alone -> how they call the latter."""
    import inspect

    from circuits import Circuit, library

    found: dict[str, str | None] = {}
    for name in library.__all__:
        signature = inspect.signature(getattr(library, name))
        needed = {key for key, parameter in signature.parameters.items() if parameter.default is parameter.empty}
        repeats = next((key for key in ("depth", "reps", "periods") if key in signature.parameters), None)
        if signature.return_annotation is Circuit and {"n_wires"} <= needed <= {"n_wires", repeats}:
            found[name] = repeats
    return found


def _circuits_of(model: Path) -> "dict[str, Circuit]":
    """The circuits in a model's config, by block."""
    from circuits import Circuit
    from qlm.checkpoint_files import read_config

    entries = list(enumerate(read_config(model).blocks or ()))
    found = {
        f"{k}.{entry['kind']}": Circuit.from_json(entry["circuit"]) for k, entry in entries if entry.get("circuit")
    }
    if not found:
        raise ValueError(f"draw expects a model with circuits, got none in {model}; name another model.")
    return found


if __name__ == "__main__":
    main()
