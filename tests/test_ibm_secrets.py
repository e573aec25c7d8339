"""Every failure of the service, over HTTP, has its sentence; none of them, and no command, shows a secret."""

import logging
import os
import traceback
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command_line import qlm
from standin import CRN, Fault, StandIn, access_token

from backends.ledger import open_ledger

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from platform_account import CANARY, DEVICE, account, devices, execute, hurry
from wire_cases import ASKED, JOBS, once

from backends.ibm import IBM
from backends.ibm.service import connect


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    hurry(monkeypatch)
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def service(path: Path) -> Iterator[StandIn]:
    with StandIn(token=CANARY, devices=devices(), execute=execute) as found, account(found):
        yield found


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
