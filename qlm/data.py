"""Text corpora as bytes: where they come from, how they are split, and the windows that a model is fed.

Axes: `context` is the number of tokens in a window. Token ids 0 to 255 are bytes, see `qlm.tokenizer`.
"""

import hashlib
import platform
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from qlm.sources import SPLIT_FILES, DataError, Source, read_source
from qlm.text_split import Unit, cut_units, drop_repeats, group_units, shared_windows, split_groups
from qlm.tokenizer import EOS_ID, PAD_ID

IGNORED_LABEL = -100
_GROUP_SIZE = 2048
_MIN_GROUPS = 40


@dataclass(frozen=True)
class Corpus:
    """A prepared text, split into train, validation and test bytes, with its identity.

    Bits per byte compare only between corpora of equal `sha256`, the SHA-256 of the three splits' SHA-256 digests.
    `n_units` counts the paragraphs (long ones cut) that were found and `n_dropped` those left out as repeats;
    `leak_valid` and `leak_test` are the shares of 50-byte windows that also stand in `train`.

    >>> corpus = load_corpus("python-docs")
    >>> corpus.leak_valid < 0.01 and corpus.leak_test < 0.01
    True
    """

    name: str
    train: bytes = field(repr=False)
    valid: bytes = field(repr=False)
    test: bytes = field(repr=False)
    license: str
    n_documents: int
    n_units: int
    n_dropped: int
    leak_valid: float
    leak_test: float
    python_version: str = field(default_factory=platform.python_version)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        digests = b"".join(hashlib.sha256(split).digest() for split in (self.train, self.valid, self.test))
        object.__setattr__(self, "sha256", hashlib.sha256(digests).hexdigest())

    def split(self, name: str) -> bytes:
        """Return "train", "valid" or "test".

        >>> corpus = load_corpus("python-docs")
        >>> corpus.split("test") == corpus.test
        True
        """
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]

    def summary(self) -> dict[str, str | int | float]:
        """Describe the corpus for a run's metrics, without its text: JSON types only, sizes in bytes.

        >>> load_corpus("python-docs").summary()["name"]
        'python-docs'
        """
        return {
            "name": self.name,
            "sha256": self.sha256,
            "python_version": self.python_version,
            "license": self.license,
            "train_bytes": len(self.train),
            "valid_bytes": len(self.valid),
            "test_bytes": len(self.test),
            "n_documents": self.n_documents,
            "n_units": self.n_units,
            "n_dropped": self.n_dropped,
            "leak_valid": self.leak_valid,
            "leak_test": self.leak_test,
        }


def load_corpus(source: str | Path, context: int = 256) -> Corpus:
    """Read a corpus and split it 80/10/10, or as its folder says.

    `source` is "python-docs" (the reference manual in the standard library, `pydoc_data.topics`), the path of a UTF-8
    text file, a folder, or "hf:DATASET[:CONFIG]" (`qlm.data_sets`), whose own splits are used where it has them. A
    folder that holds train.txt, valid.txt and test.txt is used as that split, unchanged; from any other folder each
    .txt, .md and .rst file, at any depth, is one document, in the order of the paths.
    Everything else goes through `qlm.text_split`: repeats dropped, paragraph groups of about 2 kB split by a fixed
    hash. Raises DataError for a missing, empty or binary text, and for one too short for `context` tokens, and
    ValueError for a context below 2. Cost O(n log n) in the bytes, with about 60 bytes of memory a byte of text.

    >>> load_corpus("python-docs", context=128).name
    'python-docs'
    """
    if context < 2:
        raise ValueError(f"expected a context of at least 2 tokens, got {context}; pass a longer context")
    read = read_source(source)
    if read.is_split:
        return _given_split(read, context)
    return _split(read, context)


def _check_length(name: str, n_bytes: int, context: int) -> None:
    if n_bytes <= context:
        raise DataError(
            f"expected more than {context} bytes of text in {name!r} for a context of {context}, got {n_bytes}; give "
            f"at least {context + 1} bytes, or a shorter context"
        )


def _split(read: Source, context: int) -> Corpus:
    n_bytes = sum(len(document.encode()) for document in read.documents)
    _check_length(read.name, n_bytes, context)
    group_size = min(_GROUP_SIZE, max(n_bytes // _MIN_GROUPS, 2))
    units = [
        Unit(number, text)
        for number, document in enumerate(read.documents)
        for text in cut_units(document, group_size // 2)
    ]
    kept = drop_repeats(units)
    train, valid, test = split_groups(group_units(kept, group_size))
    shortest = min(len(train), len(valid), len(test))
    if shortest <= context:
        raise DataError(
            f"expected more than {context} bytes in each of train, validation and test, got {shortest} in the shortest "
            f"after splitting {n_bytes} bytes of {read.name!r}; give about {12 * (context + 1)} bytes of text without "
            "repeats, or a shorter context"
        )
    return _corpus(read, (train, valid, test), n_units=len(units), n_dropped=len(units) - len(kept))


def _given_split(read: Source, context: int) -> Corpus:
    train, valid, test = (text.encode() for text in read.documents)
    for name, data in zip(SPLIT_FILES, (train, valid, test), strict=True):
        _check_length(f"{read.name}/{name}", len(data), context)
    n_units = sum(len(cut_units(text, _GROUP_SIZE // 2)) for text in read.documents)
    return _corpus(read, (train, valid, test), n_units=n_units, n_dropped=0)


def _corpus(read: Source, splits: tuple[bytes, bytes, bytes], n_units: int, n_dropped: int) -> Corpus:
    train, valid, test = splits
    return Corpus(
        name=read.name,
        train=train,
        valid=valid,
        test=test,
        license=read.license,
        n_documents=len(read.documents),
        n_units=n_units,
        n_dropped=n_dropped,
        leak_valid=shared_windows(valid, train),
        leak_test=shared_windows(test, train),
    )


class TokenWindows(Dataset[dict[str, torch.Tensor]]):
    """Windows for evaluation: each token of the text is predicted in exactly one of them.

    The text's ids (n,) stand after one start token; window i holds tokens i (context - 1) to i (context - 1) + context,
    so that it begins with the last token of the window before it. An item holds `input_ids` and `labels`, `(context,)`
    int64 each, unshifted as Hugging Face models expect; the label of the first token is -100, and the end of the last
    window is padded (label -100). Raises ValueError for an empty text or a context below 2.

    >>> windows = TokenWindows(np.arange(4), context=4, start_id=8, pad_id=9)
    >>> [window["input_ids"].tolist() for window in windows]
    [[8, 0, 1, 2], [2, 3, 9, 9]]
    >>> [window["labels"].tolist() for window in windows]
    [[-100, 0, 1, 2], [-100, 3, -100, -100]]
    """

    def __init__(self, ids: NDArray[np.integer], context: int, start_id: int, pad_id: int) -> None:
        self.tokens = _token_stream(ids, context, start_id)
        self.context = context
        self.pad_id = pad_id

    def __len__(self) -> int:
        return 1 + (len(self.tokens) - 2) // (self.context - 1)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = _check_index(index, len(self)) * (self.context - 1)
        tokens = self.tokens[start : start + self.context].astype(np.int64)
        padding = (0, self.context - len(tokens))
        labels = np.pad(tokens, padding, constant_values=IGNORED_LABEL)
        labels[0] = IGNORED_LABEL
        input_ids = np.pad(tokens, padding, constant_values=self.pad_id)
        return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}


class ByteWindows(TokenWindows):
    """`TokenWindows` of bytes, after one end-of-text token.

    >>> [window["input_ids"].tolist() for window in ByteWindows(b"abcd", context=4)]
    [[256, 97, 98, 99], [99, 100, 257, 257]]
    """

    def __init__(self, data: bytes, context: int) -> None:
        super().__init__(np.frombuffer(data, np.uint8), context, EOS_ID, PAD_ID)


class RandomTokenWindows(Dataset[dict[str, torch.Tensor]]):
    """Windows for training: `n_windows` of them at offsets drawn uniformly from the text's ids (n,).

    Item i is a pure function of `(seed, i)`, so a resumed run sees the same windows. The items look like those of
    `TokenWindows`, without padding. Raises ValueError for a context below 2, a text shorter than the context, fewer
    than one window, or a seed outside 0..2**64 - 1.

    >>> windows = RandomTokenWindows(np.arange(20), context=8, n_windows=100, seed=0, start_id=20)
    >>> len(windows), windows[7]["input_ids"].equal(windows[7]["input_ids"])
    (100, True)
    """

    def __init__(self, ids: NDArray[np.integer], context: int, n_windows: int, seed: int, start_id: int) -> None:
        self.tokens = _token_stream(ids, context, start_id)
        if len(ids) < context:
            raise ValueError(
                f"expected at least {context} tokens of text for a context of {context}, got {len(ids)}; give more "
                "text or a shorter context"
            )
        if n_windows < 1 or not 0 <= seed < 2**64:
            raise ValueError(
                f"expected at least 1 window and a seed in 0..2**64 - 1, got {n_windows} and {seed}; pass such numbers"
            )
        self.context = context
        self.n_windows = n_windows
        self.seed = seed

    def __len__(self) -> int:
        return self.n_windows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        key = np.array([self.seed, _check_index(index, len(self))], np.uint64)
        # The raw stream is fixed across numpy's versions; the bias of the remainder is below 2**-30 for any real text.
        start = np.random.Philox(key=key).random_raw() % (len(self.tokens) - self.context + 1)
        input_ids = torch.from_numpy(self.tokens[start : start + self.context].astype(np.int64))
        labels = input_ids.clone()
        labels[0] = IGNORED_LABEL
        return {"input_ids": input_ids, "labels": labels}


class RandomByteWindows(RandomTokenWindows):
    """`RandomTokenWindows` of bytes, after one end-of-text token.

    >>> len(RandomByteWindows(b"some text to learn from", context=8, n_windows=100, seed=0))
    100
    """

    def __init__(self, data: bytes, context: int, n_windows: int, seed: int) -> None:
        super().__init__(np.frombuffer(data, np.uint8), context, n_windows, seed, EOS_ID)


def _token_stream(ids: NDArray[np.integer], context: int, start_id: int) -> NDArray[np.integer]:
    if context < 2:
        raise ValueError(f"expected a context of at least 2 tokens, got {context}; pass a longer context")
    if not len(ids):
        raise ValueError("expected text, got no bytes; give a text of at least one byte")
    wide = np.uint16 if max(start_id, int(ids.max())) < 2**16 else np.uint32
    return np.concatenate(([start_id], ids)).astype(wide)


def _check_index(index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"expected an index in {-length}..{length - 1}, got {index}; there are {length} windows")
    return index % length
