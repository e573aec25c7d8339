"""One document of five million tokens through a recurrent model: does memory, speed or loss depend on the length?

    python -m benchmarks.stream
    python -m benchmarks.stream --tokens 300000 --preset mamba --data some.txt

The text is read once, in parts, and the state is carried. Told are the slope of resident memory over the stream after
its first tenth (least squares; the goal is under 1 MB per million tokens), the speed of the last tenth over that of the
first, in seconds of the process (the goal is 1 within 10 %), and the loss of the first tokens in parts beside that in
one piece (the goal is 1e-5 bits per byte). Text that is not given is generated, so that nothing of it is on a disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qlm import QLMConfig, QLMForCausalLM
from qlm.evaluation import bits_per_byte
from qlm.streaming import part_length, stream_evaluate
from qlm.text_pieces import read_chunks

OUT = Path(__file__).resolve().parent / "results" / "stream.json"
_CHUNK = 2**16
_PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=5_000_000, help="tokens (bytes) of the document")
    parser.add_argument("--preset", default="harmonic", help="which model, with fresh weights")
    parser.add_argument("--data", type=Path, help="a UTF-8 text file, repeated until it is long enough")
    parser.add_argument("--piece", type=int, default=65536, help="tokens whose loss is also taken in one piece")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON and PNG")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = QLMForCausalLM(QLMConfig.preset(arguments.preset)).eval()
    stream_evaluate(model, words(2 * _CHUNK))  # compiles the kernels
    record = {"preset": arguments.preset, "tokens": arguments.tokens, **one_piece(model, arguments)}
    print(f"loss of {arguments.piece:,} tokens in parts - in one piece: {record['difference']:+.2e} bits per byte")
    trace = run(model, document(arguments.data, arguments.tokens))
    record |= figures(trace)
    print(
        f"{arguments.preset}, {arguments.tokens:,} tokens, {record['tokens_per_second']:,.0f} a second: "
        f"{record['slope']:+.3f} MB per million tokens; the last tenth at {record['last_over_first']:.3f} of the "
        "first's speed"
    )
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draw(trace, record, arguments.out.with_suffix(".png"))


def words(n_bytes: int) -> Iterator[bytes]:
    """Generated text: words of a fixed lexicon by a power law, with line ends."""
    draws = np.random.default_rng(0)
    letters = draws.integers(97, 123, (5000, 9)).astype(np.uint8)
    lexicon = [bytes(row[: 2 + k % 8]) for k, row in enumerate(letters)]
    while n_bytes > 0:
        ranks = np.minimum(draws.zipf(1.3, 10000), len(lexicon)) - 1
        chunk = b" ".join(
            lexicon[rank] + (b".\n" if end < 0.08 else b"")
            for rank, end in zip(ranks, draws.random(10000), strict=True)
        )
        yield (chunk + b" ")[:n_bytes]
        n_bytes -= len(chunk) + 1


def document(path: Path | None, n_bytes: int) -> Iterable[bytes]:
    """The text in chunks: generated, or a file's over and over."""
    if path is None:
        yield from words(n_bytes)
        return
    for chunk in itertools.chain.from_iterable(read_chunks(path) for _ in itertools.count()):
        yield chunk[:n_bytes].decode("utf-8", "ignore").encode()
        n_bytes -= len(chunk)
        if n_bytes <= 0:
            return


def one_piece(model: QLMForCausalLM, arguments: argparse.Namespace) -> dict[str, float]:
    """Bits per byte of the beginning: in parts, in one piece, and in windows, which forget."""
    text = b"".join(document(arguments.data, arguments.piece))
    parts, whole = stream_evaluate(model, [text]).bits_per_byte, bits_per_byte(model, text, context=len(text) + 1)
    forgetful = bits_per_byte(model, text, context=part_length(model) // 16)
    told = {"in_parts": parts, "in_one_piece": whole, "difference": parts - whole, "in_windows": forgetful}
    return {"piece": len(text), **told}


def run(model: QLMForCausalLM, chunks: Iterable[bytes]) -> np.ndarray:
    """Tokens, process seconds and resident bytes after each part: (3, parts)."""
    length, seen, started = part_length(model), [], time.process_time()
    statm = Path("/proc/self/statm")

    def watch(_: int) -> None:
        resident = int(statm.read_text().split()[1]) * _PAGE
        seen.append(((len(seen) + 1) * length, time.process_time() - started, resident))

    stream_evaluate(model, chunks, length=length, watch=watch)
    return np.array(seen, np.float64).T


def figures(trace: np.ndarray) -> dict[str, Any]:
    """The slope of memory, and speeds of the first and last tenth."""
    tokens, seconds, resident = trace
    tenth = max(2, len(tokens) // 10)
    slope = np.polyfit(tokens[tenth:] / 1e6, resident[tenth:] / 1e6, 1)[0]
    first, last = (
        (tokens[part][-1] - tokens[part][0]) / (seconds[part][-1] - seconds[part][0])
        for part in (slice(None, tenth), slice(-tenth, None))
    )
    return {
        "slope": float(slope),
        "resident_megabytes": [float(resident[tenth] / 1e6), float(resident[-1] / 1e6)],
        "tokens_per_second": float(tokens[-1] / seconds[-1]),
        "last_over_first": float(last / first),
    }


def draw(trace: np.ndarray, record: dict[str, Any], path: Path) -> None:
    """Memory and speed over the stream."""
    from matplotlib.figure import Figure

    tokens, seconds, resident = trace
    step = max(1, len(tokens) // 200)
    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    above.plot(tokens / 1e6, resident / 1e6, color="#2a7f9e")
    above.set_ylabel("resident memory (MB)")
    above.set_ylim(0)
    below.plot(tokens[step::step] / 1e6, np.diff(tokens[::step]) / np.diff(seconds[::step]), color="#7a3fb0")
    below.set_ylabel("tokens per second")
    below.set_ylim(0)
    below.set_xlabel("million tokens read")
    above.set_title(f"One document through '{record['preset']}', state carried", loc="left")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
