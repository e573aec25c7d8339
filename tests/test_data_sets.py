"""Hugging Face data sets as corpora: their own splits or ours, one column of text, one sentence for anything else."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import python_docs

from qlm.cli_train import _absolute
from qlm.data import load_corpus
from qlm.ordered import load_ordered
from qlm.sources import DataError, read_source


class Split(dict[str, list[Any]]):
    """What tests need of a split: columns, their types, its license."""

    info = types.SimpleNamespace(license="cc0-1.0")

    @property
    def features(self) -> dict[str, Any]:
        kinds = {str: "string", int: "int64"}
        return {name: types.SimpleNamespace(dtype=kinds[type(column[0])]) for name, column in self.items()}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """Data sets by (name, config)."""
    known: dict[Any, Any] = {}

    def load_dataset(name: str, config: str | None) -> Any:
        if (name, config) not in known:
            raise FileNotFoundError(f"Dataset '{name}'\nis unknown")
        return known[name, config]

    module: Any = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return known


def test_splits_of_a_data_set_are_used(hub: dict[Any, Any]) -> None:
    lines = ["one line\n", "", "another\n"] * 40
    hub["me/lines", "raw-v1"] = {
        "train": Split(text=lines, id=[1]),
        "validation": Split(text=["b\n"] * 400),
        "test": Split(text=["para", "graph"] * 100),
    }
    corpus = load_corpus("hf:me/lines:raw-v1", 64)
    assert (corpus.train, corpus.valid) == ("".join(lines).encode(), b"b\n" * 400)
    assert corpus.test == b"\n\n".join([b"para", b"graph"] * 100)
    assert (corpus.name, corpus.license) == ("hf:me/lines:raw-v1", "cc0-1.0")
    assert load_ordered("hf:me/lines:raw-v1", 64).sha256 == corpus.sha256


def test_rows_are_documents_where_there_are_no_splits(hub: dict[Any, Any], tmp_path: Path) -> None:
    rows = [python_docs().train[k : k + 900].decode("utf-8", "ignore") for k in range(0, 9000, 900)]
    hub[str(tmp_path), None] = {"everything": Split(content=[*rows, " "], n=[1])}
    read = read_source(f"hf:{tmp_path}")
    assert (read.documents, read.is_split) == (tuple(rows), False)
    ordered = load_ordered(f"hf:{tmp_path}", 64)
    assert bytes(ordered.train) + ordered.valid + ordered.test == "".join(rows).encode()
    assert ordered.borders[:2] == (0, len(rows[0].encode()))
    assert len(load_corpus(f"hf:{tmp_path}", 16).train) > 0
    assert _absolute(f"hf:{tmp_path}/../{tmp_path.name}") == f"hf:{tmp_path}"
    assert _absolute("hf:me/lines:raw-v1") == "hf:me/lines:raw-v1"


def test_what_cannot_be_read_is_one_sentence(hub: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hub["two", None] = {"train": Split(question=["a"], answer=["b"])}
    hub["none", None] = {"train": Split(n=[1])}
    hub["empty", None] = {"train": Split(text=["", " "])}
    for name, message in (
        ("two", "expected a column 'text', or one column of strings, in 'hf:two', got question, answer; name"),
        ("none", "in 'hf:none', got none"),
        ("empty", "expected rows of text in 'hf:empty', got none"),
        ("nowhere", r"got 'hf:nowhere' \(Dataset 'nowhere' is unknown\); check its name"),
        ("", "expected hf:DATASET or hf:DATASET:CONFIG, got 'hf:'"),
        (":x", "expected hf:DATASET or hf:DATASET:CONFIG, got 'hf::x'"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_corpus(f"hf:{name}")
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"^--data hf:two expects the package datasets, .*pip install 'hybridqlm\["):
        load_corpus("hf:two")


def test_a_real_folder_is_read_by_the_package_itself(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.txt").write_text("first row\nsecond row\n" * 50)
    read = read_source(f"hf:{tmp_path}")
    assert read.documents[:2] == ("first row", "second row")
