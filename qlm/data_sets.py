"""Texts of Hugging Face data sets, through the package ``datasets``."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from qlm.sources import DataError, Source

PREFIX = "hf:"
_SPLITS = ("train", "validation", "test")


def read_data_set(source: str) -> Source:
    """Read "hf:DATASET" or "hf:DATASET:CONFIG", a name on the Hub or a folder: the texts of its only text column.

    The column is "text", or else the only one that holds strings. With the splits train, validation and test they are
    used as they are; otherwise each row of "train", or of the only split, is a document. Raises ImportError where the
    package is missing, DataError for a data set that cannot be read or has no such column or rows.
    """
    name, config = _name(source.removeprefix(PREFIX))
    try:
        load_dataset = import_module("datasets").load_dataset
    except ImportError:
        raise ImportError(
            f"--data {source} expects the package datasets, which is not installed; pip install 'hybridqlm[data]', or "
            "name a text file."
        ) from None
    try:
        loaded: Mapping[str, Any] = load_dataset(name, config)
    except Exception as error:  # noqa: BLE001 -- whatever a data set of any kind and any host fails with is told
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"expected a data set that can be read, got {source!r} ({said}); check its name, its config and the network"
        ) from None
    if all(split in loaded for split in _SPLITS):
        documents = tuple(_joined(_rows(loaded[split], source)) for split in _SPLITS)
        return _checked(Source(source, documents, _license(loaded["train"]), is_split=True))
    chosen = loaded["train"] if "train" in loaded or len(loaded) != 1 else next(iter(loaded.values()))
    return _checked(Source(source, tuple(row for row in _rows(chosen, source) if row.strip()), _license(chosen)))


def _name(given: str) -> tuple[str, str | None]:
    name, colon, config = given.rpartition(":")
    if Path(given).exists() or not colon:
        name, config = given, ""
    if not name:
        raise DataError(f"expected hf:DATASET or hf:DATASET:CONFIG, got 'hf:{given}'; name a data set")
    return (str(Path(name).resolve()) if Path(name).is_dir() else name), config or None


def _rows(split: Any, source: str) -> Iterable[str]:
    """The texts of a split."""
    texts = [name for name, feature in split.features.items() if getattr(feature, "dtype", None) in _STRINGS]
    if "text" not in texts and len(texts) != 1:
        raise DataError(
            f"expected a column 'text', or one column of strings, in {source!r}, got {', '.join(texts) or 'none'}; "
            "name another data set, or write the texts to a file"
        )
    column = "text" if "text" in texts else texts[0]
    return (row or "" for row in split[column])


_STRINGS = ("string", "large_string")


def _joined(rows: Iterable[str]) -> str:
    """One text of rows, which are lines where each that holds anything ends in a line's end, else paragraphs."""
    texts: Sequence[str] = list(rows)
    lines = all(not text or text.endswith("\n") for text in texts)
    return "".join(texts) if lines else "\n\n".join(text for text in texts if text)


def _license(split: Any) -> str:
    return str(getattr(split.info, "license", "") or "not stated by the data set")


def _checked(read: Source) -> Source:
    if not read.documents or not all(document.strip() for document in read.documents):
        raise DataError(f"expected rows of text in {read.name!r}, got none; name another data set")
    return read
