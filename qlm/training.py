"""Training through transformers' Trainer: resumable to the bit, metrics as JSON lines, never a NaN saved."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator
from transformers.trainer_callback import PrinterCallback

from backends.base import Backend
from backends.ibm import IBM
from backends.ledger import BudgetError
from backends.registry import open_backend
from qlm.callbacks import FiniteGradients, MetricsLog, ProgressBar, SaveOnInterrupt, Validation
from qlm.checkpoints import CheckpointError, check_circuits, check_resumable
from qlm.console import quiet_transformers, silent_console
from qlm.data import RandomByteWindows
from qlm.evaluation import bits_per_byte
from qlm.meter import Meter
from qlm.modeling import QLMForCausalLM
from qlm.qpu_budget import QpuBudget, QpuBudgetReached, metered, name_in_ledger
from qlm.recipe import Plan, TrainingRecipe
from qlm.runs import RunFolder, create_run
from qlm.tokenizer import ByteTokenizer


class DivergedError(ValueError):
    """Training met a loss, an angle or a gradient that is not finite; the message says at which step.

    >>> issubclass(DivergedError, ValueError)
    True
    """


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C was pressed; a checkpoint was saved, from which the run can be resumed.

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
    DivergedError) before anything is lost, TrainingInterrupted after Ctrl-C once a checkpoint is saved.
    """
    torch.manual_seed(plan.recipe.seed)
    backend = _backend(plan, Path(out), existing)
    model = QLMForCausalLM(plan.config, backend)
    check_circuits(model)
    windows = _windows(plan)
    folder = create_run(Path(out), plan.record(), existing)
    checkpoint = folder.checkpoints()[-1] if existing == "resume" else None
    meter = Meter(model)
    if checkpoint is None:
        model.config.save_pretrained(folder.path)
    else:
        check_resumable(checkpoint, model)
        meter.resume(folder.rewind(int(checkpoint.name.removeprefix("checkpoint-"))))
    held_out = plan.corpus.valid[: plan.recipe.validation_bytes]
    listener = SaveOnInterrupt()
    bar = ProgressBar(console or silent_console(), folder.path.name)
    validation = Validation(folder, lambda: bits_per_byte(model, held_out), plan.recipe.validate_every)
    costs = QpuBudget(folder, backend, bar) if isinstance(backend, IBM) and plan.allow_qpu_seconds is not None else None
    beside = (
        validation if costs is None else costs
    )  # validating on a device that is paid for would cost more than a step
    watching = (MetricsLog(folder, meter), FiniteGradients(), beside, *callbacks, listener, bar)
    with quiet_transformers():
        trainer = QLMTrainer(model, plan.recipe, folder, windows, meter, watching)
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
        save_model(model, folder.path)
    return TrainedRun(folder, model.eval(), plan.recipe.steps, meter.rate, meter.executions)


def _backend(plan: Plan, out: Path, existing: str) -> Backend:
    """The plan's backend, with the allowance of the run where there is one."""
    opened = open_backend(plan.backend)
    if plan.allow_qpu_seconds is None:
        return opened
    return metered(opened, plan.allow_qpu_seconds, name_in_ledger(out, existing), plan.fresh)


def save_model(model: QLMForCausalLM, path: Path) -> None:
    """Write config, safetensors and tokenizer: no pickles."""
    model.save_pretrained(path)
    ByteTokenizer().save_pretrained(path)


def _windows(plan: Plan) -> RandomByteWindows:
    recipe = plan.recipe
    return RandomByteWindows(plan.corpus.train, recipe.context, recipe.steps * recipe.batch_size, recipe.seed)


def _run(trainer: "QLMTrainer", checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except FloatingPointError as error:
        raise DivergedError(trainer.diverged(str(error))) from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"--resume expects optimizer and random states alone, got others in {checkpoint}; remove that folder."
        ) from None


class QLMTrainer(Trainer):
    """Trainer with our optimizer, data in order, a meter, and a guard against what is not finite."""

    def __init__(
        self,
        model: QLMForCausalLM,
        recipe: TrainingRecipe,
        folder: RunFolder,
        windows: Dataset[dict[str, Tensor]],
        meter: Meter,
        callbacks: tuple[TrainerCallback, ...],
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.meter = meter
        super().__init__(
            model=model,
            args=_arguments(recipe, folder.path),
            train_dataset=windows,
            data_collator=default_data_collator,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        """In order: item i of the windows is random already, and a pure function of the seed and i."""
        chosen = self.train_dataset if train_dataset is None else train_dataset
        assert chosen is not None
        return SequentialSampler(chosen)  # pyright: ignore[reportArgumentType] -- our windows have a length

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Weight decay for matrices and tensor-train cores; none for circuits' weights, norms, biases, thresholds."""
        if self.optimizer is None:
            trained = [p for p in (model or self.model).parameters() if p.requires_grad]  # pyright: ignore[reportOptionalMemberAccess]
            groups = [
                {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.recipe.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
            ]
            self.optimizer = torch.optim.AdamW(
                groups, lr=self.recipe.learning_rate, betas=self.recipe.betas, fused=True
            )
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One forward and backward pass; FloatingPointError where the loss, or a circuit's angle, is not finite."""
        n_tokens = inputs["input_ids"].numel()
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except BudgetError:
            raise
        except ValueError as error:
            self.check_weights()
            raise ValueError(f"training stopped at step {self.state.global_step + 1}: {error}") from None
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"the loss became {float(loss)}")
        self.meter.after_backward(n_tokens)
        return loss

    def check_weights(self) -> None:
        """Raise FloatingPointError where a weight is not finite: such a model is never saved."""
        assert self.model is not None
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise FloatingPointError(f"the weight '{name}' became NaN or infinite")

    def diverged(self, what: str) -> str:
        """Say what happened, at which step, and what is left."""
        saved = self.folder.checkpoints()
        left = f"the last good checkpoint is {saved[-1]}" if saved else "no checkpoint had been saved yet"
        return f"training stopped at step {self.state.global_step + 1}: {what}; {left}; lower the learning rate."

    def save_last_step(self) -> None:
        """Save a checkpoint of the last step that was finished, unless there is one."""
        assert self.model is not None
        self.model.zero_grad()
        if not (self.folder.path / f"checkpoint-{self.state.global_step}").is_dir():
            self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.check_weights()
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Safetensors and JSON; Trainer would add its arguments as a pickle."""
        assert output_dir is not None
        assert isinstance(self.model, QLMForCausalLM)
        save_model(self.model, Path(output_dir))


def _arguments(recipe: TrainingRecipe, out: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(out),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": recipe.final_rate_share},
        warmup_steps=recipe.warmup_steps,
        max_grad_norm=recipe.clip,
        logging_strategy="steps",
        logging_steps=recipe.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        eval_strategy="no",
        seed=recipe.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=True,  # the compiled recurrences and simulators of this version run on the CPU
    )
