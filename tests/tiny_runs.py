"""A corpus and plans so small that a training step takes milliseconds."""

import functools
import random
from pathlib import Path
from typing import Any

from qlm.config import QLMConfig
from qlm.data import Corpus, load_corpus
from qlm.recipe import Plan, TrainingRecipe

PANGRAM = "the quick brown fox jumps over a lazy dog while seven wizards mix strange potions in deep old cellars"
BLOCKS = [
    {"kind": "quantum_router", "n_wires": 2, "depth": 1},
    {"kind": "tt_feed_forward", "expansion": 2, "ranks": [1, 2]},
]


def write_text(path: Path, n_paragraphs: int = 60, seed: int = 0) -> Path:
    generator = random.Random(seed)
    path.write_text("\n\n".join(" ".join(generator.choices(PANGRAM.split(), k=40)) for _ in range(n_paragraphs)))
    return path


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
