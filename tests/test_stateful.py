"""Truncated backpropagation through time: the text in its order, the state carried, resumed to the bit."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ok, qlm
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import At, assert_same, python_docs, tiny_recipe, weights
from torch.nn import functional

from qlm import QLMConfig, QLMForCausalLM, RecurrentState
from qlm.data import IGNORED_LABEL, load_corpus
from qlm.ordered import OrderedCorpus, load_ordered
from qlm.ordered_windows import OrderedWindows
from qlm.recipe import Plan
from qlm.runs import RunFolder, RunFolderError
from qlm.sources import DataError
from qlm.streaming import initial_state, stream_evaluate
from qlm.tokenizer import EOS_ID
from qlm.trainer import STATE
from qlm.training import TrainingInterrupted, train

TEXT = python_docs().train[:600]
BORDERS = (0, 70, 71, 300)
BLOCKS: list[dict[str, Any]] = [
    {"kind": "harmonic", "taus": [4.0, 32.0], "stride": 2},
    {"kind": "mamba", "n_states": 4},
]


def corpus(borders: tuple[int, ...] = BORDERS) -> OrderedCorpus:
    return OrderedCorpus("text", memoryview(TEXT), python_docs().valid[:300], python_docs().test[:300], "own", borders)


def plan(blocks: list[dict[str, Any]] = BLOCKS, **changes: Any) -> Plan:
    recipe = tiny_recipe(stateful=True, **{"log_every": 1, "validate_every": 100, **changes})
    return Plan(QLMConfig(d_model=16, blocks=blocks), corpus(), recipe)


@settings(max_examples=30)
@given(st.data())
def test_windows_read_every_token_in_order_and_forget_between_documents(data: st.DataObject) -> None:
    """Against a walk, one token at a time."""
    rows, context = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    n_ids = data.draw(st.integers(rows * context, 90))
    borders = (0, *sorted(data.draw(st.sets(st.integers(1, n_ids - 1), max_size=9)))) if n_ids > 1 else (0,)
    windows = OrderedWindows(np.arange(n_ids), borders, context, rows, 200, start_id=1000)
    for row in range(rows):
        stretch = n_ids // rows
        place, start, stop = row * stretch, row * stretch, (row + 1) * stretch
        for step in range(len(windows) // rows):
            item = windows[step * rows + row]
            assert bool(item["fresh"]) == (place == start or place in borders)
            for fed, asked, real in zip(item["input_ids"], item["shift_labels"], item["attention_mask"], strict=True):
                if not real:
                    assert asked == IGNORED_LABEL
                    assert place in (stop, *borders)
                    continue
                assert asked == place < stop
                assert fed == (1000 if place in borders else place - 1)
                place += 1
            place = start if place == stop else place


def test_windows_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match="2 rows of it, 10 tokens of text, got 5 and 9; give more text"):
        OrderedWindows(np.arange(9), (0,), 5, 2, 4, 0)
    with pytest.raises(IndexError, match=r"0\.\.3, got 4"):
        OrderedWindows(np.arange(10), (0,), 5, 2, 4, 0)[4]


def test_losses_are_those_of_everything_a_row_has_read(tmp_path: Path) -> None:
    """With weights that stand still, each step's loss is a slice of that of its rows' documents in one piece; the
    steps are more than one pass over the text, so that rows begin anew."""
    asked = plan(context=16, batch_size=2, steps=26, learning_rate=1e-30, weight_decay=0.0)
    run = train(asked, tmp_path / "run")
    found = [line["loss"] for line in run.folder.lines() if "loss" in line]
    torch.manual_seed(0)
    model = QLMForCausalLM(asked.config)
    windows = OrderedWindows(np.frombuffer(TEXT, np.uint8), BORDERS, 16, 2, 52, EOS_ID)
    expected = np.zeros((26, 2, 2))
    for row in range(2):
        ids: list[int] = []
        for step in range(26):
            item = windows[2 * step + row]
            real = item["attention_mask"].bool()
            ids = [*([] if item["fresh"] else ids), *item["input_ids"][real].tolist()]
            targets = item["shift_labels"][real]
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0, -len(targets) :]
            expected[step, row] = functional.cross_entropy(logits, targets, reduction="sum"), len(targets)
    sums = expected.sum(1)
    np.testing.assert_allclose(found, sums[:, 0] / sums[:, 1], rtol=0, atol=2e-5)


def test_interrupted_and_resumed_is_bit_identical_state_and_all(tmp_path: Path) -> None:
    asked = plan(save_every=3)
    train(asked, tmp_path / "straight")
    interrupt = At(4, lambda _: signal.raise_signal(signal.SIGINT))
    out = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match="checkpoint-4"):
        train(asked, out, callbacks=(interrupt,))
    kept = out / "checkpoint-4" / STATE
    whole = kept.read_bytes()
    kept.unlink()
    with pytest.raises(ValueError, match=f"a saved state expects a safetensors file, got .*{STATE}"):
        train(asked, out, existing="resume")
    kept.write_bytes(whole)
    train(asked, out, existing="resume")
    assert_same(weights(tmp_path / "straight"), weights(out))
    one, other = (RecurrentState.load(path / "checkpoint-6" / STATE) for path in (tmp_path / "straight", out))
    assert one.seen == other.seen
    tensors = [zip(*pair, strict=True) for pair in zip(one.blocks, other.blocks, strict=True)]
    assert all(torch.equal(*pair) for pairs in tensors for pair in pairs)
    assert any(float(tensor.abs().max()) > 0 for parts in one.blocks for tensor in parts)
    with pytest.raises(RunFolderError, match="began with, corpus_sha256"):
        train(
            Plan(asked.config, python_docs(), tiny_recipe(save_every=3, log_every=1, validate_every=100)), out, "resume"
        )


def test_what_cannot_be_stateful_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got '0\.transformer', whose state grows"):
        train(plan([{"kind": "transformer"}]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="stateful=True expects the corpus of load_ordered, got one of type Corpus"):
        Plan(QLMConfig(), python_docs(), tiny_recipe(stateful=True))
    with pytest.raises(ValueError, match="stateful=False expects the corpus of load_corpus, got one of type Ordered"):
        Plan(QLMConfig(), corpus(), tiny_recipe())


def test_rows_start_again_alone() -> None:
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=BLOCKS)).train()
    ids = torch.randint(256, (3, 9))
    state = model(ids[:, :5], use_cache=True).past_key_values.detach()
    mixed = state.with_rows(torch.tensor([False, True, False]), initial_state(model, 3))
    with torch.no_grad():
        logits = model(ids[:, 5:], past_key_values=mixed, use_cache=True).logits
        whole, alone = model(ids, use_cache=False).logits[:, 5:], model(ids[:, 5:], use_cache=False).logits
    torch.testing.assert_close(logits[[0, 2]], whole[[0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1], alone[1], atol=1e-5, rtol=0)
    assert float((logits[1] - whole[1]).abs().max()) > 1e-3


def test_an_ordered_corpus_keeps_the_text(tmp_path: Path) -> None:
    file, text = tmp_path / "a.txt", ("é" * 30 + "\n") * 99
    file.write_text(text)
    found = load_ordered(file, 64)
    assert bytes(found.train) + found.valid + found.test == text.encode()
    assert all(part.endswith(b"\n") for part in (bytes(found.train), found.valid, found.test))
    assert [len(part) for part in (found.valid, found.test)] == [10 * 61, 9 * 61]
    assert (found.borders, found.name, found.summary()["train_bytes"]) == ((0,), "a.txt", len(found.train))
    file.write_text("é" * 3001)  # no line ends: cut at characters
    found = load_ordered(file, 64)
    assert (bytes(found.train) + found.valid + found.test).decode() == "é" * 3001
    found.valid.decode()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in (("a.md", "one\n" * 40), ("b.txt", "two\n" * 50), ("c.rst", "three\n" * 60)):
        (folder / name).write_text(content)
    found = load_ordered(folder, 16)
    assert found.borders == (0, 160, 360)
    assert bytes(found.train[360:]) == b"three\n" * ((len(found.train) - 360) // 6)
    for name in ("train", "valid", "test"):
        (folder / f"{name}.txt").write_text(name * 100)
    given = load_ordered(folder, 16)
    assert (bytes(given.train), given.valid, given.borders) == (b"train" * 100, b"valid" * 100, (0,))
    assert given.sha256 == load_corpus(folder, 16).sha256
    for content, message in ((b"", "got an empty file"), (b"ab\0", "NUL byte at offset 2"), (b"short", "got 0 in the")):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_ordered(file)


def test_the_command_trains_in_order_and_evaluates_on_its_own_text(tmp_path: Path) -> None:
    config, file, out = tmp_path / "tiny.json", tmp_path / "a.txt", tmp_path / "run"
    config.write_text(json.dumps({"d_model": 16, "blocks": BLOCKS}))
    file.write_bytes(TEXT * 5)
    ok("train", "--config", config, "--data", file, "--out", out, "--steps", "3", "--batch-size", "2",
       "--context", "16", "--stateful")  # fmt: skip
    assert RunFolder(out).record().recipe["stateful"] is True
    metrics = json.loads((out / "metrics.json").read_text())
    held_out = load_ordered(file, 16)
    assert metrics["corpus"]["sha256"] == held_out.sha256
    assert f"{metrics['validation']['bits_per_byte']:.4f}" in ok("evaluate", "--model", out)
    model = QLMForCausalLM.from_pretrained(out).eval()
    streamed = stream_evaluate(model, [held_out.valid]).bits_per_byte
    assert f"{streamed:.4f}" in ok("evaluate", "--model", out, "--stream")
    refused = qlm(
        "train", "--preset", "transformer", "--data", file, "--context", "16", "--stateful", "--out", tmp_path / "no"
    )
    assert refused.exit_code == 2
    assert "Error: carrying state expects blocks whose state keeps its size" in refused.stderr
