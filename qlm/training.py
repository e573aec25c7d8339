"""Training through transformers' Trainer: resumable to the bit, metrics as JSON lines, never a NaN saved."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback

from backends.base import Backend
from backends.ibm import IBM
from backends.ledger import BudgetError
from backends.registry import open_backend
from qlm.callbacks import FiniteGradients, MetricsLog, ProgressBar, SaveOnInterrupt, Validation
from qlm.checkpoints import CheckpointError, check_circuits, check_resumable
from qlm.console import quiet_transformers, silent_console
from qlm.data import RandomTokenWindows
from qlm.evaluation import bits_per_byte
from qlm.event_files import FOLDER, EventFiles, MetricLines, check_tensorboard
from qlm.meter import Meter
from qlm.modeling import QLMForCausalLM
from qlm.ordered import OrderedCorpus
from qlm.ordered_windows import OrderedWindows, ordered_ids
from qlm.qpu_budget import QpuBudget, QpuBudgetReached, metered, name_in_ledger
from qlm.recipe import Plan
from qlm.runs import RunFolder, create_run
from qlm.state import RecurrentState
from qlm.streaming import check_carries_state, stream_evaluate
from qlm.trainer import STATE, QLMTrainer, StatefulTrainer, save_model


class DivergedError(ValueError):
    """Training met a loss, an angle or a gradient that is not finite; the message says at which step.

    >>> issubclass(DivergedError, ValueError)
    True
    """


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C was pressed, or SIGTERM received; a checkpoint was saved, from which the run can be resumed.

    >>> issubclass(TrainingInterrupted, KeyboardInterrupt)
    True
    """


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its folder, the model in evaluation mode, and what training it took.

    ``tokens_per_second`` is that of training steps; ``circuit_executions`` counts their forward passes.
    """

    folder: RunFolder
    model: QLMForCausalLM = field(repr=False)
    steps: int
    tokens_per_second: float
    circuit_executions: int


def train(
    plan: Plan,
    out: str | Path,
    existing: str = "refuse",
    console: Console | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> TrainedRun:
    """Train a model from its seed and save it in the run folder ``out``; deterministic on one CPU and thread count.

    ``existing`` ("refuse", "resume", "overwrite") says what to do with a folder that exists; a resumed run ends in the
    weights that it would have had uninterrupted, to the bit. Raises ValueError (RunFolderError, CheckpointError,
    DivergedError) before anything is lost, TrainingInterrupted after Ctrl-C or SIGTERM once a checkpoint is saved.
    A stateful recipe reads the text in order and carries the state (``StatefulTrainer``); ValueError for blocks that
    cannot.
    """
    torch.manual_seed(plan.recipe.seed)
    backend = _backend(plan, Path(out), existing)
    model = QLMForCausalLM(plan.config, backend)
    check_circuits(model)
    if plan.recipe.stateful:
        check_carries_state(model)
    if plan.tensorboard:
        check_tensorboard()
    windows, n_ids = _windows(plan)
    folder = create_run(Path(out), plan.record(), existing)
    checkpoint = folder.checkpoints()[-1] if existing == "resume" else None
    meter, first_step = Meter(model, n_ids / len(plan.corpus.train)), 0
    if checkpoint is None:
        model.config.save_pretrained(folder.path)
        plan.encoder.save(folder.path)
    else:
        check_resumable(checkpoint, model)
        first_step = int(checkpoint.name.removeprefix("checkpoint-"))
        meter.resume(folder.rewind(first_step))
    lines = MetricLines(folder, EventFiles(folder.path / FOLDER, first_step + 1) if plan.tensorboard else None)
    listener = SaveOnInterrupt()
    bar = ProgressBar(console or silent_console(), folder.path.name, meter.tokens_per_byte)
    validation = Validation(lines.write, lambda: _held_out_bits(model, plan), plan.recipe.validate_every)
    costs = QpuBudget(folder, backend, bar) if isinstance(backend, IBM) and plan.allow_qpu_seconds is not None else None
    beside = (
        validation if costs is None else costs
    )  # validating on a device that is paid for would cost more than a step
    watching = (MetricsLog(lines.write, meter), FiniteGradients(), beside, *callbacks, listener, bar)
    with quiet_transformers():
        kind = StatefulTrainer if plan.recipe.stateful else QLMTrainer
        trainer = kind(model, plan.recipe, folder, windows, meter, watching, plan.encoder)
        try:
            with listener.listening():
                _run(trainer, checkpoint)
        except BudgetError:
            if costs is None or not trainer.state.global_step:
                raise
            costs.undo_step()
            trainer.save_last_step()
        finally:
            bar.close()
            meter.close()
            lines.close()
        if listener.interrupted:
            raise TrainingInterrupted(
                f"checkpoint {folder.checkpoints()[-1]} is saved; continue with: qlm train --resume --out {folder.path}"
            )
        if costs is not None and costs.stopped:
            step, steps = trainer.state.global_step, plan.recipe.steps
            raise QpuBudgetReached(
                f"training stopped after step {step} of {steps}: {costs.told()} are used; checkpoint "
                f"{folder.checkpoints()[-1]} is saved; continue with: qlm train --resume --out {folder.path} --backend "
                f"{open_backend(plan.backend).spec} --allow-qpu-seconds N, N being the new total"
            )
        trainer.check_weights()
        save_model(model, plan.encoder, folder.path)
    return TrainedRun(folder, model.eval(), plan.recipe.steps, meter.rate, meter.executions)


def _backend(plan: Plan, out: Path, existing: str) -> Backend:
    """The plan's backend, with the allowance of the run where there is one."""
    opened = open_backend(plan.backend)
    if plan.allow_qpu_seconds is None:
        return opened
    return metered(opened, plan.allow_qpu_seconds, name_in_ledger(out, existing), plan.fresh)


def _windows(plan: Plan) -> tuple[Dataset[dict[str, Tensor]], int]:
    """What the model is fed, and the number of tokens in the training text."""
    recipe, encoder = plan.recipe, plan.encoder
    n_windows = recipe.steps * recipe.batch_size
    if isinstance(plan.corpus, OrderedCorpus):
        ids, borders = ordered_ids(plan.corpus.train, plan.corpus.borders, encoder)
        shape = (recipe.context, recipe.batch_size, n_windows)
        return OrderedWindows(ids, borders, *shape, encoder.start_id), len(ids)
    ids = encoder.encode(plan.corpus.train)
    return RandomTokenWindows(ids, recipe.context, n_windows, recipe.seed, encoder.start_id), len(ids)


def _held_out_bits(model: QLMForCausalLM, plan: Plan) -> float:
    """Bits per byte of the beginning of the validation text, read as the run reads its own."""
    text = plan.corpus.valid[: plan.recipe.validation_bytes]
    if plan.recipe.stateful:
        whole = text.decode("utf-8", "ignore").encode()  # the cut may have split a character
        return stream_evaluate(model, [whole], plan.encoder, plan.recipe.context).bits_per_byte
    return bits_per_byte(model, text, encoder=plan.encoder)


def _run(trainer: QLMTrainer, checkpoint: Path | None) -> None:
    if isinstance(trainer, StatefulTrainer) and checkpoint is not None:
        trainer.carried = RecurrentState.load(checkpoint / STATE)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except FloatingPointError as error:
        raise DivergedError(trainer.diverged(str(error))) from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"--resume expects optimizer and random states alone, got others in {checkpoint}; remove that folder."
        ) from None
