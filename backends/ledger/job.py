"""What is asked of a machine, and what is known of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TAG_PREFIX = "qlm-"
_DIGITS = 32


@dataclass(frozen=True)
class JobRequest:
    """One job before it exists: a device, and plain JSON of the circuit, the parameters and the options.

    ``estimate``: QPU seconds that it will take; ``run``: whose allowance it is charged to; ``paid``: whether the device
    bills; ``fresh``: never answered from the ledger.

    >>> JobRequest("fake_manila", {"circuit": {}, "parameters": [], "options": {}}).content[:8]
    '9e5eb76f'
    """

    device: str
    body: Mapping[str, Any]
    estimate: float = 0.0
    run: str = ""
    paid: bool = True
    fresh: bool = False

    @property
    def text(self) -> str:
        """The body in its one canonical form."""
        return json.dumps(self.body, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def content(self) -> str:
        """SHA-256 of device and body: two requests that ask the same are equal in it."""
        return hashlib.sha256(f"{self.device}\n{self.text}".encode()).hexdigest()


def tag_of(content: str, attempt: int, nonce: str = "") -> str:
    """Return the idempotency tag: the content's hash, then which attempt at it this is, or the nonce of a fresh one.

    >>> tag_of("ab" * 32, 0), tag_of("ab" * 32, 2, "9f")
    ('qlm-abababababababababababababababab', 'qlm-abababababababababababababababab-9f')
    """
    ending = nonce or (str(attempt) if attempt else "")
    return TAG_PREFIX + content[:_DIGITS] + (f"-{ending}" if ending else "")


@dataclass(frozen=True)
class Sending:
    """One time that a job's request left this machine; all are charged, whatever became of the others.

    ``at``: the ledger's time; ``session``: the session that pays for it, if any; ``remote_id`` and ``used``: the
    service's name for what was sent, and the QPU seconds that it has reported, None while they are unknown.

    >>> Sending(at=1.8e9).used is None
    True
    """

    at: float
    session: str | None = None
    remote_id: str | None = None
    used: float | None = None


@dataclass(frozen=True)
class Job:
    """A row of the ledger. Times are the wall clock's; ``sent``: the steady clock's boot and reading at the last one.

    ``cap``: QPU seconds after which the service stops the job. ``sendings``: how often it was sent; ``lookups``: how
    often its tag was looked for in vain since the last one. ``used``: QPU seconds of all sendings, None until the job
    is over and the service has reported them. ``charge``: what counts against budgets: for each sending the seconds
    reported, and until they are all that it may have taken (of a rehearsal on a fake device: its estimate); nothing for
    one that a session pays for.
    """

    tag: str
    content: str
    device: str
    state: str
    body: Mapping[str, Any]
    run: str
    paid: bool
    estimate: float
    cap: int
    remote_id: str | None
    reason: str | None
    created: float
    changed: float
    sent: tuple[str, float] | None
    lookups: int
    result: bytes | None
    sendings: int
    used: float | None
    charge: float
