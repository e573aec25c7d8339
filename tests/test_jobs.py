"""``qlm jobs`` and ``qlm backends account``: tables, JSON, resume, consent, export, budgets; against the stand-in."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import ok, qlm

from backends.ledger import Ledger, open_ledger
from circuits import Circuit, Input, Op, Z

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

from platform_account import CANARY, DEVICE, account, devices, execute, hurry
from standin import Fault, StandIn

from backends.ibm import IBM
from backends.ibm.ask import unpack

ASKED = (Circuit(1, (Op("ry", (0,), (Input(0),)),)), torch.tensor([[0.4]]), None, (Z(0),))


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    hurry(monkeypatch)
    return open_ledger()


@pytest.fixture
def service() -> Iterator[StandIn]:
    with StandIn(token=CANARY, devices=devices(), execute=execute) as found, account(found):
        yield found


def test_an_empty_ledger(ledger: Ledger) -> None:
    assert str(ledger.path) in ok("jobs", "list")
    assert json.loads(ok("jobs", "list", "--json")) == []
    assert "No job is open." in ok("jobs", "resume")


def test_a_rehearsed_job_is_listed_shown_and_exported(ledger: Ledger, tmp_path: Path) -> None:
    found = IBM("fake_manila", shots=30, allow_qpu_seconds=20, run="mine").expectations(*ASKED, seed=1)
    (listed,) = json.loads(ok("jobs", "list", "--json"))
    assert (listed["state"], listed["device"], listed["run"], listed["paid"]) == ("done", "fake_manila", "mine", False)
    tag = listed["tag"]
    assert tag[:16] in ok("jobs", "list")
    shown = ok("jobs", "show", tag[:10])
    assert all(part in shown for part in (tag, "fake_manila", "1 rows of parameters, 30 shots", "uncertain"))
    detail = json.loads(ok("jobs", "show", tag, "--json"))
    assert [step["state"] for step in detail["history"]] == ["queued", "uncertain", "submitted", "done"]
    assert Circuit.from_json(json.dumps(detail["request"]["circuit"])) == ASKED[0]
    ok("jobs", "export", tmp_path / "out.json")
    (exported,) = json.loads((tmp_path / "out.json").read_text())
    bits = unpack(base64.b64decode(exported["result"]))["bits"]
    assert bits.shape == (1, 30, 1)
    assert (1 - 2 * bits.mean()) == pytest.approx(found.values.item())


def test_budgets_are_kept(ledger: Ledger) -> None:
    assert "no limit; one call: no limit" in ok("jobs", "budget")
    assert "of 600 allowed; one call: at most 30." in ok("jobs", "budget", "--month", 600, "--call", 30)
    assert "of 600 allowed; one call: no limit" in ok("jobs", "budget", "--call", "none")
    for wrong in ("much", "-1"):
        assert qlm("jobs", "budget", "--month", wrong).exit_code == 2


def test_an_interrupted_job_is_resumed(ledger: Ledger, service: StandIn) -> None:
    service.fault = lambda method, path: Fault(status=401) if path.endswith("/jobs/job-0000") else None
    backend = IBM(DEVICE, shots=30, mode="job", allow_qpu_seconds=20)
    with pytest.raises(ValueError, match="valid token"):
        backend.expectations(*ASKED)
    service.fault = lambda method, path: None
    assert "Open ones are fetched" in ok("jobs", "list")
    assert "submitted -> done" in ok("jobs", "resume", "--wait")
    assert ledger.jobs()[0].used == 1.5
    assert service.posted() == 1
    assert "1.5, no limit" in ok("jobs", "list")


def test_nothing_uncertain_is_sent_without_consent(
    ledger: Ledger, service: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = ledger.record([_request()], 60)
    ledger.claim(job)
    monkeypatch.setattr("backends.ledger.courier.SEARCH_SECONDS", 0.0)
    asked = qlm("jobs", "resume")
    assert asked.exit_code == 1
    assert f"--resubmit {job.tag}" in asked.stdout
    assert service.posted() == 0
    assert "uncertain -> " in ok("jobs", "resume", "--resubmit", job.tag, "--wait")
    assert (service.posted(), ledger.job(job.tag).state) == (1, "done")


def _request():  # a body as the backend writes it
    from backends.ledger import JobRequest

    backend = IBM("fake_manila", shots=10, allow_qpu_seconds=20, run="model")
    backend.expectations(*ASKED, seed=1)
    (model,) = open_ledger().jobs(run="model")
    return JobRequest(DEVICE, model.body, 2.0, "r")


def test_cancelling(ledger: Ledger, service: StandIn) -> None:
    (queued,) = ledger.record([_request()], 60)
    assert "queued -> cancelled" in ok("jobs", "cancel", queued.tag)
    assert service.posted() == 0
    refused = qlm("jobs", "cancel", queued.tag)
    assert refused.exit_code == 2
    assert "is cancelled; leave it" in refused.stderr


def test_an_account_is_checked_when_asked(service: StandIn) -> None:
    shown = ok("backends", "account")
    assert "The account works" in shown
    assert f"{DEVICE}: 5 qubits, online, 0 jobs waiting." in shown
    service.token = "another"
    refused = qlm("backends", "account", DEVICE)
    assert refused.exit_code == 2
    assert "expects a valid token" in refused.stderr
    assert CANARY not in refused.stdout + refused.stderr
    assert service.posted() == 0


def test_unknown_tags_and_bad_ledgers_are_one_sentence(ledger: Ledger, tmp_path: Path) -> None:
    for command in (("show", "qlm-0"), ("cancel", "qlm-0"), ("resume", "qlm-0")):
        refused = qlm("jobs", *command)
        assert refused.exit_code == 2
        assert "which none has; see: qlm jobs list" in refused.stderr
    (tmp_path / "text").write_text("no ledger" * 1000)
    (tmp_path / "text").chmod(0o600)
    assert "got a damaged one" in qlm("jobs", "list", "--ledger", tmp_path / "text").stderr
