"""The narrow port between the ledger and a service: five calls, and what can go wrong in them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from backends.ledger.job import Job


class Unreachable(ValueError):
    """The service did not answer a question that may be asked again, or a request provably never left this machine.

    >>> issubclass(Unreachable, ValueError)
    True
    """


class NotSent(ValueError):
    """A request could not be prepared, and provably never left this machine; repeating it would not help.

    >>> issubclass(NotSent, ValueError)
    True
    """


class Refused(ValueError):
    """The service answered a submission, and said no: there is no job.

    >>> issubclass(Refused, ValueError)
    True
    """


class AnswerLost(ValueError):
    """A submission was sent and no answer came: there may be a job, or none.

    >>> issubclass(AnswerLost, ValueError)
    True
    """


@dataclass(frozen=True)
class Progress:
    """How far a job of the service is: a state of the ledger, QPU seconds where reported, and why it failed.

    >>> Progress("running").used is None
    True
    """

    state: str
    used: float | None = None
    reason: str | None = None


class Transport(ABC):
    """A service's jobs. Everything but ``submit`` may be repeated, and raises Unreachable where it should be."""

    @abstractmethod
    def submit(self, job: Job) -> str:
        """Send a job under its tag, once, and return the service's name for it.

        Raises Unreachable or NotSent where it provably did not leave this machine, Refused where the service said no,
        and AnswerLost where nobody knows. After any other exception nobody knows either.
        """

    @abstractmethod
    def find(self, job: Job) -> list[str]:
        """Return the service's names of all jobs that bear the job's tag, oldest first."""

    @abstractmethod
    def progress(self, job: Job) -> Progress:
        """Return how far a job is that has been submitted."""

    @abstractmethod
    def result(self, job: Job) -> bytes:
        """Return the result of a job that is done."""

    @abstractmethod
    def cancel(self, job: Job) -> None:
        """Ask for a submitted job to be cancelled; no error where it is over already."""
