"""The ledger: every request is in it before it is sent, and every change of state is one durable transaction."""

import json
import secrets
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.ledger import accounts
from backends.ledger.budget import Limits, Spending, caps, require_leave, within
from backends.ledger.clock import Clock
from backends.ledger.job import Job, JobRequest, Sending, tag_of
from backends.ledger.states import CANCELLED, FAILED, FINAL, QUEUED, SUBMITTED, UNCERTAIN, check_change
from backends.ledger.store import default_path, prepare, reading, transaction

_FINAL = ", ".join(f"'{state}'" for state in sorted(FINAL))
_SENDINGS = f"""(SELECT count(*) FROM sendings WHERE sendings.tag = jobs.tag) AS sendings,
    (SELECT coalesce(sum(seconds), 0) FROM charges WHERE charges.tag = jobs.tag) AS charge,
    (SELECT CASE WHEN jobs.state IN ({_FINAL}) AND count(*) = count(used) THEN total(used) END
        FROM sendings WHERE sendings.tag = jobs.tag) AS used"""
_COLUMNS = (
    "tag, content, device, state, body, run, paid, estimate, cap, remote_id, reason, created, changed, sent_boot, "
    "sent_steady, lookups"
)
_WHOLE = f"SELECT {_COLUMNS}, result, {_SENDINGS} FROM jobs"
_WITHOUT_RESULT = f"SELECT {_COLUMNS}, NULL AS result, {_SENDINGS} FROM jobs"


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

    def record(self, requests: Sequence[JobRequest], allowed: float, session: str | None = None) -> list[Job]:
        """Write requests down, all or none, and return their jobs; ``allowed``: QPU seconds of the whole run.

        A request that is already there, and neither failed nor cancelled, is that job: it costs nothing again, but one
        that was never sent needs today's leave like a new one, and becomes this run's. ``session``: the open one that
        pays for them, whose own charge does not count against them. Raises BudgetError, having written nothing, where
        those to be sent cost more than some budget leaves.
        """
        now = self.clock.wall()
        with transaction(self.path) as connection:
            known = {each.content: _alive(connection, each.content) for each in requests if not each.fresh}
            new = {each.content: each for each in requests if each.fresh or known[each.content] is None}
            waiting = [job for job in known.values() if job is not None and job.state == QUEUED]
            run = requests[0].run if requests else ""
            for job in waiting:
                connection.execute("UPDATE jobs SET run = ? WHERE tag = ?", (run, job.tag))
            spent, total = accounts.spending(connection, self.clock, run, session), sum(job.cap for job in waiting)
            if waiting:
                require_leave(total, allowed, spent.run - total)
            if new:
                estimates, paid = [each.estimate for each in new.values()], requests[0].paid
                seconds = caps(estimates, allowed, accounts.limits(connection), spent, paid)
                for (content, each), cap in zip(new.items(), seconds, strict=True):
                    known[content] = _insert(connection, each, cap, now)
        return [job for each in requests if (job := known[each.content]) is not None]

    def claim(self, job: Job, session: str | None = None) -> Job | None:
        """Write down that a queued job is about to be sent, and charge it; None where another process was first.

        ``session``: the open one that pays for it. Raises BudgetError where by now the job would exceed the budget per
        call or month: it stays queued.
        """
        now = self.clock.wall()
        with transaction(self.path) as connection:
            spent = accounts.spending(connection, self.clock, job.run, session)
            within(job.cap, accounts.limits(connection), spent.month - job.cap, job.paid)
            changed = connection.execute(
                "UPDATE jobs SET state = ?, changed = ?, sent_boot = ?, sent_steady = ?, lookups = 0 "
                "WHERE tag = ? AND state = ?",
                (UNCERTAIN, now, self.clock.boot(), self.clock.steady(), job.tag, QUEUED),
            )
            if changed.rowcount != 1:
                return None
            connection.execute(
                "INSERT INTO sendings (tag, at, session) VALUES (?, ?, ?)",
                (job.tag, accounts.reading(connection, self.clock), session),
            )
            _log(connection, job.tag, now, UNCERTAIN, None)
            return _read(connection, job.tag)

    def job(self, tag: str) -> Job:
        """Return the job of a tag, with its result, or of the beginning of one; ValueError where there is none."""
        with reading(self.path) as connection:
            row = connection.execute(f"{_WHOLE} WHERE tag = ?", (tag,)).fetchone()
            if row is not None:
                return _job(row)
            pattern = tag.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            rows = connection.execute(f"{_WHOLE} WHERE tag LIKE ? ESCAPE '\\' LIMIT 2", (pattern,)).fetchall()
        if len(rows) != 1:
            found = "several" if rows else "none"
            raise ValueError(
                f"the ledger expects the tag of one job, got '{tag}', which {found} has; see: qlm jobs list"
            )
        return _job(rows[0])

    def jobs(self, states: Collection[str] | None = None, run: str | None = None) -> list[Job]:
        """Return jobs, earliest first, without their results."""
        with reading(self.path) as connection:
            rows = connection.execute(f"{_WITHOUT_RESULT} ORDER BY rowid").fetchall()  # clocks may run backwards
        found = [_job(row) for row in rows]
        return [job for job in found if (states is None or job.state in states) and (run is None or job.run == run)]

    def history(self, tag: str) -> list[tuple[float, str, str | None]]:
        """Return when a job came to each of its states, and why."""
        with reading(self.path) as connection:
            rows = connection.execute("SELECT at, state, reason FROM changes WHERE tag = ? ORDER BY rowid", (tag,))
            return [(row["at"], row["state"], row["reason"]) for row in rows]

    def sendings(self, tag: str) -> list[Sending]:
        """Return each time that a job was sent, earliest first."""
        with reading(self.path) as connection:
            rows = connection.execute(
                "SELECT at, session, remote_id, used FROM sendings WHERE tag = ? ORDER BY rowid", (tag,)
            )
            return [Sending(**row) for row in map(dict, rows)]

    def move(
        self,
        job: Job,
        state: str,
        *,
        remote_id: str | None = None,
        used: float | None = None,
        reason: str | None = None,
        result: bytes | None = None,
    ) -> bool:
        """Bring a job from the state in which it was read to another; False where another process was first.

        ``remote_id`` and ``used`` are facts about its latest sending.
        """
        check_change(job.state, state)
        now = self.clock.wall()
        with transaction(self.path) as connection:
            changed = connection.execute(
                "UPDATE jobs SET state = ?, changed = ?, reason = ?, remote_id = coalesce(?, remote_id), "
                "result = coalesce(?, result) WHERE tag = ? AND state = ?",
                (state, now, reason, remote_id, result, job.tag, job.state),
            )
            if changed.rowcount != 1:
                return False
            connection.execute(
                "UPDATE sendings SET remote_id = coalesce(?, remote_id), used = coalesce(?, used) "
                "WHERE rowid = (SELECT max(rowid) FROM sendings WHERE tag = ? AND remote_id IS ?)",
                (remote_id, used, job.tag, None if job.state == UNCERTAIN else job.remote_id),
            )
            _log(connection, job.tag, now, state, reason)
        return True

    def adopt(self, job: Job, names: Sequence[str]) -> None:
        """Take the service's jobs with an uncertain job's tag for ours: the first is followed, all are charged."""
        reason = None if len(names) == 1 else f"{len(names)} jobs bear this tag: {', '.join(names)}"
        now = self.clock.wall()
        with transaction(self.path) as connection:
            changed = connection.execute(
                "UPDATE jobs SET state = ?, changed = ?, remote_id = ?, reason = ? WHERE tag = ? AND state = ?",
                (SUBMITTED, now, names[0], reason, job.tag, UNCERTAIN),
            )
            if changed.rowcount == 1:
                self._name(connection, job.tag, names)
                _log(connection, job.tag, now, SUBMITTED, reason)

    def note_names(self, job: Job, names: Sequence[str]) -> None:
        """Note all jobs of the service that bear a job's tag: each is charged."""
        with transaction(self.path) as connection:
            self._name(connection, job.tag, names)

    def _name(self, connection: sqlite3.Connection, tag: str, names: Sequence[str]) -> None:
        """Give sendings that have no answer the service's names; a name beyond them is one more sending."""
        rows = connection.execute(
            "SELECT rowid, session, remote_id, used FROM sendings WHERE tag = ? ORDER BY rowid", (tag,)
        ).fetchall()
        unnamed = [row["rowid"] for row in rows if row["remote_id"] is None and row["used"] is None]
        for name in names:
            if name in {row["remote_id"] for row in rows}:
                continue
            if unnamed:
                connection.execute("UPDATE sendings SET remote_id = ? WHERE rowid = ?", (name, unnamed.pop(0)))
            else:
                connection.execute(
                    "INSERT INTO sendings (tag, at, session, remote_id) VALUES (?, ?, ?, ?)",
                    (tag, accounts.reading(connection, self.clock), rows[-1]["session"] if rows else None, name),
                )

    def looked(self, job: Job, sent: tuple[str, float]) -> None:
        """Note that the service was asked for an uncertain job in vain, and since when it is being looked for."""
        with transaction(self.path) as connection:
            connection.execute(
                "UPDATE jobs SET lookups = lookups + 1, sent_boot = ?, sent_steady = ? WHERE tag = ? AND state = ?",
                (*sent, job.tag, job.state),
            )

    def note_usage(self, job: Job, remote_id: str, used: float) -> None:
        """Note QPU seconds that the service reported for one of a job's sendings."""
        with transaction(self.path) as connection:
            connection.execute(
                "UPDATE sendings SET used = ? WHERE tag = ? AND remote_id = ?", (used, job.tag, remote_id)
            )

    def limits(self) -> Limits:
        """Return the budgets per call and per month."""
        with reading(self.path) as connection:
            return accounts.limits(connection)

    def set_limits(self, limits: Limits) -> None:
        """Keep other budgets per call and per month."""
        with transaction(self.path) as connection:
            for name in ("call", "month"):
                accounts.put(connection, f"limit.{name}", json.dumps(getattr(limits, name)))

    def spending(self, run: str) -> Spending:
        """Return what a run and the month have cost; the month counts paid devices alone."""
        with transaction(self.path) as connection:
            return accounts.spending(connection, self.clock, run)


def _alive(connection: sqlite3.Connection, content: str) -> Job | None:
    """The latest job with this content that is neither failed nor cancelled."""
    row = connection.execute(
        f"{_WHOLE} WHERE content = ? AND state NOT IN (?, ?) ORDER BY rowid DESC LIMIT 1", (content, FAILED, CANCELLED)
    ).fetchone()
    return None if row is None else _job(row)


def _insert(connection: sqlite3.Connection, request: JobRequest, cap: int, now: float) -> Job:
    content = request.content
    (attempts,) = connection.execute("SELECT count(*) FROM jobs WHERE content = ?", (content,)).fetchone()
    tag = tag_of(content, attempts, secrets.token_hex(6) if request.fresh else "")
    connection.execute(
        "INSERT INTO jobs (tag, content, device, state, body, run, paid, estimate, cap, created, changed) "
        "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
        (tag, content, request.device, request.text, request.run, request.paid, request.estimate, cap, now, now),
    )
    _log(connection, tag, now, QUEUED, None)
    return _read(connection, tag)


def _read(connection: sqlite3.Connection, tag: str) -> Job:
    return _job(connection.execute(f"{_WHOLE} WHERE tag = ?", (tag,)).fetchone())


def _log(connection: sqlite3.Connection, tag: str, at: float, state: str, reason: str | None) -> None:
    connection.execute("INSERT INTO changes (tag, at, state, reason) VALUES (?, ?, ?, ?)", (tag, at, state, reason))


def _job(row: sqlite3.Row) -> Job:
    fields = dict(row)
    boot, steady = fields.pop("sent_boot"), fields.pop("sent_steady")
    fields["body"] = json.loads(fields["body"])
    fields["charge"] = float(fields["charge"])  # a sum of whole numbers is an integer
    return Job(**fields | {"paid": bool(fields["paid"]), "sent": None if boot is None else (boot, steady)})
