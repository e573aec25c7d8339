"""qiskit-ibm-runtime itself, unmodified, against a stand-in service over HTTP on loopback: faults, resume, secrets."""

import logging
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from standin import CRN, Fault, StandIn

from backends import open_backend
from backends.ledger import open_ledger
from circuits import Circuit, Input, Op, X, Z

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from platform_account import CANARY, DEVICE, account, devices, execute, hurry

from backends.ibm import IBM
from backends.ibm.service import ServiceError
from backends.ibm.transports import reach
from backends.ledger.courier import JobFailed

CIRCUIT = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1))))
ASKED = (CIRCUIT, torch.tensor([[0.4], [2.0]]), None, (Z(0), X(0) @ X(1)))
JOBS = "/api/v1/jobs"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    hurry(monkeypatch)
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def service(path: Path) -> Iterator[StandIn]:
    with StandIn(token=CANARY, devices=devices(), execute=execute) as found, account(found):
        yield found


def once(method: str, ending: str, fault: Fault) -> "Once":
    return Once(method, ending, fault)


class Once:
    """A fault of the first request that fits."""

    def __init__(self, method: str, ending: str, fault: Fault) -> None:
        self.method, self.ending, self.fault, self.happened = method, ending, fault, 0

    def __call__(self, method: str, path: str) -> Fault | None:
        if method != self.method or not path.endswith(self.ending) or self.happened:
            return None
        self.happened += 1
        return self.fault


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


def _no_network(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    for name in ("HTTP_PROXY", "http_proxy"):
        patch.setenv(name, "http://127.0.0.1:9")
    return "expects a network connection, got none"


def _bad_token(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    service.token = "another"
    return "expects a valid token"


def _no_instance(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    service.instances = ()
    return "expects an instance that the account may use"


def _no_account(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    patch.delenv("QISKIT_IBM_TOKEN")
    patch.setattr("qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE", "/nonexistent/none.json")
    return "expects an account, got none"


def _unknown_device(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    service.devices["ibm_standing"] = service.devices.pop(DEVICE)
    service.devices["ibm_standing"]["configuration"]["backend_name"] = "ibm_standing"
    return "did you mean 'ibm_standing'"


def _refused(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    service.fault = once("POST", "/jobs", Fault(status=403))
    return "refused the job with HTTP 403"


def _expired(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    service.fault = lambda method, path: Fault(status=401) if path == f"{JOBS}/job-0000" else None
    return "expects a valid token"


def _job_failed(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    def fails(payload: object) -> str:
        raise RuntimeError("broken")

    service.execute = fails
    return "got failed"


def _over_budget(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    patch.setenv("QLM_ALLOWED", "1")
    return "at most 1.0 more QPU seconds"


@pytest.mark.parametrize(
    "arrange",
    [
        *(_no_network, _bad_token, _no_instance, _no_account, _unknown_device),
        *(_refused, _expired, _job_failed, _over_budget),
    ],
)
def test_each_failure_has_its_sentence_and_no_secret(
    arrange, service: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The API key and the access token made of it are looked for in everything that is written, shown or logged."""
    import os

    caplog.set_level(logging.DEBUG)
    sentence = arrange(service, monkeypatch)
    backend = IBM(DEVICE, shots=10, mode="job", allow_qpu_seconds=int(os.environ.get("QLM_ALLOWED", "20")))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=sentence) as caught:
            backend.expectations(*ASKED)
    shown = "".join(traceback.format_exception(caught.value))
    files = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    texts = [shown, repr(caught.value), repr(backend), backend.spec, caplog.text, *(str(w.message) for w in warned)]
    from standin import access_token

    for secret in (CANARY, access_token(CANARY), access_token(CANARY).split(".")[2]):
        assert not any(secret in text for text in texts)
        assert secret.encode() not in files
    if path.exists():
        assert not any(CRN in repr(job) for job in open_ledger(path).jobs())
