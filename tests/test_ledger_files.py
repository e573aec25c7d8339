"""Every way in which the ledger's file can fail, and clocks that jump."""

import json
import os
import re
import resource
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from kill_points import HERE, HurriedClock
from ledger_cases import Service, asks, carry

from backends.ledger.accounts import ClockWarning
from backends.ledger.budget import BudgetError, Limits
from backends.ledger.clock import Clock
from backends.ledger.courier import SEARCH_SECONDS, Undecided
from backends.ledger.job import Job, JobRequest
from backends.ledger.ledger import Ledger, open_ledger
from backends.ledger.store import LedgerError
from backends.ledger.transport import AnswerLost


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "state" / "ledger.sqlite3", HurriedClock().clock())


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


_FILLS = (
    "import sys, resource, signal; from pathlib import Path\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "from backends.ledger.ledger import open_ledger; from backends.ledger.job import JobRequest\n"
    "ledger = open_ledger(sys.argv[1])\n"
    "if limit := int(sys.argv[2]): resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
    "try: ledger.record([JobRequest('x', {'parameters': ['y' * 400_000]}, 2.0)], 60)\n"
    "finally: print(len(ledger.jobs()))\n"
)


def fill(path: Path, limit: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Record, in a process of its own, a request that is too large for the place where the ledger lies."""
    run = [*command, sys.executable, "-c", _FILLS, str(path), str(limit)]
    return subprocess.run(run, cwd=HERE.parent.parent, capture_output=True, text=True, timeout=60)


def test_a_full_disk_before_sending(tmp_path: Path) -> None:
    """A real file system of 256 KiB, in a namespace of its own: nothing is recorded, so nothing is sent."""
    mounted = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=256k none {tmp_path} && exec "$@"', "sh")
    try:
        allowed = subprocess.run([*mounted, "true"], capture_output=True, timeout=60).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this system does not let its users mount file systems in namespaces of their own")
    done = fill(tmp_path / "ledger.sqlite3", 0, *mounted)
    assert "LedgerError: the ledger expects room to write, got a full disk at" in done.stderr
    assert done.stdout == "0\n"


def test_a_limit_on_files_is_not_called_a_full_disk(ledger: Ledger) -> None:
    """SQLite says no more than "disk I/O error": the message says what is known beside it."""
    done = fill(ledger.path, 60_000)
    assert "got 'disk I/O error' for" in done.stderr
    assert "(SQLITE_IOERR_WRITE; " in done.stderr
    assert "bytes are free there; this process may write files of at most 60,000 bytes (ulimit -f))" in done.stderr
    assert "full disk" not in done.stderr
    assert done.stdout == "0\n"
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
