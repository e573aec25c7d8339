"""``qlm convert``: what it tells and saves, what it refuses, and what is refused of what it saved."""

import json
from pathlib import Path

import leaky
import pytest
import torch
from command_line import ok, qlm
from safetensors.torch import load_file, save_file
from small_llamas import SIZE, converted
from tiny_runs import python_docs
from transformers import LlamaConfig, LlamaForCausalLM

from qlm.console import quiet_transformers
from qlm.conversion import ConvertedForCausalLM
from qlm.conversion.run import RECORD
from qlm.conversion.text import read_tokens, score
from qlm.registry import BLOCKS
from qlm.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE, ByteTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of bytes as it was made, with its tokenizer."""
    path = tmp_path_factory.mktemp("original")
    torch.manual_seed(0)
    special = {"pad_token_id": PAD_ID, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID}
    config = LlamaConfig(vocab_size=VOCAB_SIZE, **{**SIZE, **special, "num_hidden_layers": 2})
    with quiet_transformers():
        LlamaForCausalLM(config).save_pretrained(path)
        ByteTokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("story")
    for name, text in (("train", python_docs().train), ("valid", python_docs().valid), ("test", python_docs().test)):
        (path / f"{name}.txt").write_text(text[:3000].decode("utf-8", "ignore"))
    return path


def test_command_converts_tells_and_saves(folder: Path, story: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("--align-steps", 2, "--distil-steps", 3, "--batch-size", 2, "--context", 32, "--data", story)
    told = ok("convert", folder, "--out", out, "--block", "mamba", "--layers", "1", *flags)
    assert "after distillation" in told
    assert "causal: the future's effect" in told
    record = json.loads((out / RECORD).read_text())
    assert f"{record['scores']['distilled']['bits_per_byte']:.4f}" in told
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ("config.json", RECORD, "generation_config.json", "model.safetensors", "tokenizer_config.json")
    )
    with quiet_transformers():
        model = ConvertedForCausalLM.from_pretrained(out)
    assert (model.config.layers, model.config.block["kind"]) == ([1], "mamba")
    text = read_tokens((story / "valid.txt").read_bytes(), ByteTokenizer(), VOCAB_SIZE)
    assert score(model, text, 32).bits_per_byte == pytest.approx(record["scores"]["distilled"]["bits_per_byte"])
    again = qlm("convert", folder, "--out", out)
    assert again.exit_code == 2
    assert "a new or empty folder" in again.stderr


def test_command_refuses_in_one_sentence(
    folder: Path, story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BLOCKS, "leaky", f"{leaky.__name__}:Leaky")
    gpt2, pickled, bare = (tmp_path / name for name in ("gpt2", "pickled", "bare"))
    for path in (gpt2, pickled, bare):
        path.mkdir()
        for file in folder.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
    (gpt2 / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (pickled / "extra.bin").write_bytes(b"")
    (bare / "tokenizer_config.json").unlink()
    out = tmp_path / "out"
    for given, said in (
        ((folder, "--block", "leaky", "--data", story), "a language model expects logits that no later token changes"),
        ((gpt2,), "a model of Llama's layout (llama, mistral, qwen2, qwen3), got 'gpt2'"),
        ((pickled,), "safetensors and JSON alone, got extra.bin"),
        ((bare,), "a tokenizer beside the model"),
        ((tmp_path / "nowhere",), "which is no folder"),
        ((folder, "--layers", "one"), "--layers expects all, or numbers with commas"),
        ((folder, "--layers", "7", "--data", story), "layers expect different numbers from 0 to 1"),
        ((folder, "--align-steps", "-1"), "align_steps of at least 0"),
    ):
        result = qlm("convert", *given, "--out", out, *(() if "--align-steps" in given else ("--align-steps", 0)))
        assert result.exit_code == 2, result.stdout
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not out.exists()


def test_damaged_conversion_is_refused(tmp_path: Path, folder: Path) -> None:
    with quiet_transformers():
        converted().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    dropped = "base.model.layers.1.self_attn.block.out.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != dropped}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks tensor '{dropped}'"):
        ConvertedForCausalLM.from_pretrained(tmp_path)
    (tmp_path / "training.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got training\.pt"):
        ConvertedForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of model_type 'qlm_converted', got 'llama'"):
        ConvertedForCausalLM.from_pretrained(folder)
