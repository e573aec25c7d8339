"""Training: the same weights from the same seed, resumed or not; nothing that is not finite is ever saved."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import assert_same, python_docs, tiny_config, tiny_plan, tiny_recipe, weights

from qlm.checkpoints import load_model
from qlm.evaluation import bits_per_byte
from qlm.meter import BarrenPlateauWarning, Meter
from qlm.modeling import QLMForCausalLM
from qlm.recipe import Plan, TrainingRecipe, with_changes
from qlm.runs import RunFolder, RunFolderError
from qlm.training import train

ROOT = Path(__file__).resolve().parent.parent


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
    assert 0 < last["circuit_executions"] <= 2 * last["tokens"]
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
    with torch.no_grad():
        model.get_parameter("model.layers.0.decode.weight").mul_(10)  # a gradient above the warning's threshold
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


def test_a_circuit_that_no_token_reached_is_no_plateau() -> None:
    model = QLMForCausalLM(tiny_config())
    meter = Meter(model)
    for _, layer in model.quantum_layers():
        layer.weights.grad = torch.zeros_like(layer.weights)
    meter.after_backward(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert meter.line(1.0)["gradient_variance"] == {}


def test_a_twin_trains_without_circuits(tmp_path: Path) -> None:
    run = train(tiny_plan("twin"), tmp_path / "twin")
    assert run.circuit_executions == 0
    assert [line for line in run.folder.lines() if "loss" in line][-1]["gradient_variance"] == {}


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


@pytest.mark.parametrize(
    "changes", [{"steps": 0}, {"batch_size": 0}, {"context": 1}, {"learning_rate": math.nan}, {"seed": -1}]
)
def test_recipes_are_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"training expects.*{next(iter(changes)).replace('_', '.')}"):
        with_changes(TrainingRecipe(), **changes)
