"""What a user can get wrong: one sentence with a remedy on stderr, exit code 2, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import damage, refused, save_model
from command_line import ok, qlm
from tiny_runs import BLOCKS, tiny_config

from qlm.checkpoints import load_model
from qlm.modeling import QLMForCausalLM

ROOT = Path(__file__).resolve().parent.parent
TRAIN = ("train", "--steps", "1", "--batch-size", "1", "--context", "16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved, untrained model."""
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A model that a test may damage."""
    return save_model(tmp_path / "copy")


def config_file(folder: Path, **keys: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({"d_model": 16, "blocks": BLOCKS, **keys}))
    return path


def train(folder: Path, *more: object, **keys: Any) -> str:
    """A training that is refused, and leaves no run folder."""
    line = refused(*TRAIN, "--config", config_file(folder, **keys), "--out", folder / "run", *more)
    assert not (folder / "run").exists()
    return line


# Names


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path, model: Path) -> None:
    assert "did you mean 'statevector'?" in train(tmp_path, "--backend", "statevectr")
    assert "did you mean 'statevector'?" in refused("generate", "--model", model, "--backend", "statevec")
    assert "did you mean 'shots'?" in train(tmp_path, "--backend", "aer?shot=3")
    assert "did you mean 'tiny-hybrid'?" in train(tmp_path, "--preset", "tiny-hybird")
    assert "did you mean 'd_model'?" in train(tmp_path, d_modle=8)
    assert "did you mean 'taus'?" in train(tmp_path, blocks=[{"kind": "harmonic", "tau": [2.0]}])
    assert "did you mean 'harmonic'?" in train(tmp_path, blocks=[{"kind": "harmonica"}])
    assert "did you mean 'twin'?" in train(tmp_path, "--quantum", "twinn")
    assert "did you mean 'valid'?" in refused("evaluate", "--model", model, "--split", "validation")
    assert "did you mean 'renyi2'?" in refused("entropy", "--model", model, "--text", __file__, "--kind", "renyi")
    assert "did you mean 'reuploading'?" in refused("draw", "reupload")


def test_flags_that_typer_knows_nothing_of_exit_alike() -> None:
    for arguments in (("trian",), ("train", "--stepz", "3"), ("train", "--steps", "many")):
        result = qlm(*arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"d_model": "wide"}, "'d_model' expects int, got 'wide'"),
        ({"d_model": 0}, "d_model >= 1"),
        ({"blocks": [{"kind": "quantum_router", "n_wires": "x"}]}, "quantum_router expects n_wires as int, got 'x'"),
        ({"blocks": [{"kind": "quantum_router", "circuit": "{}"}]}, "a circuit expects the key 'format'"),
        ({"blocks": [{"kind": "tt_feed_forward", "ranks": [1, "2"]}]}, "expects ranks as tuple of int, got [1, '2']"),
        ({"blocks": [{"kind": "tt_feed_forward", "ranks": [1, 999]}]}, "lower the ranks"),
        ({"blocks": "harmonic"}, "'blocks' expects list"),
    ],
)
def test_configurations_are_checked(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    assert message in train(tmp_path, **keys)


def test_config_files_are_read_as_json_objects(tmp_path: Path) -> None:
    for content, message in (("{", "expects a JSON file"), ("[1]", "a JSON object"), (None, "No such file")):
        path = tmp_path / "bad.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        assert message in refused(*TRAIN, "--config", path, "--out", tmp_path / "run")


@pytest.mark.parametrize("flags", [("--steps", 0), ("--batch-size", -1), ("--learning-rate", "nan"), ("--context", 1)])
def test_recipes_are_checked(tmp_path: Path, flags: tuple[str, object]) -> None:
    assert flags[0].removeprefix("--").replace("-", " ")[:7] in train(tmp_path, *flags).replace("_", " ")


# Text


def test_text_that_is_none(tmp_path: Path) -> None:
    empty, binary, short, folder = (tmp_path / name for name in ("empty.txt", "binary.txt", "short.txt", "folder"))
    empty.write_bytes(b" \n")
    binary.write_bytes(b"PNG\0\1\2" * 99)
    short.write_bytes(b"too short")
    folder.mkdir()
    assert "does not exist" in train(tmp_path, "--data", tmp_path / "nowhere.txt")
    assert "did you mean 'python-docs'?" in train(tmp_path, "--data", "python-doc")
    assert "an empty file" in train(tmp_path, "--data", empty)
    assert "NUL byte at offset 3" in train(tmp_path, "--data", binary)
    assert "for a context of 16, got 9" in train(tmp_path, "--data", short)
    assert "got none" in train(tmp_path, "--data", folder)


def test_text_of_entropy_and_evaluate(model: Path, tmp_path: Path) -> None:
    assert "No such file" in refused("entropy", "--model", model, "--text", tmp_path / "nowhere.txt")
    assert "paragraph.txt" in refused("entropy", "--model", model)
    assert "at least one byte" in refused("entropy", "--model", model, "--text", "-", text="")
    assert "does not exist" in refused("evaluate", "--model", model, "--data", tmp_path / "nowhere.txt")


def test_a_token_id_out_of_range(tmp_path: Path, model: Path) -> None:
    assert "got a vocabulary of 100" in train(tmp_path, vocab_size=100)
    with pytest.raises(IndexError, match=r"token ids expect 0 to 257, got 300 first at index \(0, 1\)"):
        load_model(model)(input_ids=torch.tensor([[1, 300]]))


# Circuits


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_an_angle_that_is_not_finite(copy: Path, value: float, word: str) -> None:
    damage(copy, "model.layers.0.core.layer.weights", 4, value)
    damage(copy, "model.layers.0.threshold", 0, 0.0)
    line = refused("generate", "--model", copy, "--temperature", 0, "--max-new-tokens", 2)
    assert f"layers.0.core.layer': weights expect finite angles in radians, got {word}" in line
    assert "first at index (4,)" in line


def test_an_input_angle_that_is_not_finite(copy: Path) -> None:
    """Index: of the token among those that reach the circuit, and of the input."""
    damage(copy, "model.layers.0.encode.bias", 1, float("nan"))
    damage(copy, "model.layers.0.threshold", 0, 0.0)
    line = refused("generate", "--model", copy, "--prompt", "aab")
    assert "layers.0.core.layer': inputs expect finite angles in radians, got nan first at index (0, 1)" in line


def test_more_wires_than_a_backend_holds(tmp_path: Path) -> None:
    wide = [{"kind": "quantum_router", "n_wires": 40, "depth": 1}]
    line = train(tmp_path, blocks=wide)
    assert "layer 'model.layers.0.core.layer' on backend 'statevector'" in line
    assert "at most 26 wires, got 40" in line


def test_more_wires_than_a_device_holds(tmp_path: Path) -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    QLMForCausalLM(tiny_config(blocks=[{"kind": "quantum_router", "n_wires": 6}])).save_pretrained(tmp_path / "wide")
    for command in (("generate",), ("entropy", "--text", __file__)):
        line = refused(*command, "--model", tmp_path / "wide", "--backend", "ibm:fake_manila")
        assert "at most 5 wires, got 6" in line


# Folders


def test_a_run_folder_that_cannot_be_written(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = config_file(tmp_path)
    for out in (tmp_path / "file" / "run", tmp_path / "file", Path("/proc/run")):
        line = refused(*TRAIN, "--config", config, "--out", out)
        assert "expects a writable place" in line
        assert "--out" in line
    line = refused("entropy", "--model", model, "--text", __file__, "--out", tmp_path / "file" / "pictures")
    assert "expect a writable folder" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_run_folder_that_exists(tmp_path: Path) -> None:
    config, out = config_file(tmp_path), tmp_path / "run"
    ok(*TRAIN, "--config", config, "--out", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert "pass --resume or --overwrite" in refused(*TRAIN, "--config", config, "--out", out)
    assert "got both" in refused(*TRAIN, "--config", config, "--out", out, "--resume", "--overwrite")
    assert "leave --preset" in refused("train", "--preset", "tiny-hybrid", "--out", out, "--resume")
    assert "expects --out" in refused("train", "--resume")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    ok(*TRAIN, "--config", config, "--out", out, "--overwrite", "--seed", 1)
    assert (out / "model.safetensors").read_bytes() != before[out / "model.safetensors"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "files are no run" in refused(*TRAIN, "--config", config, "--out", tmp_path / "mine", "--overwrite")
    assert "expects its run.json" in refused("train", "--out", tmp_path / "mine", "--resume")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


def test_a_diverging_run_stops_with_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("train", "--config", config_file(tmp_path), "--batch-size", 1, "--context", 16, "--out", out)
    line = refused(*flags, "--steps", 30, "--learning-rate", "1e38")
    assert "training stopped at step " in line
    assert "lower the learning rate" in line
    assert not (out / "model.safetensors").exists()


# Drawing


def test_draw_says_what_it_needs(tmp_path: Path) -> None:
    assert "pass one of the two" in refused("draw")
    assert "expects no depth" in refused("draw", "angle_encoding", "--depth", 2)
    assert "check the path" in refused("draw", tmp_path / "nowhere.json")
    (tmp_path / "bad.json").write_text("[]")
    assert "Error: " in refused("draw", tmp_path / "bad.json")
    assert "n_wires" in refused("draw", "reuploading", "--wires", 0)


def test_a_real_process_prints_one_line_and_exits_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qlm.cli", "evaluate", "--model", str(tmp_path / "nowhere")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
