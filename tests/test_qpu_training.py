"""Training within a budget of QPU seconds, on a fake device: a running total, a stop, a checkpoint, a resumption."""

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import qlm
from tiny_runs import BLOCKS

from backends.ledger import open_ledger
from qlm.runs import RunFolder

pytest.importorskip("qiskit_ibm_runtime", reason="the extra qiskit is not installed")

FLAGS = ("--steps", "4", "--batch-size", "1", "--context", "6", "--seed", "3", "--backend", "ibm:fake_manila?shots=8")

CANARY = "canary-5b1f0c"
"""Stands for a secret: no checkpoint, log or ledger may hold it."""


@pytest.fixture
def common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE"):
        monkeypatch.setenv(name, CANARY)
    (tmp_path / "tiny.json").write_text(json.dumps({"d_model": 16, "blocks": BLOCKS[:1]}))
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    return ("train", "--config", tmp_path / "tiny.json", "--data", tmp_path, *FLAGS)


def plain(text: str) -> str:
    """What is read of a terminal's output: without its colours and movements."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def totals(out: Path) -> list[float]:
    return [line["qpu_seconds"] for line in RunFolder(out).lines() if "qpu_seconds" in line]


def test_a_run_stops_at_its_budget_and_resumes(
    common: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws its progress bar as on a terminal
    out, whole = tmp_path / "run", tmp_path / "whole"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        drawn = qlm(*common, "--allow-qpu-seconds", 500, "--out", whole)
        assert drawn.exit_code == 0
        spent = totals(whole)
        shown = re.findall(r"([\d.]+) of 500 QPU seconds", plain(drawn.stdout))
        assert shown[-1] == f"{spent[-1]:.1f}"
        assert set(shown) == {f"{total:.1f}" for total in spent}  # each as soon as it is known
        assert len(spent) == 4
        assert spent == sorted(spent)
        assert spent[0] > 0
        allowed = int(spent[1]) + 3  # two steps, and not quite a third
        stopped = qlm(*common, "--allow-qpu-seconds", allowed, "--fresh", "--out", out)
        assert stopped.exit_code == 3, stopped.stderr
        told = plain(stopped.stdout)
        assert f"of {allowed} QPU seconds are used" in told
        assert "is saved; continue with: qlm train --resume" in told
        assert totals(out)[-1] <= allowed
        resume = ("train", "--resume", "--out", out, "--backend", FLAGS[-1], "--fresh")
        again = qlm(*resume, "--allow-qpu-seconds", allowed)
        assert again.exit_code != 0
        done = qlm(*resume, "--allow-qpu-seconds", 500)
        assert done.exit_code == 0, done.stderr
    finally:
        torch.set_num_threads(threads)
    assert totals(out)[-1] == pytest.approx(spent[-1], rel=0.5)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert {job.paid for job in open_ledger().jobs()} == {False}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]


def test_backends_that_count_nothing_are_refused(common: tuple[object, ...], tmp_path: Path) -> None:
    refused = qlm(*common[:-2], "--backend", "statevector", "--allow-qpu-seconds", 5, "--out", tmp_path / "run")
    assert refused.exit_code == 2
    assert "expects a backend that counts them, got 'statevector'" in refused.stderr
