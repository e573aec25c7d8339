"""Folders that are no checkpoint, or a damaged or a dangerous one: one sentence, and nothing in them is executed."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import refused, save_model
from command_line import ok
from safetensors.torch import load_file, save_file


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A model that a test may damage."""
    return save_model(tmp_path / "copy")


def test_a_model_that_is_no_checkpoint(tmp_path: Path, copy: Path) -> None:
    assert "is no folder" in refused("evaluate", "--model", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "expects a config.json" in refused("evaluate", "--model", tmp_path / "empty")
    (copy / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "expects model_type 'qlm', got 'gpt2'" in refused("generate", "--model", copy)
    (copy / "config.json").write_text("{")
    assert "got no readable one" in refused("draw", "--model", copy)


@pytest.mark.parametrize("kept", [0, 7, 100, 1000])
def test_a_truncated_checkpoint(copy: Path, kept: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "expects a whole model.safetensors" in refused("evaluate", "--model", copy)


def test_weights_that_do_not_fit(copy: Path) -> None:
    path = copy / "model.safetensors"
    whole = load_file(path)
    lacking = {name: tensor for name, tensor in whole.items() if name != "model.norm.weight"}
    reshaped = {**whole, "model.norm.weight": torch.ones(17)}
    for tensors, message in (
        (lacking, "lacks tensor 'model.norm.weight'"),
        ({**whole, "extra": torch.ones(1)}, "unknown tensor 'extra'"),
        (reshaped, "shape [17] instead of [16] for tensor 'model.norm.weight'"),
    ):
        save_file(tensors, path, {"format": "pt"})
        assert message in refused("generate", "--model", copy)
    path.unlink()
    assert "got none" in refused("generate", "--model", copy)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "training_args.bin", "extra.pkl", "MODEL.PTH"])
def test_a_pickle_is_refused_even_a_valid_one(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / name).write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    for command in (("evaluate",), ("generate",), ("entropy", "--text", __file__)):
        assert f"got {name}" in refused(*command, "--model", copy)
    (copy / name).write_bytes(pickle.dumps({"harmless": 1}))
    assert "pickle" in refused("generate", "--model", copy)
    assert not (tmp_path / "executed").exists()


def test_a_pickle_in_disguise_is_no_checkpoint(copy: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        whole = (copy / name).read_bytes()
        torch.save({"model.norm.weight": Bomb(tmp_path / "executed")}, copy / name)
        assert str(copy) in refused("generate", "--model", copy)
        (copy / name).write_bytes(whole)
    ok("generate", "--model", copy, "--max-new-tokens", 1)
    assert not (tmp_path / "executed").exists()
