"""Streams: the loss of one piece, in parts of any length; pieces that depend on the text alone; what cannot carry."""

import io
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ok, qlm
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model
from tiny_runs import python_docs

from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.base import Block, BlockOutput, Context
from qlm.encoders import ByteEncoder, load_encoder
from qlm.evaluation import bits_per_byte
from qlm.sources import DataError
from qlm.streaming import Streamed, check_carries_state, stream_evaluate, token_parts
from qlm.text_pieces import PIECE, cut_pieces, decode_pieces, read_chunks

TEXT = python_docs().valid[:200]
CARRIED: tuple[list[dict[str, Any]], ...] = (
    [{"kind": "harmonic", "stride": 3}, {"kind": "mamba", "n_states": 4}],
    [{"kind": "rotational", "n_heads": 2}, {"kind": "tt_feed_forward", "ranks": [1, 2]}],
    [{"kind": "harmonic_spiking"}, {"kind": "quantum_router", "n_wires": 2, "depth": 1}, {"kind": "harmonic"}],
    [{"kind": "kernel_attention", "window": 5}, {"kind": "harmonic"}],
)


def model_of(blocks: list[dict[str, Any]], dtype: torch.dtype = torch.float32) -> QLMForCausalLM:
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig(d_model=16, blocks=blocks))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.nn.Module.to(model, dtype)
    return model


@pytest.mark.parametrize("blocks", CARRIED, ids=lambda blocks: "-".join(entry["kind"] for entry in blocks))
def test_parts_have_the_loss_of_one_piece(blocks: list[dict[str, Any]]) -> None:
    model = model_of(blocks, torch.float64)
    model.train()
    whole = bits_per_byte(model, TEXT, context=len(TEXT) + 1)
    for length in (150, 64):
        streamed = stream_evaluate(model, [TEXT[:77], TEXT[77:]], length=length)
        assert streamed.bits_per_byte == pytest.approx(whole, abs=1e-7)
        assert (streamed.n_bytes, streamed.n_tokens) == (200, 200)
    assert model.training
    assert abs(bits_per_byte(model, TEXT, context=65) - whole) > 1e-6  # so that forgetting would show


def test_single_precision_stays_within_1e_5() -> None:
    model = tiny_model(spread=0.1)
    whole = bits_per_byte(model, TEXT, context=len(TEXT) + 1)
    assert stream_evaluate(model, [TEXT], length=100).bits_per_byte == pytest.approx(whole, abs=1e-5)


def test_figures() -> None:
    streamed = Streamed(n_bytes=4, n_tokens=2, nats=8 * math.log(2), seconds=0.5)
    assert (streamed.bits_per_byte, streamed.perplexity, streamed.tokens_per_second) == (2.0, 4.0, 4.0)


def test_the_text_is_read_as_it_is_needed() -> None:
    """Never more than a chunk and a piece ahead of the model, in order, once."""
    asked, told = [0], [0]

    def chunks() -> Iterator[bytes]:
        for number in range(4):
            asked[0] = number + 1
            assert number * 20000 - told[0] <= 20000 + 2 * PIECE
            yield bytes([97 + number]) * 20000

    def watch(n_bytes: int) -> None:
        assert told[0] <= n_bytes <= asked[0] * 20000
        told[0] = n_bytes

    model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic", "taus": [4.0]}]))
    assert stream_evaluate(model, chunks(), watch=watch).n_bytes == told[0] == 80000
    parts = token_parts(decode_pieces((bytes([97 + k]) * 20000 for k in range(4)), "a"), ByteEncoder(), 999)
    ids = np.concatenate(list(parts))
    assert ids.tolist() == [97 + k for k in range(4) for _ in range(20000)]


class Forgetful(Block):
    """Adds the mean of what it saw in this call, and keeps nothing."""

    def forward(self, hidden: torch.Tensor, context: Context) -> BlockOutput:
        count = torch.arange(1, hidden.shape[1] + 1)[:, None]
        return BlockOutput(hidden + hidden.cumsum(1) / count)


def test_blocks_that_cannot_carry_state_are_refused() -> None:
    """And nothing of the model changes in the check."""
    for blocks, message in (
        ([{"kind": "harmonic"}, {"kind": "transformer"}], "got '1.transformer', whose state grows with the text; use"),
        ([{"kind": "kernel_attention", "normalisation": "softmax"}], "got '0.kernel_attention', whose state grows"),
    ):
        model = QLMForCausalLM(QLMConfig(d_model=16, blocks=blocks))
        with pytest.raises(ValueError, match=message):
            stream_evaluate(model, [b"text"])
    model = model_of([{"kind": "harmonic"}, {"kind": "harmonic"}]).train()
    model.model.layers[1] = Forgetful()
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"got '1\.harmonic', which does not read a text in parts as"):
        check_carries_state(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())


def test_a_noisy_circuit_is_not_mistaken_for_one_that_forgets() -> None:
    pytest.importorskip("qiskit_aer")
    model = tiny_model(backend="aer?shots=8")
    check_carries_state(model)


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(["a", "é", "語", "\n", "😀", "ab " * 900, "語" * 3000, "\n" * 5000]), max_size=40),
    st.lists(st.integers(1, 30000), max_size=8),
)
def test_pieces_depend_on_the_text_alone(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts).encode()
    bounds = [0, *itertools.takewhile(lambda cut: cut < len(text), itertools.accumulate(cuts)), len(text)]
    pieces = list(cut_pieces([text]))
    assert list(cut_pieces(text[a:b] for a, b in itertools.pairwise(bounds))) == pieces
    assert b"".join(pieces) == text
    assert all(len(piece) <= 2 * PIECE for piece in pieces)
    assert all(len(piece) >= PIECE for piece in pieces[:-1])
    assert "".join(decode_pieces([text], "a")) == text.decode()


def test_what_is_no_text_is_refused_at_its_offset(tmp_path: Path) -> None:
    model = model_of([{"kind": "harmonic"}])
    good = "é".encode() * 9000
    for bad, message in (
        (good + b"\xff", "expected UTF-8 text in 'a.txt', got byte 0xff at offset 18000; convert"),
        (good + b"\0", "got binary data: a NUL byte at offset 18000"),
        (good + b"\xc3", "got byte 0xc3 at offset 18000"),
        (b"\x80" * 40000, "got byte 0x80 at offset 0"),
    ):
        with pytest.raises(DataError, match=message):
            list(decode_pieces([bad], "a.txt"))
    with pytest.raises(ValueError, match=r"expects text, got none from 'a\.txt'"):
        stream_evaluate(model, [], name="a.txt")
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        stream_evaluate(model, [b"a"], length=0)
    with pytest.raises(DataError, match="expected a readable text file, got 'Is a directory'"):
        list(read_chunks(tmp_path))
    (tmp_path / "a.txt").write_bytes(good)
    assert b"".join(read_chunks(tmp_path / "a.txt")) == b"".join(read_chunks(io.BytesIO(good))) == good


def test_evaluate_streams_files_standard_input_and_splits(tmp_path: Path) -> None:
    model, file = model_of([{"kind": "harmonic"}]), tmp_path / "a.txt"
    model.save_pretrained(tmp_path / "model")
    file.write_bytes(TEXT)
    expected = f"{stream_evaluate(model, [TEXT]).bits_per_byte:.4f}"
    for arguments in (("--data", file), ("--data", file, "--context", "50")):
        shown = ok("evaluate", "--model", tmp_path / "model", "--stream", *arguments)
        assert expected in shown
        assert "200 bytes, 200 tokens, in one pass" in shown
    piped = ok("evaluate", "--model", tmp_path / "model", "--stream", "--data", "-", text=TEXT.decode())
    assert expected in piped
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_bytes(TEXT * 2 if name == "test" else TEXT.upper() * 2)
    expected = f"{stream_evaluate(model, [TEXT * 2]).bits_per_byte:.4f}"
    assert expected in ok("evaluate", "--model", tmp_path / "model", "--stream", "--data", tmp_path, "--split", "test")
    refused = qlm("evaluate", "--model", tmp_path / "model", "--stream", "--data", file, "--split", "test")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: --stream reads a file as a whole, got --split test for ")
    assert type(load_encoder(tmp_path / "model")) is ByteEncoder
