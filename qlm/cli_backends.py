"""``qlm backends``: what each backend can do, what to install, and whether it keeps its word."""

from typing import TYPE_CHECKING, Annotated

import typer

from qlm.cli_errors import reported

if TYPE_CHECKING:
    from backends.estimate import Capabilities

EXAMPLES = {
    "ibm": ("ibm:fake_manila",),
    "pennylane": ("pennylane:default.qubit", "pennylane:lightning.qubit"),
    "quimb": ("quimb:mps", "quimb:permmps"),
}
"""What to open of a kind of backend that needs an argument."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
@reported
def backends(context: typer.Context) -> None:
    """List the backends: what each can do, and what to install for those that are missing."""
    if context.invoked_subcommand is None:
        _list()


@app.command()
@reported
def check(name: Annotated[str, typer.Argument(help="What to open, such as aer?shots=1000.")]) -> None:
    """Run the conformance suite on a backend.

    Each line proves one thing that the backend declares, with the largest deviation that was found and its bound.
    """
    from backends.conformance.suite import print_outcomes

    if print_outcomes(name):
        raise typer.Exit(1)


@app.command()
@reported
def account(
    device: Annotated[str, typer.Argument(help="A real device to look at, such as ibm_torino.")] = "least_busy",
) -> None:
    """Ask the IBM service whether the account works, and what its device is; nothing is sent that costs anything."""
    from backends.ibm.service import about

    for line in about(device):
        typer.echo(line)


def _list() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from backends.registry import backend_names, open_backend

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("opened by", "results", "state", "gradient", "resets", "wires"):
        table.add_column(heading, no_wrap=heading == "opened by")
    missing = []
    for name in (example for kind in backend_names() for example in EXAMPLES.get(kind, (kind,))):
        try:
            table.add_row(name, *_abilities(open_backend(name).capabilities))
        except ImportError as error:
            table.add_row(name, "not installed", *["-"] * 4, style="dim")
            missing.append(str(error))
        except ValueError as error:  # a third party's, which needs an argument
            table.add_row(name, "needs options", *["-"] * 4, style="dim")
            missing.append(str(error))
    console = Console()
    console.print(table)
    console.print(
        "Options follow a question mark: aer?shots=1000; a method or a device follows a colon: ibm:fake_manila. Prove "
        "what one declares: qlm backends check aer."
    )
    for sentence in dict.fromkeys(missing):
        console.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)


def _abilities(can: "Capabilities") -> tuple[str, ...]:
    """A backend's capabilities in words, for the columns after its name."""
    state = "state" if can.state else "density" if can.density else "tomography"
    return (
        can.results,
        state,
        "native" if can.autograd else "shift",
        "yes" if can.reset else "no",
        str(can.max_wires),
    )
