"""What xz makes of a text: the compressor's baseline for bits per byte."""

import lzma

_LARGEST_DICTIONARY = 3 << 29  # 1.5 GiB, the most that liblzma's encoder takes


def xz_bits_per_byte(text: bytes, given: bytes = b"") -> float:
    """Return the bits per byte that xz (preset 9, extreme) needs for `text`, after `given` where there is such a text.

        8 (size(given + text) - size(given)) / len(text),    size(b"") = 0

    Sizes are those of whole .xz files without integrity check: alone, a text pays the container, some 60 bytes; given
    another text, the containers cancel. The dictionary holds everything, so that no repeat is out of reach. Raises
    ValueError for an empty text, and above 1.5 GiB. Cost: about a second per 2 MB.

    >>> page = bytes(range(256)) * 4
    >>> xz_bits_per_byte(page, given=page) < xz_bits_per_byte(page)
    True
    """
    if not text:
        raise ValueError("expected text to compress, got no bytes; give a text of at least one byte")
    n_bytes = len(given) + len(text)
    if n_bytes > _LARGEST_DICTIONARY:
        raise ValueError(
            f"expected at most {_LARGEST_DICTIONARY} bytes, the largest dictionary of xz, got {n_bytes}; give less text"
        )
    dictionary = min(max(1 << (n_bytes - 1).bit_length(), 1 << 16), _LARGEST_DICTIONARY)
    base = _xz_size(given, dictionary) if given else 0
    return 8 * (_xz_size(given + text, dictionary) - base) / len(text)


def _xz_size(data: bytes, dictionary: int) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_NONE, filters=filters))
