"""The byte tokenizer: exact round trips, and Hugging Face's own machinery on top of it."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    Trainer,
    TrainingArguments,
    pipeline,
)

from qlm.data import RandomByteWindows
from qlm.tokenizer import EOS_ID, EOS_TOKEN, PAD_ID, VOCAB_SIZE, ByteTokenizer, byte_spans, decode_bytes, encode_bytes

HARD_TEXTS = [
    "",
    " two leading spaces, and trailing ones  ",
    "line\r\nline\rline\n\n",
    "👩‍👩‍👧 naïve Ünïcödé \u2028 \ufeff \x00 \x7f \x85",
    "don 't clean , this up .",
    f"a literal {EOS_TOKEN} and <|pad|> in the text",
    "".join(map(chr, range(300))),
]


@pytest.fixture(scope="module")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=EOS_ID, eos_token_id=EOS_ID
    )
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_come_back(tokenizer: ByteTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@given(text=st.text())
def test_any_text_comes_back(tokenizer: ByteTokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(text)) == text


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=60))
def test_spans_cover_the_bytes_in_order(ids: list[int]) -> None:
    data = decode_bytes(ids)
    spans = byte_spans(ids)
    assert data == bytes(index for index in ids if index < 256)
    assert encode_bytes(data) == [index for index in ids if index < 256]
    assert [data[start:end] for start, end in spans] == [bytes([i]) if i < 256 else b"" for i in ids]
    assert all(one[1] == two[0] for one, two in itertools.pairwise(spans))


def test_broken_utf8_is_replaced(tokenizer: ByteTokenizer) -> None:
    assert tokenizer.decode([0xC3]) == "\ufffd"
    assert tokenizer.decode([104, 0xFF, 105]) == "h\ufffdi"
    assert tokenizer.decode([0xC3, EOS_ID, 0xA9]) == f"\ufffd{EOS_TOKEN}\ufffd"


def test_the_vocabulary_is_complete_and_special_tokens_decode(tokenizer: ByteTokenizer) -> None:
    assert len(tokenizer) == tokenizer.vocab_size == VOCAB_SIZE == 258
    assert sorted(tokenizer.get_vocab().values()) == list(range(258))
    tokens = tokenizer.convert_ids_to_tokens(list(range(258)))
    assert tokenizer.convert_tokens_to_ids(tokens) == list(range(258))
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (EOS_ID, EOS_ID, PAD_ID)
    assert tokenizer.decode([104, EOS_ID]) == "h" + EOS_TOKEN
    assert tokenizer.decode([104, EOS_ID, PAD_ID], skip_special_tokens=True) == "h"


def test_batches_are_padded_on_the_left(tokenizer: ByteTokenizer) -> None:
    batch = tokenizer(["abc", "é"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[97, 98, 99], [PAD_ID, 0xC3, 0xA9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]
    assert set(batch) == {"input_ids", "attention_mask"}
    assert tokenizer("abcdef", truncation=True, max_length=4).input_ids == [97, 98, 99, 100]


@pytest.mark.parametrize("index", [-100, -1, 258, 50_000])
def test_ids_out_of_range_are_refused(tokenizer: ByteTokenizer, index: int) -> None:
    for call in (tokenizer.decode, decode_bytes, byte_spans, tokenizer.convert_ids_to_tokens):
        with pytest.raises(IndexError, match=rf"token id in 0\.\.257, got {index}"):
            call([97, index])


def test_what_utf8_cannot_hold_is_refused(tokenizer: ByteTokenizer) -> None:
    with pytest.raises(ValueError, match=r"lone surrogate U\+D800 at character 2"):
        tokenizer("ab\ud800")
    with pytest.raises(ValueError, match="got 'word'"):
        tokenizer.convert_tokens_to_ids(["word"])
    with pytest.raises(ValueError, match="expected eos_token to be"):
        ByteTokenizer(eos_token="</s>")


def test_saving_writes_json_alone_and_loading_gives_the_same(tokenizer: ByteTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    files = list(tmp_path.iterdir())
    assert {file.suffix for file in files} == {".json"}
    assert all(json.loads(file.read_text()) for file in files)
    loaded = ByteTokenizer.from_pretrained(tmp_path)
    for text in HARD_TEXTS:
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert len(loaded) == VOCAB_SIZE
    assert (loaded.padding_side, loaded.eos_token_id, loaded.pad_token_id) == ("left", EOS_ID, PAD_ID)


class TokenizerTestConfig(PreTrainedConfig):
    model_type = "qlm-tokenizer-test"


def test_auto_tokenizer_finds_it(tokenizer: ByteTokenizer, tmp_path: Path) -> None:
    AutoTokenizer.register(TokenizerTestConfig, tokenizer_class=ByteTokenizer, exist_ok=True)
    tokenizer.save_pretrained(tmp_path)
    TokenizerTestConfig().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is ByteTokenizer
    assert loaded.decode(loaded("  é").input_ids) == "  é"


def test_the_pipeline_continues_a_prompt(tokenizer: ByteTokenizer, model: Any) -> None:
    generate = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    expected = model.generate(
        **tokenizer("hé", return_tensors="pt"), max_new_tokens=5, do_sample=False, pad_token_id=PAD_ID
    )
    [result] = generate("hé", max_new_tokens=5, do_sample=False, pad_token_id=PAD_ID)
    assert result["generated_text"] == tokenizer.decode(expected[0], skip_special_tokens=True)
    assert result["generated_text"].startswith("hé")


def train(folder: Path, resume: bool, max_steps: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCAB_SIZE, n_positions=16, n_embd=8, n_layer=1, n_head=1, bos_token_id=EOS_ID)
    config.eos_token_id = EOS_ID
    windows = RandomByteWindows(b"a text to learn by heart, " * 20, context=16, n_windows=32, seed=0)
    arguments = TrainingArguments(
        str(folder), max_steps=max_steps, save_steps=2, per_device_train_batch_size=4, lr_scheduler_type="constant",
        report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=windows)
    trainer.train(resume_from_checkpoint=resume)
    assert trainer.model is not None
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def test_a_resumed_training_is_bit_identical(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", resume=False, max_steps=4)
    half = train(tmp_path / "parts", resume=False, max_steps=2)
    parts = train(tmp_path / "parts", resume=True, max_steps=4)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not all(torch.equal(half[name], parts[name]) for name in whole)


def test_the_language_modelling_collator_masks_padding_alone(tokenizer: ByteTokenizer) -> None:
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    batch = collate([tokenizer("abc"), {"input_ids": [97, EOS_ID], "attention_mask": [1, 1]}])
    assert batch["labels"].tolist() == [[97, 98, 99], [-100, 97, EOS_ID]]
