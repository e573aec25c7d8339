"""Real IBM devices without a network: a service that fails in every way, and one that is a simulator in disguise."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import open_backend
from circuits import Circuit, Input, Op, X, Z

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

import qiskit_ibm_runtime
import requests
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_aer import AerSimulator
from qiskit_ibm_runtime.accounts.exceptions import (
    AccountNotFoundError,
    CloudResourceNameResolutionError,
    InvalidAccountError,
)
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError
from qiskit_ibm_runtime.executor_sampler import Sampler
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from backends.ibm import IBM
from backends.ibm.service import ServiceError
from backends.ledger import open_ledger

CIRCUIT = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("cx", (0, 1))))
ASKED = (CIRCUIT, torch.tensor([[0.4], [2.0]]), None, (Z(0), X(0) @ X(1)))


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


NO_INSTANCES = "Unable to retrieve instances. Please check that you are using a valid API token."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (AccountNotFoundError("Unable to find account."), "expects an account, got none; set QISKIT_IBM_TOKEN"),
        (_caused(InvalidAccountError(NO_INSTANCES), RuntimeError("400")), "expects a valid token"),
        (IBMNotAuthorizedError("401"), "expects a valid token"),
        (RequestsApiError("401 Client Error", status_code=401), "expects a valid token"),
        (
            _caused(InvalidAccountError(NO_INSTANCES), requests.exceptions.ConnectionError("unreachable")),
            "expects a network connection, got none",
        ),
        (requests.exceptions.ConnectTimeout("slow"), "expects a network connection, got none"),
        (_caused(RequestsApiError("no answer"), TimeoutError("slow")), "expects a network connection, got none"),
        (IBMInputValueError("No matching instances found"), "expects an instance that the account may use"),
        (CloudResourceNameResolutionError("no CRN"), "expects an instance that the account may use"),
        (RequestsApiError("500 Server Error", status_code=500), "expects no failure, got RequestsApiError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_failure_has_its_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", fails)
    backend = open_backend("ibm:ibm_torino?allow_qpu_seconds=5")
    with pytest.raises(ServiceError, match=sentence) as caught:
        backend.expectations(*ASKED)
    assert str(caught.value).count(".\n") == 0
    assert len(str(caught.value)) < 300
    assert caught.value.__cause__ is error


def test_no_account_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The runtime itself, with an empty home and environment: it never gets as far as the network."""
    from qiskit_ibm_runtime.accounts import management

    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "none.json"))
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QISKIT_IBM_CHANNEL", "QISKIT_IBM_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ServiceError, match="expects an account, got none"):
        open_backend("ibm:least_busy").expectations(*ASKED)


class Service:
    """Offers one device, fake_manila's simulator, as "ibm_disguise"; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.device = AerSimulator.from_backend(FakeManilaV2(), method="density_matrix")
        self.device.name = "ibm_disguise"

    def backend(self, name: str) -> Any:
        self.asked.append(name)
        if name != "ibm_disguise":
            raise QiskitBackendNotFoundError("No backend matches the criteria.")
        return self.device

    def backends(self) -> list[Any]:
        return [self.device]

    def least_busy(self) -> Any:
        self.asked.append("least_busy")
        return self.device


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    found = Service()
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", lambda: found)
    return found


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every job that is submitted."""
    jobs: list[dict[str, Any]] = []
    run: Callable[..., Any] = Sampler.run

    def noted(self: Sampler, pubs: Any, **options: Any) -> Any:
        jobs.append({"mode": type(self.mode).__name__, "seconds": self.options.max_execution_time})
        return run(self, pubs, **options)

    monkeypatch.setattr(Sampler, "run", noted)
    return jobs


def test_nothing_is_submitted_without_leave(service: Service, submitted: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="expects leave to spend QPU time, got allow_qpu_seconds=0"):
        open_backend("ibm:ibm_disguise").expectations(*ASKED)
    assert service.asked == ["ibm_disguise"]
    assert submitted == []
    assert open_ledger().jobs() == []


def test_a_job_with_leave_is_limited(service: Service, submitted: list[dict[str, Any]]) -> None:
    backend = IBM("ibm_disguise", shots=4000, allow_qpu_seconds=7)
    found = backend.expectations(*ASKED)
    exact = open_backend("statevector").expectations(*ASKED).values
    assert ((found.values - exact).abs() < 0.2 + 4.9 * found.stderr).all()
    assert submitted == [{"mode": "NoneType", "seconds": 7}]  # a batch of one is a job
    assert backend.capabilities.remote
    assert backend.capabilities.noisy


@pytest.mark.parametrize(("mode", "kind"), [("job", "NoneType"), ("batch", "Batch"), ("session", "Session")])
def test_modes(service: Service, submitted: list[dict[str, Any]], mode: str, kind: str) -> None:
    backend = IBM("ibm_disguise", shots=50, mode=mode, allow_qpu_seconds=7, run=mode)
    with backend.session() as opened:
        opened.expectations(*ASKED)
        opened.samples(CIRCUIT, ASKED[1])
        opened.samples(CIRCUIT, ASKED[1])  # asked before: answered from the ledger
        held = backend._access.opened(backend._access.place(CIRCUIT))
    assert submitted == [{"mode": kind, "seconds": 7}] * 2  # the first is known to have cost nothing
    if mode != "job":
        assert held._active is False  # closed: nothing more is billed
        if mode == "session":
            assert held._max_time == 7


def test_a_session_must_end(service: Service, submitted: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"expects 'with backend.session\(\):', got none"):
        IBM("ibm_disguise", mode="session", allow_qpu_seconds=3).expectations(*ASKED)
    assert submitted == []


def test_an_unknown_device_names_a_known_one(service: Service) -> None:
    with pytest.raises(ServiceError, match="did you mean 'ibm_disguise'"):
        IBM("ibm_disguse", allow_qpu_seconds=1).expectations(*ASKED)


def test_least_busy_is_chosen_at_the_first_request(service: Service, submitted: list[dict[str, Any]]) -> None:
    backend = open_backend("ibm:least_busy?allow_qpu_seconds=5&shots=10&fresh=True")
    assert service.asked == []
    first = backend.expectations(*ASKED)
    second = backend.expectations(*ASKED)
    assert service.asked == ["least_busy"]
    assert len(submitted) == 2
    assert not torch.equal(first.values, second.values)
    assert {job.device for job in open_ledger().jobs()} == {"ibm_disguise"}


def test_circuits_wider_than_the_device_are_refused(service: Service, submitted: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="device 'ibm_disguise' expects at most 5 wires, got 6"):
        IBM("ibm_disguise", allow_qpu_seconds=1).expectations(Circuit(6), observables=(Z(0),))
    assert submitted == []


def test_a_failed_job_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    class Job:
        def status(self) -> str:
            return "ERROR"

        def error_message(self) -> str:
            return "ran out\nof time"

        def metrics(self) -> dict[str, Any]:
            return {"usage": {"qpu_charge_time_seconds": 0.5, "status": "complete"}}

        def job_id(self) -> str:
            return "d0ab"

    monkeypatch.setattr(Sampler, "run", lambda self, pubs, **_: Job())
    with pytest.raises(RuntimeError, match="job d0ab to end well, got failed: ran out of time"):
        IBM("ibm_disguise", allow_qpu_seconds=5, run="r").expectations(*ASKED)
    assert open_ledger().spending("r").run == 0.5


def test_nothing_live_and_nothing_secret_is_copied(
    service: Service, monkeypatch: pytest.MonkeyPatch, submitted: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "s3cret-t0ken")
    backend = IBM("ibm_disguise", shots=10, allow_qpu_seconds=5)
    backend.expectations(*ASKED)
    packed = pickle.dumps(backend)
    for text in (repr(backend), backend.spec, repr(packed), repr(vars(pickle.loads(packed)))):
        assert "s3cret" not in text
    for twin in (copy.deepcopy(backend), pickle.loads(packed), open_backend(backend.spec)):
        assert twin == backend
        assert "_access" not in vars(twin)
