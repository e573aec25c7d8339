"""The narrow port between the ledger and a service: calls about jobs and sessions, and what can go wrong in them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backends.ledger.job import Job


class Unreachable(ValueError):
    """The service did not answer a question that may be asked again, or a request was provably not accepted for now.

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

        Raises Unreachable where it provably did not leave this machine, or was refused for the moment alone; NotSent
        where it did not leave and would not at another time either; Refused where the service said no; and AnswerLost
        where nobody knows. After any other exception nobody knows either.
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


class Sessions(ABC):
    """What jobs are sent within: a batch or a session, opened at need and written to the ledger first."""

    @abstractmethod
    def check_ready(self) -> None:
        """Raise ValueError where nothing can be opened as things stand."""

    @abstractmethod
    def kept(self) -> AbstractContextManager[None]:
        """Keep what is opened inside a block, and close it at the end of the outermost one."""

    @abstractmethod
    def payer(self) -> str | None:
        """Return the ledger's name of the open session that pays for its jobs; None where jobs pay for themselves."""

    @abstractmethod
    def enter(self, waiting: Sequence[Job], allowed: float) -> str | None:
        """Open what jobs that wait are to be sent within, unless it is open, and return ``payer()``.

        Raises BudgetError, Unreachable, or ValueError where it cannot be opened: the jobs wait on.
        """
