"""The byte tokenizer: token ids 0 to 255 are the bytes of UTF-8 text, two special tokens follow.

It is an ordinary slow Hugging Face tokenizer, for `generate`, `pipeline`, `Trainer` and `save_pretrained` (JSON only).
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizer

EOS_ID = 256
PAD_ID = 257
VOCAB_SIZE = 258
EOS_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"
_SPECIAL_IDS = {EOS_TOKEN: EOS_ID, PAD_TOKEN: PAD_ID}
_SPECIAL_TOKENS = {index: token for token, index in _SPECIAL_IDS.items()}


def encode_bytes(data: bytes) -> list[int]:
    """Return the token ids of raw bytes, valid UTF-8 or not: the bytes themselves.

    >>> encode_bytes(b"a\\xff")
    [97, 255]
    """
    return list(data)


def decode_bytes(ids: Sequence[int]) -> bytes:
    """Return the bytes of token ids; special tokens have none. Raises IndexError for an id outside 0..257.

    >>> decode_bytes([256, 104, 105, 257])
    b'hi'
    """
    return bytes(index for index in map(_check_id, ids) if index < EOS_ID)


def byte_spans(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return, for each token, the half-open span of bytes it covers in `decode_bytes(ids)`.

    Special tokens cover an empty span. Raises IndexError for an id outside 0..257.

    >>> byte_spans([256, 104, 105])
    [(0, 0), (0, 1), (1, 2)]
    """
    spans: list[tuple[int, int]] = []
    end = 0
    for index in map(_check_id, ids):
        start, end = end, end + (index < EOS_ID)
        spans.append((start, end))
    return spans


def _check_id(index: int) -> int:
    if not 0 <= index < VOCAB_SIZE:
        raise IndexError(
            f"expected a token id in 0..{VOCAB_SIZE - 1}, got {index}; replace ignored labels (-100) by {PAD_ID} first"
        )
    return index


class ByteTokenizer(PreTrainedTokenizer):
    """UTF-8 bytes as tokens, 256 and 257 for end of text (also beginning of sequence) and padding.

    Any Unicode text comes back exactly: text is always split into bytes, even where it spells a special token, and
    encoding adds none. Bytes that are no UTF-8 decode to U+FFFD. Padding is on the left, as generation needs.
    The string of a byte token is the character of the same number, `chr(byte)`. Raises ValueError for lone
    surrogates, which UTF-8 cannot hold, and IndexError for ids outside 0..257.

    >>> tokenizer = ByteTokenizer()
    >>> tokenizer("hé").input_ids
    [104, 195, 169]
    >>> tokenizer.decode([104, 195, 169, 256], skip_special_tokens=True)
    'hé'
    """

    def __init__(self, **kwargs: Any) -> None:
        fixed = {"bos_token": EOS_TOKEN, "eos_token": EOS_TOKEN, "pad_token": PAD_TOKEN}
        for name, token in fixed.items():
            given = str(kwargs.setdefault(name, token))
            if given != token:
                raise ValueError(f"expected {name} to be {token!r}, got {given!r}; leave it out")
        kwargs.setdefault("padding_side", "left")
        kwargs.setdefault("model_input_names", ["input_ids", "attention_mask"])
        kwargs.setdefault("split_special_tokens", True)
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included: 258."""
        return VOCAB_SIZE

    def get_vocab(self) -> dict[str, int]:
        """Return the table from token string to id.

        >>> ByteTokenizer().get_vocab()["a"]
        97
        """
        return {chr(byte): byte for byte in range(256)} | _SPECIAL_IDS | self._added_tokens_encoder

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"expected Unicode text, got the lone surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start}; decode the source with errors='replace'"
            ) from error
        return list(data.decode("latin-1"))

    def _convert_token_to_id(self, token: str) -> int:
        if token in _SPECIAL_IDS:
            return _SPECIAL_IDS[token]
        if len(token) != 1 or ord(token) >= EOS_ID:
            raise ValueError(
                f"expected a byte token chr(0)..chr(255) or a special token, got {token!r}; encode text first"
            )
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return _SPECIAL_TOKENS.get(_check_id(index), chr(index))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join token strings to text, invalid UTF-8 as U+FFFD; special tokens stand as they are written.

        >>> ByteTokenizer().convert_tokens_to_string(["h", "Ã", "©", "<|endoftext|>"])
        'hé<|endoftext|>'
        """
        data = b"".join(token.encode("latin-1" if len(token) == 1 else "utf-8") for token in tokens)
        return data.decode("utf-8", errors="replace")

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Save nothing: the vocabulary is fixed.

        >>> ByteTokenizer().save_vocabulary(".")
        ()
        """
        return ()
