"""Batches and sessions through qiskit-ibm-runtime itself and the stand-in: within budgets, recorded, closed."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ok, qlm
from standin import Fault, StandIn

from backends.ledger import BudgetError, open_ledger
from backends.ledger.clock import owner
from backends.ledger.sessions import Session, SessionBook
from circuits import Circuit, Input, Op, Z

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from platform_account import CANARY, DEVICE, account, devices, execute, hurry

from backends.ibm import IBM
from backends.ibm.service import ServiceError, connect
from backends.ledger.budget import Limits
from backends.ledger.transport import Unreachable

CIRCUIT = Circuit(1, (Op("ry", (0,), (Input(0),)),))


def asked(angle: float) -> tuple[Any, ...]:
    return CIRCUIT, torch.tensor([[angle]]), None, (Z(0),)


def backend(mode: str, **options: Any) -> IBM:
    return IBM(DEVICE, shots=20, mode=mode, **({"allow_qpu_seconds": 60, "run": "r"} | options))


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    hurry(monkeypatch)
    monkeypatch.setattr("backends.ibm.access.connect", cache(connect))  # once a test


@cache
def answer() -> str:
    """The outcome of one job: what is in it is not looked at here, and all have the same shape."""
    with StandIn(token=CANARY, devices=devices(), execute=execute) as found, account(found):
        IBM(DEVICE, shots=20, mode="job", allow_qpu_seconds=20).expectations(*asked(0.1))
    return next(str(job.result) for job in found.jobs.values())


@pytest.fixture
def service() -> Iterator[StandIn]:
    content = answer()
    open_ledger().path.unlink()
    with StandIn(token=CANARY, devices=devices(), execute=lambda _: content) as found, account(found):
        yield found


def book() -> SessionBook:
    return SessionBook(open_ledger())


def left_open(service: StandIn, mode: str) -> Session:
    """A session that a process had opened which was killed."""
    ledger = open_ledger()
    waiting = [IBM("fake_manila", shots=20, allow_qpu_seconds=5, run="m").expectations(*asked(0.1), seed=0)]
    assert waiting
    session = book().begin(mode, DEVICE, ledger.jobs(), 60)
    _, answer = service._opened({"mode": {"session": "dedicated"}.get(mode, mode), "backend": DEVICE})
    dead = "/".join((*owner().split("/")[:2], str(2**22 + 1), "0"))
    _reown(session, dead)
    return book().move(session, "open", remote_id=answer["id"])


def _reown(session: Session, name: str) -> None:
    import sqlite3

    connection = sqlite3.connect(open_ledger().path)
    connection.execute("UPDATE sessions SET owner = ? WHERE name = ?", (name, session.name))
    connection.commit()
    connection.close()


def test_a_session_is_within_what_is_left_and_is_closed(service: StandIn) -> None:
    """The first request took 1.5 of 60 seconds: the session may last 58, and is charged so until it is closed."""
    backend("job").expectations(*asked(0.1))
    with backend("session").session() as opened:
        opened.expectations(*asked(0.2))
        (session,) = book().all()
        assert (session.state, session.longest, session.mode, session.run) == ("open", 58, "session", "r")
        assert opened.spending().run == pytest.approx(59.5)
        listed = ok("jobs", "list")
        assert f"session {session.name}  {DEVICE}  open, since " in listed
        assert ", up to 58 s" in listed
        assert f"in use by process {session.owner.split('/')[2]}, left open" in ok("jobs", "resume")
        opened.expectations(*asked(0.3))
        opened.expectations(*asked(0.3))  # from the ledger
        with pytest.raises(BudgetError, match=r"at most 58\.5 more QPU seconds"):
            opened.expectations(*asked(0.4), shots=10**6)
    (remote,) = service.sessions.values()
    assert remote.payload == {
        "mode": "dedicated",
        "backend": DEVICE,
        "instance": remote.payload["instance"],
        "max_ttl": 58,
    }
    assert not remote.accepting
    assert [job.payload.get("session_id") for job in service.jobs.values()] == [None, remote.id, remote.id]
    (session,) = book().all()
    assert (session.state, session.used) == ("closed", 4.5)
    assert backend("job").spending().run == 1.5 + 4.5  # its jobs cost nothing beside it
    ledger = open_ledger()
    assert "qls-" not in ok("jobs", "list")
    assert session.name in ok("jobs", "show", ledger.jobs()[-1].tag)
    assert {each.get("kind") for each in json.loads(ok("jobs", "list", "--all", "--json"))} == {"job", "session"}
    for tags in ((), (ledger.jobs()[-1].tag,)):
        exported = json.loads(ok("jobs", "export", "-", *tags))
        assert exported[-1]["tag"] == session.name
        assert exported[-1]["seconds"] == {"at_most": 58, "reported": 4.5}


def test_a_session_is_refused_without_a_second_left(service: StandIn) -> None:
    backend("job").expectations(*asked(0.1))
    open_ledger().set_limits(Limits(month=20.0))
    with backend("session").session() as opened:
        opened.expectations(*asked(0.2))
    assert [each.payload["max_ttl"] for each in service.sessions.values()] == [18]
    open_ledger().set_limits(Limits(month=6.4))
    with (
        pytest.raises(BudgetError, match=r"of this month expects at most 0\.4"),
        backend("session").session() as opened,
    ):
        opened.expectations(*asked(0.3))
    assert len(service.sessions) == 1


def test_a_batch_is_opened_for_several_jobs_and_closed(service: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one call, or of one block; it bills its jobs alone."""
    monkeypatch.setattr("backends.ibm.backend._MAX_EXECUTIONS", 20)
    two = (CIRCUIT, torch.tensor([[0.1], [0.2]]), None, (Z(0),))
    assert backend("batch").expectations(*two).values.shape == (2, 1)
    (remote,) = service.sessions.values()
    assert (remote.payload["mode"], remote.accepting, "max_ttl" in remote.payload) == ("batch", False, False)
    assert [job.payload["session_id"] for job in service.jobs.values()] == [remote.id] * 2
    assert backend("job").spending().run == 3.0
    backend("batch").expectations(*asked(0.3))
    assert len(service.sessions) == 1  # a batch of one is a job
    with backend("batch").session() as opened:
        opened.expectations(*asked(0.4))
        opened.expectations(*asked(0.5))
        assert list(service.sessions.values())[-1].accepting
    assert [each.accepting for each in service.sessions.values()] == [False, False]
    assert [job.payload.get("session_id") for job in service.jobs.values()][2:] == [None, "session-1", "session-1"]
    assert {(each.state, each.longest) for each in book().all()} == {("closed", 0)}


def test_an_error_inside_closes_what_is_open(service: StandIn) -> None:
    live = backend("session")
    with pytest.raises(KeyError, match="mine"), live.session():  # noqa: PT012 -- what comes before the error is the point
        live.expectations(*asked(0.2))
        raise KeyError("mine")
    assert not service.sessions["session-0"].accepting
    assert book().all()[0].state == "closed"


def test_what_a_killed_process_left_open_is_closed(service: StandIn) -> None:
    session, batch = left_open(service, "session"), left_open(service, "batch")
    assert session.is_abandoned
    assert open_ledger().spending("m").month == session.longest
    assert "continued or closed by: qlm jobs resume" in ok("jobs", "list")
    service.fault = lambda method, path: Fault(status=503) if method == "PATCH" else None
    refused = qlm("jobs", "resume")
    assert refused.exit_code == 1
    assert f"session {session.name} could not be closed" in refused.stdout
    assert service.sessions["session-0"].accepting
    service.fault = lambda method, path: None
    assert json.loads(ok("jobs", "show", session.name[:9]))["state"] == "open"
    shown = ok("jobs", "resume", session.name)
    assert f"session {session.name}  {DEVICE}  closed" in shown
    assert f"batch {batch.name}  {DEVICE}  closed" in shown
    assert [each.accepting for each in service.sessions.values()] == [False, False]
    assert open_ledger().spending("m").month == 4.5
    assert "qls-" not in ok("jobs", "resume")


def test_a_session_is_cancelled_by_its_name(service: StandIn) -> None:
    """Whoever has it open: its jobs are cancelled with it."""
    with backend("session").session() as opened:
        opened.expectations(*asked(0.2))
        service._accept({"session_id": "session-0", "program_id": "sampler", "tags": []})
        (session,) = book().all()
        assert "closed" in ok("jobs", "cancel", session.name[:8])
        assert [job.status for job in service.jobs.values()] == ["Completed", "Cancelled"]
        with pytest.raises(ValueError, match="refused the job with HTTP 409"):
            opened.expectations(*asked(0.3))


def test_an_opening_that_fails_costs_nothing(service: StandIn) -> None:
    """Refused, or its answer lost: nothing is sent, nothing charged but what waits; a lost one is asked for once."""
    for fault, error, sentence in (
        (Fault(status=403), ServiceError, "refused to open a session with HTTP 403; .* use mode 'batch' or 'job'"),
        (Fault(after=True), Unreachable, "no session was opened: .* a network connection"),
        (Fault(status=504, after=True), Unreachable, "no session was opened"),
    ):
        before = len(service.sessions)
        service.fault = lambda method, path, fault=fault: (
            fault if (method, path[-9:]) == ("POST", "/sessions") else None
        )
        with pytest.raises(error, match=sentence), backend("session").session() as opened:
            opened.expectations(*asked(0.2))
        assert len(service.sessions) - before == fault.after  # never asked for twice
    assert service.posted() == 0
    assert {(each.state, each.used) for each in book().all()} == {("closed", 0.0)}
    (job,) = open_ledger().jobs()
    assert (job.state, backend("job").spending().run) == ("queued", job.cap)
