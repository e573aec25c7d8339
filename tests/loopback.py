"""A transport that speaks the service's calls about jobs to the stand-in: standard library alone, quick to start."""

import http.client
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from standin import access_token

from backends.ledger.job import Job
from backends.ledger.transport import AnswerLost, Progress, Refused, Transport, Unreachable

_STATES = {
    "Queued": "submitted",
    "Running": "running",
    "Completed": "done",
    "Failed": "failed",
    "Cancelled": "cancelled",
}


def _nothing(event: str) -> None:
    return None


@dataclass(frozen=True)
class Loopback(Transport):
    """Jobs over HTTP; ``noted`` hears of each step, so that a test can die at it."""

    address: str
    token: str = "good-token"
    noted: Callable[[str], None] = _nothing
    timeout: float = 5.0

    def submit(self, job: Job) -> str:
        self.noted("before connecting")
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=self.timeout)
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(f"no connection: {type(error).__name__}") from None
        payload = {"program_id": "sampler", "backend": job.device, "params": job.body, "cost": job.cap}
        try:
            self.noted("connected")
            body = json.dumps(payload | {"tags": ["hybridqlm", job.tag]})
            connection.request("POST", "/api/v1/jobs", body, self._headers())
            self.noted("sent")
            answer = connection.getresponse()
            self.noted("answered")
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise AnswerLost(type(error).__name__) from None
        finally:
            connection.close()
        self.noted("read")
        if answer.status in (408, 429):
            raise Unreachable(f"HTTP {answer.status}")
        if 400 <= answer.status < 500:
            raise Refused(f"HTTP {answer.status}")
        if answer.status != 200:
            raise AnswerLost(f"HTTP {answer.status}")
        return json.loads(text)["id"]

    def find(self, job: Job) -> list[str]:
        answer = json.loads(self._ask("GET", "jobs?" + urlencode({"tags": job.tag})))
        return [each["id"] for each in answer["jobs"]][::-1]

    def progress(self, job: Job) -> Progress:
        state = json.loads(self._ask("GET", f"jobs/{job.remote_id}"))["state"]
        usage: dict[str, Any] = json.loads(self._ask("GET", f"jobs/{job.remote_id}/metrics"))["usage"]
        used = usage["qpu_charge_time_seconds"] if usage["status"] == "done" else None
        return Progress(_STATES[state["status"]], used, state["reason"])

    def result(self, job: Job) -> bytes:
        return self._ask("GET", f"jobs/{job.remote_id}/results")

    def cancel(self, job: Job) -> None:
        self._ask("POST", f"jobs/{job.remote_id}/cancel", (204, 409))

    def _ask(self, method: str, path: str, expected: tuple[int, ...] = (200,)) -> bytes:
        what = "results" if path.endswith("/results") else path.partition("/")[2] or "search"
        self.noted(f"before {method} {what}")
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=self.timeout)
        try:
            connection.request(method, f"/api/v1/{path}", headers=self._headers())
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(type(error).__name__) from None
        finally:
            connection.close()
        self.noted(f"after {method} {what}")
        if answer.status not in expected:
            raise Unreachable(f"HTTP {answer.status}")
        return text

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {access_token(self.token)}"}


PHASES = ("recording", "recorded", "posting", "answered", "searching", "polling", "fetching")
"""Where a request may be: being written down; on the disk, not sent; on the wire; answered, and that not written down;
looked for; asked about; its result being fetched and written down."""


@dataclass
class Countdown:
    """Kills this process, as kill -9 does, at the n-th event of a phase; counts those of all phases.

    Events are SQL statements, before they are executed, and steps of requests. ``begun`` is told once that the request
    is on the disk.
    """

    phase: str
    n: int
    begun: Callable[[], None]
    now: str = PHASES[0]
    written: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, event: str) -> None:
        self._follow(event)
        self.seen[self.now] += 1
        if self.now == self.phase and self.seen[self.now] == self.n:
            os.kill(os.getpid(), signal.SIGKILL)

    def _follow(self, event: str) -> None:
        begins = {
            "connected": "posting",
            "read": "answered",
            "before GET search": "searching",
            "before GET results": "fetching",
        }
        if event in begins:
            self.now = begins[event]
        elif event.startswith("before GET") and self.now != "fetching":
            self.now = "polling"
        elif self.now == "recording" and self.written and event.startswith(("BEGIN", "PRAGMA")):
            self.now = "recorded"
            self.begun()
        self.written = self.written or event.startswith("INSERT INTO jobs")
