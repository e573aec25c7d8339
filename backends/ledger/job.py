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
class Job:
    """A row of the ledger. Times are the wall clock's; ``used`` is None until the service has reported it.

    ``cap``: QPU seconds after which the service stops the job. ``sent``: the steady clock's boot and reading when the
    request was last on its way; ``lookups``: how often its tag was looked for in vain since.
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
    used: float | None
    remote_id: str | None
    reason: str | None
    created: float
    changed: float
    sent: tuple[str, float] | None
    lookups: int
    result: bytes | None

    @property
    def charge(self) -> float:
        """QPU seconds that count against budgets: reported ones; until they are, all that a job may have taken.

        What a rehearsal on a fake device would have taken is its estimate.
        """
        if self.used is not None:
            return self.used
        is_over = self.state in ("done", "failed", "cancelled")
        return self.estimate if is_over and not self.paid else float(self.cap)
