"""Batches and sessions of real devices: opened at need, written to the ledger first, closed by whoever finds them.

An opening whose answer was lost leaves nothing to pay: a session bills from its first job, and a job needs its name.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from backends.extras import require
from backends.ibm.access import MODES, Real
from backends.ibm.gate import guarded
from backends.ibm.service import ServiceError, explain, failures, is_temporary, unopened
from backends.ledger import sessions
from backends.ledger.backoff import Backoff
from backends.ledger.job import Job
from backends.ledger.sessions import Session, SessionBook
from backends.ledger.transport import Sessions, Unreachable


class LiveSession(Sessions):
    """The batch or session of a real device that this process has open. Live; never copied.

    A session needs a block of its own (``kept``); a batch is opened for the several jobs of one call, or of a block.
    """

    def __init__(self, access: Real, book: SessionBook) -> None:
        self.access = access
        self.book = book
        self.row: Session | None = None
        self._depth = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep what is opened inside the block, and close it at the end of the outermost one."""
        self._depth += 1
        try:
            yield
        except BaseException as error:
            self._depth -= 1
            try:
                self._close()
            except ValueError as second:
                error.add_note(str(second))  # what went wrong inside is what is to be told
            raise
        self._depth -= 1
        self._close()

    def check_ready(self) -> None:
        """Raise ValueError where a session would have no end."""
        if self.access.mode == "session" and not self._depth:
            raise ValueError(
                "a session bills by the clock and expects 'with backend.session():', got none; or use mode 'batch'."
            )

    def payer(self) -> str | None:
        return self.row.name if self.row is not None and self.row.mode == "session" else None

    def enter(self, waiting: Sequence[Job], allowed: float) -> str | None:
        mode = self.access.mode
        alone = mode == "batch" and self._depth == 1 and len(waiting) == 1  # a batch of one is a job
        if self.row is None and mode != "job" and not alone:
            self._open(waiting, allowed)
        return self.payer()

    def _open(self, waiting: Sequence[Job], allowed: float) -> None:
        mode, device = self.access.mode, self.access.device
        made = getattr(require("ibm", "qiskit_ibm_runtime", "qiskit"), MODES[mode])
        row = self.book.begin(mode, device.name, waiting, allowed)
        heard = guarded(device).heard
        heard.refused = None
        try:
            opened = made(backend=device, **({"max_time": row.longest} if mode == "session" else {}))
        except failures() as error:
            self.book.move(row, sessions.CLOSED, used=0.0, reason="its opening was refused or lost: no job is in it")
            if is_temporary(error):
                raise Unreachable(f"no {mode} was opened: {explain(error)}") from error
            raise ServiceError(unopened(mode, heard.refused, error)) from error
        self.row = self.book.move(row, sessions.OPEN, remote_id=getattr(opened, "session_id", None))
        self.access.held = opened

    def _close(self) -> None:
        if self._depth or self.row is None:
            return
        (row, self.row), (opened, self.access.held) = (self.row, None), (self.access.held, None)
        row = self.book.move(row, sessions.CLOSING)
        _end(self.book, row, opened, cancel=False)


def finish(book: SessionBook, row: Session, device: Any, cancel: bool = False) -> Session:
    """Close a batch or session that another process opened, or learn what a closed one took; return it as it then is.

    Jobs within it go on, unless they are to be cancelled. Raises Unreachable or ServiceError where it stays as it was.
    """
    if row.remote_id is None:
        reason = row.reason or "its opening was not answered: no job is in it"
        return book.move(row, sessions.CLOSED, used=0.0, reason=reason)
    made = getattr(require("ibm", "qiskit_ibm_runtime", "qiskit"), MODES[row.mode])
    try:
        opened = Backoff().repeated(lambda: _found(made, row, device), book.ledger.clock)
    except ServiceError as error:
        raise ServiceError(f"{row.mode} {row.name} is {row.state} still: {error}") from error
    return _end(book, row, opened, cancel)


def _found(made: Any, row: Session, device: Any) -> Any:
    with _questions(row):
        return made.from_id(row.remote_id, device.service)


def _end(book: SessionBook, row: Session, opened: Any, cancel: bool) -> Session:
    """Close what is open, and note what a session took once the service says so."""

    def ended() -> float | None:
        with _questions(row):
            if row.state != sessions.CLOSED:
                (opened.cancel if cancel else opened.close)()
            details = opened.details() or {}
            return details.get("usage_time") if details.get("state") == "closed" else None

    used = Backoff().repeated(ended, book.ledger.clock)
    return book.move(row, sessions.CLOSED, used=None if used is None else float(used))


@contextmanager
def _questions(row: Session) -> Iterator[None]:
    try:
        yield
    except failures() as error:
        sentence = f"{row.mode} {row.name} could not be closed: {explain(error)} Then run: qlm jobs resume"
        raise (Unreachable if is_temporary(error) else ServiceError)(sentence) from error
