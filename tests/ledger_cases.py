"""Requests, a service in memory, and couriers that do not wait, for the ledger's tests."""

from dataclasses import dataclass, field

from backends.ledger.backoff import Backoff
from backends.ledger.courier import Courier
from backends.ledger.job import Job, JobRequest
from backends.ledger.ledger import Ledger
from backends.ledger.transport import AnswerLost, Progress, Transport

QUICK = Backoff(first=0.25, longest=30.0, repeats=3)


def asks(number: int = 0, estimate: float = 2.0, run: str = "r", paid: bool = True, fresh: bool = False) -> JobRequest:
    return JobRequest("ibm_x", {"circuit": {}, "parameters": [number], "options": {}}, estimate, run, paid, fresh)


@dataclass
class Service(Transport):
    """A service in memory, and what happens to submissions: one entry each, an exception or None."""

    submissions: list[Exception | None] = field(default_factory=list)
    accepts_lost: bool = True
    jobs: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    end: Progress = field(default_factory=lambda: Progress("done", 1.25))

    def submit(self, job: Job) -> str:
        problem = self.submissions.pop(0) if self.submissions else None
        self.sent += 1
        if problem is None or (isinstance(problem, AnswerLost) and self.accepts_lost):
            self.jobs[f"j{len(self.jobs)}"] = job.tag
        if problem is not None:
            raise problem
        return f"j{len(self.jobs) - 1}"

    def find(self, job: Job) -> list[str]:
        return [name for name, tag in self.jobs.items() if tag == job.tag]

    def progress(self, job: Job) -> Progress:
        return self.end

    def result(self, job: Job) -> bytes:
        return job.tag.encode()

    def cancel(self, job: Job) -> None:
        self.end = Progress("cancelled", 0.0)


def carry(ledger: Ledger, service: Service) -> Courier:
    return Courier(ledger, service, QUICK)
