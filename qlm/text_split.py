"""Split text into train, validation and test without leaking near-copies from one to another.

The steps, each a pure function of the text: `cut_units` (paragraphs, losslessly), `drop_repeats` (copies and
near-copies), `group_units` (consecutive units, so that a context makes sense), `split_groups` (by a fixed hash).
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 50
"""Length, in bytes, of the windows by which near-copies are recognised."""

MAX_REPEATED_SHARE = 0.05
"""A unit is dropped when more than this share of its windows stands earlier in the corpus."""

_BLANK_LINES = re.compile(r"\n(?:[ \t\r]*\n)+")
_HASH_BASE = 0x9E3779B97F4A7C15
_SPLIT_KEY = b"hybridqlm text split 1\0"


@dataclass(frozen=True)
class Unit:
    """A stretch of text with the separator that ends it, and the number of its document."""

    document: int
    text: str


def hash_windows(data: bytes, length: int = WINDOW) -> NDArray[np.uint64]:
    """Hash each window of `length` bytes: sum_j (data[i + j] + 1) base**(length - 1 - j) mod 2**64.

    Returns `(len(data) - length + 1,)`, empty for shorter data. Powers of two are combined (Horner by doubling), so
    the cost is O(len(data) log length), with about 40 bytes of memory a byte of text. Raises ValueError for a
    length below 1.

    >>> hashes = hash_windows(b"abcabc", length=3)
    >>> bool(hashes[0] == hashes[3]), bool(hashes[0] == hashes[1])
    (True, False)
    """
    if length < 1:
        raise ValueError(f"expected a window of at least 1 byte, got {length}; pass a positive length")
    n_windows = max(len(data) - length + 1, 0)
    result = np.zeros(n_windows, np.uint64)
    power_hash = np.frombuffer(data, np.uint8).astype(np.uint64) + np.uint64(1)
    width, offset = 1, 0
    while n_windows:
        if length & width:
            shift = np.uint64(pow(_HASH_BASE, width, 2**64))
            result = result * shift + power_hash[offset : offset + n_windows]
            offset += width
        if 2 * width > length:
            break
        shift = np.uint64(pow(_HASH_BASE, width, 2**64))
        power_hash = power_hash[:-width] * shift + power_hash[width:]
        width *= 2
    return result


def shared_windows(data: bytes, other: bytes, length: int = WINDOW) -> float:
    """Measure leakage: the share, in [0, 1], of the windows of `data` that also stand in `other`.

    0 when `data` is shorter than a window. Windows are compared by 64-bit hashes; cost O(n log n).

    >>> shared_windows(b"abcdef", b"xxbcdexx", length=3)
    0.5
    """
    windows, table = np.sort(hash_windows(data, length)), np.sort(hash_windows(other, length))
    if not len(windows) or not len(table):
        return 0.0
    index = np.minimum(np.searchsorted(table, windows), len(table) - 1)
    return float((table[index] == windows).mean())


def cut_units(text: str, limit: int) -> list[str]:
    """Cut text into paragraphs of at most `limit` characters, losslessly: the pieces join to the text.

    Paragraphs end at blank lines; a longer one is cut at line ends, a longer line at spaces, and a longer word
    anywhere between two characters. Raises ValueError for a limit below 1.

    >>> cut_units("one\\n\\ntwo three", limit=6)
    ['one\\n\\n', 'two ', 'three']
    """
    if limit < 1:
        raise ValueError(f"expected a limit of at least 1 character, got {limit}; pass a positive limit")
    units: list[str] = []
    ends = [match.end() for match in _BLANK_LINES.finditer(text)]
    for start, end in itertools.pairwise([0, *ends, len(text)]):
        paragraph = text[start:end]
        if len(paragraph) <= limit:
            units.extend([paragraph] if paragraph else [])
            continue
        pieces = [piece for line in paragraph.splitlines(keepends=True) for piece in _cut_line(line, limit)]
        units.extend(_pack(pieces, limit))
    return units


def _cut_line(line: str, limit: int) -> list[str]:
    pieces: list[str] = []
    start = 0
    while len(line) - start > limit:
        space = line.rfind(" ", start, start + limit)
        end = start + limit if space < 0 else space + 1
        pieces.append(line[start:end])
        start = end
    return [*pieces, line[start:]]


def _pack(pieces: Sequence[str], limit: int) -> list[str]:
    """Join consecutive pieces while they fit into `limit` characters."""
    packed: list[str] = []
    for piece in pieces:
        if packed and len(packed[-1]) + len(piece) <= limit:
            packed[-1] += piece
        else:
            packed.append(piece)
    return packed


def drop_repeats(units: Sequence[Unit]) -> list[Unit]:
    """Drop copies: units that stand in an earlier document, and units mostly made of earlier text.

    A unit goes when, white space aside, an earlier document holds it; or when more than `MAX_REPEATED_SHARE` of its
    `WINDOW`-byte windows begin first in an earlier unit of what remains. Short repeats inside one document (a line of
    dialogue) stay. Cost O(n log n) in the bytes.

    >>> page = "A sentence that is long enough to fill at least one window of fifty bytes."
    >>> [unit.document for unit in drop_repeats([Unit(0, page), Unit(1, "New. "), Unit(2, "Well: " + page)])]
    [0, 1]
    """
    first_document: dict[str, int] = {}
    fresh = [
        unit for unit in units if first_document.setdefault(" ".join(unit.text.split()), unit.document) == unit.document
    ]
    encoded = [unit.text.encode() for unit in fresh]
    hashes = hash_windows(b"".join(encoded))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first_position = first[inverse]
    kept: list[Unit] = []
    start = 0
    for unit, data in zip(fresh, encoded, strict=True):
        inside = first_position[start : max(start, start + len(data) - WINDOW + 1)]
        if not len(inside) or np.mean(inside < start) <= MAX_REPEATED_SHARE:
            kept.append(unit)
        start += len(data)
    return kept


def group_units(units: Sequence[Unit], size: int) -> list[Unit]:
    """Join consecutive units of one document into groups of about `size` characters.

    A group is closed before it would exceed `size`; only a single longer unit does.

    >>> group_units([Unit(0, "ab"), Unit(0, "cd"), Unit(0, "ef"), Unit(1, "gh")], size=4)
    [Unit(document=0, text='abcd'), Unit(document=0, text='ef'), Unit(document=1, text='gh')]
    """
    texts: list[list[str]] = []
    documents: list[int] = []
    length = 0
    for unit in units:
        if not texts or documents[-1] != unit.document or length + len(unit.text) > size:
            texts.append([])
            documents.append(unit.document)
            length = 0
        texts[-1].append(unit.text)
        length += len(unit.text)
    return [Unit(document, "".join(parts)) for document, parts in zip(documents, texts, strict=True)]


def split_groups(groups: Sequence[Unit]) -> tuple[bytes, bytes, bytes]:
    """Split groups 80/10/10 by bytes into train, validation and test text, by a fixed hash of each group's text.

    Groups are ranked by the SHA-256 of a fixed key and their text; those whose middle falls into the first tenth of the
    bytes in that ranking are validation text, those in the second test text, the others train. Within a split groups
    stand in the order of the corpus; where one does not follow on the one before it, a blank line parts them.

    >>> train, valid, test = split_groups([Unit(i, f"Paragraph {i:02d}\\n\\n") for i in range(20)])
    >>> len(train), len(valid), len(test)
    (224, 28, 28)
    """
    sizes = [len(group.text.encode()) for group in groups]
    ranked = sorted(range(len(groups)), key=lambda i: hashlib.sha256(_SPLIT_KEY + groups[i].text.encode()).digest())
    held_out = sum(sizes) / 10
    members: tuple[list[int], list[int], list[int]] = ([], [], [])
    taken = 0
    for i in ranked:
        middle = taken + sizes[i] / 2
        split = 1 if middle < held_out else 2 if middle < 2 * held_out else 0
        members[split].append(i)
        taken += sizes[i]
    train, valid, test = (_join(groups, sorted(indices)) for indices in members)
    return train, valid, test


def _join(groups: Sequence[Unit], indices: Sequence[int]) -> bytes:
    parts: list[str] = []
    for position, i in enumerate(indices):
        text = groups[i].text
        follows_on = position > 0 and indices[position - 1] == i - 1 and groups[i - 1].document == groups[i].document
        if parts and not follows_on:
            missing = 2 - (len(parts[-1]) - len(parts[-1].rstrip("\n")))
            parts.append("\n" * max(missing, 0))
        parts.append(text)
    return "".join(parts).encode()
