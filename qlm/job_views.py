"""What ``qlm jobs`` shows of jobs, sessions and budgets: plain JSON, and lines."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.ledger import Job, Ledger
    from backends.ledger.sessions import Session


def summary(job: "Job") -> dict[str, Any]:
    """Return a job's facts as plain JSON, without request and result.

    >>> import tempfile
    >>> from backends.ledger import JobRequest, open_ledger
    >>> ledger = open_ledger(tempfile.mkdtemp() + "/ledger.sqlite3")
    >>> summary(ledger.record([JobRequest("fake_manila", {}, estimate=2.0)], 60)[0])["qpu_seconds"]
    {'estimated': 2.0, 'stopped_at': 10, 'reported': None, 'charged': 10.0}
    """
    return {
        "kind": "job",
        "tag": job.tag,
        "state": job.state,
        "device": job.device,
        "service_job": job.remote_id,
        "run": job.run,
        "paid": job.paid,
        "qpu_seconds": {
            "estimated": job.estimate,
            "stopped_at": job.cap,
            "reported": job.used,
            "charged": job.charge,
        },
        "sendings": job.sendings,
        "recorded": moment(job.created),
        "changed": moment(job.changed),
        "reason": job.reason,
    }


def session_summary(session: "Session") -> dict[str, Any]:
    """Return a batch's or session's facts as plain JSON."""
    return {
        "kind": session.mode,
        "tag": session.name,
        "state": session.state,
        "device": session.device,
        "service_job": session.remote_id,
        "run": session.run,
        "seconds": {"at_most": session.longest, "reported": session.used},
        "recorded": moment(session.opened),
        "owner": session.owner,
        "reason": session.reason,
    }


def session_line(session: "Session") -> str:
    """Return a batch or session as a line: what it is, and what it may cost."""
    cost = ""
    if session.mode == "session":
        cost = f", up to {session.longest} s" if session.used is None else f", {session.used:.1f} s"
    return f"{session.mode} {session.name}  {session.device}  {session.state}, since {moment(session.opened)}{cost}"


def spending_line(ledger: "Ledger") -> str:
    """Return what was spent this month, and the budgets."""
    limits, spent = ledger.limits(), ledger.spending("").month
    of_month = "no limit" if limits.month is None else f"of {limits.month:g} allowed"
    per_call = "no limit" if limits.call is None else f"at most {limits.call:g}"
    return f"QPU seconds this month: {spent:.1f}, {of_month}; one call: {per_call}."


def cost(job: "Job") -> str:
    """Return the seconds that were reported, or an estimate, marked."""
    return f"{job.used:.1f}" if job.used is not None else f"~{job.estimate:.1f}"


def moment(wall: float) -> str:
    """Return a wall clock's reading for people (UTC).

    >>> moment(0.0)
    '1970-01-01 00:00:00'
    """
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S")
