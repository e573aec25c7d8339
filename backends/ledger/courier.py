"""What brings a recorded job to its end: send once, look for what may have been sent, follow, fetch, keep.

The order of writing and sending is what makes a crash harmless. ``queued`` becomes ``uncertain`` on the disk, then the
request leaves, then ``uncertain`` becomes ``submitted`` with the service's name for the job. Whoever finds a job queued
may send it: it never left. Whoever finds it uncertain may only look for its tag.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from backends.ledger import states
from backends.ledger.backoff import Backoff
from backends.ledger.job import Job, JobRequest
from backends.ledger.ledger import Ledger
from backends.ledger.transport import AnswerLost, NotSent, Progress, Refused, Sessions, Transport, Unreachable

SEARCH_SECONDS = 600.0
"""How long a tag is looked for before a person is asked."""


class Undecided(ValueError):
    """A job was perhaps sent, and the service does not know its tag: a person decides whether to send it again.

    >>> issubclass(Undecided, ValueError)
    True
    """


class JobFailed(RuntimeError, ValueError):
    """The service refused a job, or it did not end well.

    >>> issubclass(JobFailed, RuntimeError)
    True
    """


@dataclass(frozen=True)
class Courier:
    """Carries jobs between a ledger and a service.

    ``safe``: the pauses of what may be repeated; ``sessions``: opens what a call's jobs are sent within, if anything.
    """

    ledger: Ledger
    transport: Transport
    safe: Backoff = field(default_factory=Backoff)
    sessions: Sessions | None = None

    def deliver(self, requests: Sequence[JobRequest], allowed: float) -> list[bytes]:
        """Record requests, send those that are new, and return the results of all, in order.

        Raises BudgetError before anything is sent. Where some of several fail the others are finished first and kept:
        the same call, repeated, asks for the rest alone. The first failure is raised.
        """
        sessions = self.sessions
        if sessions:
            sessions.check_ready()
        with self.kept():
            jobs = self.ledger.record(requests, allowed, sessions.payer() if sessions else None)
            waiting = [job for job in {job.tag: job for job in jobs}.values() if job.state == states.QUEUED]
            payer = sessions.enter(waiting, allowed) if sessions and waiting else None
            outcomes = self._carry([job.tag for job in jobs], wait=True, payer=payer)
        failures = [outcome for outcome in outcomes.values() if isinstance(outcome, ValueError)]
        if failures:
            if len(outcomes) > 1:
                failures[0].add_note(
                    f"{len(outcomes) - len(failures)} of {len(outcomes)} results are kept in the ledger."
                )
            raise failures[0]
        ended = [outcome for job in jobs if isinstance(outcome := outcomes[job.tag], Job)]
        return [job.result for job in ended if job.result is not None]

    def kept(self) -> AbstractContextManager[None]:
        """Keep the batch or session that is opened inside the block, and close it at the end of the outermost one."""
        return self.sessions.kept() if self.sessions else nullcontext()

    def follow(self, tag: str, wait: bool = True) -> Job:
        """Bring a job to its end and return it; without ``wait`` only as far as it goes now.

        Raises Undecided after ten minutes of looking for a job that may have been sent, JobFailed for one that was
        refused, failed or was cancelled, Unreachable where the service does not answer.
        """
        (outcome,) = self._carry([tag], wait).values()
        if isinstance(outcome, ValueError):
            raise outcome
        return outcome

    def resubmit(self, tag: str) -> Job:
        """Send an uncertain job again, under its tag, because a person said so; after one last look for the first.

        Both sendings are charged: the first may turn up yet.
        """
        job = self.ledger.job(tag)
        if job.state != states.UNCERTAIN:
            raise ValueError(f"--resubmit expects an uncertain job, got {job.tag}, which is {job.state}; leave it out.")
        if not self._look(job):
            self.ledger.move(job, states.QUEUED, reason="sent again by consent")
        return self.follow(job.tag, wait=False)

    def cancel(self, tag: str) -> Job:
        """Cancel a job and return it as it then is; one that is uncertain is looked for first."""
        job = self.ledger.job(tag)
        if job.state in states.FINAL:
            raise ValueError(f"cancel expects a job that is not over, got {job.tag}, which is {job.state}; leave it.")
        if job.state == states.UNCERTAIN and not self._look(job):
            if not self._exhausted(job):
                raise Undecided(_question(job))
            self.ledger.move(job, states.CANCELLED, reason="given up: the service does not know its tag")
            return self.ledger.job(job.tag)
        job = self.ledger.job(job.tag)
        if job.state == states.QUEUED:
            self.ledger.move(job, states.CANCELLED, reason="before it was sent")
        else:
            self.safe.repeated(lambda: self.transport.cancel(job), self.ledger.clock)
            self._ask(job)
        return self.ledger.job(job.tag)

    def refresh_usage(self, job: Job) -> bool:
        """Ask what a finished job's sendings have cost where that was not known yet; whether all of it is now."""
        clock, unknown = self.ledger.clock, [each for each in self.ledger.sendings(job.tag) if each.used is None]
        if any(each.remote_id is None for each in unknown):  # sent again after a lost answer: the first may have come
            self.ledger.note_names(job, self.safe.repeated(lambda: self.transport.find(job), clock))
            unknown = [each for each in self.ledger.sendings(job.tag) if each.used is None]
        for sending in unknown:
            if sending.remote_id is not None:
                used = self._progress(replace(job, remote_id=sending.remote_id)).used
                if used is not None:
                    self.ledger.note_usage(job, sending.remote_id, used)
        return self.ledger.job(job.tag).used is not None

    def _carry(self, tags: Sequence[str], wait: bool, payer: str | None = None) -> dict[str, Job | ValueError]:
        """Advance jobs in turn, none waiting for another, until each is over or, without ``wait``, cannot go on now."""
        outcomes: dict[str, Job | ValueError] = {}
        refusals: Counter[str] = Counter()
        pending, pauses = list(dict.fromkeys(tags)), self.safe.pauses()
        while True:
            for tag in pending:
                try:
                    while self._step(tag, payer):
                        pass
                    job = self.ledger.job(tag)
                    if job.state == states.DONE or not wait:
                        outcomes[tag] = job
                except _Deferred as later:
                    refusals[tag] += 1
                    if not wait or refusals[tag] > self.safe.repeats:
                        outcomes[tag] = later.why
                except ValueError as error:
                    outcomes[tag] = error
            pending = [tag for tag in pending if tag not in outcomes]
            if not pending:
                return {tag: outcomes[tag] for tag in tags}
            self.ledger.clock.sleep(next(pauses))

    def _step(self, tag: str, payer: str | None) -> bool:
        """Do for a job what can be done now; whether more can be done at once."""
        job = self.ledger.job(tag)
        if job.state == states.DONE:
            return False
        if job.state in states.FINAL:
            raise JobFailed(
                f"the IBM service expects job {job.remote_id or job.tag} to end well, got {job.state}: "
                f"{job.reason or 'no reason given'}; see: qlm jobs show {job.tag}"
            )
        if job.state == states.QUEUED:
            self._send(job, payer)
            return True
        if job.state == states.UNCERTAIN:
            if self._look(job):
                return True
            if self._exhausted(job):
                raise Undecided(_question(job))
            return False
        return self._ask(job)

    def _send(self, job: Job, payer: str | None) -> None:
        """Claim a queued job and send it: one of several processes succeeds in claiming it."""
        claimed = self.ledger.claim(job, payer)
        if claimed is None:
            return
        try:
            remote_id = self.transport.submit(claimed)
        except AnswerLost:
            return  # the next step looks for it; after any other failure, unforeseen ones too, the next resume does
        except Refused as error:
            self.ledger.move(claimed, states.FAILED, used=0.0, reason=str(error))
        except Unreachable as error:
            self.ledger.move(claimed, states.QUEUED, used=0.0, reason=f"not sent: {error}")
            raise _Deferred(error) from error
        except NotSent:
            self.ledger.move(claimed, states.QUEUED, used=0.0, reason="not sent: it could not be prepared")
            raise
        else:
            self.ledger.move(claimed, states.SUBMITTED, remote_id=remote_id)

    def _look(self, job: Job) -> bool:
        """Look once for an uncertain job; whether it is uncertain no more: found, or known to another process."""
        found = self.safe.repeated(lambda: self.transport.find(job), self.ledger.clock)
        if found:
            self.ledger.adopt(job, found)
            return True
        self.ledger.looked(job, self._since(job))
        return self.ledger.job(job.tag).state != states.UNCERTAIN

    def _since(self, job: Job) -> tuple[str, float]:
        """When the search began by the steady clock; anew after a restart of the machine, whose readings differ."""
        boot = self.ledger.clock.boot()
        return job.sent if job.sent is not None and job.sent[0] == boot else (boot, self.ledger.clock.steady())

    def _exhausted(self, job: Job) -> bool:
        """Whether the tag was looked for, in vain, ten minutes after the request may have left."""
        return self.ledger.clock.steady() - self._since(self.ledger.job(job.tag))[1] >= SEARCH_SECONDS

    def _ask(self, job: Job) -> bool:
        """Ask how far a submitted job is, and write down what changed; whether it is over."""
        progress = self._progress(job)
        if progress.state == job.state or progress.state == states.SUBMITTED:
            return False
        done = progress.state == states.DONE
        result = self.safe.repeated(lambda: self.transport.result(job), self.ledger.clock) if done else None
        self.ledger.move(job, progress.state, used=progress.used, reason=progress.reason, result=result)
        return progress.state in states.FINAL

    def _progress(self, job: Job) -> Progress:
        return self.safe.repeated(lambda: self.transport.progress(job), self.ledger.clock)


class _Deferred(Exception):
    """A submission was refused for now, or did not leave; ``why`` says so where it is not to be tried again."""

    def __init__(self, why: Unreachable) -> None:
        super().__init__(str(why))
        self.why = why


def _question(job: Job) -> str:
    return (
        f"job {job.tag} was perhaps sent, and the service does not know its tag so far; look again with: qlm jobs "
        f"resume, or consent to sending it a second time, for up to {job.cap} QPU seconds more, with: qlm jobs resume "
        f"--resubmit {job.tag}"
    )
