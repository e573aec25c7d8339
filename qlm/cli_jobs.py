"""``qlm jobs``: what was sent to paid machines, what it cost, and what is to become of it."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlm.cli_errors import reported
from qlm.job_views import cost, moment, session_line, session_summary, spending_line, summary

if TYPE_CHECKING:
    from backends.ledger import Ledger
    from backends.ledger.courier import Courier
    from backends.ledger.job import Sending

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
    """List jobs, latest last: all that are open, and the last twenty of the others; then sessions that may bill."""
    from backends.ledger.sessions import SessionBook
    from backends.ledger.states import OPEN

    found = _ledger(ledger)
    jobs, sessions = found.jobs(), [each for each in SessionBook(found).all() if all_jobs or not each.is_settled]

    recent = {job.tag for job in (jobs if all_jobs else jobs[-20:])}
    shown = [job for job in jobs if job.tag in recent or job.state in OPEN]
    if as_json:
        _print_json([*map(summary, shown), *map(session_summary, sessions)])
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not jobs and not sessions:
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
        table.add_row(job.tag[:16], state, job.device, moment(job.created), cost(job), job.remote_id or "-")
    console.print(table)
    for session in sessions:
        console.print(session_line(session), soft_wrap=True, markup=False, highlight=False)
    if len(shown) < len(jobs):
        console.print(f"{len(jobs) - len(shown)} earlier ones: qlm jobs list --all", highlight=False)
    console.print(spending_line(found), highlight=False)
    if any(job.state in OPEN for job in jobs) or any(each.is_abandoned for each in sessions):
        console.print("Open ones are fetched, continued or closed by: qlm jobs resume", highlight=False)


@app.command()
@reported
def show(tag: TagArgument, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """Show one job: what was asked, what became of it and when, and what it cost; or a batch or session."""
    found = _ledger(ledger)
    if tag.startswith("qls-"):
        from backends.ledger.sessions import SessionBook

        _print_json(session_summary(SessionBook(found).session(tag)))
        return
    job = found.job(tag)
    history = [{"at": moment(at), "state": state, "reason": reason} for at, state, reason in found.history(job.tag)]
    if as_json:
        _print_json({**summary(job), "history": history, "request": job.body})
        return
    from rich.console import Console
    from rich.table import Table

    console, table = Console(), Table(show_header=False)
    options = job.body.get("options", {})
    for name, value in (
        *(("tag", job.tag), ("state", job.state), ("device", job.device), ("job of the service", job.remote_id or "-")),
        ("QPU seconds", f"{cost(job)} (estimate {job.estimate:.1f}, stopped at {job.cap}, charged {job.charge:.1f})"),
        *((f"sent {moment(each.at)}", _sent(each)) for each in found.sendings(job.tag)),
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
    again only with --resubmit. Batches and sessions whose process has ended are closed.
    """
    from rich.console import Console

    from backends.ledger.states import FINAL, OPEN

    found, console = _ledger(ledger), Console()
    reach = cache(lambda device: _courier(device, found))
    again = {found.job(tag).tag for tag in resubmit or ()}
    named = [tag for tag in tags or () if not tag.startswith("qls-")]  # of sessions all are seen to
    chosen = [found.job(tag) for tag in (*again, *named)] if again or tags else found.jobs(states=OPEN)
    problems = _close_sessions(found, console)  # they bill by the clock: first
    if not chosen and not tags:
        console.print("No job is open.")
    for job in chosen:
        try:
            courier = reach(job.device)
            if job.tag in again:
                courier.resubmit(job.tag)
            after = courier.follow(job.tag, wait)
            hint = "; looked for in vain so far: run this again, or with --wait" if after.state == "uncertain" else ""
            console.print(f"{job.tag[:16]}  {job.state} -> {after.state}{hint}", soft_wrap=True, highlight=False)
        except ValueError as error:
            problems += 1
            console.print(f"{job.tag[:16]}  {error}", soft_wrap=True, markup=False, highlight=False)
    for job in found.jobs(states=FINAL):  # until the service reports what they took, they are charged all they might
        if job.paid and job.used is None and job.sendings:
            try:
                reach(job.device).refresh_usage(job)
            except ValueError as error:
                problems += 1
                console.print(f"{job.tag[:16]}  {error}", soft_wrap=True, markup=False, highlight=False)
    if problems:
        raise typer.Exit(1)


def _close_sessions(ledger: "Ledger", console: Any) -> int:
    """Close what nobody uses any more, and learn what closed sessions took; how often that failed."""
    from backends.ibm.transports import close_session
    from backends.ledger.sessions import SessionBook

    problems = 0
    for session in SessionBook(ledger).all():
        if session.is_settled:
            continue
        if session.state != "closed" and not session.is_abandoned:
            line = f"{session_line(session)}: in use by process {session.owner.split('/')[2]}, left open"
        else:
            try:
                line = session_line(close_session(session.name, ledger))
            except ValueError as error:
                problems, line = problems + 1, str(error)
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    return problems


@app.command()
@reported
def cancel(tag: TagArgument, ledger: LedgerOption = None) -> None:
    """Cancel a job that is not over, or close a batch or session with all jobs in it."""
    found = _ledger(ledger)
    if tag.startswith("qls-"):
        from backends.ibm.transports import close_session

        typer.echo(session_line(close_session(tag, found, cancel=True)))
        return
    job = found.job(tag)
    if job.state == "queued":  # it never left: the service need not be reached
        found.move(job, "cancelled", reason="before it was sent")
    else:
        _courier(job.device, found).cancel(job.tag)
    typer.echo(f"{job.tag}  {job.state} -> {found.job(job.tag).state}")


@app.command()
@reported
def export(
    out: Annotated[Path, typer.Argument(help="A JSON file to write; - for standard output.")],
    tags: Annotated[list[str] | None, typer.Argument(help="Jobs to export; all by default.")] = None,
    ledger: LedgerOption = None,
) -> None:
    """Write jobs with their requests, histories and results (base64 of NumPy's zipped arrays) as JSON; then the
    sessions that paid for them."""
    import base64

    from backends.ledger.sessions import SessionBook

    found = _ledger(ledger)
    jobs = [found.job(tag) for tag in tags or [job.tag for job in found.jobs()]]
    paying = {sending.session for job in jobs for sending in found.sendings(job.tag)}
    sessions = [each for each in SessionBook(found).all() if not tags or each.name in paying]
    content = [
        {
            **summary(job),
            "history": [{"at": at, "state": state, "reason": reason} for at, state, reason in found.history(job.tag)],
            "request": job.body,
            "result": None if job.result is None else base64.b64encode(job.result).decode(),
        }
        for job in jobs
    ]
    content += map(session_summary, sessions)
    if str(out) == "-":
        _print_json(content)
        return
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    told = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    told += f" and {len(sessions)} session{'' if len(sessions) == 1 else 's'}" if sessions else ""
    typer.echo(f"{told} written to {out}")


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
    Console().print(spending_line(found), highlight=False)


def _ledger(path: Path | None) -> "Ledger":
    from backends.ledger import open_ledger

    return open_ledger(path)


def _courier(device: str, ledger: "Ledger") -> "Courier":
    from backends.ibm.transports import reach

    return reach(device, ledger)


def _sent(sending: "Sending") -> str:
    cost = "not reported yet" if sending.used is None else f"{sending.used:.1f} QPU seconds"
    within = f", within session {sending.session}, which pays" if sending.session else ""
    return f"{sending.remote_id or 'no answer'}: {cost}{within}"


def _seconds(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"a budget expects QPU seconds, or none, got '{text}'; write for example 600.") from None


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))
