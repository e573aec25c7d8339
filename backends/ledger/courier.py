"""What brings a recorded job to its end: send once, look for what may have been sent, follow, fetch, keep.

The order of writing and sending is what makes a crash harmless. ``queued`` becomes ``uncertain`` on the disk, then the
request leaves, then ``uncertain`` becomes ``submitted`` with the service's name for the job. Whoever finds a job queued
may send it: it never left. Whoever finds it uncertain may only look for its tag.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backends.ledger import states
from backends.ledger.backoff import Backoff
from backends.ledger.job import Job, JobRequest
from backends.ledger.ledger import Ledger
from backends.ledger.transport import AnswerLost, NotSent, Refused, Transport, Unreachable

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

    ``safe`` and ``searching`` are the pauses of repetitions: of what is safe to repeat, and of looking for a tag.
    """

    ledger: Ledger
    transport: Transport
    safe: Backoff = field(default_factory=Backoff)
    searching: Backoff = field(default_factory=lambda: Backoff(first=0.25, longest=30.0))

    def deliver(self, requests: Sequence[JobRequest], allowed: float) -> list[bytes]:
        """Record requests, send those that are new, and return the results of all, in order.

        Raises BudgetError before anything is sent. Where some of several fail the others are finished first and kept:
        the same call, repeated, asks for the rest alone. The first failure is raised.
        """
        jobs = self.ledger.record(requests, allowed)
        if len(jobs) > 1:  # all are sent before any is waited for; what fails now says so again below
            for job in jobs:
                self._attempt([], job, wait=False)
        failures: list[ValueError] = []
        results = [self._attempt(failures, job, wait=True) for job in jobs]
        if failures:
            if len(jobs) > 1:
                kept = sum(result is not None for result in results)
                failures[0].add_note(f"{kept} of {len(jobs)} results are kept in the ledger.")
            raise failures[0]
        return [result for result in results if result is not None]

    def _attempt(self, failures: list[ValueError], job: Job, wait: bool) -> bytes | None:
        """Advance one of several jobs; its failure is noted, so that the others go on."""
        try:
            return self.follow(job.tag, wait).result
        except ValueError as error:
            failures.append(error)
            return None

    def follow(self, tag: str, wait: bool = True) -> Job:
        """Bring a job to its end and return it; without ``wait`` only as far as it goes now.

        Raises Undecided after ten minutes of looking for a job that may have been sent, JobFailed for one that was
        refused, failed or was cancelled, Unreachable where the service does not answer.
        """
        pauses = self.safe.pauses()
        while True:
            job = self.ledger.job(tag)
            if job.state == states.DONE:
                return job
            if job.state in states.FINAL:
                raise JobFailed(
                    f"the IBM service expects job {job.remote_id or job.tag} to end well, got {job.state}: "
                    f"{job.reason or 'no reason given'}; see: qlm jobs show {job.tag}"
                )
            if job.state == states.QUEUED:
                self._send(job, pauses)
            elif job.state == states.UNCERTAIN:
                self._search(job)
            elif not self._advance(job):
                if not wait:
                    return self.ledger.job(tag)
                self.ledger.clock.sleep(next(pauses))

    def resubmit(self, tag: str) -> Job:
        """Send an uncertain job again, under its tag, because a person said so; after one last look for the first."""
        job = self.ledger.job(tag)
        if job.state != states.UNCERTAIN:
            raise ValueError(f"--resubmit expects an uncertain job, got {job.tag}, which is {job.state}; leave it out.")
        if not self._adopt(job):
            self.ledger.move(job, states.QUEUED, reason="sent again by consent")
        return self.follow(job.tag, wait=False)

    def cancel(self, tag: str) -> Job:
        """Cancel a job and return it as it then is; one that is uncertain is looked for first."""
        job = self.ledger.job(tag)
        if job.state in states.FINAL:
            raise ValueError(f"cancel expects a job that is not over, got {job.tag}, which is {job.state}; leave it.")
        if job.state == states.UNCERTAIN and not self._adopt(job):
            if not self._exhausted(job):
                raise Undecided(_question(job))
            self.ledger.move(job, states.CANCELLED, reason="given up: the service does not know its tag")
            return self.ledger.job(job.tag)
        job = self.ledger.job(job.tag)
        if job.state == states.QUEUED:
            self.ledger.move(job, states.CANCELLED, used=0.0, reason="before it was sent")
        else:
            self.safe.repeated(lambda: self.transport.cancel(job), self.ledger.clock)
            self._advance(job)
        return self.ledger.job(job.tag)

    def refresh_usage(self, job: Job) -> bool:
        """Ask what a finished job has cost where that was not known yet; whether it is now."""
        if job.used is not None or job.remote_id is None:
            return job.used is not None
        used = self.safe.repeated(lambda: self.transport.progress(job), self.ledger.clock).used
        if used is not None:
            self.ledger.note_usage(job, used)
        return used is not None

    def _send(self, job: Job, pauses: Iterator[float]) -> None:
        """Claim a queued job and send it: one of several processes succeeds in claiming it."""
        clock = self.ledger.clock
        self.ledger.require_budget(job)
        if not self.ledger.move(job, states.UNCERTAIN, sent=(clock.boot(), clock.steady())):
            return
        claimed = self.ledger.job(job.tag)
        try:
            remote_id = self.transport.submit(claimed)
        except AnswerLost:
            return  # the next round looks for it; after any other failure, unforeseen ones too, the next resume does
        except Refused as error:
            self.ledger.move(claimed, states.FAILED, used=0.0, reason=str(error))
            return
        except Unreachable:
            self.ledger.move(claimed, states.QUEUED, reason="not sent: the service was out of reach")
            tries = sum(state == states.UNCERTAIN for _, state, _ in self.ledger.history(job.tag))
            if tries > self.safe.repeats:
                raise
            clock.sleep(next(pauses))
            return
        except NotSent:
            self.ledger.move(claimed, states.QUEUED, reason="not sent: it could not be prepared")
            raise
        self.ledger.move(claimed, states.SUBMITTED, remote_id=remote_id)

    def _search(self, job: Job) -> None:
        """Look for an uncertain job until another process knows more, it is found, or ten minutes have passed."""
        for pause in self.searching.pauses():
            if self._adopt(job):
                return
            job = self.ledger.job(job.tag)
            if job.state != states.UNCERTAIN:
                return
            if self._exhausted(job):
                raise Undecided(_question(job))
            self.ledger.clock.sleep(pause)

    def _adopt(self, job: Job) -> bool:
        """Take the service's job with this tag for ours, if there is one; the first of several."""
        found = self.safe.repeated(lambda: self.transport.find(job), self.ledger.clock)
        if not found:
            self.ledger.looked(job, self._since(job))
            return False
        reason = None if len(found) == 1 else f"{len(found)} jobs bear this tag: {', '.join(found)}"
        self.ledger.move(job, states.SUBMITTED, remote_id=found[0], reason=reason)
        return True

    def _since(self, job: Job) -> tuple[str, float]:
        """When the search began by the steady clock; anew after a restart of the machine, whose readings differ."""
        boot = self.ledger.clock.boot()
        return job.sent if job.sent is not None and job.sent[0] == boot else (boot, self.ledger.clock.steady())

    def _exhausted(self, job: Job) -> bool:
        """Whether the tag was looked for, in vain, ten minutes after the request may have left."""
        return self.ledger.clock.steady() - self._since(job)[1] >= SEARCH_SECONDS

    def _advance(self, job: Job) -> bool:
        """Ask how far a submitted job is, and write down what changed; whether it is over."""
        clock = self.ledger.clock
        progress = self.safe.repeated(lambda: self.transport.progress(job), clock)
        if progress.state == job.state or progress.state == states.SUBMITTED:
            return False
        facts = {"used": progress.used, "reason": progress.reason}
        if progress.state == states.DONE:
            facts["result"] = self.safe.repeated(lambda: self.transport.result(job), clock)
        self.ledger.move(job, progress.state, **facts)
        return progress.state in states.FINAL


def _question(job: Job) -> str:
    return (
        f"job {job.tag} was perhaps sent, and the service does not know its tag so far; look again with: qlm jobs "
        f"resume, or consent to sending it a second time with: qlm jobs resume --resubmit {job.tag}"
    )
