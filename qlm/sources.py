"""Where text comes from: the standard library's manual, a file, a folder of files, or a data set."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path

PYTHON_DOCS = "python-docs"
TEXT_SUFFIXES = (".md", ".rst", ".txt")
SPLIT_FILES = ("train.txt", "valid.txt", "test.txt")
_PYTHON_LICENSE = "Python documentation: PSF License Version 2, code examples also Zero-Clause BSD"
USER_LICENSE = "not stated: text supplied by the user"


class DataError(ValueError):
    """Text that cannot serve as a corpus; the message is one sentence with a remedy.

    >>> issubclass(DataError, ValueError)
    True
    """


@dataclass(frozen=True)
class Source:
    """The documents of a source as they were read; `is_split` where they are train, validation and test text.

    >>> read_source("python-docs").is_split
    False
    """

    name: str
    documents: tuple[str, ...] = field(repr=False)
    license: str
    is_split: bool = False


def read_source(source: str | Path) -> Source:
    """Read "python-docs", a text file, a folder, or "hf:" and a data set's name; see `qlm.data.load_corpus`.

    Raises DataError where there is no text: a path that does not exist or cannot be read, a file that is empty, has a
    NUL byte or is not UTF-8 (with the offset of the first bad byte), a folder without text.

    >>> read_source("python-docs").name
    'python-docs'
    """
    if source == PYTHON_DOCS:
        return Source(PYTHON_DOCS, _python_docs(), _PYTHON_LICENSE)
    if isinstance(source, str) and source.startswith("hf:"):
        from qlm.data_sets import read_data_set

        return read_data_set(source)
    path = Path(source)
    if not path.exists():
        close = difflib.get_close_matches(str(source), [PYTHON_DOCS], cutoff=0.7)
        remedy = f"did you mean {close[0]!r}?" if close else "check the path, or name another source"
        raise DataError(
            f"expected {PYTHON_DOCS!r} or the path of a text file or folder, got {str(source)!r}, which does not "
            f"exist; {remedy}"
        )
    name = path.resolve().name
    if not path.is_dir():
        return Source(name, (_read_nonempty(path),), USER_LICENSE)
    if all((path / file).is_file() for file in SPLIT_FILES):
        return Source(name, tuple(_read_nonempty(path / file) for file in SPLIT_FILES), USER_LICENSE, is_split=True)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in TEXT_SUFFIXES and file.is_file())
    documents = tuple(text for file in files if (text := _read_text(file)).strip())
    if not documents:
        raise DataError(
            f"expected {', '.join(TEXT_SUFFIXES)} files with text in the folder {str(path)!r}, got "
            f"{len(files)} such files, all empty; name a folder with text, or a file"
            if files
            else f"expected {', '.join(TEXT_SUFFIXES)} files in the folder {str(path)!r}, got none; name a folder with "
            "text files, or a file"
        )
    return Source(name, documents, USER_LICENSE)


def _python_docs() -> tuple[str, ...]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "expected the standard library's pydoc_data.topics, which this Python lacks; install the full standard "
            "library, or name a text file"
        ) from error
    # The longest first: compound topics stay whole, and the topics that they repeat are what is dropped.
    names = sorted(topics, key=lambda name: (-len(topics[name]), name))
    return tuple(topics[name] for name in names)


def _read_nonempty(path: Path) -> str:
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"expected text in {str(path)!r}, got an empty file; name a file with text in it")
    return text


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"expected a readable text file, got {error.strerror!r} for {str(path)!r}; check its permissions"
        ) from error
    nul = data.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"expected text in {str(path)!r}, got binary data: a NUL byte at offset {nul}; name a UTF-8 text file"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected UTF-8 text in {str(path)!r}, got byte 0x{data[error.start]:02x} at offset {error.start}; "
            "convert the file to UTF-8"
        ) from error
