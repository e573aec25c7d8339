"""How a model reads text: bytes as they are, or the tokens of any Hugging Face tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qlm.checkpoint_files import read_object
from qlm.console import quiet_transformers
from qlm.text_pieces import cut_pieces
from qlm.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE, ByteTokenizer, decode_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTES = "bytes"


@runtime_checkable
class TextEncoder(Protocol):
    """Text to token ids and back. ``start_id`` stands before a text; ``n_ids`` is the vocabulary a model needs.

    >>> isinstance(ByteEncoder(), TextEncoder)
    True
    """

    @property
    def start_id(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def n_ids(self) -> int: ...

    def encode(self, text: bytes | memoryview) -> NDArray[np.integer]:
        """Token ids (n,) of a whole text, the same however it is read: those of its pieces (``qlm.text_pieces``)."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        ...

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, JSON alone, for ``AutoTokenizer``."""
        ...


class ByteEncoder:
    """Each byte is a token.

    >>> ByteEncoder().encode("hé".encode()).tolist()
    [104, 195, 169]
    """

    start_id, pad_id, n_ids = EOS_ID, PAD_ID, VOCAB_SIZE

    def encode(self, text: bytes | memoryview) -> NDArray[np.integer]:
        return np.frombuffer(text, np.uint8)

    def decode(self, ids: Sequence[int]) -> str:
        return decode_bytes(ids).decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        ByteTokenizer().save_pretrained(folder)


class TokenizerEncoder:
    """A Hugging Face tokenizer, without the special tokens that it would add by itself.

    A text is encoded in the pieces of ``qlm.text_pieces``, at least 8 kB each, so that a text that does not fit in
    memory has the same tokens as one that does. ``start_id`` is its end-of-text token, else the one for the beginning;
    ValueError where it has neither.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        start = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else tokenizer.bos_token_id
        if not isinstance(start, int):
            raise ValueError(
                f"a tokenizer expects a token for the end or the beginning of a text, got neither in "
                f"{tokenizer.name_or_path!r}; set its eos_token and save it again."
            )
        self.tokenizer = tokenizer
        self.start_id = start
        self.pad_id = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else start
        self.n_ids = max(len(tokenizer), VOCAB_SIZE)

    def encode(self, text: bytes | memoryview) -> NDArray[np.integer]:
        pieces = [piece.decode("utf-8", "replace") for piece in cut_pieces([bytes(text)])]
        if not pieces:
            return np.zeros(0, np.uint32)
        found = self.tokenizer(pieces, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return np.concatenate([np.asarray(ids, np.uint32) for ids in found["input_ids"]])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)


def load_encoder(folder: Path) -> TextEncoder:
    """Return the encoder whose files lie beside a model; bytes where there are none. Nothing is fetched.

    >>> type(load_encoder(Path("no-such-folder"))).__name__
    'ByteEncoder'
    """
    kind = (read_object(folder / "tokenizer_config.json") or {}).get("tokenizer_class", ByteTokenizer.__name__)
    if kind == ByteTokenizer.__name__:
        return ByteEncoder()
    return TokenizerEncoder(read_tokenizer(folder))


def read_tokenizer(name: str | Path) -> "PreTrainedTokenizerBase":
    """Return any ``AutoTokenizer``, from a folder or by its name on the Hub; ValueError where there is none."""
    from transformers import AutoTokenizer

    local = Path(name).is_dir()
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(str(name), local_files_only=local, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        said = " ".join(str(error).split())[:160]
        raise ValueError(
            f"a tokenizer expects a folder that holds one, or a name on the Hub, got {str(name)!r} ({said}); check it, "
            "or train one with bpe:N."
        ) from None
