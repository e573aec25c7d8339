"""The ledger's two ways to a device: through the runtime's service, and, for fake devices, on this machine."""

from typing import Any

from backends.extras import require
from backends.ibm.access import Access, Real, open_access
from backends.ibm.ask import asked, pack
from backends.ibm.live_session import LiveSession, finish
from backends.ibm.service import FOR_NOW, explain, failures, is_temporary, not_now, refusal
from backends.ledger.courier import Courier
from backends.ledger.job import Job
from backends.ledger.ledger import Ledger
from backends.ledger.sessions import Session, SessionBook
from backends.ledger.transport import AnswerLost, NotSent, Progress, Refused, Transport, Unreachable

_STATES = {
    "RUNNING": "running",
    "DONE": "done",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
}
"""The runtime's states, those before running left out."""
_LONGEST_REASON = 300
_HERE = "this machine"
"""The name of all jobs of fake devices."""


class Runtime(Transport):
    """Jobs of the IBM service, through qiskit-ibm-runtime. Holds live jobs; never copied."""

    def __init__(self, access: Real) -> None:
        self.access = access
        self._live: dict[str, Any] = {}

    def submit(self, job: Job) -> str:
        heard = require("ibm", "backends.ibm.gate", "qiskit").guarded(self.access.device).heard
        heard.sent, heard.status = False, None
        try:
            started = asked(job.body).start(self.access, job.tag, job.cap)
        except failures() as error:
            if heard.sent and heard.status in FOR_NOW:
                raise Unreachable(not_now(heard.status)) from error
            if heard.sent and heard.status == 401:  # a token that has run out: the job may go with another
                raise NotSent(explain(error)) from error
            if heard.sent and heard.status is not None and 400 <= heard.status < 500:
                raise Refused(refusal(heard.status, error)) from error
            if heard.sent:  # no 5xx is certain: gateways give them for services behind that have taken the job
                raise AnswerLost("the answer to a submission was lost") from error
            if is_temporary(error):
                raise Unreachable(explain(error)) from error
            raise NotSent(str(error) if type(error) is ValueError else explain(error)) from error
        self._live[started.job_id()] = started
        return started.job_id()

    def find(self, job: Job) -> list[str]:
        with _Questions():
            found = self.access.device.service.jobs(limit=None, job_tags=[job.tag])
            return [each.job_id() for each in reversed(found)]

    def progress(self, job: Job) -> Progress:
        with _Questions():
            remote = self._job(job)
            status = remote.status()
            state = _STATES.get(status if isinstance(status, str) else status.name, "submitted")
            if state not in ("done", "failed", "cancelled"):
                return Progress(state)
            reason = remote.error_message() if state == "failed" else None
            return Progress(state, _used(remote), _short(reason))

    def result(self, job: Job) -> bytes:
        with _Questions():
            (answer,) = self._job(job).result()
            return pack(asked(job.body).read(self.access, answer))

    def cancel(self, job: Job) -> None:
        runtime = require("ibm", "qiskit_ibm_runtime.exceptions", "qiskit")
        with _Questions():
            try:
                self._job(job).cancel()
            except runtime.RuntimeInvalidStateError:
                return  # it is over: the next look at it says how it ended

    def _job(self, job: Job) -> Any:
        assert job.remote_id is not None
        if job.remote_id not in self._live:
            self._live[job.remote_id] = self.access.device.service.job(job.remote_id)
        return self._live[job.remote_id]


class Rehearsal(Transport):
    """Fake devices, whose jobs are computed here when their result is asked for: none can be lost or sent twice."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def submit(self, job: Job) -> str:
        return _HERE

    def find(self, job: Job) -> list[str]:
        return [_HERE]

    def progress(self, job: Job) -> Progress:
        return Progress("done")

    def result(self, job: Job) -> bytes:
        ask = asked(job.body)
        (answer,) = ask.start(self.access).result()
        return pack(ask.read(self.access, answer))

    def cancel(self, job: Job) -> None:
        """Nothing runs."""


def courier_for(access: Access, ledger: Ledger) -> Courier:
    """Return what carries jobs between a ledger and a device."""
    if isinstance(access, Real):
        return Courier(ledger, Runtime(access), sessions=LiveSession(access, SessionBook(ledger)))
    return Courier(ledger, Rehearsal(access))


def reach(device: str, ledger: Ledger) -> Courier:
    """Return what picks up recorded jobs of a device; ServiceError where a real one cannot be reached.

    >>> from backends.ledger import open_ledger
    >>> import tempfile
    >>> type(reach("fake_manila", open_ledger(tempfile.mkdtemp() + "/ledger.sqlite3")).transport).__name__
    'Rehearsal'
    """
    return courier_for(open_access(device, "job"), ledger)


def close_session(name: str, ledger: Ledger, cancel: bool = False) -> Session:
    """Close a batch or session of the ledger, or learn what a closed one took; return it as it then is.

    Jobs within it go on, unless they are to be cancelled with it.
    """
    book = SessionBook(ledger)
    row = book.session(name)
    device = None if row.remote_id is None else open_access(row.device, "job").device
    return finish(book, row, device, cancel)


class _Questions:
    """Turns the runtime's failures into Unreachable, where asking again may help, or ServiceError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from backends.ibm.service import ServiceError

        if error is None or not isinstance(error, failures()) or isinstance(error, ServiceError):
            return
        raise (Unreachable if is_temporary(error) else ServiceError)(explain(error)) from error


def _used(remote: Any) -> float | None:
    """QPU seconds that the service reports for a job that is over; None before it does."""
    usage = remote.metrics().get("usage") or {}
    seconds = usage.get("qpu_charge_time_seconds")
    return None if seconds is None or usage.get("status", "pending") == "pending" else float(seconds)


def _short(reason: str | None) -> str | None:
    return None if reason is None else " ".join(reason.split())[:_LONGEST_REASON]
