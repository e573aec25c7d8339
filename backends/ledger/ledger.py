"""The ledger: every request is in it before it is sent, and every change of state is one durable transaction."""

import json
import secrets
import sqlite3
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backends.ledger.budget import Limits, Spending, caps, require_leave, within
from backends.ledger.clock import Clock, month_start
from backends.ledger.job import Job, JobRequest, tag_of
from backends.ledger.states import CANCELLED, FAILED, OPEN, QUEUED, check_change
from backends.ledger.store import default_path, prepare, reading, transaction

_JUMP = 3600.0
"""Seconds between the wall clock and the steady one beyond which somebody has set it."""
_FACTS = ("remote_id", "used", "reason", "result")
_WITHOUT_RESULT = (
    "tag, content, device, state, body, run, paid, estimate, cap, used, remote_id, reason, created, changed, "
    "sent_boot, sent_steady, lookups, NULL AS result"
)
_CHARGE = f"""CASE WHEN used IS NOT NULL THEN used
    WHEN paid OR state IN ({", ".join(f"'{state}'" for state in sorted(OPEN))}) THEN cap ELSE estimate END"""


class ClockWarning(UserWarning):
    """The wall clock has jumped; the monthly budget counts from the earlier of the two readings.

    >>> issubclass(ClockWarning, UserWarning)
    True
    """


def open_ledger(path: str | Path | None = None, clock: Clock | None = None) -> "Ledger":
    """Return the ledger at a path (``store.default_path()`` for None), created at need; LedgerError where it cannot be.

    >>> import tempfile
    >>> open_ledger(Path(tempfile.mkdtemp()) / "ledger.sqlite3").jobs()
    []
    """
    ledger = Ledger(Path(path) if path else default_path(), clock or Clock())
    prepare(ledger.path)
    return ledger


@dataclass(frozen=True)
class Ledger:
    """A ledger's file; safe to use from several processes at once. Made by ``open_ledger``."""

    path: Path
    clock: Clock = field(default_factory=Clock, repr=False, compare=False)

    def record(self, requests: Sequence[JobRequest], allowed: float) -> list[Job]:
        """Write requests down, all or none, and return their jobs; ``allowed``: QPU seconds of the whole run.

        A request that is already there, and neither failed nor cancelled, is that job: it costs nothing again, but one
        that was never sent needs today's leave like a new one. Raises BudgetError, having written nothing, where those
        to be sent cost more than some budget leaves.
        """
        now = self._wall()
        with transaction(self.path) as connection:
            since = self._month(connection, now)
            known = {each.content: _alive(connection, each.content) for each in requests if not each.fresh}
            new = {each.content: each for each in requests if each.fresh or known[each.content] is None}
            for job in known.values():
                if job is not None and job.state == QUEUED:
                    run = next(iter(requests)).run
                    spent = _spending(connection, run, since)
                    require_leave(job.cap, allowed, spent.run - job.cap * (job.run == run))
            if new:
                first = next(iter(new.values()))
                spent, limits = _spending(connection, first.run, since), _limits(connection)
                seconds = caps([each.estimate for each in new.values()], allowed, limits, spent, first.paid)
                for (content, each), cap in zip(new.items(), seconds, strict=True):
                    known[content] = _insert(connection, each, cap, now)
        return [job for each in requests if (job := known[each.content]) is not None]

    def require_budget(self, job: Job) -> None:
        """Raise BudgetError where a job that waits to be sent would by now exceed the budget per call or month."""
        with transaction(self.path) as connection:
            spent = _spending(connection, job.run, self._month(connection, self._wall()))
            within(job.cap, _limits(connection), spent.month - job.cap, job.paid)

    def job(self, tag: str) -> Job:
        """Return the job of a tag, with its result, or of the beginning of one; ValueError where there is none."""
        with reading(self.path) as connection:
            row = connection.execute("SELECT * FROM jobs WHERE tag = ?", (tag,)).fetchone()
            if row is not None:
                return _job(row)
            pattern = tag.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            rows = connection.execute("SELECT * FROM jobs WHERE tag LIKE ? ESCAPE '\\' LIMIT 2", (pattern,)).fetchall()
        if len(rows) != 1:
            found = "several" if rows else "none"
            raise ValueError(
                f"the ledger expects the tag of one job, got '{tag}', which {found} has; see: qlm jobs list"
            )
        return _job(rows[0])

    def jobs(self, states: Collection[str] | None = None, run: str | None = None) -> list[Job]:
        """Return jobs, earliest first, without their results."""
        with reading(self.path) as connection:
            rows = connection.execute(f"SELECT {_WITHOUT_RESULT} FROM jobs ORDER BY created, rowid").fetchall()
        found = [_job(row) for row in rows]
        return [job for job in found if (states is None or job.state in states) and (run is None or job.run == run)]

    def history(self, tag: str) -> list[tuple[float, str, str | None]]:
        """Return when a job came to each of its states, and why."""
        with reading(self.path) as connection:
            rows = connection.execute("SELECT at, state, reason FROM changes WHERE tag = ? ORDER BY rowid", (tag,))
            return [(row["at"], row["state"], row["reason"]) for row in rows]

    def move(self, job: Job, state: str, sent: tuple[str, float] | None = None, **facts: Any) -> bool:
        """Bring a job from the state in which it was read to another; False where another process was first.

        ``sent``: the steady clock when it went out; ``facts``: remote_id, used, reason, result.
        """
        check_change(job.state, state)
        now = self._wall()
        columns: dict[str, Any] = {name: facts[name] for name in _FACTS if name in facts}
        if sent is not None:
            columns |= {"sent_boot": sent[0], "sent_steady": sent[1], "lookups": 0}
        setting = "".join(f", {name} = ?" for name in columns)
        with transaction(self.path) as connection:
            changed = connection.execute(
                f"UPDATE jobs SET state = ?, changed = ?{setting} WHERE tag = ? AND state = ?",
                (state, now, *columns.values(), job.tag, job.state),
            )
            if changed.rowcount != 1:
                return False
            _log(connection, job.tag, now, state, facts.get("reason"))
        return True

    def looked(self, job: Job, sent: tuple[str, float]) -> None:
        """Note that the service was asked for an uncertain job in vain, and since when it is being looked for."""
        with transaction(self.path) as connection:
            connection.execute(
                "UPDATE jobs SET lookups = lookups + 1, sent_boot = ?, sent_steady = ? WHERE tag = ? AND state = ?",
                (*sent, job.tag, job.state),
            )

    def note_usage(self, job: Job, used: float) -> None:
        """Note QPU seconds that the service reported after the job was over."""
        with transaction(self.path) as connection:
            connection.execute("UPDATE jobs SET used = ? WHERE tag = ?", (used, job.tag))

    def limits(self) -> Limits:
        """Return the budgets per call and per month."""
        with reading(self.path) as connection:
            return _limits(connection)

    def set_limits(self, limits: Limits) -> None:
        """Keep other budgets per call and per month."""
        with transaction(self.path) as connection:
            for name in ("call", "month"):
                _set(connection, f"limit.{name}", json.dumps(getattr(limits, name)))

    def spending(self, run: str) -> Spending:
        """Return what a run and the month have cost; the month counts paid devices alone."""
        with transaction(self.path) as connection:
            return _spending(connection, run, self._month(connection, self._wall()))

    def _wall(self) -> float:
        return self.clock.wall()

    def _month(self, connection: sqlite3.Connection, now: float) -> float:
        """The beginning of the month that counts; the earlier one where the wall clock was set since the last boot."""
        boot, steady = self.clock.boot(), self.clock.steady()
        known = json.loads(_get(connection, "clock") or "{}")
        if known.get("boot") != boot:
            _set(connection, "clock", json.dumps({"boot": boot, "steady": steady, "wall": now}))
            return month_start(now)
        expected = known["wall"] + steady - known["steady"]
        if abs(now - expected) > _JUMP:
            warnings.warn(
                f"the clock of this machine jumped by {(now - expected) / 3600:+.0f} hours since it was started; the "
                "budget of the month counts from the earlier reading.",
                ClockWarning,
                stacklevel=4,
            )
        return month_start(min(now, expected))


def _alive(connection: sqlite3.Connection, content: str) -> Job | None:
    """The latest job with this content that is neither failed nor cancelled."""
    row = connection.execute(
        "SELECT * FROM jobs WHERE content = ? AND state NOT IN (?, ?) ORDER BY rowid DESC LIMIT 1",
        (content, FAILED, CANCELLED),
    ).fetchone()
    return None if row is None else _job(row)


def _insert(connection: sqlite3.Connection, request: JobRequest, cap: int, now: float) -> Job:
    content = request.content
    (attempts,) = connection.execute("SELECT count(*) FROM jobs WHERE content = ?", (content,)).fetchone()
    tag = tag_of(content, attempts, secrets.token_hex(6) if request.fresh else "")
    row = connection.execute(
        "INSERT INTO jobs (tag, content, device, state, body, run, paid, estimate, cap, created, changed) "
        "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        (tag, content, request.device, request.text, request.run, request.paid, request.estimate, cap, now, now),
    ).fetchone()
    _log(connection, tag, now, "queued", None)
    return _job(row)


def _spending(connection: sqlite3.Connection, run: str, since: float) -> Spending:
    total = f"SELECT coalesce(sum({_CHARGE}), 0) FROM jobs WHERE"
    (of_run,) = connection.execute(f"{total} run = ?", (run,)).fetchone()
    (of_month,) = connection.execute(f"{total} paid AND created >= ?", (since,)).fetchone()
    return Spending(float(of_run), float(of_month))


def _limits(connection: sqlite3.Connection) -> Limits:
    values = {name: json.loads(_get(connection, f"limit.{name}") or "null") for name in ("call", "month")}
    return Limits(**values)


def _log(connection: sqlite3.Connection, tag: str, at: float, state: str, reason: str | None) -> None:
    connection.execute("INSERT INTO changes (tag, at, state, reason) VALUES (?, ?, ?, ?)", (tag, at, state, reason))


def _get(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else row["value"]


def _set(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    boot, steady = fields.pop("sent_boot"), fields.pop("sent_steady")
    fields["body"] = json.loads(fields["body"])
    fields["estimate"] = float(fields["estimate"])  # RETURNING hands whole numbers out as integers
    return Job(**fields | {"paid": bool(fields["paid"]), "sent": None if boot is None else (boot, steady)})
