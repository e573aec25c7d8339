"""What each baseline can and cannot keep: parity and associative recall, at equal size and equal steps.

    python -m benchmarks.tasks --steps 400 --seeds 2
    python -m benchmarks.tasks --steps 2000 --seeds 5 --width 64

Four recurrent blocks against two layers of a Transformer, which hold as many numbers; one alone could not recall, since
matching a key and reading what follows it takes two. Each model is trained at every
learning rate of a small grid, and told at the rate with the best mean accuracy on the rows that are told, so that none
is judged at another's rate; the choice favours all of them alike. Accuracies are over 512 fresh rows; chance is 1/2 for
parity and 1/16 for recall. Parity is also asked at four times the length that was trained.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from torch import nn

from qlm import QLMConfig, QLMForCausalLM
from qlm.tasks import Task, associative_recall, parity, task_accuracy, task_loss

MODELS: dict[str, list[dict[str, Any]]] = {
    "harmonic": [{"kind": "harmonic"}] * 4,
    "mamba": [{"kind": "mamba"}] * 4,
    "rotational": [{"kind": "rotational"}] * 4,
    "transformer": [{"kind": "transformer"}] * 2,
}
TASKS: dict[str, tuple[Task, dict[str, Task]]] = {
    "parity": (parity(16), {"16 bits": parity(16), "64 bits": parity(64)}),
    "recall": (associative_recall(4), {"4 pairs": associative_recall(4)}),
}
"""What is trained, and what is asked afterwards."""
RATES = (3e-3, 1e-2)
OUT = Path(__file__).resolve().parent / "results" / "tasks.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="training steps of 64 rows")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each model at each learning rate")
    parser.add_argument("--width", type=int, default=32, help="d_model")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for task in TASKS:
        for name in MODELS:
            row = best_rate(name, task, arguments)
            rows.append(row)
            told = ", ".join(
                f"{asked} {mean(found):.3f} +- {pstdev(found):.3f}" for asked, found in row["found"].items()
            )
            print(f"{task:<8} {name:<12} {told}  (rate {row['rate']:g})", flush=True)
    record = {"steps": arguments.steps, "seeds": arguments.seeds, "width": arguments.width, "rows": rows}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def best_rate(name: str, task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracies by what is asked, one for each seed, at the rate that is best on the first of them."""
    rows = []
    for rate in RATES:
        runs = [run(name, task, rate, seed, arguments) for seed in range(arguments.seeds)]
        found = {asked: [one[asked] for one in runs] for asked in runs[0]}
        rows.append({"task": task, "model": name, "rate": rate, "found": found})
    return max(rows, key=lambda row: mean(next(iter(row["found"].values()))))


def run(name: str, task: str, rate: float, seed: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Train one model and ask it."""
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    special: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    blocks = [dict(entry) for entry in MODELS[name]]
    model = QLMForCausalLM(QLMConfig(vocab_size=32, d_model=arguments.width, blocks=blocks, **special)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    shape = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, arguments.steps, pct_start=0.1)
    trained, asked = TASKS[task]
    for _ in range(arguments.steps):
        optimizer.zero_grad()
        task_loss(model, trained(64, draws)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shape.step()
    fresh = torch.Generator().manual_seed(10**6 + seed)
    return {what: task_accuracy(model.eval(), draw(512, fresh)) for what, draw in asked.items()}


if __name__ == "__main__":
    main()
