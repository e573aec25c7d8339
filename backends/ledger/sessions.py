"""Batches and sessions in the ledger: written before they are opened, charged while they may bill, closed in the end.

A session bills by the clock, from its first job until it is closed or its longest time is over: as long as it is not
known what it took it is charged all of that, and the jobs within it nothing. A batch bills its jobs alone.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.ledger import accounts
from backends.ledger.budget import Spending, session_seconds
from backends.ledger.clock import has_ended, owner
from backends.ledger.job import Job
from backends.ledger.ledger import Ledger
from backends.ledger.states import QUEUED
from backends.ledger.store import reading, transaction

NAME_PREFIX = "qls-"
OPENING, OPEN, CLOSING, CLOSED = "opening", "open", "closing", "closed"


@dataclass(frozen=True)
class Session:
    """A batch or session. ``longest``: seconds until the service closes it (0: a batch); ``used``: seconds billed.

    ``state``: opening (asked for, and no answer noted), open, closing (nobody uses it any more), closed. ``owner``: the
    process that opened it. ``remote_id``: the service's name for it.
    """

    name: str
    mode: str
    device: str
    run: str
    state: str
    longest: int
    owner: str
    opened: float
    remote_id: str | None
    used: float | None
    reason: str | None

    @property
    def is_abandoned(self) -> bool:
        """Whether it is not closed, and nobody will do so who was to."""
        return self.state != CLOSED and (self.state == CLOSING or has_ended(self.owner))

    @property
    def is_settled(self) -> bool:
        """Whether it is closed and nothing more is to be learned of what it took."""
        return self.state == CLOSED and (self.mode != "session" or self.used is not None or self.remote_id is None)


@dataclass(frozen=True)
class SessionBook:
    """A ledger's batches and sessions; as safe from several processes as the ledger is.

    >>> import tempfile
    >>> from backends.ledger import open_ledger
    >>> SessionBook(open_ledger(tempfile.mkdtemp() + "/ledger.sqlite3")).all()
    []
    """

    ledger: Ledger

    def begin(self, mode: str, device: str, jobs: Sequence[Job], allowed: float) -> Session:
        """Write down that a batch or session is about to be opened for jobs that wait to be sent.

        A session may be open as long as the run's allowance and the month's budget leave, those jobs' own shares
        included, which it will pay for. Raises BudgetError below a whole second.
        """
        ledger, run = self.ledger, jobs[0].run
        with transaction(ledger.path) as connection:
            spent = accounts.spending(connection, ledger.clock, run)
            own = sum(job.cap for job in jobs if job.state == QUEUED)
            left = Spending(spent.run - own, spent.month - own)
            longest = session_seconds(allowed, accounts.limits(connection), left) if mode == "session" else 0
            values = (NAME_PREFIX + secrets.token_hex(6), mode, device, run, OPENING, longest, owner())
            connection.execute(
                "INSERT INTO sessions (name, mode, device, run, state, longest, owner, opened) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, accounts.reading(connection, ledger.clock)),
            )
        return self.session(values[0])

    def move(self, session: Session, state: str, **facts: Any) -> Session:
        """Bring a session to a state; ``facts``: remote_id, used, reason."""
        setting = "".join(f", {name} = ?" for name in facts)
        with transaction(self.ledger.path) as connection:
            connection.execute(
                f"UPDATE sessions SET state = ?{setting} WHERE name = ?", (state, *facts.values(), session.name)
            )
        return self.session(session.name)

    def session(self, name: str) -> Session:
        """Return the session of a name, or of the beginning of one; ValueError where there is none."""
        found = [session for session in self.all() if session.name.startswith(name)]
        if len(found) != 1:
            several = "several have" if found else "none has"
            raise ValueError(
                f"the ledger expects the name of one session, got '{name}', which {several}; see: qlm jobs list"
            )
        return found[0]

    def all(self) -> list[Session]:
        """Return batches and sessions, earliest first."""
        with reading(self.ledger.path) as connection:
            return [Session(**row) for row in map(dict, connection.execute("SELECT * FROM sessions ORDER BY rowid"))]
