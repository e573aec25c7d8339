"""Interpolated Witten-Bell n-grams over bytes: the classical baseline for bits per byte."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MAX_ORDER = 8
"""The longest n-gram that packs into 64 bits."""


@dataclass(frozen=True, eq=False)
class _Level:
    """Counts of the n-grams of one length, sorted by their packed key; a history is a key without its last byte."""

    keys: NDArray[np.uint64]  # (n_ngrams,)
    counts: NDArray[np.int64]  # (n_ngrams,) c(h, w)
    histories: NDArray[np.uint64]  # (n_histories,)
    totals: NDArray[np.int64]  # (n_histories,) c(h)
    types: NDArray[np.int64]  # (n_histories,) T(h)

    def interpolate(self, ngrams: NDArray[np.uint64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mix the lower-order probabilities `(n,)` of packed n-grams `(n,)` with this level's counts."""
        if not len(self.keys):
            return lower
        history, seen = _find(self.histories, ngrams >> np.uint64(8))
        ngram, counted = _find(self.keys, ngrams)
        total, types = self.totals[history], self.types[history]
        count = np.where(counted, self.counts[ngram], 0)
        return np.where(seen, (count + types * lower) / (total + types), lower)


@dataclass(frozen=True, eq=False)
class WittenBell:
    """Byte n-gram of order n: n-grams of n bytes, hence n - 1 bytes of history; order 0 is uniform.

        p(w | h) = (c(h, w) + T(h) p(w | h')) / (c(h) + T(h)),    p(w) at order 0 = 1/256,

    with c(h, w) the number of times that byte w follows history h in the training text, c(h) its sum over w, T(h) the
    number of different bytes that follow h, and h' the history without its oldest byte. An unseen history leaves
    p(w | h'). Witten and Bell, IEEE Trans. Inf. Theory 37 (1991), method C; interpolated as in Chen and Goodman (1999),
    eq. 15. Raises ValueError for an order outside 0..8. Fitting and scoring cost O(order n log n).

    >>> model = WittenBell(order=3).fit(b"the cat sat on the mat")
    >>> bool(model.probabilities(b"th").argmax() == ord("e"))
    True
    """

    order: int
    levels: tuple[_Level, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"expected an order in 0..{MAX_ORDER}, got {self.order}; choose one in this range")

    def fit(self, train: bytes) -> "WittenBell":
        """Return the model with the counts of a training text.

        >>> WittenBell(order=1).fit(b"aab").probabilities(b"")[ord("a")].item() == (2 + 2 / 256) / (3 + 2)
        True
        """
        return replace(self, levels=tuple(_count(train, length) for length in range(1, self.order + 1)))

    def probabilities(self, history: bytes) -> NDArray[np.float64]:
        """Return p(w | history), `(256,)`; of the history only the last order - 1 bytes matter.

        Raises ValueError before `fit`.

        >>> WittenBell(order=0).probabilities(b"any")[0].item() * 256
        1.0
        """
        known = history[max(len(history) - self.order + 1, 0) :] if self.order > 0 else b""
        probability = np.full(256, 1 / 256)
        for length, level in zip(range(1, len(known) + 2), self._fitted(), strict=False):
            packed = int.from_bytes(known[len(known) - length + 1 :], "big") << 8
            probability = level.interpolate(np.arange(packed, packed + 256, dtype=np.uint64), probability)
        return probability

    def byte_bits(self, data: bytes) -> NDArray[np.float64]:
        """Return the surprisal -log2 p of each byte of `data` given the bytes before it, `(len(data),)` bits.

        The first bytes have shorter histories. Raises ValueError before `fit`.

        >>> WittenBell(order=0).byte_bits(b"ab").tolist()
        [8.0, 8.0]
        """
        probability = np.full(len(data), 1 / 256)
        for length, level in enumerate(self._fitted(), start=1):
            ngrams = _pack(data, length)
            probability[length - 1 :] = level.interpolate(ngrams, probability[length - 1 :])
        return -np.log2(probability)

    def bits_per_byte(self, data: bytes) -> float:
        """Return the mean surprisal of `data` in bits per byte. Raises ValueError for no data, or before `fit`.

        >>> WittenBell(order=0).bits_per_byte(b"abc")
        8.0
        """
        if not data:
            raise ValueError("expected text to score, got no bytes; give a text of at least one byte")
        return float(self.byte_bits(data).mean())

    def _fitted(self) -> tuple[_Level, ...]:
        if len(self.levels) != self.order:
            raise ValueError(f"expected a fitted model of order {self.order}, got one without counts; call fit first")
        return self.levels


def _pack(data: bytes, length: int) -> NDArray[np.uint64]:
    """Pack each run of `length` bytes into an integer, oldest byte most significant: `(len(data) - length + 1,)`."""
    values = np.frombuffer(data, np.uint8).astype(np.uint64)
    n_ngrams = max(len(data) - length + 1, 0)
    packed = np.zeros(n_ngrams, np.uint64)
    for offset in range(length):
        packed = (packed << np.uint64(8)) | values[offset : offset + n_ngrams]
    return packed


def _count(train: bytes, length: int) -> _Level:
    keys, counts = np.unique(_pack(train, length), return_counts=True)
    histories, starts, types = np.unique(keys >> np.uint64(8), return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, starts) if len(starts) else counts
    return _Level(keys, counts, histories, totals, types)


def _find(table: NDArray[np.uint64], values: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find values in a sorted, non-empty table: a valid index for each, and whether the value stands there."""
    index = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return index, table[index] == values
