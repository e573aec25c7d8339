"""Processes that are killed while they carry a job to the stand-in or resume it, what follows, and the verdict.

As a script it is such a process: it imports the ledger and the standard library alone, no engine and no qiskit.

    python tests/kill_points.py carry|resume LEDGER ADDRESS NUMBER PHASE N    # dies at the N-th event of a phase
"""

import json
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
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
from backends.ledger.transport import Unreachable

HERE = Path(__file__).resolve()
ENVIRONMENT = {"PYTHONPATH": f"{HERE.parent.parent}:{HERE.parent}"}
ALLOWED = 1e6
PATIENT = Backoff(first=0.25, longest=30.0, repeats=12)


@dataclass(frozen=True)
class Point:
    """Where a process dies: at the n-th event of a phase, or from outside, so long after the request is written."""

    phase: str = ""
    n: int = 0
    seconds: float | None = None


UNHARMED = Point()


def request(number: int) -> JobRequest:
    """The one request of a kill point."""
    body = {"circuit": {"n_wires": 2}, "parameters": [number, 0.5], "options": {"shots": 100}}
    return JobRequest("ibm_standin", body, estimate=2.0, run="kill")


def courier(ledger: Ledger, address: str, noted: Any = None) -> Courier:
    transport = Loopback(address) if noted is None else Loopback(address, noted=noted)
    return Courier(ledger, transport, PATIENT)


def main(task: str, path: str, address: str, number: str, phase: str, n: str) -> None:
    """Carry the request or resume it; die at an event, or say how many there were."""
    countdown = Countdown(phase, int(n), lambda: print("recorded", flush=True))
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(countdown)
        return connection

    sqlite3.connect = traced
    countdown.written = task == "resume"  # by the process before
    ledger = open_ledger(path, HurriedClock().clock())
    carrier = courier(ledger, address, countdown)
    if task == "resume":
        print(json.dumps({"asked": resume(ledger, carrier)}))
        return
    try:
        (result,) = carrier.deliver([request(int(number))], ALLOWED)
    except Undecided:  # the request was lost on the wire, and nobody is here to consent
        return
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
    resumers_killed: int = 0
    lost: int = 0
    twice: int = 0
    asked: int = 0
    wrong: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.left.items()))
        return (
            f"{self.points} kill points, {self.killed} processes killed (jobs then: {states}), {self.resumers_killed} "
            f"that resumed them: {self.lost} lost, {self.twice} sent twice without consent, {self.asked} asked about, "
            f"{self.wrong} wrong results"
        )


def command(task: str, path: Path, service: Any, number: int, point: Point) -> list[str]:
    words = (sys.executable, "-S", HERE, task, path, service.address, number, point.phase, point.n)
    return [str(word) for word in words]


def perish(task: str, path: Path, service: Any, number: int, point: Point) -> tuple[bool, str]:
    """Run a process that is to die at a point: whether it did, and what it printed."""
    started = command(task, path, service, number, point)
    with subprocess.Popen(started, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        if point.seconds is not None:
            assert child.stdout is not None
            select.select([child.stdout], [], [], 60)  # the request is on the disk
            time.sleep(point.seconds)
            child.kill()
        try:
            stdout, stderr = child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    if child.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(stderr.decode())
    return child.returncode == -signal.SIGKILL, stdout.decode()


def strike(verdict: Verdict, folder: Path, service: Any, number: int, point: Point, again: Point | None = None) -> None:
    """One kill point, and perhaps another one for the process that resumes; then resume, repeat, and judge."""
    path = folder / f"ledger-{number}.sqlite3"
    died, _ = perish("carry", path, service, number, point)
    verdict.points += 1
    verdict.killed += died
    ledger = open_ledger(path, HurriedClock().clock())
    known = ledger.jobs()
    verdict.left[known[0].state if known else "not recorded"] += 1
    unknown = {job.tags[-1] for job in mine(service, number)} - {job.tag for job in known}
    if again is not None and any(job.state in OPEN for job in known):
        died, _ = perish("resume", path, service, number, again)
        verdict.resumers_killed += died
    carrier = courier(ledger, service.address)
    verdict.asked += resume(ledger, carrier)
    result, asked = repeat(ledger, carrier, number)
    verdict.asked += asked
    remote = mine(service, number)
    verdict.twice += len(remote) > 1
    verdict.lost += bool(unknown) or not remote
    verdict.wrong += result.decode() not in [job.result for job in remote]


def mine(service: Any, number: int) -> list[Any]:
    """The service's jobs of a kill point."""
    return [job for job in list(service.jobs.values()) if job.payload["params"]["parameters"][0] == number]


def repeat(ledger: Ledger, carrier: Courier, number: int) -> tuple[bytes, int]:
    """Ask the same again, as a person would who starts the program once more."""
    asked = 0
    while True:
        try:
            return carrier.deliver([request(number)], ALLOWED)[0], asked
        except Undecided:
            asked += resume(ledger, carrier)


def resume(ledger: Ledger, carrier: Courier) -> int:
    """Bring every open job to its end, as a person would who consents when asked; how often one was asked."""
    asked = 0
    for job in ledger.jobs(states=OPEN):
        while True:
            try:
                carrier.follow(job.tag)
                break
            except Undecided:
                asked += 1
                _consent(carrier, job.tag)
    return asked


def _consent(carrier: Courier, tag: str) -> None:
    """Let a job be sent again; where that answer is lost too, one is asked again."""
    with suppress(Undecided, Unreachable):
        carrier.resubmit(tag)


def rehearse(folder: Path, service: Any, number: int) -> dict[str, Any]:
    """Run the process undisturbed: its result, and how many events each phase has to die at."""
    _, printed = perish("carry", folder / "rehearsal.sqlite3", service, number, UNHARMED)
    return json.loads(printed.splitlines()[-1])


def plan(events: dict[str, int], points: int) -> list[Point]:
    """Kill points over all phases but the search, which only a lost answer begins; one in ten before the request is
    on the disk, the rest on its way.
    """
    early = max(1, points // 10)
    rest = [phase for phase in ("recorded", "posting", "answered", "polling", "fetching") if events.get(phase)]
    out = [Point("recording", 1 + number * events["recording"] // early) for number in range(early)]
    for index in range(points - early):
        phase, turn = rest[index % len(rest)], index // len(rest)
        turns = -(-(points - early) // len(rest))
        out.append(Point(phase, 1 + turn * events[phase] // turns))
    return out


def arranged(seed: int) -> Any:
    """Faults on the wire: one request in five is delayed, refused for the moment, or loses its connection."""
    from standin import Fault

    dice = random.Random(seed)
    choices = (
        Fault(delay=0.02, breaks=False),
        Fault(),
        Fault(after=True),
        Fault(status=503),
        Fault(status=429),
        Fault(status=504, after=True),
    )

    def fault(method: str, path: str) -> Fault | None:
        return dice.choice(choices) if dice.random() < 0.2 else None

    return fault


if __name__ == "__main__":
    main(*sys.argv[1:])
