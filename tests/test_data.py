"""Corpora: no leaks, fixed splits, exact windows, and one sentence for each kind of bad text."""

import pickle
import platform
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlm.data import ByteWindows, Corpus, DataError, RandomByteWindows, load_corpus
from qlm.text_split import (
    WINDOW,
    shared_windows,
)

PANGRAM = "the quick brown fox jumps over a lazy dog while seven wizards mix strange potions in deep old cellars"


def write_prose(path: Path, n_paragraphs: int, seed: int = 0) -> Path:
    """Write paragraphs of random words, about 300 bytes each."""
    generator = random.Random(seed)
    path.write_bytes(
        "\n\n".join(" ".join(generator.choices(PANGRAM.split(), k=60)) for _ in range(n_paragraphs)).encode()
    )
    return path


def leak(data: bytes, other: bytes) -> float:
    """The share of windows of `data` that stand in `other`, from Python's own sets."""
    table = {other[i : i + WINDOW] for i in range(len(other) - WINDOW + 1)}
    windows = [data[i : i + WINDOW] for i in range(len(data) - WINDOW + 1)]
    return sum(window in table for window in windows) / len(windows)


def assert_split_without_leaks(corpus: Corpus) -> None:
    for data, recorded in ((corpus.valid, corpus.leak_valid), (corpus.test, corpus.leak_test)):
        measured = leak(data, corpus.train)
        assert measured < 0.01
        assert recorded == measured
    assert leak(corpus.test, corpus.valid) < 0.01
    sizes = [len(split) for split in (corpus.train, corpus.valid, corpus.test)]
    assert [size / sum(sizes) for size in sizes] == pytest.approx([0.8, 0.1, 0.1], abs=0.015)


def test_python_docs_leak_nothing_and_lose_little() -> None:
    corpus = load_corpus("python-docs")
    assert_split_without_leaks(corpus)
    assert len(corpus.train) > 200_000
    assert corpus.python_version == platform.python_version()
    assert "PSF" in corpus.license


def test_a_split_by_topic_would_leak() -> None:
    """The control: without dropping repeats the measure finds what must not be there."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    held_out = "\n\n".join(topics[name] for name in names[::10]).encode()
    rest = "\n\n".join(topics[name] for name in names if name not in names[::10]).encode()
    assert shared_windows(held_out, rest) > 0.1


@pytest.mark.parametrize("source", ["standardebooks/jane-austen_pride-and-prejudice.txt", "tinyshakespeare"])
def test_user_text_leaks_nothing(data_dir: Path, source: str) -> None:
    assert_split_without_leaks(load_corpus(data_dir / source))


def test_a_given_split_is_used_unchanged(data_dir: Path) -> None:
    folder = data_dir / "wiki-vital"
    corpus = load_corpus(str(folder))
    splits = ((corpus.train, "train"), (corpus.valid, "valid"), (corpus.test, "test"))
    assert all(split == (folder / f"{name}.txt").read_bytes() for split, name in splits)
    assert corpus.n_dropped == 0
    assert max(corpus.leak_valid, corpus.leak_test) < 0.01


def test_the_leak_of_a_given_split_is_recorded(tmp_path: Path) -> None:
    text = write_prose(tmp_path / "train.txt", 20).read_bytes()
    (tmp_path / "valid.txt").write_bytes(text[:1000])
    write_prose(tmp_path / "test.txt", 20, seed=1)
    corpus = load_corpus(tmp_path)
    assert (corpus.leak_valid, corpus.leak_test) == (1.0, 0.0)


def test_the_corpus_is_the_same_in_another_process() -> None:
    code = "from qlm.data import load_corpus; print(load_corpus('python-docs').sha256)"
    root = Path(__file__).parent.parent
    process = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == load_corpus("python-docs").sha256


def test_the_hash_tells_corpora_apart_and_the_summary_holds_no_text(tmp_path: Path) -> None:
    one = load_corpus(write_prose(tmp_path / "one.txt", 40))
    two = load_corpus(write_prose(tmp_path / "two.txt", 40, seed=1))
    again = load_corpus(write_prose(tmp_path / "again.txt", 40))
    assert one.sha256 == again.sha256 != two.sha256
    moved = Corpus("moved", one.train + one.valid[:1], one.valid[1:], one.test, "", 1, 1, 0, 0.0, 0.0)
    assert moved.sha256 != one.sha256
    assert one.summary()["train_bytes"] == len(one.train)
    assert one.summary()["sha256"] == one.sha256
    assert len(repr(one)) < 500


def test_a_folder_is_read_in_order_and_repeats_across_files_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write_prose(tmp_path / "a.txt", 40)
    write_prose(tmp_path / "deep" / "b.md", 40, seed=1)
    write_prose(tmp_path / "deep" / "copy.RST", 40)
    (tmp_path / "deep" / "empty.txt").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(b"\0\0")
    corpus = load_corpus(tmp_path)
    assert (corpus.n_documents, corpus.n_dropped) == (3, corpus.n_units // 3)
    assert_split_without_leaks(corpus)


def test_sources_that_do_not_exist_get_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; check the path"):
        load_corpus(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match="did you mean 'python-docs'"):
        load_corpus("python-doc")
    with pytest.raises(DataError, match="got none; name a folder with text"):
        load_corpus(tmp_path)


def test_empty_texts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b" \n\n")
    with pytest.raises(DataError, match=r"empty\.txt', got an empty file"):
        load_corpus(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="got 1 such files, all empty"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"text \0 more" * 100, "a NUL byte at offset 5"),
        (b"caf\xe9 " * 100, "byte 0xe9 at offset 3"),
        ("cut é".encode()[:-1], "byte 0xc3 at offset 4"),
    ],
)
def test_binary_files_are_refused_with_the_offset(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "binary.txt").write_bytes(data)
    for source in (tmp_path, tmp_path / "binary.txt"):
        with pytest.raises(DataError, match=message):
            load_corpus(source)


def test_short_texts_are_refused_with_both_lengths(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes(b"a" * 256)
    with pytest.raises(DataError, match=r"more than 256 bytes .* got 256; give at least 257 bytes"):
        load_corpus(tmp_path / "short.txt", context=256)
    write_prose(tmp_path / "small.txt", 5)
    with pytest.raises(DataError, match=r"in each of train, validation and test, got .* give about 3084 bytes"):
        load_corpus(tmp_path / "small.txt", context=256)
    for name in ("train", "test"):
        write_prose(tmp_path / f"{name}.txt", 5)
    (tmp_path / "valid.txt").write_bytes(b"b" * 200)
    with pytest.raises(DataError, match=r"valid\.txt' for a context of 256, got 200"):
        load_corpus(tmp_path, context=256)
    with pytest.raises(ValueError, match="context of at least 2 tokens, got 1"):
        load_corpus("python-docs", context=1)


@pytest.mark.parametrize("context", [16, 64, 256])
def test_the_advised_length_is_enough(tmp_path: Path, context: int) -> None:
    for seed in range(5):
        path = write_prose(tmp_path / "text.txt", 100, seed)
        path.write_bytes(path.read_bytes()[: 12 * (context + 1)])
        corpus = load_corpus(path, context)
        assert min(len(corpus.train), len(corpus.valid), len(corpus.test)) > context


@given(st.binary(min_size=1, max_size=100), st.integers(2, 40))
def test_evaluation_windows_predict_each_byte_once(data: bytes, context: int) -> None:
    windows = [*ByteWindows(data, context)]
    labels = torch.cat([window["labels"] for window in windows])
    assert bytes(labels[labels != -100].tolist()) == data
    for window in windows:
        ids, labels = window["input_ids"], window["labels"]
        assert ids.shape == labels.shape == (context,)
        assert ids.dtype == labels.dtype == torch.int64
        scored = labels != -100
        assert not scored[0]
        assert torch.equal(ids[scored], labels[scored])
        assert (ids[1:][~scored[1:]] == 257).all()
    firsts = [int(window["input_ids"][0]) for window in windows]
    assert firsts == [256, *data[context - 2 : -1 : context - 1]][: len(firsts)]


def test_training_windows_are_a_pure_function_of_seed_and_index() -> None:
    data = bytes(range(256)) * 8
    windows = RandomByteWindows(data, context=32, n_windows=500, seed=3)
    backwards = {i: pickle.loads(pickle.dumps(windows))[i]["input_ids"].tolist() for i in reversed(range(500))}
    assert all(windows[i]["input_ids"].tolist() == backwards[i] for i in range(500))
    longer = RandomByteWindows(data, context=32, n_windows=501, seed=3)
    assert longer[499]["input_ids"].tolist() == backwards[499]
    other = RandomByteWindows(data, context=32, n_windows=500, seed=4)
    assert sum(other[i]["input_ids"].tolist() == backwards[i] for i in range(500)) < 20


def test_training_windows_are_text_at_uniform_offsets() -> None:
    data = bytes(range(200))
    windows = RandomByteWindows(data, context=101, n_windows=10_100, seed=0)
    counts = torch.zeros(101, dtype=torch.int64)
    for window in windows:
        ids, labels = window["input_ids"], window["labels"]
        start = int(ids[1])  # the stream is one end-of-text token and then byte i at place i + 1
        assert ids[1:].tolist() == list(data[start : start + 100])
        assert int(labels[0]) == -100
        assert torch.equal(labels[1:], ids[1:])
        counts[start] += 1
    chi_square = float(((counts - 100) ** 2 / 100).sum())
    assert 50 < chi_square < 160  # 100 degrees of freedom: 100 +- 14


def test_training_windows_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match="at least 8 tokens of text for a context of 8, got 7"):
        RandomByteWindows(b"a" * 7, context=8, n_windows=1, seed=0)
    for n_windows, seed in ((0, 0), (1, -1), (1, 2**64)):
        with pytest.raises(ValueError, match=f"got {n_windows} and {seed}"):
            RandomByteWindows(b"a" * 8, context=8, n_windows=n_windows, seed=seed)
    with pytest.raises(ValueError, match="context of at least 2"):
        ByteWindows(b"abc", context=1)
    with pytest.raises(ValueError, match="got no bytes"):
        ByteWindows(b"", context=4)
    with pytest.raises(IndexError, match=r"-3\.\.2, got 3"):
        ByteWindows(b"abcdefg", context=4)[3]
