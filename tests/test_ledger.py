"""The ledger: states, budgets, two processes at once, a search that asks, and every way in which its file can fail."""

import json
import os
import re
import resource
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kill_points import HERE, HurriedClock

from backends.ledger.backoff import Backoff
from backends.ledger.budget import BudgetError, Limits
from backends.ledger.clock import Clock
from backends.ledger.courier import SEARCH_SECONDS, Courier, JobFailed, Undecided
from backends.ledger.job import Job, JobRequest
from backends.ledger.ledger import ClockWarning, Ledger, open_ledger
from backends.ledger.states import FINAL, FOLLOWERS, check_change
from backends.ledger.store import LedgerError
from backends.ledger.transport import AnswerLost, NotSent, Progress, Refused, Transport, Unreachable

QUICK = Backoff(first=0.25, longest=30.0, repeats=3)


def asks(number: int = 0, estimate: float = 2.0, run: str = "r", paid: bool = True, fresh: bool = False) -> JobRequest:
    return JobRequest("ibm_x", {"circuit": {}, "parameters": [number], "options": {}}, estimate, run, paid, fresh)


@dataclass
class Service(Transport):
    """A service in memory, and what happens to submissions: one entry each, an exception or None."""

    submissions: list[Exception | None] = field(default_factory=list)
    accepts_lost: bool = True
    jobs: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    end: Progress = field(default_factory=lambda: Progress("done", 1.25))

    def submit(self, job: Job) -> str:
        problem = self.submissions.pop(0) if self.submissions else None
        self.sent += 1
        if problem is None or (isinstance(problem, AnswerLost) and self.accepts_lost):
            self.jobs[f"j{len(self.jobs)}"] = job.tag
        if problem is not None:
            raise problem
        return f"j{len(self.jobs) - 1}"

    def find(self, job: Job) -> list[str]:
        return [name for name, tag in self.jobs.items() if tag == job.tag]

    def progress(self, job: Job) -> Progress:
        return self.end

    def result(self, job: Job) -> bytes:
        return job.tag.encode()

    def cancel(self, job: Job) -> None:
        self.end = Progress("cancelled", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "state" / "ledger.sqlite3", HurriedClock().clock())


def carry(ledger: Ledger, service: Service) -> Courier:
    return Courier(ledger, service, QUICK, QUICK)


def test_the_table_of_states_is_whole() -> None:
    assert set(FOLLOWERS) == {"queued", "uncertain", "submitted", "running", "done", "failed", "cancelled"}
    assert set().union(*FOLLOWERS.values()) == set(FOLLOWERS)  # each can be reached
    assert {"done", "failed", "cancelled"} == FINAL
    assert "submitted" not in FOLLOWERS["queued"]  # never without having been written down as on its way
    for before, followers in FOLLOWERS.items():
        for after in set(FOLLOWERS) - followers:
            with pytest.raises(ValueError, match=f"a job that is {before} expects"):
                check_change(before, after)


def test_a_request_is_written_before_it_is_sent(ledger: Ledger) -> None:
    seen: list[tuple[str, str]] = []

    class Watching(Service):
        def submit(self, job: Job) -> str:
            (row,) = ledger.jobs()
            seen.append((row.state, row.tag))
            return super().submit(job)

    service = Watching()
    (result,) = carry(ledger, service).deliver([asks()], 60)
    (job,) = ledger.jobs()
    assert seen == [("uncertain", job.tag)]
    assert result == job.tag.encode() == ledger.job(job.tag[:12]).result
    assert [state for _, state, _ in ledger.history(job.tag)] == ["queued", "uncertain", "submitted", "done"]
    assert (job.used, ledger.spending("r").run) == (1.25, 1.25)


def test_an_identical_request_is_answered_unless_fresh(ledger: Ledger) -> None:
    service = Service()
    first = carry(ledger, service).deliver([asks(), asks(1), asks()], 60)
    assert first[0] == first[2] != first[1]
    assert carry(ledger, service).deliver([asks()], 0) == first[:1]  # costs nothing: needs no leave
    assert service.sent == 2
    fresh = carry(ledger, service).deliver([asks(fresh=True)], 60)
    assert fresh != first[:1]
    assert service.sent == 3


def test_a_lost_answer_is_looked_for(ledger: Ledger) -> None:
    service = Service([AnswerLost("dropped")])
    carry(ledger, service).deliver([asks()], 60)
    assert (service.sent, len(service.jobs)) == (1, 1)


def test_what_cannot_be_found_is_asked_about(ledger: Ledger) -> None:
    service = Service([AnswerLost("dropped")], accepts_lost=False)
    courier = carry(ledger, service)
    began = ledger.clock.steady()
    with pytest.raises(Undecided, match="--resubmit qlm-"):
        courier.deliver([asks()], 60)
    assert SEARCH_SECONDS <= ledger.clock.steady() - began < SEARCH_SECONDS + 60
    assert service.sent == 1
    (job,) = ledger.jobs()
    assert job.state == "uncertain"
    assert job.lookups > 10
    assert ledger.spending("r").run == job.cap  # counted at its dearest until it is known
    courier.resubmit(job.tag)
    assert (service.sent, courier.follow(job.tag).state) == (2, "done")


def test_consent_looks_once_more(ledger: Ledger) -> None:
    """The first one turns up after ten minutes: it is adopted, and nothing is sent again."""
    service = Service([AnswerLost("slow")], accepts_lost=False)
    courier = carry(ledger, service)
    with pytest.raises(Undecided):
        courier.deliver([asks()], 60)
    (job,) = ledger.jobs()
    service.jobs["late"] = job.tag
    assert courier.resubmit(job.tag).remote_id == "late"
    assert service.sent == 1


@pytest.mark.parametrize("problem", [Unreachable("no network"), NotSent("cannot be prepared")])
def test_what_never_left_stays_queued(ledger: Ledger, problem: Exception) -> None:
    service = Service([problem] * 9)
    with pytest.raises(type(problem)):
        carry(ledger, service).deliver([asks()], 60)
    assert service.sent == (1 if isinstance(problem, NotSent) else QUICK.repeats + 1)
    assert [job.state for job in ledger.jobs()] == ["queued"]
    service.submissions.clear()
    carry(ledger, service).deliver([asks()], 60)
    assert len(service.jobs) == 1


def test_a_refusal_is_final_and_free(ledger: Ledger) -> None:
    service = Service([Refused("HTTP 400")])
    with pytest.raises(JobFailed, match="got failed: HTTP 400"):
        carry(ledger, service).deliver([asks()], 60)
    assert ledger.spending("r").run == 0
    carry(ledger, service).deliver([asks()], 60)
    assert [job.state for job in ledger.jobs()] == ["failed", "done"]
    assert len({job.tag for job in ledger.jobs()}) == 2


def test_partial_results_are_kept(ledger: Ledger) -> None:
    service = Service([None, Refused("HTTP 400"), None])
    with pytest.raises(JobFailed) as caught:
        carry(ledger, service).deliver([asks(0), asks(1), asks(2)], 60)
    assert caught.value.__notes__ == ["2 of 3 results are kept in the ledger."]
    assert len(carry(ledger, service).deliver([asks(0), asks(1), asks(2)], 60)) == 3
    assert service.sent == 4


def test_budgets_refuse_with_the_figure(ledger: Ledger) -> None:
    service = Service()
    courier = carry(ledger, service)
    with pytest.raises(BudgetError, match=r"leave to spend QPU time, got allow_qpu_seconds=0 .* about 2\.0 QPU"):
        courier.deliver([asks()], 0)
    with pytest.raises(BudgetError, match=r"of this run expects at most 1\.5 more QPU seconds, got .* about 2\.0"):
        courier.deliver([asks()], 1.5)
    ledger.set_limits(Limits(call=3))
    with pytest.raises(BudgetError, match=r"of this call expects at most 3\.0 .* 2 jobs of about 4\.0"):
        courier.deliver([asks(1), asks(2)], 60)
    ledger.set_limits(Limits(month=3))
    courier.deliver([asks(3)], 60)
    with pytest.raises(BudgetError, match=r"of this month expects at most 1\.8 more"):
        courier.deliver([asks(4, run="another")], 60)
    courier.deliver([asks(5, run="another", paid=False)], 60)  # a fake device bills nobody
    assert service.sent == 2
    assert len(ledger.jobs()) == 2


def test_caps_never_add_up_to_more_than_is_left(ledger: Ledger) -> None:
    jobs = ledger.record([asks(n, estimate=e) for n, e in enumerate((2.0, 5.0, 0.5))], 20)
    assert sum(job.cap for job in jobs) <= 20
    assert all(job.cap >= 1 for job in jobs)
    with pytest.raises(BudgetError):
        ledger.record([asks(9, estimate=20 - sum(job.cap for job in jobs) + 0.5)], 20)


def test_two_at_once_send_once(ledger: Ledger) -> None:
    service = Service()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: carry(ledger, service).deliver([asks()], 60), range(8)))
    assert len({result[0] for result in results}) == 1
    assert (service.sent, len(ledger.jobs())) == (1, 1)


def test_cancelling(ledger: Ledger) -> None:
    service = Service(end=Progress("running"))
    courier = carry(ledger, service)
    (queued,) = ledger.record([asks(0)], 60)
    assert courier.cancel(queued.tag).state == "cancelled"
    assert service.sent == 0
    (job,) = ledger.record([asks(1)], 60)
    courier.follow(job.tag, wait=False)
    assert courier.cancel(job.tag).state == "cancelled"
    assert ledger.spending("r").run == 0
    with pytest.raises(ValueError, match="is cancelled; leave it"):
        courier.cancel(job.tag)


def test_the_file_is_its_owners_alone(ledger: Ledger) -> None:
    ledger.record([asks()], 60)
    previous = os.umask(0)
    try:
        other = open_ledger(ledger.path.with_name("other.sqlite3"))
        connection = sqlite3.connect(other.path)
        connection.execute("SELECT count(*) FROM jobs").fetchone()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in other.path.parent.iterdir()}
        connection.close()
    finally:
        os.umask(previous)
    assert modes == {0o600}  # the write-ahead log and its index too
    ledger.path.chmod(0o644)
    with pytest.raises(LedgerError, match=r"its owner's alone, got mode 644; run: chmod 600"):
        open_ledger(ledger.path)


def test_damaged_and_foreign_files(tmp_path: Path, ledger: Ledger) -> None:
    for number in range(40):
        ledger.record([asks(number)], 1e6)
    content = bytearray(ledger.path.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    ledger.path.write_bytes(content)
    with pytest.raises(LedgerError, match="expects a sound file, got a damaged one"):
        open_ledger(ledger.path)
    for name, text, sentence in (("text", b"no database" * 500, "damaged one"), ("folder", None, "read and write")):
        path = tmp_path / name
        path.mkdir() if text is None else path.write_bytes(text)
        path.chmod(0o700 if text is None else 0o600)
        with pytest.raises(LedgerError, match=sentence):
            open_ledger(path)
    foreign = tmp_path / "foreign.sqlite3"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    foreign.chmod(0o600)
    with pytest.raises(LedgerError, match="another program's database"):
        open_ledger(foreign)


def test_a_newer_ledger_is_left_alone(ledger: Ledger) -> None:
    connection = sqlite3.connect(ledger.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match=r"got version 99 in .*; upgrade"):
        open_ledger(ledger.path)


def test_a_locked_file(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.ledger.store._PATIENCE", 0.05)
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="got one that stays locked"):
        ledger.record([asks()], 60)
    holder.execute("ROLLBACK")
    holder.close()
    assert ledger.record([asks()], 60)[0].state == "queued"


def test_a_full_disk_before_sending(ledger: Ledger) -> None:
    """A limit on the size of files stands for the disk: nothing is recorded, and nothing is sent."""
    program = (
        "import sys, resource, signal; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from backends.ledger.ledger import open_ledger; from backends.ledger.job import JobRequest\n"
        "ledger = open_ledger(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "ledger.record([JobRequest('x', {'parameters': ['y' * 200_000]}, 2.0)], 60)\n"
    )
    run = [sys.executable, "-c", program, str(ledger.path)]
    done = subprocess.run(run, cwd=HERE.parent.parent, capture_output=True, text=True, timeout=60)
    assert "LedgerError: the ledger expects room to write, got a full disk at" in done.stderr
    assert open_ledger(ledger.path).jobs() == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_full_disk_after_sending(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service has the job, the ledger could not note it: the next look finds it by its tag."""

    class Fills(Service):
        def submit(self, job: Job) -> str:
            name = super().submit(job)
            monkeypatch.setattr(Ledger, "move", full)
            return name

    def full(*_: object, **__: object) -> bool:
        raise LedgerError("the ledger expects room to write, got a full disk")

    service = Fills()
    with pytest.raises(LedgerError, match="full disk"):
        carry(ledger, service).deliver([asks()], 60)
    monkeypatch.undo()
    (job,) = ledger.jobs()
    assert job.state == "uncertain"
    assert carry(ledger, service).follow(job.tag).state == "done"
    assert service.sent == 1


@pytest.mark.parametrize("days", [-40, 40])
def test_a_clock_that_jumps(tmp_path: Path, days: int) -> None:
    """The monthly budget is not renewed by it, the search is no shorter, and it is said."""
    wall = [1.8e9]
    hurried = HurriedClock().clock()
    clock = Clock(wall=lambda: wall[0], steady=hurried.steady, boot=lambda: "one", sleep=hurried.sleep)
    ledger = open_ledger(tmp_path / "ledger.sqlite3", clock)
    ledger.set_limits(Limits(month=3))
    service = Service([None, AnswerLost("dropped")], accepts_lost=False)
    carry(ledger, service).deliver([asks(0)], 60)
    wall[0] += days * 86400
    with (
        pytest.warns(ClockWarning, match=re.escape(f"jumped by {days * 24:+d} hours")),
        pytest.raises(BudgetError, match=r"of this month expects at most 1\.8 more"),
    ):
        carry(ledger, service).deliver([asks(1)], 60)
    ledger.set_limits(Limits())
    began = clock.steady()
    with pytest.warns(ClockWarning), pytest.raises(Undecided):
        carry(ledger, service).deliver([asks(1)], 60)
    assert clock.steady() - began >= SEARCH_SECONDS


def test_bodies_come_back_as_they_were(ledger: Ledger) -> None:
    body = {"circuit": {"ops": [["ry", [0], [0.1 + 0.2]]]}, "parameters": [[1e-300, -0.0]], "options": {"seed": None}}
    (job,) = ledger.record([JobRequest("ibm_x", body, 1.0)], 60)
    assert json.dumps(ledger.job(job.tag).body, sort_keys=True) == json.dumps(body, sort_keys=True)
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.record([JobRequest("ibm_x", {"parameters": [float("nan")]}, 1.0)], 60)
