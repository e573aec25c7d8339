"""Training that stops before its end: Ctrl-C and what resumes from it, and losses that are not finite."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import At, assert_same, tiny_plan, weights
from transformers import TrainerCallback

from qlm.checkpoints import CheckpointError
from qlm.runs import RunFolder, RunFolderError
from qlm.training import DivergedError, TrainingInterrupted, train

ROOT = Path(__file__).resolve().parent.parent


def poison(name: str) -> Any:
    def action(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter(name).view(-1)[1] = float("nan")

    return action


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "run"
    train(tiny_plan(), out)
    return out


def test_interrupted_and_resumed_is_bit_identical(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupt = At(3, lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="checkpoint-3"):
        train(tiny_plan(), out, callbacks=(interrupt,))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (out / "model.safetensors").exists()
    RunFolder(out).append({"step": 5, "loss": 0.0})  # what a crash after the checkpoint would have left
    run = train(tiny_plan(), out, existing="resume")
    assert_same(weights(straight), weights(out))
    fixed = ("step", "tokens", "circuit_executions")
    before, after = ([line for line in RunFolder(path).lines() if "loss" in line] for path in (straight, out))
    assert [before[-1][key] for key in fixed] == [after[-1][key] for key in fixed]
    assert [line["step"] for line in after] == [1, 2, 3, 4, 6]
    assert run.steps == 6


def test_the_second_interrupt_aborts(tmp_path: Path) -> None:
    def twice(_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(tiny_plan(), tmp_path / "run", callbacks=(At(2, twice),))
    assert not isinstance(caught.value, TrainingInterrupted)
    assert not list((tmp_path / "run").glob("checkpoint-*"))


_CHILD = """
import sys
sys.path.insert(0, "tests")
from tiny_runs import tiny_plan
from qlm.training import TrainingInterrupted, train
try:
    train(tiny_plan(steps=100000, log_every=1), sys.argv[1])
except TrainingInterrupted as stop:
    print(stop)
    sys.exit(130)
"""


def test_a_real_signal_saves_a_checkpoint(tmp_path: Path) -> None:
    """As a scheduler sends it; Ctrl-C is tested through the command line."""
    out = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(out)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(RunFolder(out).lines()) < 3 and child.poll() is None:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGTERM)
    stdout, stderr = child.communicate()
    assert child.returncode == 130, stderr
    (checkpoint,) = RunFolder(out).checkpoints()
    assert str(checkpoint) in stdout
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert checkpoint.name == f"checkpoint-{state['global_step']}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.norm.weight", "training stopped at step 4: the loss became nan"),
        (
            "model.layers.0.core.layer.weights",
            "training stopped at step 4: the weight 'model.layers.0.core.layer.weigh",
        ),
        (
            "model.layers.0.encode.weight",
            "training stopped at step 4: the weight 'model.layers.0.encode.weight' became",
        ),
    ],
)
def test_nan_stops_training_and_keeps_the_last_good_checkpoint(tmp_path: Path, name: str, message: str) -> None:
    out = tmp_path / "run"
    with pytest.raises(DivergedError, match=message) as caught:
        train(tiny_plan(save_every=2), out, callbacks=(At(4, poison(name)),))
    assert str(out / "checkpoint-2") in str(caught.value)
    assert [path.name for path in RunFolder(out).checkpoints()] == ["checkpoint-2"]
    assert all(torch.isfinite(tensor).all() for tensor in weights(out / "checkpoint-2").values())
    assert not (out / "model.safetensors").exists()
    assert all(math.isfinite(line["loss"]) for line in RunFolder(out).lines() if "loss" in line)


def test_nan_weights_are_not_saved_by_a_checkpoint(tmp_path: Path) -> None:
    """A weight that becomes NaN after the step's loss is found when the checkpoint is written."""

    class After(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 4:
                poison("model.norm.weight")(model)

    with pytest.raises(DivergedError, match=r"checkpoint-2"):
        train(tiny_plan(save_every=2), tmp_path / "run", callbacks=(After(),))
    assert [path.name for path in RunFolder(tmp_path / "run").checkpoints()] == ["checkpoint-2"]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path) -> None:
    def spoil(model: torch.nn.Module) -> None:
        model.get_parameter("model.norm.weight").register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(DivergedError, match=r"step 2: the gradient of 'model\.norm\.weight'.*no checkpoint had been"):
        train(tiny_plan(), tmp_path / "run", callbacks=(At(2, spoil),))


def test_resume_expects_a_whole_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunFolderError, match="which is none"):
        train(tiny_plan(), out, existing="resume")
    with pytest.raises(TrainingInterrupted):
        train(tiny_plan(), out, callbacks=(At(2, lambda _: signal.raise_signal(signal.SIGINT)),))
    for name, message in (("optimizer.pt", r"whole optimizer\.pt"), ("model.safetensors", "incomplete metadata")):
        path = out / "checkpoint-2" / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=message):
            train(tiny_plan(), out, existing="resume")
        path.write_bytes(whole)
    (out / "checkpoint-2").rename(out / "kept")
    with pytest.raises(RunFolderError, match="expects a checkpoint, got none"):
        train(tiny_plan(), out, existing="resume")


def test_a_pickle_in_a_resume_file_is_not_executed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train(tiny_plan(), out, callbacks=(At(2, lambda _: signal.raise_signal(signal.SIGINT)),))
    marker = tmp_path / "executed"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"state": Bomb()}, out / "checkpoint-2" / "optimizer.pt")
    with pytest.raises(CheckpointError, match="got others"):
        train(tiny_plan(), out, existing="resume")
    assert not marker.exists()
