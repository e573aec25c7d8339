"""Tokenizers other than bytes: trained here or read, equal for a text in parts, and bits per byte for all of them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ok, qlm
from tiny_runs import assert_same, python_docs, tiny_recipe, weights
from torch.nn import functional
from transformers import AutoTokenizer

from qlm import QLMConfig, QLMForCausalLM
from qlm.bpe import check_tokenizer, make_encoder, train_bpe
from qlm.encoders import ByteEncoder, TokenizerEncoder, load_encoder
from qlm.evaluation import bits_per_byte
from qlm.ordered import OrderedCorpus
from qlm.ordered_windows import ordered_ids
from qlm.recipe import Plan
from qlm.streaming import stream_evaluate
from qlm.text_pieces import PIECE, cut_pieces
from qlm.tokenizer import EOS_TOKEN
from qlm.training import train

TEXT = python_docs().train[:30000]
BLOCKS: list[dict[str, Any]] = [{"kind": "harmonic", "taus": [8.0]}]


@pytest.fixture(scope="module")
def encoder() -> TokenizerEncoder:
    made = make_encoder("bpe:400", TEXT)
    assert isinstance(made, TokenizerEncoder)
    return made


def model_of(encoder: TokenizerEncoder) -> QLMForCausalLM:
    torch.manual_seed(0)
    start = encoder.start_id
    special: dict[str, Any] = {"bos_token_id": start, "eos_token_id": start, "pad_token_id": encoder.pad_id}
    return QLMForCausalLM(QLMConfig(d_model=16, blocks=BLOCKS, vocab_size=encoder.n_ids, **special)).eval()


def test_any_text_comes_back_from_fewer_tokens(encoder: TokenizerEncoder) -> None:
    for text in ("", "the the the", " héllo\n\n\t語 😀 ", f"spells {EOS_TOKEN} out", "a\r\nb  c   "):
        ids = encoder.encode(text.encode())
        assert encoder.decode(ids.tolist()) == text
        assert encoder.start_id not in ids
    ids = encoder.encode(TEXT)
    assert encoder.n_ids == 400 > int(ids.max())
    assert len(ids) < 0.6 * len(TEXT)
    again = train_bpe([TEXT[:999], TEXT[999:]], 400)  # the same tokenizer, however the text came
    assert again.get_vocab() == encoder.tokenizer.get_vocab()


def test_a_text_has_the_same_tokens_in_parts_and_whole(encoder: TokenizerEncoder) -> None:
    ids = encoder.encode(TEXT)
    np.testing.assert_array_equal(ids, np.concatenate([encoder.encode(piece) for piece in cut_pieces([TEXT])]))
    mapped, borders = ordered_ids(memoryview(TEXT), (0, 100, 25000), encoder)
    parts = [encoder.encode(part) for part in (TEXT[:100], TEXT[100:25000], TEXT[25000:])]
    np.testing.assert_array_equal(mapped, np.concatenate(parts))
    assert borders == (0, len(parts[0]), len(parts[0]) + len(parts[1]))


def test_bits_are_counted_over_bytes(encoder: TokenizerEncoder) -> None:
    """Nats of all tokens over log 2 and the bytes of the text: by hand, in windows, streamed."""
    model, text = model_of(encoder), TEXT[: PIECE + 900]
    ids = torch.tensor([[encoder.start_id, *encoder.encode(text).tolist()]])
    with torch.no_grad():
        nats = functional.cross_entropy(model(ids).logits[0, :-1].double(), ids[0, 1:], reduction="sum")
    expected = float(nats) / math.log(2) / len(text)
    assert bits_per_byte(model, text, context=ids.shape[1], encoder=encoder) == pytest.approx(expected, abs=1e-5)
    streamed = stream_evaluate(model, [text[:50], text[50:]], encoder, length=777)
    assert streamed.bits_per_byte == pytest.approx(expected, abs=1e-5)
    assert (streamed.n_bytes, streamed.n_tokens) == (len(text), ids.shape[1] - 1)


def test_saved_beside_a_model_it_is_an_auto_tokenizer(encoder: TokenizerEncoder, tmp_path: Path) -> None:
    model_of(encoder).save_pretrained(tmp_path)
    encoder.save(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded("some text of it").input_ids == encoder.encode(b"some text of it").tolist()
    for found in (load_encoder(tmp_path), make_encoder(f"hf:{tmp_path}", b"")):
        assert isinstance(found, TokenizerEncoder)
        assert (found.start_id, found.pad_id, found.n_ids) == (encoder.start_id, encoder.pad_id, 400)
        np.testing.assert_array_equal(
            found.encode(f"a {EOS_TOKEN}".encode()), encoder.encode(f"a {EOS_TOKEN}".encode())
        )
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors"}


@pytest.mark.parametrize("spec", ["", "byte", "bpe", "bpe:", "bpe:257", "bpe:-1", "bpe:9999999", "bpe:1e3", "hf:"])
def test_names_of_tokenizers_are_checked(spec: str) -> None:
    with pytest.raises(ValueError, match=f"^--tokenizer expects bytes, bpe:N .*, got '{spec}'; correct it"):
        check_tokenizer(spec)


def test_tokenizers_that_cannot_be_used_are_refused(encoder: TokenizerEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a tokenizer expects a folder that holds one, or a name on the Hub, got"):
        make_encoder(f"hf:{tmp_path}", b"")
    encoder.tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for name in ("bos_token", "eos_token"):
        del config[name]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expects a token for the end or the beginning of a text, got neither in"):
        make_encoder(f"hf:{tmp_path}", b"")


def test_stateful_training_logs_bits_of_bytes(encoder: TokenizerEncoder, tmp_path: Path) -> None:
    held_out = python_docs().valid[:400]
    corpus = OrderedCorpus("text", memoryview(TEXT), held_out, held_out, "own")
    recipe = tiny_recipe(stateful=True, steps=2, tokenizer="bpe:400", validate_every=2, validation_bytes=400)
    run = train(Plan(model_of(encoder).config, corpus, recipe, encoder=encoder), tmp_path / "run")
    logged = [line for line in run.folder.lines() if "loss" in line][-1]
    share = len(encoder.encode(TEXT)) / len(TEXT)
    assert logged["bits_per_byte"] == pytest.approx(logged["cross_entropy"] * share / math.log(2))
    validated = run.folder.lines()[-2:]
    expected = stream_evaluate(run.model, [held_out.decode("utf-8", "ignore").encode()], encoder).bits_per_byte
    assert expected == pytest.approx(next(line["validation_bits_per_byte"] for line in validated if len(line) == 2))


def test_the_command_trains_one_and_everything_reads_it(tmp_path: Path) -> None:
    config, file, out = tmp_path / "tiny.json", tmp_path / "a.txt", tmp_path / "run"
    config.write_text(json.dumps({"d_model": 16, "blocks": BLOCKS}))
    file.write_bytes(TEXT)
    flags = ("--data", file, "--steps", "2", "--batch-size", "2", "--context", "16")
    assert "try: qlm generate" in ok("train", "--config", config, "--out", out, "--tokenizer", "bpe:300", *flags)
    measured = json.loads((out / "metrics.json").read_text())["validation"]["bits_per_byte"]
    assert f"{measured:.4f}" in ok("evaluate", "--model", out)
    made = QLMForCausalLM.from_pretrained(out)
    assert (made.config.vocab_size, made.config.eos_token_id) == (300, load_encoder(out).start_id)
    assert ok("generate", "--model", out, "--prompt", "The ", "--max-new-tokens", 5).startswith("The ")
    refused = qlm("entropy", "--model", out)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("Error: entropy expects a model that reads bytes, got one with a tokenizer")
    ok("train", "--config", config, "--out", tmp_path / "two", "--tokenizer", f"hf:{out}", *flags)
    assert_same(weights(out), weights(tmp_path / "two"))
    assert type(load_encoder(tmp_path / "nowhere")) is ByteEncoder
    config.write_text(json.dumps({"d_model": 16, "blocks": BLOCKS, "vocab_size": 299}))
    refused = qlm("train", "--config", config, "--out", tmp_path / "three", "--tokenizer", "bpe:300", *flags)
    assert "Error: --tokenizer sets vocab_size to 300, got 299 in" in refused.stderr
