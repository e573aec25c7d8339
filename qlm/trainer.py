"""transformers' Trainer as we use it: our optimizer, data in order, nothing that is not finite; the state carried."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator
from transformers.trainer_callback import PrinterCallback

from backends.ledger import BudgetError
from qlm.encoders import TextEncoder
from qlm.meter import Meter
from qlm.modeling import QLMForCausalLM
from qlm.recipe import TrainingRecipe
from qlm.runs import RunFolder
from qlm.state import RecurrentState
from qlm.streaming import initial_state

STATE = "state.safetensors"
"""The carried state in a checkpoint of stateful training."""


def save_model(model: QLMForCausalLM, encoder: TextEncoder, path: Path) -> None:
    """Write config, safetensors and tokenizer: no pickles."""
    model.save_pretrained(path)
    encoder.save(path)


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
        encoder: TextEncoder,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.meter = meter
        self.encoder = encoder
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
        mask = inputs.get("attention_mask")
        n_tokens = inputs["input_ids"].numel() if mask is None else int(mask.sum())
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
        save_model(self.model, self.encoder, Path(output_dir))


class StatefulTrainer(QLMTrainer):
    """Truncated backpropagation through time: each row's state after a step, detached, is where its next one starts.

    Batches are those of ``qlm.ordered_windows``, whose ``fresh`` rows start from the state of no text. A checkpoint
    holds the carried state.
    """

    carried: RecurrentState | None = None

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """As QLMTrainer's, from the carried state on."""
        assert isinstance(self.model, QLMForCausalLM)
        fresh = inputs["fresh"].to(self.model.device)
        state = self.carried
        if state is None or bool(fresh.any()):
            start = initial_state(self.model, len(fresh))
            state = start if state is None else state.with_rows(fresh, start)
        given = {name: value for name, value in inputs.items() if name != "fresh"}
        loss = super().training_step(model, {**given, "past_key_values": state, "use_cache": True}, num_items_in_batch)
        self.carried = state.detach()
        return loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        assert output_dir is not None
        if self.carried is not None:
            self.carried.save(Path(output_dir) / STATE)


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
