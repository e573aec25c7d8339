"""``from_pretrained`` reads a whole model or raises one sentence: shards, other heads, adapters, state dicts, damage.

Axis legend: b batch, l sequence, v vocabulary.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import BLOCKS, assert_same_weights, logits, tiny_ids, tiny_model
from transformers import AutoModel, AutoModelForCausalLM

from qlm import QLMConfig, QLMForCausalLM, QLMModel
from qlm.checkpoint_files import CheckpointError

READERS: dict[str, Callable[..., Any]] = {
    "causal": QLMForCausalLM.from_pretrained,
    "base": QLMModel.from_pretrained,
    "auto": AutoModelForCausalLM.from_pretrained,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model as one file and in shards, its base alone, and one whose head is not tied."""
    root = tmp_path_factory.mktemp("saved")
    model, untied = tiny_model(), tiny_model(tie_word_embeddings=False)
    model.save_pretrained(root / "whole")
    model.save_pretrained(root / "shards", max_shard_size="5KB")
    model.model.save_pretrained(root / "base")
    untied.save_pretrained(root / "untied")
    untied.model.save_pretrained(root / "untied_base")
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def copy(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A model that a test may damage."""
    return shutil.copytree(saved["whole"], tmp_path / "copy")


@pytest.fixture
def shards(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A model in shards that a test may damage."""
    return shutil.copytree(saved["shards"], tmp_path / "shards")


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each way to read a model."""
    return READERS[request.param]


def refused(read: Callable[..., Any], *arguments: Any, **keys: Any) -> str:
    """Read what must be refused; return the sentence."""
    with pytest.raises(CheckpointError) as error:
        read(*arguments, **keys)
    message = str(error.value)
    assert "expect" in message
    assert "; " in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


# What is read


def test_shards_are_one_model(saved: dict[str, Path]) -> None:
    assert len(list(saved["shards"].glob("model-0000?-of-*.safetensors"))) > 2
    loaded = QLMForCausalLM.from_pretrained(saved["shards"])
    assert_same_weights(loaded, tiny_model())
    assert_same_weights(AutoModel.from_pretrained(saved["shards"]), tiny_model().model)
    torch.testing.assert_close(logits(loaded), logits(tiny_model()))


def test_variants_are_read_by_name(tmp_path: Path) -> None:
    for size in ("5KB", "1GB"):
        tiny_model().save_pretrained(tmp_path / size, variant="low", max_shard_size=size)
        assert_same_weights(QLMForCausalLM.from_pretrained(tmp_path / size, variant="low"), tiny_model())
        assert "expects model.safetensors, got none" in refused(QLMForCausalLM.from_pretrained, tmp_path / size)


def test_a_base_and_a_tied_head_read_each_other(saved: dict[str, Path]) -> None:
    for name, tied in (("whole", True), ("base", True), ("untied", False), ("untied_base", False)):
        base = tiny_model(tie_word_embeddings=tied).model
        assert_same_weights(QLMModel.from_pretrained(saved[name]), base)
    assert_same_weights(QLMForCausalLM.from_pretrained(saved["base"]), tiny_model())
    untied = QLMForCausalLM.from_pretrained(saved["untied"])
    assert_same_weights(untied, tiny_model(tie_word_embeddings=False))
    assert not torch.equal(untied.lm_head.weight, untied.model.embed.weight)


def test_a_head_that_is_in_no_file_is_refused(saved: dict[str, Path]) -> None:
    assert "lacks tensor 'lm_head.weight'" in refused(QLMForCausalLM.from_pretrained, saved["untied_base"])
    line = refused(QLMForCausalLM.from_pretrained, saved["whole"], tie_word_embeddings=False)
    assert "lacks tensor 'lm_head.weight'" in line
    line = refused(QLMForCausalLM.from_pretrained, saved["untied"], tie_word_embeddings=True)
    assert "unknown tensor 'lm_head.weight'" in line


def test_configurations_and_state_dicts_are_taken_by_keyword(saved: dict[str, Path]) -> None:
    model = tiny_model()
    for keys in ({"config": model.config}, {"config": str(saved["whole"])}, {"use_cache": False}):
        loaded = QLMForCausalLM.from_pretrained(saved["whole"], **keys)
        assert_same_weights(loaded, model)
        assert loaded.config.use_cache is ("use_cache" not in keys)
    loaded, info = QLMForCausalLM.from_pretrained(saved["whole"], output_loading_info=True)
    assert_same_weights(loaded, model)
    assert not info["missing_keys"]
    nothing = QLMForCausalLM.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert_same_weights(nothing, model)
    assert_same_weights(QLMForCausalLM.from_pretrained(saved["whole"].parent, subfolder="whole"), model)


def test_what_the_keywords_do_not_fit_is_refused(saved: dict[str, Path]) -> None:
    read, model = QLMForCausalLM.from_pretrained, tiny_model()
    other = QLMConfig(d_model=8, blocks=[dict(entry) for entry in BLOCKS])
    assert "shape [258, 16] instead of [258, 8]" in refused(read, saved["whole"], config=other)
    assert "shape [258, 16] instead of [258, 8]" in refused(read, saved["whole"], d_model=8)
    assert "instead of [258, 8]" in refused(read, saved["whole"], config=other, ignore_mismatched_sizes=True)
    lacking = {name: tensor for name, tensor in model.state_dict().items() if name != "model.norm.weight"}
    line = refused(read, None, config=model.config, state_dict=lacking)
    assert "state_dict expects all tensors" in line
    assert "lacks tensor 'model.norm.weight'" in line
    assert "a folder or a state_dict, got neither" in refused(read, None, config=model.config)
    with pytest.raises(TypeError, match="expects a QLMConfig, got NoneType"):
        read(None, state_dict=model.state_dict())
    with pytest.raises(ValueError, match="expects safetensors, got use_safetensors=False"):
        read(saved["whole"], use_safetensors=False)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # peft asks by the old name
def test_an_adapters_folder_is_read_with_its_base(copy: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["value_gate"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(QLMForCausalLM.from_pretrained(copy), config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        wanted = adapted(input_ids=tiny_ids()).logits
    assert float((wanted - logits(tiny_model())).abs().max()) > 0.1
    for reader in (READERS["causal"], READERS["auto"], peft.AutoPeftModelForCausalLM.from_pretrained):
        with torch.no_grad():
            found = reader(tmp_path / "adapter")(input_ids=tiny_ids()).logits
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"")
    for read in (READERS["causal"], READERS["auto"]):
        assert "got adapter_model.bin" in refused(read, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.bin").unlink()
    (copy / "extra.pkl").write_bytes(b"")
    assert "got extra.pkl" in refused(READERS["causal"], tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert "base_model_name_or_path" in refused(READERS["causal"], tmp_path / "adapter")


# What is refused


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "training_args.bin", "MODEL.PTH", "a.joblib"])
def test_a_pickle_beside_the_tensors_is_refused(read: Callable[..., Any], copy: Path, name: str) -> None:
    torch.save(tiny_model().state_dict(), copy / name)
    assert f"got {name} in {copy}" in refused(read, copy)
    assert f"got {name} in {copy}" in refused(read, str(copy))
    if read is not READERS["auto"]:
        assert f"got {name}" in refused(read, copy, config=tiny_model().config)
    (copy / "model.safetensors").unlink()
    assert f"got {name}" in refused(read, copy)


def test_tensors_that_do_not_fit_are_refused(read: Callable[..., Any], copy: Path) -> None:
    path, norm = copy / "model.safetensors", "norm.weight"
    whole = load_file(path)
    for tensors, message in (
        ({name: tensor for name, tensor in whole.items() if name != f"model.{norm}"}, f"lacks tensor '{norm}'"),
        ({**whole, "model.extra": torch.ones(1)}, "unknown tensor 'extra'"),
        ({**whole, "other": torch.ones(1)}, "unknown tensor 'other'"),
        ({**whole, f"model.{norm}": torch.ones(17)}, f"shape [17] instead of [16] for tensor '{norm}'"),
        ({}, "lacks tensor"),
    ):
        save_file(tensors, path, {"format": "pt"})
        assert message in refused(read, copy).replace("'model.", "'")


@pytest.mark.parametrize("kept", [0, 7, 100, 1000, -1])
def test_a_truncated_file_is_refused(read: Callable[..., Any], copy: Path, kept: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "expects a whole model.safetensors" in refused(read, copy)


def test_damaged_shards_are_refused(read: Callable[..., Any], shards: Path) -> None:
    index = shards / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    homes = content["weight_map"]
    first, last = homes["model.embed.weight"], homes["model.norm.weight"]
    assert first != last
    for changes, message in (
        ({"model.norm.weight": "pytorch_model.bin"}, "names no safetensors of this folder"),
        ({"model.norm.weight": f"../shards/{last}"}, "names no safetensors of this folder"),
        ({"model.norm.weight": 3}, "names no safetensors of this folder"),
        ({"model.norm.weight": first}, f"{first}, which lacks tensor 'model.norm.weight'"),
        ({"model.norm.weight": "model-9.safetensors"}, "model-9.safetensors with"),
    ):
        index.write_text(json.dumps({**content, "weight_map": {**homes, **changes}}))
        assert message in refused(read, shards)
    for text in ("{", "[]", "{}"):
        index.write_text(text)
        assert "names no safetensors of this folder" in refused(read, shards)
    index.write_text(json.dumps(content))
    tensors = load_file(shards / last)
    save_file({**tensors, "model.embed.weight": torch.zeros(258, 16)}, shards / last, {"format": "pt"})
    assert "a tensor that is in two of its files" in refused(read, shards)
    save_file({name: tensors[name] for name in tensors if "norm" not in name}, shards / last, {"format": "pt"})
    assert f"{last}, which lacks tensor" in refused(read, shards)
    (shards / last).unlink()
    assert f"{last} with" in refused(read, shards)


@pytest.mark.parametrize("reader", ["causal", "base"])
def test_a_configuration_that_is_not_ours_is_refused(reader: str, copy: Path) -> None:
    read = READERS[reader]
    for content, message in (
        ("{", "got no readable one"),
        ("[1]", "got no readable one"),
        ("{}", "expects model_type 'qlm', got None"),
        (json.dumps({"model_type": "gpt2"}), "expects model_type 'qlm', got 'gpt2'"),
    ):
        (copy / "config.json").write_text(content)
        assert message in refused(read, copy)
    keys = {"model_type": "qlm", "d_model": "wide"}
    (copy / "config.json").write_text(json.dumps(keys))
    with pytest.raises(TypeError, match=r"copy/config.json: config key 'd_model' expects int, got 'wide'"):
        read(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "qlm", "d_modl": 3}))
    with pytest.raises(ValueError, match=r"copy/config.json: unknown config key 'd_modl': did you mean 'd_model'"):
        read(copy)
    (copy / "config.json").unlink()
    assert "expects a config.json" in refused(read, copy)


@pytest.mark.parametrize("reader", ["causal", "base"])
def test_a_path_that_is_no_folder_is_refused(reader: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = READERS[reader]
    monkeypatch.chdir(copy.parent)
    for path in (
        copy / "nowhere",
        str(copy / "nowhere"),
        Path("nowhere"),
        "./nowhere",
        "copy/nowhere",
        "~/nowhere",
        "a/b/c",
        "copy/config.json",
        copy / "model.safetensors",
    ):
        assert "which is no folder; check the path." in refused(read, path)
    assert "copy/sub, which is no folder" in refused(read, copy, subfolder="sub")


# The Hub


def cached(root: Path, source: Path) -> None:
    """Put a folder where huggingface_hub keeps what it has read of someone/tiny."""
    repository = root / "models--someone--tiny"
    shutil.copytree(source, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_the_hub_is_read_whole_or_refused(copy: Path, tmp_path: Path) -> None:
    where: dict[str, Any] = {"local_files_only": True}
    cached(tmp_path / "whole", copy)
    loaded = QLMForCausalLM.from_pretrained("someone/tiny", cache_dir=tmp_path / "whole", **where)
    assert_same_weights(loaded, tiny_model())
    weights = load_file(copy / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    cached(tmp_path / "half", copy)
    line = refused(QLMForCausalLM.from_pretrained, "someone/tiny", cache_dir=tmp_path / "half", **where)
    assert "got none for 'model.norm.weight' in someone/tiny" in line
