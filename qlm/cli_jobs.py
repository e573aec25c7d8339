"""``qlm jobs``: what was sent to paid machines, what it cost, and what is to become of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlm.cli_errors import reported

if TYPE_CHECKING:
    from backends.ledger import Job, Ledger
    from backends.ledger.courier import Courier

app = typer.Typer(
    help="List, look at, resume, cancel and export the jobs of the ledger, and set budgets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

LedgerOption = Annotated[
    Path | None, typer.Option("--ledger", help="The ledger's file; QLM_LEDGER, or the user's own, by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
TagArgument = Annotated[str, typer.Argument(help="The job's tag, or its beginning.")]
_STYLES = {
    "done": "green",
    "failed": "red",
    "cancelled": "dim",
    "uncertain": "bold yellow",
    "running": "cyan",
    "submitted": "cyan",
}


@app.command("list")
@reported
def list_jobs(
    ledger: LedgerOption = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="Finished jobs too, however many.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List jobs, latest last: all that are open, and the last twenty of the others."""
    found = _ledger(ledger)
    jobs = found.jobs()
    from backends.ledger.states import OPEN

    recent = {job.tag for job in (jobs if all_jobs else jobs[-20:])}
    shown = [job for job in jobs if job.tag in recent or job.state in OPEN]
    if as_json:
        _print_json([summary(job) for job in shown])
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not jobs:
        console.print(f"No jobs yet in {found.path}.", soft_wrap=True, markup=False, highlight=False)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("tag", "state", "device", "recorded (UTC)"):
        table.add_column(heading, no_wrap=True)
    table.add_column("QPU s", justify="right", no_wrap=True)
    table.add_column("service's job", overflow="fold")
    for job in shown:
        style = _STYLES.get(job.state, "")
        state = f"[{style}]{job.state}[/]" if style else job.state
        table.add_row(job.tag[:16], state, job.device, _moment(job.created), _cost(job), job.remote_id or "-")
    console.print(table)
    if len(shown) < len(jobs):
        console.print(f"{len(jobs) - len(shown)} earlier ones: qlm jobs list --all", highlight=False)
    _print_spending(found, console)
    if any(job.state in OPEN for job in jobs):
        console.print("Open ones are fetched or continued by: qlm jobs resume", highlight=False)


@app.command()
@reported
def show(tag: TagArgument, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """Show one job: what was asked, what became of it and when, and what it cost."""
    found = _ledger(ledger)
    job = found.job(tag)
    history = [{"at": _moment(at), "state": state, "reason": reason} for at, state, reason in found.history(job.tag)]
    if as_json:
        _print_json({**summary(job), "history": history, "request": job.body})
        return
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table(show_header=False)
    options = job.body.get("options", {})
    for name, value in (
        *(("tag", job.tag), ("state", job.state), ("device", job.device), ("job of the service", job.remote_id or "-")),
        ("QPU seconds", f"{_cost(job)} (estimate {job.estimate:.1f}, stopped at {job.cap})"),
        ("run", job.run),
        ("circuits", f"{len(job.body.get('parameters', [])):,} rows of parameters, {options.get('shots', '-')} shots"),
        ("result", f"{len(job.result):,} bytes" if job.result is not None else "none yet"),
        *((f"{step['state']}", step["at"] + (f": {step['reason']}" if step["reason"] else "")) for step in history),
    ):
        table.add_row(name, str(value))
    console.print(table)


@app.command()
@reported
def resume(
    tags: Annotated[list[str] | None, typer.Argument(help="Jobs to resume; all that are open by default.")] = None,
    resubmit: Annotated[
        list[str] | None, typer.Option("--resubmit", help="Send this uncertain job again: it may then run twice.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every job is over.")] = False,
    ledger: LedgerOption = None,
) -> None:
    """Find each open job by its tag and fetch its result, or continue it; queued ones are sent.

    A job that may have been sent is looked for until it is found or ten minutes have passed since it left; it is sent
    again only with --resubmit.
    """
    from rich.console import Console

    from backends.ledger.states import FINAL, OPEN

    found, console = _ledger(ledger), Console()
    again = {found.job(tag).tag for tag in resubmit or ()}
    chosen = [found.job(tag) for tag in (*again, *(tags or ()))] if again or tags else found.jobs(states=OPEN)
    if not chosen:
        console.print("No job is open.")
    problems = 0
    for job in chosen:
        try:
            courier = _courier(job, found)
            if job.tag in again:
                courier.resubmit(job.tag)
            after = courier.follow(job.tag, wait)
            console.print(f"{job.tag[:16]}  {job.state} -> {after.state}", highlight=False)
        except ValueError as error:
            problems += 1
            console.print(f"{job.tag[:16]}  {error}", soft_wrap=True, markup=False, highlight=False)
    for job in found.jobs(states=FINAL):  # until the service reports what they took, they are charged all they might
        if job.paid and job.used is None and job.remote_id is not None:
            try:
                _courier(job, found).refresh_usage(job)
            except ValueError as error:
                problems += 1
                console.print(f"{job.tag[:16]}  {error}", soft_wrap=True, markup=False, highlight=False)
    if problems:
        raise typer.Exit(1)


@app.command()
@reported
def cancel(tag: TagArgument, ledger: LedgerOption = None) -> None:
    """Cancel a job that is not over."""
    found = _ledger(ledger)
    job = found.job(tag)
    if job.state == "queued":  # it never left: the service need not be reached
        found.move(job, "cancelled", used=0.0, reason="before it was sent")
    else:
        _courier(job, found).cancel(job.tag)
    typer.echo(f"{job.tag}  {job.state} -> {found.job(job.tag).state}")


@app.command()
@reported
def export(
    out: Annotated[Path, typer.Argument(help="A JSON file to write; - for standard output.")],
    tags: Annotated[list[str] | None, typer.Argument(help="Jobs to export; all by default.")] = None,
    ledger: LedgerOption = None,
) -> None:
    """Write jobs with their requests, histories and results (base64 of NumPy's zipped arrays) as JSON."""
    import base64

    found = _ledger(ledger)
    jobs = [found.job(tag) for tag in tags or [job.tag for job in found.jobs()]]
    content = [
        {
            **summary(job),
            "history": [{"at": at, "state": state, "reason": reason} for at, state, reason in found.history(job.tag)],
            "request": job.body,
            "result": None if job.result is None else base64.b64encode(job.result).decode(),
        }
        for job in jobs
    ]
    if str(out) == "-":
        _print_json(content)
        return
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"{len(jobs)} job{'' if len(jobs) == 1 else 's'} written to {out}")


@app.command()
@reported
def budget(
    call: Annotated[str | None, typer.Option(help="Most QPU seconds of one call; none lifts the limit.")] = None,
    month: Annotated[str | None, typer.Option(help="Most QPU seconds of a calendar month; none lifts it.")] = None,
    ledger: LedgerOption = None,
) -> None:
    """Show or set the budgets per call and per month; a run's is --allow-qpu-seconds."""
    from rich.console import Console

    from backends.ledger.budget import Limits

    found = _ledger(ledger)
    if call is not None or month is not None:
        now = found.limits()
        per_call = now.call if call is None else _seconds(call)
        found.set_limits(Limits(per_call, now.month if month is None else _seconds(month)))
    _print_spending(found, Console())


def summary(job: "Job") -> dict[str, Any]:
    """Return a job's facts as plain JSON, without request and result.

    >>> import tempfile
    >>> from backends.ledger import JobRequest, open_ledger
    >>> ledger = open_ledger(tempfile.mkdtemp() + "/ledger.sqlite3")
    >>> summary(ledger.record([JobRequest("fake_manila", {}, estimate=2.0)], 60)[0])["qpu_seconds"]
    {'estimated': 2.0, 'stopped_at': 10, 'reported': None}
    """
    return {
        "tag": job.tag,
        "state": job.state,
        "device": job.device,
        "service_job": job.remote_id,
        "run": job.run,
        "paid": job.paid,
        "qpu_seconds": {"estimated": job.estimate, "stopped_at": job.cap, "reported": job.used},
        "recorded": _moment(job.created),
        "changed": _moment(job.changed),
        "reason": job.reason,
    }


def _ledger(path: Path | None) -> "Ledger":
    from backends.ledger import open_ledger

    return open_ledger(path)


def _courier(job: "Job", ledger: "Ledger") -> "Courier":
    from backends.ibm.transports import reach

    return reach(job.device, ledger)


def _seconds(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"a budget expects QPU seconds, or none, got '{text}'; write for example 600.") from None


def _print_spending(ledger: "Ledger", console: Any) -> None:
    limits, spent = ledger.limits(), ledger.spending("").month
    of_month = "no limit" if limits.month is None else f"of {limits.month:g} allowed"
    per_call = "no limit" if limits.call is None else f"at most {limits.call:g}"
    console.print(f"QPU seconds this month: {spent:.1f}, {of_month}; one call: {per_call}.", highlight=False)


def _cost(job: "Job") -> str:
    """Reported seconds, or an estimate, marked."""
    return f"{job.used:.1f}" if job.used is not None else f"~{job.estimate:.1f}"


def _moment(wall: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))
