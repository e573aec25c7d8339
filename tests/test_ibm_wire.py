"""qiskit-ibm-runtime itself, unmodified, against a stand-in service over HTTP on loopback: faults, resume, secrets."""

import logging
import os
import traceback
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from command_line import qlm
from standin import CRN, Fault, StandIn, access_token

from backends import open_backend
from backends.ledger import open_ledger
from circuits import Circuit, Input, Op, X, Z

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from platform_account import CANARY, DEVICE, account, devices, execute, hurry

from backends.ibm import IBM
from backends.ibm.service import ServiceError, connect
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


def _maybe_sent(fault: Fault, patch: pytest.MonkeyPatch, service: StandIn) -> str:
    patch.setattr("backends.ledger.courier.SEARCH_SECONDS", 0.0)
    service.fault = once("POST", "/jobs", fault)
    return "was perhaps sent, and the service does not know its tag"


def _unavailable(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    return _maybe_sent(Fault(status=503), patch, service)


def _dropped(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    return _maybe_sent(Fault(), patch, service)


def _too_many(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    service.fault = lambda method, path: Fault(status=429) if (method, path) == ("POST", JOBS) else None
    return r"would not take the job yet \(HTTP 429\); it waits: qlm jobs resume"


def _damaged(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    """The ledger's file is damaged while the request is on its way."""

    def damage(method: str, path: str) -> Fault | None:
        if (method, path) == ("POST", JOBS):
            Path(os.environ["QLM_LEDGER"]).write_bytes(b"no ledger " * 5000)
        return None

    service.fault = damage
    return "expects a sound file, got a damaged one"


def _over_budget(service: StandIn, patch: pytest.MonkeyPatch) -> str:
    patch.setenv("QLM_ALLOWED", "1")
    return "at most 1.0 more QPU seconds"


@pytest.mark.parametrize(
    "arrange",
    [
        *(_no_network, _bad_token, _no_instance, _no_account, _unknown_device),
        *(_refused, _expired, _job_failed, _over_budget, _unavailable, _dropped, _too_many, _damaged),
    ],
)
def test_each_failure_has_its_sentence_and_no_secret(
    arrange, service: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The API key and the access token made of it are looked for in everything that is written, shown or logged."""
    caplog.set_level(logging.DEBUG)
    sentence = arrange(service, monkeypatch)
    backend = IBM(DEVICE, shots=10, mode="job", allow_qpu_seconds=int(os.environ.get("QLM_ALLOWED", "20")))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=sentence) as caught:
            backend.expectations(*ASKED)
    shown = "".join(traceback.format_exception(caught.value))
    texts = [shown, repr(caught.value), repr(backend), backend.spec, caplog.text, *(str(w.message) for w in warned)]
    assert_no_secret(path, texts)
    if path.exists() and arrange is not _damaged:
        assert not any(CRN in repr(job) for job in open_ledger(path).jobs())


def assert_no_secret(path: Path, texts: list[str]) -> None:
    """Neither the API key nor what is made of it is in what was shown, or in any file beside the ledger."""
    files = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    for secret in (CANARY, access_token(CANARY), access_token(CANARY).split(".")[2]):
        assert not any(secret in text for text in texts)
        assert secret.encode() not in files


def test_no_command_shows_a_secret(
    service: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Resuming, sending again, cancelling, opening and closing a session: while everything fails, and when it works."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr("backends.ledger.courier.SEARCH_SECONDS", 0.0)
    hurry(monkeypatch, repeats=1)
    monkeypatch.setattr("backends.ibm.access.connect", cache(connect))  # whose own failures are tested above
    texts: list[str] = []

    def run(*arguments: str, code: int = 1) -> str:
        done = qlm("jobs", *arguments)
        texts.extend((done.stdout, done.stderr))
        assert done.exit_code == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fails(backend: IBM) -> None:
        with pytest.raises(ValueError, match=r"expects|perhaps|refused|opened") as caught, backend.session():
            backend.expectations(*ASKED)
        texts.extend(("".join(traceback.format_exception(caught.value)), repr(backend)))

    service.fault = lambda method, path: Fault(status=503) if path == JOBS else None
    fails(IBM(DEVICE, shots=10, mode="job", allow_qpu_seconds=60))
    (job,) = open_ledger(path).jobs()
    assert job.state == "uncertain"
    for fault, arguments in (
        (Fault(status=500), ("resume",)),
        (Fault(status=401), ("resume", "--resubmit", job.tag)),
        (Fault(), ("cancel", job.tag)),
    ):
        service.fault = lambda method, path, fault=fault: fault if path.startswith(JOBS) else None
        run(*arguments, code=2 if "cancel" in arguments else 1)
    service.fault = lambda method, path: Fault(status=502) if (method, path) == ("POST", JOBS) else None
    assert "perhaps sent" in run("resume", "--resubmit", job.tag)
    service.fault = lambda method, path: None
    assert "uncertain -> running" in run("resume", "--resubmit", job.tag, code=0)
    service.fault = lambda method, path: Fault(status=500) if path.endswith("/cancel") else None
    run("cancel", job.tag, code=2)
    service.fault = lambda method, path: None
    assert "running -> " in run("cancel", job.tag, code=0)
    for fault in (Fault(), Fault(status=403)):
        service.fault = lambda method, path, fault=fault: fault if path.endswith("/sessions") else None
        fails(IBM(DEVICE, shots=11, mode="session", allow_qpu_seconds=60))
    service.fault = lambda method, path: Fault() if method == "PATCH" or (method, path) == ("POST", JOBS) else None
    fails(IBM(DEVICE, shots=11, mode="session", allow_qpu_seconds=60))
    run("list", code=0)
    run("list", "--all", "--json", code=0)
    run("export", "-", code=0)
    assert service.posted() > 3
    assert_no_secret(path, [*texts, caplog.text])


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
