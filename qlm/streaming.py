"""Texts of any length through a model in one pass and constant memory: read in parts, the state carried along.

Axis legend: b batch, l sequence, d model width.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qlm.blocks.base import Block, Context
from qlm.encoders import ByteEncoder, TextEncoder
from qlm.modeling import QLMForCausalLM
from qlm.modes import evaluating
from qlm.quantum import QuantumLayer
from qlm.state import RecurrentState
from qlm.text_pieces import decode_pieces

_LOGITS = 2**22
_LONGEST_PART = 4096
_PROBE = (7, 12)
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Streamed:
    """What a stream was worth: ``nats`` is the sum over all tokens of ``-log p(token | everything before it)``.

    >>> Streamed(n_bytes=2, n_tokens=1, nats=2 * math.log(2), seconds=0.5).bits_per_byte
    1.0
    """

    n_bytes: int
    n_tokens: int
    nats: float
    seconds: float

    @property
    def bits_per_byte(self) -> float:
        """``nats / (n_bytes log 2)``: it does not depend on the tokenizer."""
        return self.nats / math.log(2) / self.n_bytes

    @property
    def perplexity(self) -> float:
        """``2 ** bits_per_byte``, per byte."""
        return 2**self.bits_per_byte

    @property
    def tokens_per_second(self) -> float:
        """Tokens over seconds, reading and encoding included."""
        return self.n_tokens / self.seconds


def stream_evaluate(
    model: QLMForCausalLM,
    chunks: Iterable[bytes],
    encoder: TextEncoder | None = None,
    length: int | None = None,
    name: str = "the stream",
    watch: Callable[[int], None] | None = None,
) -> Streamed:
    """Measure a text, given as chunks of bytes, as one document: each token predicted from everything before it.

    The text follows the encoder's start token; it is read once, in order, ``length`` tokens at a time (None:
    ``part_length``), and the recurrent state is carried from part to part, so that the loss is that of one piece, up
    to rounding. ``watch`` is told the number of bytes read, after each part. Memory does not grow with the text.
    Raises ValueError for a model that cannot carry state (``check_carries_state``), DataError for what is no UTF-8
    text, or none at all. Cost O(n).

    >>> from qlm.config import QLMConfig
    >>> _ = torch.manual_seed(0)
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}]))
    >>> whole, parts = (stream_evaluate(model, [b"some text"], length=n).nats for n in (9, 2))
    >>> abs(whole - parts) < 1e-4
    True
    """
    encoder = ByteEncoder() if encoder is None else encoder
    check_carries_state(model)
    length = part_length(model) if length is None else length
    if length < 1:
        raise ValueError(f"a stream expects parts of at least 1 token, got {length}; pass more.")
    pieces, n_tokens, started = _Counted(chunks, name), 0, time.perf_counter()
    total = torch.zeros((), dtype=torch.float64)
    state, last = RecurrentState(len(model.model.layers)), encoder.start_id
    with evaluating(model), torch.no_grad():
        for ids in token_parts(pieces, encoder, length):
            total += _nats(model, np.concatenate(([last], ids)), state)
            last, n_tokens = int(ids[-1]), n_tokens + len(ids)
            if watch is not None:
                watch(pieces.n_bytes)
    if not n_tokens:
        raise ValueError(f"a stream expects text, got none from {name!r}; name a file with text in it.")
    return Streamed(pieces.n_bytes, n_tokens, float(total), time.perf_counter() - started)


def part_length(model: QLMForCausalLM) -> int:
    """Return how many tokens to read at a time: 4096, fewer where their logits would take more than 16 MB.

    >>> from qlm.config import QLMConfig
    >>> part_length(QLMForCausalLM(QLMConfig(d_model=8, vocab_size=65536, blocks=[{"kind": "harmonic"}])))
    64
    """
    return max(1, min(_LONGEST_PART, _LOGITS // model.config.vocab_size))


def token_parts(pieces: Iterable[str], encoder: TextEncoder, length: int) -> Iterator[NDArray[np.int64]]:
    """Yield the token ids of a text's pieces, in order, ``length`` at a time; the last part may be shorter.

    >>> [part.tolist() for part in token_parts(["ab", "c"], ByteEncoder(), 2)]
    [[97, 98], [99]]
    """
    held = np.empty(0, np.int64)
    for piece in pieces:
        held = np.concatenate((held, encoder.encode(piece.encode()).astype(np.int64)))
        whole = len(held) - len(held) % length
        yield from (held[start : start + length] for start in range(0, whole, length))
        held = held[whole:]
    if len(held):
        yield held


class _Counted:
    """The pieces of a text; counts the bytes that were read."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self.chunks = chunks
        self.name = name
        self.n_bytes = 0

    def __iter__(self) -> Iterator[str]:
        for piece in decode_pieces(self.chunks, self.name):
            self.n_bytes += len(piece.encode())
            yield piece


def _nats(model: QLMForCausalLM, ids: NDArray[np.int64], state: RecurrentState) -> Tensor:
    """The loss of ids (l + 1,) after the first, summed; the state takes in all but the last."""
    row = torch.from_numpy(ids).to(model.device)[None]
    logits = model(input_ids=row[:, :-1], past_key_values=state, use_cache=True).logits[0]
    return functional.cross_entropy(logits.float(), row[0, 1:], reduction="none").double().sum().cpu()


@torch.no_grad()
def initial_state(model: QLMForCausalLM, rows: int) -> RecurrentState:
    """Return the state of ``rows`` texts of which nothing has been read; reports and random states stay.

    >>> from qlm.config import QLMConfig
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}]))
    >>> [tuple(tensor.shape) for tensor in initial_state(model, 2).blocks[0]]
    [(2, 3, 8), (2, 3, 8)]
    """
    nothing, states = torch.zeros(rows, 0, model.config.d_model, device=model.device, dtype=model.dtype), []
    with torch.random.fork_rng(devices=[]):
        for block in model.model.layers:
            assert isinstance(block, Block)
            report = block.report
            states.append(block(nothing, Context()).state)
            block.report = report
    return RecurrentState(len(states), 0, states)


@torch.no_grad()
def check_carries_state(model: QLMForCausalLM) -> None:
    """Check that each block reads a text in parts as in one piece, with a state of fixed size; ValueError otherwise.

    Each is run on 12 random vectors, whole and as 7 and 5; the 7 alone say its state's size. Blocks whose circuits run
    with shots, noise or on a device are compared by the size of their states alone, and run on nothing but that.
    """
    for position, block in enumerate(model.model.layers):
        assert isinstance(block, Block)
        kind = (model.config.blocks or [])[position]["kind"]
        problem = _problem(block, model)
        if problem is not None:
            raise ValueError(
                f"carrying state expects blocks whose state keeps its size and holds what was read, got "
                f"'{position}.{kind}', {problem}; use recurrent blocks, such as harmonic, or read the text in windows."
            )


def _problem(block: Block, model: QLMForCausalLM) -> str | None:
    """Why a block cannot carry state; None where it can. Its report, and random states, stay."""
    first, length = _PROBE
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, length, model.config.d_model, generator=generator).to(model.device, model.dtype)
    layers = [module for module in block.modules() if isinstance(module, QuantumLayer)]
    exact = all(layer.backend.capabilities.exact for layer in layers)
    parts = (hidden[:, :first], hidden[:, first:]) if exact else (hidden[:, :0], hidden[:, :0])
    report = block.report
    with evaluating(block), torch.random.fork_rng(devices=[]):
        before = block(parts[0], Context())
        after = block(parts[1], Context(state=before.state))
        whole = block(hidden, Context()) if exact else None
    block.report = report
    sizes = [[tuple(tensor.shape) for tensor in output.state] for output in (before, after)]
    if sizes[0] != sizes[1] or any(0 in shape for shape in sizes[0]):
        return "whose state grows with the text"
    if whole is None:
        return None
    joined = torch.cat((before.hidden, after.hidden), 1)
    if float((joined - whole.hidden).abs().max()) > _TOLERANCE * (1 + float(whole.hidden.abs().max())):
        return "which does not read a text in parts as it reads it whole"
    return None
