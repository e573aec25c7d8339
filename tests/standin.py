"""A stand-in for the IBM Quantum Platform: a real HTTP server on loopback that speaks the part of it that clients need.

Two clients use it. qiskit-ibm-runtime itself, unmodified, reaches it as an HTTP proxy (its account names the host
``cloud.test``): identity tokens, the search for instances, the catalogue, devices, jobs, results, metrics, sessions.
``loopback.Loopback``, which imports nothing heavy, speaks the calls about jobs alone. Faults are injected here, on the
wire: delays, 5xx, connections dropped before or after a request was accepted.
"""

import base64
import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:00000000-1111-2222-3333-444444444444::"
HOST = "http://cloud.test"


@dataclass
class RemoteJob:
    """A job as the service has it."""

    id: str
    payload: dict[str, Any]
    status: str = "Queued"
    polls: int = 0
    result: str | None = None

    @property
    def tags(self) -> list[str]:
        return self.payload.get("tags", [])


@dataclass
class RemoteSession:
    """A batch or session as the service has it."""

    id: str
    payload: dict[str, Any]
    accepting: bool = True


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request: a dropped connection, or a status of 5xx, before or after it was accepted.

    ``delay``: seconds before the answer; ``breaks`` False delays it alone.
    """

    status: int | None = None
    after: bool = False
    delay: float = 0.0
    breaks: bool = True


def digest(payload: dict[str, Any]) -> str:
    """The result of a job that no quantum computer need run: a function of what was asked."""
    return json.dumps({"digest": hashlib.sha256(json.dumps(payload["params"], sort_keys=True).encode()).hexdigest()})


def access_token(key: str) -> str:
    """What an API key is exchanged for: the three parts of a JSON web token, whose signature nobody checks."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iat": 1_700_000_000, "exp": 4_000_000_000, "iam_id": "me"}, {"of": key})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


@dataclass
class StandIn:
    """The service. ``fault`` says what goes wrong with a request, by method and path; ``execute`` runs a job.

    A job is queued at the first question, running at the second, and completed from the third on.
    """

    token: str = "good-token"
    instances: tuple[str, ...] = (CRN,)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    fault: Callable[[str, str], Fault | None] = lambda method, path: None
    execute: Callable[[dict[str, Any]], str] = digest
    seconds: float | None = 1.5
    jobs: dict[str, RemoteJob] = field(default_factory=dict)
    sessions: dict[str, RemoteSession] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "StandIn":
        class Handler(_Handler):
            service = self

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def posted(self) -> int:
        return sum(method == "POST" and path.endswith("/jobs") for method, path in self.asked)

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        """Status and JSON (or text) of a request that was let in."""
        parts = [part for part in path.removeprefix("/api/v1").split("/") if part]
        match (method, *parts):
            case ("POST", "jobs"):
                return self._accept(json.loads(body))
            case ("GET", "jobs"):
                found = [self._described(job) for job in self._tagged(query.get("tags", []))]
                return 200, {"jobs": found[::-1], "count": len(found)}
            case ("GET", "jobs", name):
                return self._polled(name)
            case ("GET", "jobs", name, "results"):
                job = self.jobs[name]
                return (200, job.result) if job.status == "Completed" else (200, "Traceback: the job failed")
            case ("GET", "jobs", name, "metrics"):
                known = self.seconds is not None and self.jobs[name].status == "Completed"
                return 200, {
                    "usage": {"qpu_charge_time_seconds": self.seconds, "status": "done" if known else "pending"}
                }
            case ("POST", "jobs", name, "cancel"):
                return self._cancelled(name)
            case ("GET", "instances", "usage"):
                return 200, {"usage_limit_reached": False}
            case ("POST", "sessions"):
                return self._opened(json.loads(body))
            case ("PATCH" | "GET" | "DELETE", "sessions", name, *_):
                return self._session(method, name)
            case ("GET", "backends"):
                listed = [
                    {
                        "name": name,
                        "status": {"name": "online"},
                        "queue_length": 0,
                        "qubits": about["configuration"]["n_qubits"],
                    }
                    for name, about in self.devices.items()
                ]
                return 200, {"devices": listed}
            case ("GET", "backends", name, what):
                status = {"state": True, "status": "active", "length_queue": 0, "backend_version": "1.0.0"}
                return (200, status) if what == "status" else (200, self.devices[name][what])
            case ("POST", "v3", "resources", "search"):
                items = [
                    {
                        "crn": crn,
                        "name": "open-instance",
                        "service_plan_unique_id": "plan-1",
                        "tags": [],
                        "doc": {"extensions": {"a": 1}},
                    }
                    for crn in self.instances
                ]
                return 200, {"items": items}
            case ("GET", "plan-1"):
                plan = {"overview_ui": {"en": {"display_name": "Open"}}, "metadata": {"pricing": {"type": "free"}}}
                return 200, {"id": "plan-1", "name": "open", "kind": "plan", **plan}
        return 404, {"errors": [{"code": 404, "message": f"no {method} {path} here"}]}

    def identity(self, body: bytes) -> tuple[int, Any]:
        """An access token for the right API key."""
        if parse_qs(body.decode()).get("apikey") != [self.token]:
            return 400, {"errorCode": "BXNIM0415E", "errorMessage": "Provided API key could not be found."}
        access, now = {"access_token": access_token(self.token), "token_type": "Bearer"}, int(time.time())
        return 200, {**access, "expires_in": 3600, "expiration": now + 3600}

    def _accept(self, payload: dict[str, Any]) -> tuple[int, Any]:
        within = payload.get("session_id")
        if within is not None and not self.sessions[within].accepting:
            return 409, {"errors": [{"code": 409, "message": "the session is closed"}]}
        with self.lock:
            job = RemoteJob(f"job-{len(self.jobs):04d}", payload)
            self.jobs[job.id] = job
        return 200, {"id": job.id, "backend": payload.get("backend")}

    def _opened(self, payload: dict[str, Any]) -> tuple[int, Any]:
        with self.lock:
            session = RemoteSession(f"session-{len(self.sessions)}", payload)
            self.sessions[session.id] = session
        return 200, {"id": session.id}

    def _session(self, method: str, name: str) -> tuple[int, Any]:
        """Details; PATCH lets no more jobs in, DELETE cancels those in it too. The clock stands at 4.5 s."""
        if name not in self.sessions:
            return 404, {"errors": [{"code": 404, "message": "no such session"}]}
        session = self.sessions[name]
        session.accepting = session.accepting and method == "GET"
        if method == "DELETE":
            for job in [each.id for each in self.jobs.values() if each.payload.get("session_id") == name]:
                self._cancelled(job)
        state = {"state": "open" if session.accepting else "closed", "accepting_jobs": session.accepting}
        about = {"id": name, "backend_name": session.payload["backend"], "mode": session.payload["mode"]}
        return 200, about | state | {"elapsed_time": 4.5}

    def _tagged(self, tags: list[str]) -> list[RemoteJob]:
        with self.lock:
            return [job for job in self.jobs.values() if set(tags) <= set(job.tags)]

    def _polled(self, name: str) -> tuple[int, Any]:
        job = self.jobs[name]
        with self.lock:
            job.polls += 1
            due = job.status == "Running"
            job.status = {"Queued": "Running"}.get(job.status, job.status) if job.polls > 1 else job.status
        if due:
            try:
                job.result, job.status = self.execute(job.payload), "Completed"
            except RuntimeError:
                job.status = "Failed"
        return 200, self._described(job)

    def _cancelled(self, name: str) -> tuple[int, Any]:
        job = self.jobs[name]
        with self.lock:
            if job.status in ("Completed", "Failed", "Cancelled"):
                return 409, {"errors": [{"code": 409, "message": "over"}]}
            job.status = "Cancelled"
        return 204, None

    def _described(self, job: RemoteJob) -> dict[str, Any]:
        return {
            "id": job.id,
            "backend": job.payload.get("backend"),
            "program": {"id": job.payload["program_id"]},
            "state": {"status": job.status, "reason": "out of tune" if job.status == "Failed" else None},
            "tags": job.tags,
            "created": "2026-01-01T00:00:00Z",
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed leaves a broken connection; anything else is a fault of the stand-in."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    service: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.service.asked.append((self.command, url.path))
        fault = self.service.fault(self.command, url.path)
        if fault is not None and fault.breaks and not fault.after:
            self._break(fault)
            return
        if url.path == "/identity/token":
            status, content = self.service.identity(body)
        elif not self._authorized():
            status, content = 401, {"errors": [{"code": 401, "message": "not authorized"}]}
        else:
            status, content = self.service.answer(self.command, url.path, parse_qs(url.query), body)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.breaks:
                self._break(fault)
                return
        self._reply(status, content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {access_token(self.service.token)}"

    def _break(self, fault: Fault) -> None:
        if fault.status is None:
            self.close_connection = True
            self.connection.close()
        else:
            self._reply(fault.status, {"errors": [{"code": fault.status, "message": "as arranged"}]})

    def _reply(self, status: int, content: Any) -> None:
        text = b"" if content is None else (content if isinstance(content, str) else json.dumps(content)).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client was killed
