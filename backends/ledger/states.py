"""The states of a job, and which may follow which: the one table that every change is checked against.

``uncertain`` is written *before* a request leaves this machine, and left when its answer has come: whoever finds a job
in it, after a crash or a lost answer, does not know whether the service has it, and has to look for its tag.
"""

from collections.abc import Mapping
from types import MappingProxyType

QUEUED = "queued"
UNCERTAIN = "uncertain"
SUBMITTED = "submitted"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"

FOLLOWERS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        QUEUED: frozenset({UNCERTAIN, CANCELLED}),
        UNCERTAIN: frozenset({QUEUED, SUBMITTED, FAILED, CANCELLED}),
        SUBMITTED: frozenset({RUNNING, DONE, FAILED, CANCELLED}),
        RUNNING: frozenset({DONE, FAILED, CANCELLED}),
        DONE: frozenset(),
        FAILED: frozenset(),
        CANCELLED: frozenset(),
    }
)
"""State -> the states that may follow it."""

FINAL = frozenset(state for state, followers in FOLLOWERS.items() if not followers)
"""States that nothing follows."""
OPEN = frozenset(FOLLOWERS) - FINAL
"""States of jobs that are not over."""


def check_change(before: str, after: str) -> None:
    """Raise ValueError unless ``after`` may follow ``before``.

    >>> check_change("queued", "done")
    Traceback (most recent call last):
    ValueError: a job that is queued expects to become cancelled or uncertain, got done; look at it with: qlm jobs show
    """
    if after not in FOLLOWERS[before]:
        expected = " or ".join(sorted(FOLLOWERS[before])) or "nothing else"
        raise ValueError(
            f"a job that is {before} expects to become {expected}, got {after}; look at it with: qlm jobs show"
        )
