"""Training steps and decoding of the presets of equal core size against GPT-2.

    python -m benchmarks.models --rounds 5
    python -m benchmarks.models --lengths 1024 4096 --width 256

float32, one thread, a byte vocabulary, random weights, batch 1. GPT-2 is transformers' with scaled dot-product
attention, as many parameters outside its embeddings (positions counted among them) as our presets', to 2 %. Candidates
take turns in one process, and what counts is the process's own time on the core. A training step is forward, backward,
and a fused AdamW. Decoding is one token after a context, with state. Mamba's own peers: ``benchmarks.mamba_peers``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.statevector.timing import Figure, interleaved
from qlm import QLMConfig, QLMForCausalLM

OURS = ("harmonic", "mamba", "rotational", "transformer")
TRAINING_GOALS = {1024: 1.0, 4096: 2.0, 16384: 6.0}
"""Harmonic's training step against GPT-2's, by length."""
LONG, SHORT, PEERS = 16384, 16, 1024
"""Contexts of decoding: ours at two, GPT-2 at the last."""
OUT = Path(__file__).resolve().parent / "results" / "models.json"
VOCAB = 258


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the candidates take turns")
    parser.add_argument("--width", type=int, default=128, help="d_model of every model")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384], help="tokens of a training step")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = []
    for length in arguments.lengths:
        figures += training(arguments.width, length, arguments.rounds)
    figures += decoding(arguments.width, arguments.rounds)
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    arguments.out.parent.mkdir(exist_ok=True)
    sizes = {name: core_size(model) for name, model in every(arguments.width, PEERS).items()}
    record = {**machine, "core parameters": sizes, "figures": [figure.record() for figure in figures]}
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(sizes)


def ours(name: str, width: int) -> nn.Module:
    """A preset at another width."""
    return QLMForCausalLM(QLMConfig.preset(name, d_model=width))


def gpt2(width: int, length: int) -> nn.Module:
    """Three layers, as the Transformer's preset has."""
    sizes = {"n_embd": width, "n_layer": 3, "n_head": max(4, width // 64), "n_positions": length}
    tokens = {"vocab_size": VOCAB, "bos_token_id": 256, "eos_token_id": 256}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(**sizes, **tokens, **dropout)  # pyright: ignore[reportArgumentType] -- of several types
    config._attn_implementation = "sdpa"
    return GPT2LMHeadModel(config)


def every(width: int, length: int) -> dict[str, nn.Module]:
    """Our presets and their peers."""
    return {**{name: ours(name, width) for name in OURS}, "GPT-2": gpt2(width, length)}


def core_size(model: nn.Module) -> int:
    """Parameters outside embeddings of tokens and positions."""
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in embedded)


def step_of(model: Any, ids: Tensor) -> Callable[[], float]:
    """A training step, which returns its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def step() -> float:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def training(width: int, length: int, rounds: int) -> list[Figure]:
    """GPT-2's step over each of ours."""
    ids = torch.randint(256, (1, length))
    steps = {name: step_of(ours(name, width), ids) for name in OURS}
    steps["GPT-2"] = step_of(gpt2(width, length), ids)
    _, times = interleaved(steps, rounds, time.process_time)
    goals = {"harmonic": TRAINING_GOALS.get(length)}
    return [told("training", f"1x{length} {name}", "GPT-2", times, name, "GPT-2", goals.get(name)) for name in OURS]


def decoding(width: int, rounds: int) -> list[Figure]:
    """One token at contexts of two lengths, and GPT-2's with its cache."""
    peer = gpt2(width, 2 * PEERS)
    steps = {"GPT-2": token_of(peer, PEERS)}
    for name in OURS:
        model = ours(name, width)
        for context in (SHORT, LONG) if name != "transformer" else (SHORT, PEERS):
            steps[f"{name} at {context}"] = token_of(model, context)
    _, times = interleaved(steps, rounds, time.process_time)
    figures = []
    for name in OURS[:-1]:
        short, long = f"{name} at {SHORT}", f"{name} at {LONG}"
        figures.append(told("decoding", f"{name} {LONG}/{SHORT}", "itself", times, short, long, 1.05, at_most=True))
        goal = 2.0 if name == "harmonic" else None
        figures.append(told("decoding", f"{name} {LONG}", f"GPT-2 at {PEERS}", times, long, "GPT-2", goal))
    return [*figures, told("decoding", f"ours {PEERS}", "GPT-2", times, f"transformer at {PEERS}", "GPT-2", None)]


def token_of(model: Any, context: int) -> Callable[[], None]:
    """Reads one token after a context, again and again: the context grows by as many tokens as are read."""
    model.eval()
    with torch.no_grad():
        state = model(torch.randint(256, (1, context)), use_cache=True, logits_to_keep=1).past_key_values
    token = torch.tensor([[65]])

    def step() -> None:
        with torch.no_grad():
            model(token, past_key_values=state, use_cache=True)

    return step


def told(
    figure: str,
    size: str,
    against: str,
    times: dict[str, list[float]],
    below: str,
    above: str,
    goal: float | None,
    at_most: bool = False,
) -> Figure:
    """The ratio of two medians, printed as it is found."""
    medians = {name: median(times[name]) for name in (below, above)}
    milliseconds = {name: 1e3 * found for name, found in medians.items()}
    ratio = medians[above] / medians[below]
    found = Figure(figure, size, against, ratio, goal, at_most, milliseconds, len(times[below]))
    print(found.line(), flush=True)
    return found


if __name__ == "__main__":
    main()
