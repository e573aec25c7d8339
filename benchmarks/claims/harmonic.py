"""The published claims of the Harmonic system (Zenodo 20381713), tested at equal size, tokens and batch x length.

    python -m benchmarks.claims.harmonic --data FOLDER
    python -m benchmarks.claims.harmonic --data FOLDER --lengths 256 1024 4096 --tokens 4000000 --seeds 5

Harmonic, Mamba and a Transformer of equal core size, and Harmonic's ablations at the shortest length, learn the bytes
of a text: each the same number of tokens in steps of the same number of tokens, whatever the length. Each model is
tuned alike, at each length: it is trained at every learning rate of one grid from a seed of its own, and the rate with
the best validation text is taken. Then every model is trained from the same seeds, which give the same windows in the
same order, and told on the test text in windows of the length it was trained at. Differences are paired by seed, with
95 % t-intervals; a claim stands where the interval leaves 0 out. Each record names the corpus by its hash.

Axis legend: b batch, l length.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.claims.paired import Row, Runs, Verdict, of_all, shown
from qlm import QLMConfig, QLMForCausalLM
from qlm.data import Corpus, load_corpus
from qlm.evaluation import bits_per_byte, count_parameters

MODELS = ("harmonic", "mamba", "transformer")
ABLATIONS = ("flat-tau-4", "flat-tau-32", "flat-tau-128", "raw-signal")
TUNING_SEED = 10_000
OUT = Path(__file__).resolve().parent.parent / "results" / "claims_harmonic.json"


@dataclass(frozen=True)
class Budget:
    """What every model gets: tokens in all and a step, its width, the learning rates it is tuned over, and how many
    bytes of validation and test text it is told on."""

    tokens: int
    step_tokens: int
    width: int
    rates: tuple[float, ...]
    asked_bytes: int

    @property
    def steps(self) -> int:
        return max(1, self.tokens // self.step_tokens)


def built(name: str, width: int) -> QLMForCausalLM:
    return QLMForCausalLM(QLMConfig.preset(name, d_model=width))


def windows(text: Tensor, length: int, rows: int, seed: int) -> Callable[[], Tensor]:
    """A source of batches (b, l), the same for every model of a seed."""
    draws = torch.Generator().manual_seed(seed)

    def batch() -> Tensor:
        starts = torch.randint(len(text) - length + 1, (rows,), generator=draws)
        return torch.stack([text[start : start + length] for start in starts.tolist()])

    return batch


def trained(name: str, text: Tensor, length: int, rate: float, seed: int, budget: Budget) -> QLMForCausalLM:
    """One model, by AdamW with warm-up and cosine, its gradient clipped."""
    torch.manual_seed(seed)
    model = built(name, budget.width).train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    shape = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, budget.steps, pct_start=0.1)
    batch = windows(text, length, max(1, budget.step_tokens // length), seed)
    for _ in range(budget.steps):
        ids = batch()
        optimizer.zero_grad()
        model(ids, labels=ids, use_cache=False).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shape.step()
    return model.eval()


def measured(name: str, corpus: Corpus, length: int, seeds: int, budget: Budget) -> Row:
    """A model at one length: tuned, then trained from every seed."""
    text = torch.tensor(list(corpus.train))
    valid, test = (part[: budget.asked_bytes] for part in (corpus.valid, corpus.test))

    def told(rate: float, seed: int, asked: bytes) -> float:
        return bits_per_byte(trained(name, text, length, rate, seed, budget), asked, context=length)

    tuned = {rate: told(rate, TUNING_SEED, valid) for rate in budget.rates}
    rate = min(tuned, key=lambda each: tuned[each])
    started = time.process_time()
    found = tuple(told(rate, seed, test) for seed in range(seeds))
    at_edge = len(tuned) > 1 and rate in (min(tuned), max(tuned))
    row = Row(name, length, rate, found, (time.process_time() - started) / seeds, at_edge)
    print(row.line(), flush=True)
    return row


def wins(runs: Runs) -> Verdict:
    """Harmonic is ahead of both others at every length."""
    pairs = [(other, length) for length in runs.lengths for other in MODELS[1:]]
    told = {pair: shown(runs.ahead("harmonic", *pair)) for pair in pairs}
    why = ", ".join(f"{other} at {length}: {said}" for (other, length), (said, _) in told.items())
    return Verdict("Harmonic wins at every length", of_all([interval for _, interval in told.values()]), why)


def growth(runs: Runs) -> Verdict:
    """Its lead is larger at the longest length than at the shortest."""
    claim = "the gap grows with the length"
    first, last = runs.lengths[0], runs.lengths[-1]
    if first == last:
        return Verdict(claim, "cannot be tested here", "one length")
    told = {}
    for other in MODELS[1:]:
        ends = zip(runs.ahead("harmonic", other, first), runs.ahead("harmonic", other, last), strict=True)
        told[other] = shown([late - early for early, late in ends])
    why = ", ".join(f"to {other} from {first} to {last}: {said}" for other, (said, _) in told.items())
    return Verdict(claim, of_all([interval for _, interval in told.values()]), why)


def hierarchy(runs: Runs) -> Verdict:
    """Three time scales are ahead of one, whichever it is."""
    told = {name: shown(runs.ahead("harmonic", name, runs.lengths[0])) for name in ABLATIONS[:3]}
    why = ", ".join(f"{name}: {said}" for name, (said, _) in told.items())
    return Verdict("the hierarchy carries the result", of_all([interval for _, interval in told.values()]), why)


def prediction(runs: Runs) -> Verdict:
    """Handing up prediction errors loses nothing against handing up states, beyond what these seeds can tell."""
    said, interval = shown(runs.ahead("harmonic", "raw-signal", runs.lengths[0]))
    ratio = runs.row("harmonic", runs.lengths[0]).seconds / runs.row("raw-signal", runs.lengths[0]).seconds
    verdict = "not reproduced" if interval.high < 0 else "reproduced" if interval.low > 0 else "partly"
    why = f"ahead of raw signals by {said}, at {ratio:.2f} times their time; 'partly' where the interval holds 0"
    return Verdict("prediction errors are free", verdict, why)


@torch.no_grad()
def memory(width: int, lengths: Sequence[int]) -> Verdict:
    """The state after each length holds as many bytes; the Transformer's cache for comparison."""
    told = {}
    for name in ("harmonic", "transformer"):
        model = built(name, width).eval()
        ids = torch.zeros(1, max(lengths), dtype=torch.int64)
        states = [model(ids[:, :length], use_cache=True, logits_to_keep=1).past_key_values for length in lengths]
        told[name] = [sum(t.nbytes for own in state.blocks for t in own) for state in states]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue] -- our own cache
    verdict = "reproduced" if len(set(told["harmonic"])) == 1 else "not reproduced"
    why = "; ".join(f"{name} {', '.join(f'{found:,}' for found in sizes)} bytes" for name, sizes in told.items())
    return Verdict("inference takes constant memory", verdict, f"at {', '.join(map(str, lengths))} tokens: {why}")


def judged(runs: Runs, width: int) -> list[Verdict]:
    """All verdicts."""
    return [wins(runs), growth(runs), hierarchy(runs), prediction(runs), memory(width, (16, 1024))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of text, or python-docs")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--tokens", type=int, default=2_000_000, help="that each model is trained on")
    parser.add_argument("--step-tokens", type=int, default=4096, help="of a step: batch x length")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2, 3e-2])
    parser.add_argument("--asked-bytes", type=int, default=65536, help="of validation and of test text")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if given.seeds < 2 or given.step_tokens < max(given.lengths):
        parser.error("expected 2 seeds or more, and steps of at least the longest length; raise them")
    budget = Budget(given.tokens, given.step_tokens, given.width, tuple(given.rates), given.asked_bytes)
    corpus = load_corpus(given.data, context=max(given.lengths))
    sizes = {name: count_parameters(built(name, given.width)).core for name in (*MODELS, *ABLATIONS)}
    print(f"core parameters: {sizes}; {budget.steps} steps of {budget.step_tokens} tokens", flush=True)
    asked = [(name, length) for length in given.lengths for name in MODELS]
    asked += [(name, min(given.lengths)) for name in ABLATIONS]
    rows = [measured(name, corpus, length, given.seeds, budget) for name, length in asked]
    verdicts = judged(Runs(rows), given.width)
    print(*(verdict.line() for verdict in verdicts), sep="\n")
    record = {"corpus": corpus.summary(), "budget": asdict(budget), "core parameters": sizes}
    record |= {"rows": [asdict(row) for row in rows], "verdicts": [asdict(verdict) for verdict in verdicts]}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
