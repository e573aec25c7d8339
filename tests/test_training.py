"""Training: the same weights from the same seed, resumed or not; nothing that is not finite is ever saved."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import python_docs, tiny_config, tiny_plan, tiny_recipe
from transformers import TrainerCallback

from qlm.checkpoints import CheckpointError, load_model
from qlm.evaluation import bits_per_byte
from qlm.meter import BarrenPlateauWarning, Meter
from qlm.modeling import QLMForCausalLM
from qlm.recipe import Plan, TrainingRecipe, with_changes
from qlm.runs import RunFolder, RunFolderError
from qlm.training import DivergedError, TrainingInterrupted, train

ROOT = Path(__file__).resolve().parent.parent


class At(TrainerCallback):
    """Does something to the model at the start of a step, counted from 1."""

    def __init__(self, step: int, action: Any) -> None:
        self.step = step
        self.action = action

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step + 1 == self.step:
            self.action(model)


def poison(name: str) -> Any:
    def action(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter(name).view(-1)[1] = float("nan")

    return action


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "run"
    train(tiny_plan(), out)
    return out


def test_a_run_folder_holds_no_pickle_and_loads_exactly(straight: Path) -> None:
    names = {path.name for path in straight.iterdir()}
    assert {"config.json", "model.safetensors", "metrics.jsonl", "run.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert not list(straight.glob("checkpoint-*/*.bin"))
    model = load_model(straight)
    saved = weights(straight)
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items() if name in saved)


def test_training_is_deterministic_and_depends_on_the_seed(straight: Path, tmp_path: Path) -> None:
    train(tiny_plan(), tmp_path / "again")
    assert_same(weights(straight), weights(tmp_path / "again"))
    train(tiny_plan(seed=1), tmp_path / "other")
    assert not torch.equal(weights(straight)["model.embed.weight"], weights(tmp_path / "other")["model.embed.weight"])


def test_metrics_say_what_happened(straight: Path) -> None:
    lines = RunFolder(straight).lines()
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == [1, 2, 4, 6]
    last = [line for line in lines if "loss" in line][-1]
    assert last["tokens"] == 6 * 2 * 16
    assert last["loss"] > last["cross_entropy"] > 0
    assert last["bits_per_byte"] == pytest.approx(last["cross_entropy"] / math.log(2))
    assert 0 < last["circuit_executions"] <= last["tokens"]
    assert 0 <= last["routed_share"] <= 1
    assert last["gradient_variance"].keys() == {"model.layers.0.core.layer"}
    assert last["gradient_variance"]["model.layers.0.core.layer"] > 0
    assert last["output_share"]["0.quantum_router"] >= 0
    assert last["grad_norm"] > 0
    held_out = [line for line in lines if "validation_bits_per_byte" in line]
    assert [line["step"] for line in held_out] == [3, 6]
    assert held_out[-1]["validation_bits_per_byte"] == bits_per_byte(load_model(straight), python_docs().valid[:64])


def test_cross_entropy_is_the_loss_without_the_auxiliary_part() -> None:
    torch.manual_seed(0)
    model = QLMForCausalLM(tiny_config()).train()
    ids = torch.randint(256, (2, 16))
    meter = Meter(model)
    meter.start_step()
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    meter.after_backward(ids.numel())
    meter.end_step()
    plain = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    line = meter.line(output.loss.item())
    meter.close()
    assert output.loss.item() > plain.item()
    assert line["cross_entropy"] == pytest.approx(plain.item(), abs=1e-6)
    gradient = model.get_parameter("model.layers.0.core.layer.weights").grad
    assert gradient is not None
    expected = gradient.var(correction=0).item()
    assert line["gradient_variance"]["model.layers.0.core.layer"] == pytest.approx(expected)


def test_a_barren_plateau_is_reported_once() -> None:
    model = QLMForCausalLM(tiny_config())
    meter = Meter(model)
    for _, layer in model.quantum_layers():
        layer.weights.grad = torch.full_like(layer.weights, 1e-5)
    meter.after_backward(1)
    with pytest.warns(BarrenPlateauWarning, match=r"model\.layers\.0\.core\.layer.*barren plateau"):
        meter.line(1.0)
    meter.after_backward(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        meter.line(1.0)


def test_a_twin_trains_without_circuits(tmp_path: Path) -> None:
    run = train(tiny_plan("twin"), tmp_path / "twin")
    assert run.circuit_executions == 0
    assert [line for line in run.folder.lines() if "loss" in line][-1]["gradient_variance"] == {}


def test_interrupted_and_resumed_is_bit_identical(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupt = At(3, lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="checkpoint-3"):
        train(tiny_plan(), out, callbacks=(interrupt,))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
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


def test_a_real_sigint_saves_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(out)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(RunFolder(out).lines()) < 3 and child.poll() is None:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
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


def test_a_folder_is_reused_only_when_asked(straight: Path, tmp_path: Path) -> None:
    before = weights(straight)
    with pytest.raises(RunFolderError, match="--resume or --overwrite"):
        train(tiny_plan(), straight)
    assert_same(before, weights(straight))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    for existing in ("refuse", "overwrite"):
        with pytest.raises(RunFolderError, match=r"choose another"):
            train(tiny_plan(), foreign, existing=existing)
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_overwrite_starts_afresh(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_plan(steps=2), out)
    train(tiny_plan(steps=1), out, existing="overwrite")
    assert [path.name for path in RunFolder(out).checkpoints()] == ["checkpoint-1"]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (tiny_plan(steps=7), "steps 6, got 7"),
        (tiny_plan(seed=3), "seed 0, got 3"),
        (Plan(tiny_config(), python_docs(), tiny_recipe(), backend="aer"), "backend 'statevector', got 'aer'"),
        (Plan(tiny_config(), python_docs(), tiny_recipe(), data="other.txt"), "data 'python-docs', got 'other.txt'"),
    ],
)
def test_resume_expects_the_same_run(straight: Path, plan: Plan, message: str) -> None:
    with pytest.raises(RunFolderError, match=message):
        train(plan, straight, existing="resume")


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


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"batch_size": 0}, {"context": 1}, {"learning_rate": math.nan}, {"seed": -1}]
)
def test_recipes_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"training expects.*{next(iter(changes)).replace('_', '.')}"):
        with_changes(TrainingRecipe(), **changes)
