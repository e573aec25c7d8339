"""qiskit-ibm-runtime itself, unmodified, against a stand-in service over HTTP on loopback: faults, resume, secrets."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from standin import Fault, StandIn

from backends import open_backend
from backends.ledger import open_ledger

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from platform_account import CANARY, DEVICE, account, devices, execute, hurry
from wire_cases import ASKED, JOBS, once

from backends.ibm import IBM
from backends.ibm.service import ServiceError, connect
from backends.ibm.transports import reach
from backends.ledger.courier import JobFailed


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    hurry(monkeypatch)
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def service(path: Path) -> Iterator[StandIn]:
    with StandIn(token=CANARY, devices=devices(), execute=execute) as found, account(found):
        yield found


def test_a_request_through_the_whole_client(service: StandIn, path: Path) -> None:
    backend = IBM(DEVICE, shots=4000, mode="job", allow_qpu_seconds=20, run="r")
    cost = backend.estimate(*ASKED)
    assert (cost.jobs, cost.bases, cost.circuits, cost.shots) == (1, 2, 4, 16000)
    assert 2 + 16000 * 250e-6 < cost.qpu_seconds < 2 + 16000 * 300e-6
    assert service.posted() == 0
    found = backend.expectations(*ASKED)
    exact = open_backend("statevector").expectations(*ASKED).values
    assert ((found.values - exact).abs() < 0.2 + 4.9 * found.stderr).all()
    (remote,) = service.jobs.values()
    (job,) = open_ledger(path).jobs()
    assert remote.payload["tags"] == ["hybridqlm", job.tag]
    assert remote.payload["cost"] == job.cap == 18  # the service stops it at three times its estimate
    assert (job.state, job.used, backend.spending().run) == ("done", 1.5, 1.5)
    again = open_backend(backend.spec).expectations(*ASKED)
    assert torch.equal(again.values, found.values)
    assert service.posted() == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(after=True), Fault(status=504, after=True), Fault(status=502, after=True), Fault(delay=0.3, breaks=False)],
    ids=["dropped after it was accepted", "504 after", "502 after", "slow"],
)
def test_an_accepted_job_is_never_sent_again(service: StandIn, path: Path, fault: Fault) -> None:
    service.fault = once("POST", "/jobs", fault)
    found = IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20).expectations(*ASKED)
    assert found.values.shape == (2, 2)
    assert (service.posted(), len(service.jobs)) == (1, 1)
    assert service.fault.happened == 1


def test_two_ways_to_one_device_both_hear(service: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one, opened since, does not make the first believe that what it sent has not left."""
    monkeypatch.setattr("backends.ibm.access.connect", cache(connect))
    backend = IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20)
    backend.estimate(*ASKED)
    reach(DEVICE, open_ledger(path))
    service.fault = once("POST", "/jobs", Fault(after=True))
    assert backend.expectations(*ASKED).values.shape == (2, 2)
    assert (service.posted(), len(service.jobs)) == (1, 1)


def test_questions_are_asked_again(service: StandIn, path: Path) -> None:
    backend = IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20)
    backend.estimate(*ASKED)
    service.fault = once("GET", "/jobs/job-0000", Fault())
    assert backend.expectations(*ASKED).values.shape == (2, 2)
    assert service.fault.happened == 1
    assert len(service.jobs) == 1


def test_a_refusal_is_told_and_costs_nothing(service: StandIn, path: Path) -> None:
    service.fault = once("POST", "/jobs", Fault(status=400))
    with pytest.raises(JobFailed, match="got failed: the IBM service refused the job with HTTP 400"):
        IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20, run="r").expectations(*ASKED)
    assert open_ledger(path).spending("r").run == 0
    IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20, run="r").expectations(*ASKED)  # a new attempt, new tag
    assert [job.state for job in open_ledger(path).jobs()] == ["failed", "done"]


def test_another_process_fetches_what_was_submitted(service: StandIn, path: Path) -> None:
    """As after a kill: the ledger has the tag, the service the job; a fresh client finds, decodes and keeps it."""
    service.fault = lambda method, path: Fault(status=401) if (method, path) == ("GET", f"{JOBS}/job-0000") else None
    backend = IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20)
    with pytest.raises(ServiceError, match="expects a valid token"):
        backend.expectations(*ASKED)
    ledger = open_ledger(path)
    (job,) = ledger.jobs()
    assert job.state == "submitted"
    service.fault = lambda method, path: None
    done = reach(DEVICE, ledger).follow(job.tag)
    assert (done.state, done.used) == ("done", 1.5)
    assert IBM(DEVICE, shots=100, mode="job").expectations(*ASKED).shots == 200  # no leave needed: it is there
    assert service.posted() == 1


@pytest.mark.parametrize("status", [408, 429])
def test_a_refusal_for_the_moment_is_waited_for(service: StandIn, path: Path, status: int) -> None:
    """It was not taken, for certain: it is sent again under its tag, and is one job."""
    service.fault = once("POST", "/jobs", Fault(status=status))
    assert IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20).expectations(*ASKED).values.shape == (2, 2)
    (job,) = open_ledger(path).jobs()
    assert (service.posted(), len(service.jobs), job.sendings, job.used) == (2, 1, 2, 1.5)
    states = [state for _, state, _ in open_ledger(path).history(job.tag)]
    assert states[:4] == ["queued", "uncertain", "queued", "uncertain"]


def test_a_token_that_runs_out_leaves_the_job_waiting(service: StandIn, path: Path) -> None:
    service.fault = once("POST", "/jobs", Fault(status=401))
    with pytest.raises(ValueError, match="expects a valid token"):
        IBM(DEVICE, shots=100, mode="job", allow_qpu_seconds=20).expectations(*ASKED)
    (job,) = open_ledger(path).jobs()
    assert job.state == "queued"
    assert reach(DEVICE, open_ledger(path)).follow(job.tag).state == "done"
    assert len(service.jobs) == 1
