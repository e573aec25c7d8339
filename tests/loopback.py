"""A transport that speaks the service's calls about jobs to the stand-in: standard library alone, quick to start."""

import http.client
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
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
        self.noted(f"before {method}")
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=self.timeout)
        try:
            connection.request(method, f"/api/v1/{path}", headers=self._headers())
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(type(error).__name__) from None
        finally:
            connection.close()
        self.noted(f"after {method}")
        if answer.status not in expected:
            raise Unreachable(f"HTTP {answer.status}")
        return text

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {access_token(self.token)}"}


@dataclass
class Countdown:
    """Kills this process, as kill -9 does, at the n-th event; counts where n is out of reach."""

    n: int
    seen: int = 0

    def __call__(self, event: str) -> None:
        self.seen += 1
        if self.seen == self.n:
            os.kill(os.getpid(), signal.SIGKILL)
