"""What a small Llama keeps when its attention is replaced: each stage, beside what the same steps buy otherwise.

    python -m benchmarks.conversion
    python -m benchmarks.conversion --blocks harmonic mamba rotational --seeds 3

A Llama of bytes is trained on the standard library's manual, all of its attention replaced by blocks, and these aligned
and distilled. Bits per byte of validation text, in windows of the trained length and of eight times that. Beside them,
for as many steps as alignment and distillation took together: the same student from random weights (the better of two
rates), the same student with the original's weights and fresh blocks taught by the text alone, and the original trained
on. The original is not trained to the end, so a student may come out below it: the last row is what to compare with.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from qlm.conversion import measure_causality, replace_attention
from qlm.conversion.cache import ConvertedCache
from qlm.conversion.distil import ConversionRecipe, align, distil, learn
from qlm.conversion.text import TokenText, read_tokens, score
from qlm.data import load_corpus
from qlm.tokenizer import EOS_ID, PAD_ID, VOCAB_SIZE, ByteTokenizer

RATES = (1e-3, 3e-3)
"""Of the twin from random weights."""
LONGER = 8
OUT = Path(__file__).resolve().parent / "results" / "conversion.json"
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", nargs="+", default=["harmonic", "mamba"], help="kinds of qlm.registry.BLOCKS")
    parser.add_argument("--width", type=int, default=64, help="of the Llama, with 4 heads and 3 layers")
    parser.add_argument("--teacher-steps", type=int, default=600, help="of the original, at 3e-3")
    parser.add_argument("--align-steps", type=int, default=150)
    parser.add_argument("--distil-steps", type=int, default=300)
    parser.add_argument("--context", type=int, default=128, help="tokens of a window, of which a step takes 8")
    parser.add_argument("--seeds", type=int, default=1, help="each draws and trains an original of its own")
    parser.add_argument("--data", default="python-docs", help="python-docs, a text file or folder")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    corpus = load_corpus(arguments.data, arguments.context)
    train = read_tokens(corpus.train, ByteTokenizer(), VOCAB_SIZE)
    valid = read_tokens(corpus.valid[:32768].decode("utf-8", "ignore").encode(), ByteTokenizer(), VOCAB_SIZE)
    told_of = {name: value for name, value in vars(arguments).items() if name not in ("out", "data")}
    record: dict[str, Any] = {**told_of, "corpus": corpus.name, "sha256": corpus.sha256, "rows": {}}
    for kind in arguments.blocks:
        runs = [rows_of(kind, seed, train, valid, arguments) for seed in range(arguments.seeds)]
        print(f"\n{kind:<44}{'bits per byte':>16}{f'at {LONGER} x length':>20}")
        for name in runs[0]:
            told = [
                f"{mean(r[name][key] for r in runs):.3f} +- {pstdev(r[name][key] for r in runs):.3f}" for key in KEYS
            ]
            print(f"{name:<44}{told[0]:>16}{told[1]:>20}", flush=True)
        record["rows"][kind] = runs
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


KEYS = ("bits", "bits_longer")


def rows_of(kind: str, seed: int, train: TokenText, valid: TokenText, arguments: argparse.Namespace) -> dict[str, Row]:
    """Both figures of every row, for one seed."""
    recipe = ConversionRecipe(arguments.align_steps, arguments.distil_steps, context=arguments.context, seed=seed)
    steps = recipe.align_steps + recipe.distil_steps
    torch.manual_seed(seed)
    started = time.process_time()
    teacher = original(arguments.width)
    learn(teacher, train, recipe, arguments.teacher_steps, 3e-3)
    seconds = time.process_time() - started

    def row(model: PreTrainedModel) -> Row:
        both = (score(model, valid, length) for length in (recipe.context, LONGER * recipe.context))
        return dict(zip(KEYS, (found.bits_per_byte for found in both), strict=True))

    def taught(model: PreTrainedModel, rate: float) -> Row:
        learn(model, train, recipe, steps, rate)
        return row(model)

    rows = {"original": row(teacher)}
    torch.manual_seed(seed)
    student = replace_attention(teacher, {"kind": kind})
    rows["attention replaced, blocks fresh"] = row(student)
    align(student, teacher, train, recipe)
    rows["aligned"] = row(student)
    distil(student, teacher, train, recipe)
    rows["distilled"] = row(student)
    twins = [taught(replace_attention(original(arguments.width), {"kind": kind}), rate) for rate in RATES]
    rows["from random weights, as many steps"] = min(twins, key=lambda one: one["bits"])
    rows["replaced, text alone, as many steps"] = taught(replace_attention(teacher, {"kind": kind}), recipe.distil_rate)
    gate = measure_causality(student)
    state = [cached_bytes(student, length) for length in (recipe.context, LONGER * recipe.context)]
    rows["original, as many steps more"] = taught(teacher, recipe.distil_rate)
    print(
        f"{kind}, seed {seed}: the original took {seconds:.0f} s; the future changes logits by {gate.by_value:.0e}, "
        f"with gradients of {gate.by_gradient:.0e}; a text leaves {state[0]:,} bytes, a longer one {state[1]:,}",
        flush=True,
    )
    return rows


def original(width: int) -> LlamaForCausalLM:
    """A Llama of bytes with random weights."""
    special: dict[str, Any] = {"pad_token_id": PAD_ID, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID}
    shape: dict[str, Any] = {"hidden_size": width, "intermediate_size": 8 * width // 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB_SIZE, num_hidden_layers=3, **shape, **special))


@torch.no_grad()
def cached_bytes(model: Any, length: int) -> int:
    """Bytes that a text of a length leaves behind."""
    cache = model.eval()(torch.zeros(1, length, dtype=torch.long), use_cache=True).past_key_values
    assert isinstance(cache, ConvertedCache)
    return cache.n_bytes()


if __name__ == "__main__":
    main()
