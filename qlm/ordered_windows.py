"""Windows in the order of the text, for training that carries state: each row of a batch reads its own stretch.

Axis legend: b rows of a batch, l tokens of a window.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from qlm.data import IGNORED_LABEL
from qlm.encoders import ByteEncoder, TextEncoder
from qlm.text_pieces import cut_pieces

_CHUNK = 2**20


@dataclass(frozen=True)
class _Row:
    """A row's stretch of the text, as parts of documents: where each begins, and how many windows lie before it."""

    starts: NDArray[np.int64]
    stop: int
    before: NDArray[np.int64]


class OrderedWindows(Dataset[dict[str, torch.Tensor]]):
    """Windows of ``context`` tokens for truncated backpropagation through time.

    The ids (n,), which may be a memory map, are cut into ``batch_size`` stretches of equal length; item i is the next
    window of row ``i % batch_size``, so that a batch in order continues the one before it. A window ends where its
    document does (``borders``: where documents begin), and a row starts its stretch again at its end: ``fresh`` says
    that the state must be forgotten before the window. An item holds ``input_ids``, ``attention_mask``, ``labels`` and
    ``shift_labels`` (context,): the last are the tokens that come next, each token of the text being one exactly once,
    and -100 in the padding at the right. Before a document stands ``start_id``. Item i depends on i alone. Raises
    ValueError for a context below 1 or a text of fewer than ``batch_size * context`` tokens.

    >>> windows = OrderedWindows(np.arange(8), (0, 3), context=2, batch_size=2, n_windows=8, start_id=9)
    >>> [windows[i]["input_ids"].tolist() for i in range(6)]
    [[9, 0], [3, 4], [1, 9], [5, 6], [9, 9], [3, 4]]
    >>> [windows[i]["shift_labels"].tolist() for i in range(6)]
    [[0, 1], [4, 5], [2, -100], [6, 7], [3, -100], [4, 5]]
    >>> [bool(windows[i]["fresh"]) for i in range(6)]
    [True, True, False, False, True, True]
    """

    def __init__(
        self,
        ids: NDArray[np.integer],
        borders: Sequence[int],
        context: int,
        batch_size: int,
        n_windows: int,
        start_id: int,
    ) -> None:
        if context < 1 or len(ids) < batch_size * context:
            raise ValueError(
                f"reading in order expects a context of at least 1 and {batch_size} rows of it, {batch_size * context} "
                f"tokens of text, got {context} and {len(ids)}; give more text, a shorter context or fewer rows."
            )
        self.ids = ids
        self.borders = np.asarray(borders, np.int64)
        self.context = context
        self.batch_size = batch_size
        self.n_windows = n_windows
        self.start_id = start_id
        self.stretch = len(ids) // batch_size
        self.rows = [self._row(row * self.stretch) for row in range(batch_size)]

    def _row(self, start: int) -> _Row:
        stop = start + self.stretch
        inside = self.borders[(self.borders > start) & (self.borders < stop)]
        starts = np.concatenate(([start], inside))
        counts = -(-np.diff(np.append(starts, stop)) // self.context)
        return _Row(starts, stop, np.concatenate(([0], np.cumsum(counts))))

    def __len__(self) -> int:
        return self.n_windows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.n_windows:
            raise IndexError(f"expected an index in 0..{self.n_windows - 1}, got {index}; ask for one of them.")
        step, number = divmod(index, self.batch_size)
        row = self.rows[number]
        window = step % int(row.before[-1])
        part = int(np.searchsorted(row.before, window, "right")) - 1
        stop = int(row.starts[part + 1]) if part + 1 < len(row.starts) else row.stop
        start = int(row.starts[part]) + (window - int(row.before[part])) * self.context
        fed, asked = self._read(start, min(start + self.context, stop))
        padding = (0, self.context - len(asked))
        input_ids = torch.from_numpy(np.pad(fed, padding, constant_values=self.start_id))
        targets = torch.from_numpy(np.pad(asked, padding, constant_values=IGNORED_LABEL))
        return {
            "input_ids": input_ids,
            "attention_mask": (targets != IGNORED_LABEL).long(),
            "labels": targets,
            "shift_labels": targets,
            "fresh": torch.tensor(window == row.before[part]),
        }

    def _read(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens from start to stop, and those before each of them: the start token before a document."""
        asked = np.asarray(self.ids[start:stop]).astype(np.int64)
        place = int(np.searchsorted(self.borders, start))
        begins = start == 0 or (place < len(self.borders) and int(self.borders[place]) == start)
        first = self.start_id if begins else int(self.ids[start - 1])
        return np.concatenate(([first], asked[:-1])), asked


def ordered_ids(
    text: memoryview, borders: Sequence[int], encoder: TextEncoder
) -> tuple[NDArray[np.integer], Sequence[int]]:
    """Return the token ids (n,) of a text whose documents begin at ``borders``, and where they begin among the ids.

    Bytes are the text itself, be it a mapped file; other tokens are written to a temporary file and mapped, so that
    neither needs to fit in memory. Cost O(n).

    >>> ids, borders = ordered_ids(memoryview(b"abcd"), (0, 3), ByteEncoder())
    >>> ids.tolist(), borders
    ([97, 98, 99, 100], (0, 3))
    """
    if isinstance(encoder, ByteEncoder):
        return encoder.encode(text), borders
    starts, n_ids = [], 0
    with tempfile.TemporaryFile() as file:
        for start, stop in pairwise((*borders, len(text))):
            starts.append(n_ids)
            for piece in cut_pieces(_chunks(text[start:stop])):
                ids = encoder.encode(piece).astype(np.uint32)
                file.write(ids.tobytes())
                n_ids += len(ids)
        file.flush()
        if not n_ids:
            raise ValueError("reading in order expects tokens, got a tokenizer that found none; choose another.")
        return np.memmap(file, np.uint32, "r", shape=(n_ids,)), tuple(starts)


def _chunks(text: memoryview) -> Iterator[bytes]:
    return (bytes(text[start : start + _CHUNK]) for start in range(0, len(text), _CHUNK))
