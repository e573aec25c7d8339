"""A corpus and plans so small that a training step takes milliseconds."""

import functools
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from qlm.config import QLMConfig
from qlm.data import Corpus, RandomByteWindows, load_corpus
from qlm.modeling import QLMForCausalLM
from qlm.recipe import Plan, TrainingRecipe

BLOCKS = [
    {"kind": "quantum_router", "n_wires": 2, "depth": 1},
    {"kind": "tt_feed_forward", "expansion": 2, "ranks": [1, 2]},
]


@functools.cache
def python_docs() -> Corpus:
    return load_corpus("python-docs", context=32)


def tiny_config(quantum: str = "circuit", **changes: Any) -> QLMConfig:
    return QLMConfig(**{"d_model": 16, "blocks": BLOCKS, "quantum": quantum, **changes})


def tiny_recipe(**changes: Any) -> TrainingRecipe:
    small = {"steps": 6, "batch_size": 2, "context": 16, "log_every": 2, "save_every": 100, "validate_every": 3}
    return TrainingRecipe(**{**small, "validation_bytes": 64, **changes})


def tiny_plan(quantum: str = "circuit", **changes: Any) -> Plan:
    return Plan(tiny_config(quantum), python_docs(), tiny_recipe(**changes))


def losses_on_text(
    model: QLMForCausalLM, steps: int, context: int = 32, batch: int = 8, learning_rate: float = 1e-2
) -> list[float]:
    """Losses (nats per byte) of training steps on windows of the embedded corpus; the model stays in training mode."""
    windows = RandomByteWindows(python_docs().train, context=context, n_windows=batch * steps, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    model.train()
    losses = []
    for step in range(steps):
        items = [windows[batch * step + k] for k in range(batch)]
        loss = model(**{name: torch.stack([item[name] for item in items]) for name in ("input_ids", "labels")}).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class At(TrainerCallback):
    """Does something to the model at the start of a step, counted from 1."""

    def __init__(self, step: int, action: Any) -> None:
        self.step = step
        self.action = action

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step + 1 == self.step:
            self.action(model)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
