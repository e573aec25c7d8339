"""Born heads against softmax: 32k tokens of real text trained, and what a training step of a byte model costs.

    python -m benchmarks.born_head                      # the Python manual
    python -m benchmarks.born_head --data text.txt      # one of your own, or a folder of .txt
    python -m benchmarks.born_head --steps-only         # the cost of a step alone

A byte-pair vocabulary is built from the training part, of 32,768 tokens or as many as the text yields; ids beyond those
stay unused. Each row is the same model (embedding, two recurrences, head) with another head, trained for the same steps
from the same seed on the same batches, with the head's own `log_prob`: Born's rule needs no sum over the vocabulary
for it, softmax does. Bits per token are of held-out text. One thread unless OMP_NUM_THREADS says more.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn

from qlm import QLMConfig, QLMForCausalLM
from qlm.data import load_corpus
from qlm.heads.base import Head

VOCAB_SIZE = 32768
D_MODEL = 64
BATCH, LENGTH = 8, 64
HEADS: dict[str, dict[str, Any]] = {
    "born, low rank": {"kind": "born_low_rank", "rank": 32},
    "  low-rank twin": {"kind": "born_low_rank", "rank": 32, "quantum": "twin"},
    "born, MPS": {"kind": "born_mps", "bond": 32},
    "  MPS twin": {"kind": "born_mps", "bond": 32, "quantum": "twin"},
    "  low rank, MPS's size": {"kind": "born_low_rank", "rank": 2, "quantum": "twin"},
}
STEP_HEADS = ("linear", "born_circuit", "born_low_rank", "born_mps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="python-docs", help="a text file, a folder of texts, or python-docs")
    parser.add_argument("--steps", type=int, default=150, help="of each head; softmax over 32k takes minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-only", action="store_true", help="time training steps of a byte model alone")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if not arguments.steps_only:
        compare(arguments.data, arguments.steps, arguments.seed)
    time_steps(arguments.seed)


def compare(source: str, steps: int, seed: int) -> None:
    """Train the same model with each head and print what it is worth."""
    corpus = load_corpus(source)
    tokenizer = byte_pairs(corpus.train)
    train_ids, valid_ids = (
        torch.tensor(tokenizer.encode(part.decode("utf-8", "replace")).ids) for part in (corpus.train, corpus.valid)
    )
    valid_ids = valid_ids[: 200 * (LENGTH + 1)]
    n_bytes = len(tokenizer.decode(valid_ids.tolist()).encode())
    print(f"{source}: {len(train_ids):,} training tokens, {len(valid_ids):,} validation tokens ({n_bytes:,} bytes)")
    print(f"vocabulary {VOCAB_SIZE:,}, of which the text yields {tokenizer.get_vocab_size():,}; {steps} steps")
    print(f"{'head':22} {'head':>10} {'model':>10} {'bits per':>9} {'bits per':>9} {'leaked':>7} {'training':>9}")
    print(f"{'':22} {'parameters':>10} {'parameters':>10} {'token':>9} {'byte':>9} {'mass':>7} {'tokens/s':>9}")
    bits = unigram_bits(train_ids, valid_ids)
    print(f"{'(frequencies alone)':22} {'':>10} {'':>10} {bits:9.3f} {bits * len(valid_ids) / n_bytes:9.3f}")
    for name, entry in HEADS.items():
        torch.manual_seed(seed)
        blocks = [{"kind": "harmonic"}, {"kind": "harmonic"}]
        model = QLMForCausalLM(QLMConfig(vocab_size=VOCAB_SIZE, d_model=D_MODEL, blocks=blocks, head=entry))
        sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in (model.lm_head, model)]
        assert sizes[1] <= 5_000_000
        rate = train(model, train_ids, steps)
        bits, leaked = measure(model, valid_ids)
        print(
            f"{name:22} {sizes[0]:10,} {sizes[1]:10,} {bits:9.3f} {bits * len(valid_ids) / n_bytes:9.3f} "
            f"{leaked:7.1%} {rate:9,.0f}",
            flush=True,
        )


def byte_pairs(text: bytes) -> Tokenizer:
    """A byte-pair tokenizer of up to 32,768 tokens, numbered from bytes over frequent pairs to rare ones."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(vocab_size=VOCAB_SIZE, show_progress=False, initial_alphabet=ByteLevel.alphabet())
    tokenizer.train_from_iterator(text.decode("utf-8", "replace").splitlines(keepends=True), trainer)
    return tokenizer


def unigram_bits(train_ids: Tensor, valid_ids: Tensor) -> float:
    """Bits per validation token under the training frequencies, one added to each count."""
    counts = torch.bincount(train_ids, minlength=VOCAB_SIZE).double() + 1
    return float(-(counts / counts.sum()).log2()[valid_ids].mean())


def log_probs(model: QLMForCausalLM, ids: Tensor) -> Tensor:
    """log p of each next token (b, l - 1)."""
    assert isinstance(model.lm_head, Head)
    return model.lm_head.log_prob(model.model(ids, use_cache=False).last_hidden_state[:, :-1], ids[:, 1:])


def train(model: QLMForCausalLM, ids: Tensor, steps: int) -> float:
    """Adam on windows drawn from torch's generator, seeded alike for all heads; tokens per second."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    started = time.perf_counter()
    for _ in range(steps):
        first = torch.randint(len(ids) - LENGTH - 1, (BATCH, 1), generator=generator)
        loss = -log_probs(model, ids[first + torch.arange(LENGTH + 1)]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return steps * BATCH * LENGTH / (time.perf_counter() - started)


@torch.no_grad()
def measure(model: QLMForCausalLM, ids: Tensor) -> tuple[float, float]:
    """Bits per token over windows that do not overlap, and the mean leaked mass."""
    model.eval()
    total, leaked, n_tokens = 0.0, 0.0, 0
    for windows in ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1).split(BATCH):
        logs = log_probs(model, windows)
        total -= float(logs.double().sum()) / math.log(2)
        report = next(iter(model.reports().values()))
        leaked += report.leaked * logs.numel()
        n_tokens += logs.numel()
    return total / n_tokens, leaked / n_tokens


def time_steps(seed: int, rounds: int = 5) -> None:
    """Print seconds of a training step (forward, backward, Adam) of the tiny preset, batch 16 x 128, by head."""
    ids = torch.randint(258, (16, 128), generator=torch.Generator().manual_seed(seed))
    steps: dict[tuple[str, str], Callable[[], None]] = {}
    for kind in STEP_HEADS:
        for mode in ("circuit", "twin") if kind != "linear" else ("circuit",):
            torch.manual_seed(seed)
            entry = {"kind": kind} if kind == "linear" else {"kind": kind, "quantum": mode}
            model = QLMForCausalLM(QLMConfig.preset("tiny-hybrid", head=entry)).train()
            steps[kind, mode] = one_step(model, torch.optim.Adam(model.parameters(), lr=1e-3), ids)
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):  # the first compiles
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    print(f"\na training step of tiny-hybrid (d_model 128), 258 tokens, batch 16 x 128: median of {rounds}")
    print(f"{'linear':16} {medians['linear', 'circuit']:7.3f} s")
    for kind in STEP_HEADS[1:]:
        own, twin = medians[kind, "circuit"], medians[kind, "twin"]
        print(f"{kind:16} {own:7.3f} s, its twin {twin:.3f} s: {own / twin:.2f}x")


def one_step(model: QLMForCausalLM, optimizer: torch.optim.Optimizer, ids: Tensor) -> Callable[[], None]:
    def run() -> None:
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
