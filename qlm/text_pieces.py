"""Texts of any length in pieces: whole UTF-8 characters, cut at places that depend on the text alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from qlm.sources import DataError

PIECE = 8192
"""Bytes from which a piece ends at the next line's end; where none comes in as many again, it ends at a character."""
_READ = 2**20


def read_chunks(path: str | Path | BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a file, or of an open one, a megabyte at a time; DataError where it cannot be read.

    >>> import io
    >>> list(read_chunks(io.BytesIO(b"text")))
    [b'text']
    """
    if not isinstance(path, str | Path):
        yield from iter(lambda: path.read(_READ), b"")
        return
    try:
        with Path(path).open("rb") as file:
            yield from iter(lambda: file.read(_READ), b"")
    except OSError as error:
        raise DataError(
            f"expected a readable text file, got {error.strerror!r} for {str(path)!r}; check the path and its "
            "permissions"
        ) from error


def cut_pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a text, given in chunks, in pieces that do not depend on how it was chunked.

    A piece ends after the first line's end from its 8192th byte on, or else before the character that would reach its
    16384th. Memory: a chunk and a piece.

    >>> [len(piece) for piece in cut_pieces([b"a" * 20000, b"bc"])]
    [16384, 3618]
    """
    held = b""
    for chunk in chunks:
        held += chunk
        start = 0
        while len(held) - start > 2 * PIECE:
            end = _end(held, start)
            yield held[start:end]
            start = end
        held = held[start:]
    while held:
        end = _end(held, 0) if len(held) > PIECE else len(held)
        yield held[:end]
        held = held[end:]


def _end(text: bytes, start: int) -> int:
    """Where the piece that begins at ``start`` ends."""
    limit = start + 2 * PIECE
    newline = text.find(b"\n", start + PIECE - 1, limit)
    if newline >= 0:
        return newline + 1
    if limit >= len(text):
        return len(text)
    back = next((back for back in range(4) if not 0x80 <= text[limit - back] < 0xC0), 0)  # 0: no UTF-8 anyway
    return limit - back


def decode_pieces(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield the pieces of a text as characters; DataError for what is no text, with the offset of the first bad byte.

    ``name`` says in errors where the text is from.

    >>> list(decode_pieces([b"h\\xc3", b"\\xa9"], "a.txt"))
    ['hé']
    """
    offset = 0
    for piece in cut_pieces(chunks):
        nul = piece.find(b"\0")
        if nul >= 0:
            raise DataError(
                f"expected text in {name!r}, got binary data: a NUL byte at offset {offset + nul}; name a UTF-8 text "
                "file"
            )
        try:
            yield piece.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"expected UTF-8 text in {name!r}, got byte 0x{piece[error.start]:02x} at offset "
                f"{offset + error.start}; convert the file to UTF-8"
            ) from error
        offset += len(piece)
