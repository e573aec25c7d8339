"""Training on a device that counts QPU seconds: a running total, and a stop with a checkpoint within the budget."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from backends.base import Backend
from backends.ibm import IBM
from qlm.callbacks import ProgressBar
from qlm.runs import RunFolder, write_json

MARKER = "qpu.json"
"""The file of a run's folder that holds its name in the ledger."""


class QpuBudgetReached(ValueError):
    """A run stopped because its allowance of QPU seconds is used up; its checkpoint is saved.

    >>> issubclass(QpuBudgetReached, ValueError)
    True
    """


def metered(backend: Backend, seconds: int, run: str, fresh: bool = False) -> IBM:
    """Return the backend with an allowance for a named run; ValueError for one that does not count QPU seconds.

    >>> metered(IBM("fake_manila"), 60, "mine").spec
    'ibm:fake_manila?allow_qpu_seconds=60&run=mine'
    """
    if not isinstance(backend, IBM):
        raise ValueError(
            f"--allow-qpu-seconds expects a backend that counts them, got '{backend.spec}'; use ibm: or drop it."
        )
    if seconds < 1:
        raise ValueError(f"--allow-qpu-seconds expects 1 or more, got {seconds}; allow more.")
    return replace(backend, allow_qpu_seconds=seconds, run=run, fresh=fresh)


def name_in_ledger(path: Path, existing: str) -> str:
    """Return what a run folder is called in the ledger: a resumed one keeps its name, and what it has spent.

    >>> name_in_ledger(Path("no-such-folder"), "refuse").startswith("train-no-such-folder-")
    True
    """
    try:
        return json.loads((path / MARKER).read_text(encoding="utf-8"))["run"] if existing == "resume" else _new(path)
    except (OSError, ValueError, KeyError):
        return _new(path)


def _new(path: Path) -> str:
    return f"train-{path.name}-{uuid4().hex[:12]}"


class QpuBudget(TrainerCallback):
    """Keeps the running total of a run's QPU seconds, and stops it where the next step would not fit any more.

    A step is expected to cost what the last one did. One that costs more is refused by the ledger in its middle:
    ``undo_step`` then brings the random state back to its beginning, so that a checkpoint of the step before can be
    saved. Totals are written to metrics.jsonl.
    """

    def __init__(self, folder: RunFolder, backend: IBM, bar: ProgressBar) -> None:
        self.folder = folder
        self.backend = backend
        self.bar = bar
        self.stopped = False
        self.spent = backend.spending().run
        self._random = torch.get_rng_state()
        write_json(folder.path / MARKER, {"run": backend.run})

    def undo_step(self) -> None:
        """Bring torch's random state back to where the unfinished step began."""
        self.stopped = True
        torch.set_rng_state(self._random)

    def told(self) -> str:
        """The total in words."""
        return f"{self.spent:.1f} of {self.backend.allow_qpu_seconds} QPU seconds"

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._random = torch.get_rng_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        before, self.spent = self.spent, self.backend.spending().run
        self.folder.append({"step": state.global_step, "qpu_seconds": self.spent})
        self.bar.show_cost(self.told())
        if self.spent + (self.spent - before) > self.backend.allow_qpu_seconds and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = control.should_log = control.should_training_stop = True
