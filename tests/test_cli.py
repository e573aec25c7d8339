"""The command line: quick help, every command on a tiny model, a real Ctrl-C and what resumes from it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import ok, qlm
from safetensors.torch import load_file
from tiny_runs import BLOCKS, python_docs

from circuits.library import reuploading
from qlm.checkpoints import load_model
from qlm.config import QLMConfig
from qlm.entropy import measure_entropy
from qlm.evaluation import bits_per_byte
from qlm.modeling import QLMForCausalLM
from qlm.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent
SEED = 3
FLAGS = ("--steps", "3", "--batch-size", "2", "--context", "16")


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps({"d_model": 16, "blocks": BLOCKS}))
    return path


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of text, so that evaluation is quick."""
    folder = tmp_path_factory.mktemp("story")
    for name, text in (("train", python_docs().train), ("valid", python_docs().valid), ("test", python_docs().test)):
        (folder / f"{name}.txt").write_text(text[:3000].decode("utf-8", "ignore"))
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, config: Path, story: Path) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    ok("train", "--config", config, "--data", story, "--out", out, "--seed", SEED, *FLAGS)
    return out


def test_help_is_light() -> None:
    """What takes time is imported by the commands alone."""
    code = "import sys; sys.argv = ['qlm', '--help']; from qlm.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    heavy = (
        "print([name for name in ('torch', 'transformers', 'numba', 'matplotlib', 'qiskit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code + heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("train", "evaluate", "generate", "entropy", "backends", "draw", "convert"):
        assert re.search(rf"\b{command}\b", done.stdout)


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "entropy", "backends", "draw", "convert"])
def test_each_command_explains_itself(command: str) -> None:
    assert "--help" in ok(command, "--help")


def test_train_leaves_a_whole_run_folder(run: Path, story: Path) -> None:
    names = {path.name for path in run.iterdir() if path.is_file()}
    assert names == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer_config.json"),
        *("run.json", "metrics.jsonl", "metrics.json", "loss.png", "paragraph.txt"),
    }
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["corpus"]["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert metrics["corpus"]["sha256"] == RunFolder(run).record().corpus_sha256
    assert metrics["recipe"]["steps"] == 3
    assert metrics["training"]["circuit_executions"] > 0
    valid = (story / "valid.txt").read_bytes()
    assert metrics["validation"]["bits_per_byte"] == pytest.approx(bits_per_byte(load_model(run), valid), abs=1e-6)
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_reads_the_runs_own_corpus(run: Path) -> None:
    shown = ok("evaluate", "--model", run)
    measured = json.loads((run / "metrics.json").read_text())["validation"]["bits_per_byte"]
    assert f"{measured:.4f}" in shown
    assert RunFolder(run).record().corpus_sha256[:16] in shown
    assert f"{measured:.4f}" not in ok("evaluate", "--model", run, "--split", "test")


def test_generate_is_repeatable(run: Path) -> None:
    arguments = ("generate", "--model", run, "--prompt", "Hello", "--max-new-tokens", 12)
    first = ok(*arguments)
    assert first.startswith("Hello")
    assert ok(*arguments) == first
    assert ok(*arguments, "--seed", 1) != first
    greedy = (*arguments, "--temperature", 0)
    assert ok(*greedy, "--seed", 1) == ok(*greedy)


def test_entropy_writes_table_and_pictures(run: Path, tmp_path: Path) -> None:
    ok("entropy", "--model", run, "--tokens", 5, "--out", tmp_path / "own")
    assert {path.name for path in (tmp_path / "own").iterdir()} == {
        f"entropy.{s}" for s in ("csv", "json", "html", "png")
    }
    rows = (tmp_path / "own" / "entropy.csv").read_text().splitlines()[1:]
    assert len(rows) == 5 * 3
    arguments = ("entropy", "--model", run, "--kind", "renyi2", "--wires", "1", "--blocks", "0.quantum_router")
    ok(*arguments, "--text", "-", "--tokens", 3, text="abcdef")
    about = json.loads((run / "entropy-statevector" / "entropy.json").read_text())["about"]
    assert (about["text"], about["kind"], about["cuts"][0]["wires"]) == ("abc", "renyi2", [1])


def test_the_untrained_control_is_the_run_at_its_first_step(run: Path, config: Path, tmp_path: Path) -> None:
    ok("entropy", "--model", run, "--tokens", 4, "--text", "-", "--out", tmp_path / "run", text="four")
    found = json.loads((tmp_path / "run" / "entropy.json").read_text())
    assert found["about"]["seed"] == SEED
    torch.manual_seed(SEED)
    fresh = QLMForCausalLM(QLMConfig(**json.loads(config.read_text())))
    expected = measure_entropy(fresh, "four").select(control="trained").entropy
    columns = found["columns"]
    untrained = [s for s, control in zip(columns["entropy"], columns["control"], strict=True) if control == "untrained"]
    assert untrained == pytest.approx(list(expected), abs=1e-6)


def test_entropy_on_another_backend_agrees(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("qiskit_aer")
    tables = []
    for backend in ("statevector", "aer"):
        ok("entropy", "--model", run, "--backend", backend, "--tokens", 4, "--out", tmp_path / backend)
        tables.append(json.loads((tmp_path / backend / "entropy.json").read_text()))
    assert tables[1]["about"]["backend"] == "aer"
    entropies = [torch.tensor(table["columns"]["entropy"], dtype=torch.float64) for table in tables]
    assert torch.allclose(entropies[0], entropies[1], atol=1e-6)
    assert float(entropies[0].max()) > 1e-3


def test_backends_are_listed_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ok("backends")
    for name in ("statevector", "aer", "ibm"):
        assert re.search(rf"\b{name}\b", shown)
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    without = ok("backends")
    assert "pip install 'hybridqlm[qiskit]'" in without
    assert "not installed" in without


def test_a_backend_is_checked() -> None:
    shown = ok("backends", "check", "statevector")
    assert "0 failed" in shown
    assert re.search(r"pass  expectations are right", shown)
    wrong = qlm("backends", "check", "statevectr")
    assert wrong.exit_code == 2
    assert "did you mean 'statevector'?" in wrong.stderr


def test_draw_lists_families_that_flags_describe() -> None:
    assert "kicked_ising: 3 wires, 6 inputs" in ok("draw", "kicked_ising", "--wires", 3, "--depth", 2)
    for name, answer in (("grover", "draw it from Python"), ("reuplod", "did you mean 'reuploading'")):
        failed = qlm("draw", name)
        assert failed.exit_code == 2
        assert answer in failed.stderr


def test_draw_knows_families_files_and_models(run: Path, tmp_path: Path) -> None:
    from circuits.draw import text

    circuit = reuploading(3, 2)
    assert text(circuit, 200) in ok("draw", "reuploading", "--wires", 3, "--depth", 2)
    (tmp_path / "mine.json").write_text(circuit.to_json())
    assert text(circuit, 200) in ok("draw", tmp_path / "mine.json")
    shown = ok("draw", "--model", run)
    assert text(reuploading(2, 1), 200) in shown
    assert "0.quantum_router: 2 wires, 2 inputs, 6 weights" in shown


def test_a_finished_run_is_not_trained_again(run: Path, story: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert "is finished" in ok("train", "--resume", "--out", run)
    assert (run / "model.safetensors").read_bytes() == before


def test_ctrl_c_and_resume_through_the_command_line(config: Path, story: Path, tmp_path: Path) -> None:
    """A real SIGINT to a real process; the resumed run ends in the weights of an uninterrupted one."""
    steps = ("--steps", "60", "--batch-size", "2", "--context", "16", "--seed", "5")
    common = ("train", "--config", config, "--data", story, *steps)
    straight, out = tmp_path / "straight", tmp_path / "run"
    command = [sys.executable, "-m", "qlm.cli", *map(str, (*common, "--out", out))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(RunFolder(out).lines()) < 1 and child.poll() is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    _, stderr = child.communicate()
    assert child.returncode == 130, stderr
    assert f"continue with: qlm train --resume --out {out}" in stderr
    assert "Traceback" not in stderr
    assert not (out / "model.safetensors").exists()
    refused = qlm(*common, "--out", out)
    assert refused.exit_code == 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ok("train", "--resume", "--out", out)
        ok(*common, "--out", straight)
    finally:
        torch.set_num_threads(threads)
    resumed, whole = load_file(out / "model.safetensors"), load_file(straight / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert int(RunFolder(out).checkpoints()[-1].name.removeprefix("checkpoint-")) == 60
