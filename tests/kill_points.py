"""A process that is killed while it carries a job to the stand-in, what picks the job up again, and the verdict.

As a script it is that process: it imports the ledger and the standard library alone, no engine and no qiskit.

    python tests/kill_points.py LEDGER ADDRESS NUMBER EVENT    # dies at the EVENT-th SQL statement or step
"""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopback import Countdown, Loopback

from backends.ledger.backoff import Backoff
from backends.ledger.clock import Clock
from backends.ledger.courier import Courier, Undecided
from backends.ledger.job import JobRequest
from backends.ledger.ledger import Ledger, open_ledger
from backends.ledger.states import OPEN

HERE = Path(__file__).resolve()
ENVIRONMENT = {"PYTHONPATH": f"{HERE.parent.parent}:{HERE.parent}"}
ALLOWED = 1e6
QUICK = Backoff(first=0.002, longest=0.02, repeats=12)
PATIENT = Backoff(first=0.25, longest=30.0)
NEVER = 10**9


def request(number: int) -> JobRequest:
    """The one request of a kill point."""
    body = {"circuit": {"n_wires": 2}, "parameters": [number, 0.5], "options": {"shots": 100}}
    return JobRequest("ibm_standin", body, estimate=2.0, run="kill")


def courier(ledger: Ledger, address: str, noted: Any = None) -> Courier:
    transport = Loopback(address) if noted is None else Loopback(address, noted=noted)
    return Courier(ledger, transport, QUICK if noted else PATIENT)


def main(path: str, address: str, number: str, event: str) -> None:
    """Carry the request; die at an event, or say how many there were."""
    countdown = Countdown(int(event))
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(countdown)
        return connection

    sqlite3.connect = traced
    (result,) = courier(open_ledger(path), address, countdown).deliver([request(int(number))], ALLOWED)
    print(json.dumps({"events": countdown.seen, "result": result.decode(), "heavy": heavy_modules()}))


def heavy_modules() -> list[str]:
    return sorted(name for name in ("qiskit", "torch", "numpy", "requests") if name in sys.modules)


@dataclass
class HurriedClock:
    """Waits a two-thousandth of what is asked, and says that it was all of it."""

    ahead: float = 0.0

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 2000)
        self.ahead += seconds

    def clock(self) -> Clock:
        plain = Clock()
        return Clock(steady=lambda: plain.steady() + self.ahead, sleep=self.sleep)


@dataclass
class Verdict:
    """What became of all kill points."""

    points: int = 0
    killed: int = 0
    lost: int = 0
    twice: int = 0
    asked: int = 0
    wrong: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.left.items()))
        return (
            f"{self.points} kill points, {self.killed} processes killed (jobs then: {states}): {self.lost} lost, "
            f"{self.twice} sent twice without consent, {self.asked} asked about, {self.wrong} wrong results"
        )


def command(path: Path, service: Any, number: int, event: int) -> list[str]:
    return [sys.executable, "-S", str(HERE), str(path), service.address, str(number), str(event)]


def strike(verdict: Verdict, folder: Path, service: Any, number: int, event: int, seconds: float | None = None) -> None:
    """One kill point: at a numbered event, or from outside after some seconds; then resume, repeat, and judge."""
    path = folder / f"ledger-{number}.sqlite3"
    child = subprocess.Popen(
        command(path, service, number, event), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if seconds is not None:
        time.sleep(seconds)
        child.kill()
    _, stderr = child.communicate(timeout=60)
    verdict.points += 1
    verdict.killed += child.returncode == -signal.SIGKILL
    if child.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(stderr.decode())
    ledger = open_ledger(path, HurriedClock().clock())
    known = ledger.jobs()
    verdict.left[known[0].state if known else "not recorded"] += 1
    unknown = {job.tags[-1] for job in mine(service, number)} - {job.tag for job in known}
    verdict.asked += resume(ledger, service.address)
    result, asked = repeat(ledger, service.address, number)
    verdict.asked += asked
    remote = mine(service, number)
    verdict.twice += len(remote) > 1
    verdict.lost += bool(unknown) or not remote
    verdict.wrong += result.decode() not in [job.result for job in remote]


def mine(service: Any, number: int) -> list[Any]:
    """The service's jobs of a kill point."""
    return [job for job in list(service.jobs.values()) if job.payload["params"]["parameters"][0] == number]


def repeat(ledger: Ledger, address: str, number: int) -> tuple[bytes, int]:
    """Ask the same again, as a person would who starts the program once more."""
    asked = 0
    while True:
        try:
            return courier(ledger, address).deliver([request(number)], ALLOWED)[0], asked
        except Undecided:
            asked += resume(ledger, address)


def resume(ledger: Ledger, address: str) -> int:
    """Bring every open job to its end, as a person would who consents when asked; how often one was asked."""
    asked = 0
    for job in ledger.jobs(states=OPEN):
        carrier, step = courier(ledger, address), Courier.follow
        while True:
            try:
                step(carrier, job.tag)
                break
            except Undecided:
                asked, step = asked + 1, Courier.resubmit
        carrier.follow(job.tag)
    return asked


def rehearse(folder: Path, service: Any, number: int) -> dict[str, Any]:
    """Run the process undisturbed: its result, and how many events there are to die at."""
    started = command(folder / "rehearsal.sqlite3", service, number, NEVER)
    done = subprocess.run(started, env=ENVIRONMENT, capture_output=True, timeout=60)
    if done.returncode:
        raise AssertionError(done.stderr.decode())
    return json.loads(done.stdout)


def arranged(seed: int) -> Any:
    """Faults on the wire: one request in five is delayed, refused for the moment, or loses its connection."""
    from standin import Fault

    dice = random.Random(seed)
    choices = (
        Fault(delay=0.02, breaks=False),
        Fault(),
        Fault(after=True),
        Fault(status=503),
        Fault(status=504, after=True),
    )

    def fault(method: str, path: str) -> Fault | None:
        return dice.choice(choices) if dice.random() < 0.2 else None

    return fault


if __name__ == "__main__":
    main(*sys.argv[1:])
