"""A corpus whose order is kept: document after document, a file mapped rather than read, held-out text at the end."""

import hashlib
import mmap
import platform
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from qlm.data import load_corpus
from qlm.sources import PYTHON_DOCS, SPLIT_FILES, USER_LICENSE, DataError, read_source
from qlm.text_pieces import decode_pieces, read_chunks

_HELD_OUT = 2**22
_SHARE = 10
_LINE = 2**16


@dataclass(frozen=True)
class OrderedCorpus:
    """Training text in its order, of which a model may be told where documents begin, and held-out text.

    ``borders``: offsets in ``train`` at which documents begin, 0 first. ``train`` may be a mapped file, of which only
    what is read takes memory. ``sha256`` as for ``qlm.data.Corpus``: bits per byte compare between equal ones.

    >>> corpus = load_ordered("python-docs")
    >>> corpus.borders, corpus.sha256 == load_corpus("python-docs").sha256
    ((0,), True)
    """

    name: str
    train: memoryview = field(repr=False)
    valid: bytes = field(repr=False)
    test: bytes = field(repr=False)
    license: str
    borders: tuple[int, ...] = field(default=(0,), repr=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        digests = b"".join(hashlib.sha256(split).digest() for split in (self.train, self.valid, self.test))
        object.__setattr__(self, "sha256", hashlib.sha256(digests).hexdigest())

    def split(self, name: str) -> bytes:
        """Return "valid" or "test"; "train" too, which is then read as a whole.

        >>> len(load_ordered("python-docs").split("valid")) > 10_000
        True
        """
        return bytes({"train": self.train, "valid": self.valid, "test": self.test}[name])

    def summary(self) -> dict[str, str | int | float]:
        """Describe the corpus for a run's metrics, without its text: JSON types only, sizes in bytes.

        >>> load_ordered("python-docs").summary()["name"]
        'python-docs'
        """
        return {
            "name": self.name,
            "sha256": self.sha256,
            "python_version": platform.python_version(),
            "license": self.license,
            "train_bytes": len(self.train),
            "valid_bytes": len(self.valid),
            "test_bytes": len(self.test),
            "n_documents": len(self.borders),
        }


def load_ordered(source: str | Path, context: int = 256) -> OrderedCorpus:
    """Prepare a source whose text is to be read in order.

    A file is one document, mapped into memory and checked in one pass; so is train.txt in a folder with train.txt,
    valid.txt and test.txt. In other folders, and in data sets, each text is a document, and all are held in memory.
    Unless the source says what is held out, it is the last fifth, 8 MiB at most: validation text, then test text, cut
    at lines. Repeats stay. "python-docs", whose topics repeat each other, is split as ``qlm.data.load_corpus`` does,
    and its training text is one document. Raises DataError as ``load_corpus`` does. Cost O(n).

    >>> load_ordered("python-docs").valid == load_corpus("python-docs").valid
    True
    """
    if source == PYTHON_DOCS:
        whole = load_corpus(source, context)
        return OrderedCorpus(whole.name, memoryview(whole.train), whole.valid, whole.test, whole.license)
    path = Path(source)
    if path.is_file():
        return _cut(path.resolve().name, _map(path), (0,), USER_LICENSE, context)
    if path.is_dir() and all((path / file).is_file() for file in SPLIT_FILES):
        train, valid, test = (_map(path / file) for file in SPLIT_FILES)
        corpus = OrderedCorpus(path.resolve().name, train, bytes(valid), bytes(test), USER_LICENSE)
        return _checked(corpus, context)
    read = read_source(source)
    texts = [document.encode() for document in read.documents]
    if read.is_split:
        train, valid, test = texts
        return _checked(OrderedCorpus(read.name, memoryview(train), valid, test, read.license), context)
    starts = (0, *accumulate(map(len, texts)))[:-1]
    return _cut(read.name, memoryview(b"".join(texts)), starts, read.license, context)


def _map(path: Path) -> memoryview:
    """A file's bytes, mapped; DataError for what is no text."""
    n_characters = sum(map(len, decode_pieces(read_chunks(path), str(path))))
    if not n_characters:
        raise DataError(f"expected text in {str(path)!r}, got an empty file; name a file with text in it")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _cut(name: str, text: memoryview, borders: tuple[int, ...], license: str, context: int) -> OrderedCorpus:
    """Hold out the end of a text."""
    held = min(len(text) // _SHARE, _HELD_OUT)
    valid, test = (_line_start(text, len(text) - parts * held) for parts in (2, 1))
    kept = tuple(border for border in borders if border < valid)
    corpus = OrderedCorpus(name, text[:valid], bytes(text[valid:test]), bytes(text[test:]), license, kept or (0,))
    return _checked(corpus, context)


def _line_start(text: memoryview, at: int) -> int:
    """The next place from ``at`` where a line begins; where none is near, a character."""
    near = bytes(text[at : at + _LINE])
    newline = near.find(b"\n")
    if 0 <= newline < len(near) - 1:
        return at + newline + 1
    return at + next((k for k, byte in enumerate(near[:4]) if not 0x80 <= byte < 0xC0), 0)


def _checked(corpus: OrderedCorpus, context: int) -> OrderedCorpus:
    shortest = min(len(corpus.train), len(corpus.valid), len(corpus.test))
    if shortest <= context:
        raise DataError(
            f"expected more than {context} bytes in each of train, validation and test of {corpus.name!r}, got "
            f"{shortest} in the shortest; give about {_SHARE * (context + 1)} bytes of text, or a shorter context"
        )
    return corpus
