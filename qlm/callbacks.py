"""What happens beside the steps of a training run: metrics, validation, a progress bar, Ctrl-C and SIGTERM."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qlm.meter import Meter

Write = Callable[[dict[str, Any]], None]
"""Takes a line of metrics."""


class MetricsLog(TrainerCallback):
    """Writes a line of metrics at each log, and at the last step."""

    def __init__(self, write: Write, meter: Meter) -> None:
        self.write = write
        self.meter = meter

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.meter.start_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.meter.end_step()
        if state.global_step == state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:  # the closing line of the run has no loss of its own
            return
        figures = self.meter.line(logs["loss"])
        rates = {"learning_rate": logs["learning_rate"], "grad_norm": logs.get("grad_norm")}
        self.write({"step": state.global_step, **figures, **rates})


class Validation(TrainerCallback):
    """Measures bits per byte on held-out text every so many steps, without touching the random state."""

    def __init__(self, write: Write, measure: Callable[[], float], every: int) -> None:
        self.write = write
        self.measure = measure
        self.every = every

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        with torch.random.fork_rng(devices=[]):
            figure = self.measure()
        self.write({"step": state.global_step, "validation_bits_per_byte": figure})


class FiniteGradients(TrainerCallback):
    """Raises before the optimizer would write a gradient that is not finite into the weights."""

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **_: Any,
    ) -> None:
        assert model is not None
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise FloatingPointError(f"the gradient of '{name}' became NaN or infinite")


class SaveOnInterrupt(TrainerCallback):
    """After Ctrl-C, or SIGTERM: finish the step, save a checkpoint, stop. ``interrupted`` tells that it happened."""

    def __init__(self) -> None:
        self.asked = False
        self.interrupted = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks to stop, the next aborts; as before on leaving. Main thread alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.asked and state.global_step < state.max_steps:
            self.interrupted = True
            control.should_save = control.should_log = control.should_training_stop = True


class ProgressBar(TrainerCallback):
    """A rich progress bar with the last log's bits per byte; nothing where the console is no terminal."""

    def __init__(self, console: Console, label: str, tokens_per_byte: float = 1.0) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        notes = (TextColumn("{task.fields[note]}"), TextColumn("{task.fields[cost]}"))
        self.bar = Progress(*columns, *notes, console=console, refresh_per_second=4)
        self.label = label
        self.tokens_per_byte = tokens_per_byte
        self.task = TaskID(0)

    def show_cost(self, told: str) -> None:
        """Show what the run has cost so far, at once."""
        self.bar.update(self.task, cost=told, refresh=True)

    def close(self) -> None:
        """Stop drawing; safe to call twice."""
        self.bar.stop()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.task = self.bar.add_task(self.label, total=state.max_steps, completed=state.global_step, note="", cost="")
        self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is not None and "loss" in logs:
            bits = logs["loss"] * self.tokens_per_byte / math.log(2)
            self.bar.update(self.task, note=f"loss {bits:.3f} bits per byte")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.close()
