"""Byte-pair tokenizers trained on one's own text, and the names by which tokenizers are asked for."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qlm.encoders import BYTES, ByteEncoder, TextEncoder, TokenizerEncoder, read_tokenizer
from qlm.text_pieces import cut_pieces
from qlm.tokenizer import EOS_TOKEN, PAD_TOKEN, VOCAB_SIZE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BPE, _HUB = "bpe:", "hf:"
_MOST = 2**20
_CHUNK = 2**20


def check_tokenizer(spec: str) -> None:
    """Check the name of a tokenizer: "bytes", "bpe:N" or "hf:NAME"; ValueError otherwise.

    >>> check_tokenizer("bpe:1000")
    """
    number = spec.removeprefix(_BPE) if spec.startswith(_BPE) else ""
    if spec == BYTES or (spec.startswith(_HUB) and spec != _HUB):
        return
    if number.isdecimal() and VOCAB_SIZE <= int(number) <= _MOST:
        return
    raise ValueError(
        f"--tokenizer expects {BYTES}, bpe:N with N from {VOCAB_SIZE} to {_MOST}, or hf: and the name or folder of a "
        f"Hugging Face tokenizer, got '{spec}'; correct it."
    )


def make_encoder(spec: str, text: bytes | memoryview) -> TextEncoder:
    """Return the tokenizer of a name: "bpe:N" is trained on the text, "hf:NAME" read from a folder or the Hub.

    Raises as ``check_tokenizer`` and ``read_tokenizer`` do.

    >>> make_encoder("bytes", b"").n_ids
    258
    """
    check_tokenizer(spec)
    if spec == BYTES:
        return ByteEncoder()
    if spec.startswith(_HUB):
        return TokenizerEncoder(read_tokenizer(Path(name) if Path(name := spec[len(_HUB) :]).is_dir() else name))
    chunks = (bytes(text[start : start + _CHUNK]) for start in range(0, len(text), _CHUNK))
    return TokenizerEncoder(train_bpe(chunks, int(spec[len(_BPE) :])))


def train_bpe(chunks: Iterable[bytes], n_tokens: int) -> "PreTrainedTokenizerBase":
    """Return a byte-level BPE tokenizer of at most ``n_tokens`` tokens: two special ones, 256 bytes, merged pairs.

    Any text comes back exactly. Pairs merge within words as GPT-2 cuts them, most frequent first, while a pair occurs
    twice. It is an ordinary fast tokenizer of transformers. Source: Sennrich et al., arXiv:1508.07909, on bytes.

    >>> tokenizer = train_bpe([b"low lower lowest " * 9], 262)
    >>> tokenizer.decode(tokenizer("low é").input_ids), len(tokenizer("low low").input_ids)
    ('low é', 2)
    """
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue] -- set so
    tokenizer.decoder = ByteLevelDecoder()  # pyright: ignore[reportAttributeAccessIssue] -- set so
    trainer = BpeTrainer(
        vocab_size=n_tokens,
        min_frequency=2,
        special_tokens=[EOS_TOKEN, PAD_TOKEN],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece.decode("utf-8", "replace") for piece in cut_pieces(chunks)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        model_input_names=["input_ids", "attention_mask"],
    )
