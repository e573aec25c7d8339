"""The model as transformers knows it: ``from_pretrained``, ``generate()``, Trainer and PEFT work unchanged.

Axis legend: b batch, l sequence, d model width, v vocabulary.
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from backends.base import Backend
from backends.registry import open_backend
from qlm.blocks.base import Block, Context
from qlm.config import QLMConfig
from qlm.quantum import QuantumLayer
from qlm.registry import block_class, block_config
from qlm.state import RecurrentState
from tensornet import TTLinear


class QLMPreTrainedModel(PreTrainedModel):
    """What both model classes share: configuration, initialisation and the backend of their circuits."""

    config_class = QLMConfig
    config: QLMConfig
    base_model_prefix = "model"
    _is_stateful = True
    _no_split_modules = ["Harmonic", "QuantumRouter", "TTFeedForward"]  # noqa: RUF012 -- transformers' class attribute

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a model as transformers does, from safetensors alone; ``backend=`` says where its circuits run.

        Raises ValueError for a folder without safetensors, whatever else it holds, and for ``quantum=``: each block's
        mode is part of its checkpoint.
        """
        folder = Path(str(pretrained_model_name_or_path))
        if folder.is_dir() and not any(folder.glob("*.safetensors")):
            raise ValueError(f"a checkpoint expects model.safetensors, got none in {folder}; pickles are never read.")
        if "quantum" in kwargs:
            raise ValueError(
                f"from_pretrained expects each block's own quantum mode, got quantum={kwargs['quantum']!r}; it belongs "
                "to the checkpoint: build another model from a QLMConfig."
            )
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **{**kwargs, "use_safetensors": True})
        _freeze_as_built(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw what no checkpoint gave; transformers marks parameters that were read."""
        if isinstance(module, Block | TTLinear):  # they write into parameters that may have been read: put those back
            read = [tensor for tensor in module.parameters() if getattr(tensor, "_is_hf_initialized", False)]
            values = [tensor.clone() for tensor in read]
            module.init_weights() if isinstance(module, Block) else module.reset_parameters()
            for tensor, value in zip(read, values, strict=True):
                tensor.copy_(value)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, self.config.initializer_range)
        elif isinstance(module, QuantumLayer | nn.Linear | nn.Conv1d | nn.RMSNorm):
            module.reset_parameters()

    def quantum_layers(self) -> Iterator[tuple[str, QuantumLayer]]:
        """Yield the circuits' layers by name."""
        for name, module in self.named_modules():
            if isinstance(module, QuantumLayer):
                yield name, module

    def use_backend(self, backend: str | Backend) -> "QLMPreTrainedModel":
        """Run all circuits on another backend from now on; returns the model."""
        opened = open_backend(backend)
        for _, layer in self.quantum_layers():
            layer.backend = opened
        self.config.recorded_backend = opened.spec
        return self


def _freeze_as_built(model: QLMPreTrainedModel) -> None:
    """Take from parameters the gradients that their blocks do not give them: transformers thaws all that it reads."""
    with torch.device("meta"):
        built = type(model)(deepcopy(model.config))
    for name, parameter in built.named_parameters():
        if not parameter.requires_grad:
            model.get_parameter(name).requires_grad_(False)


class QLMModel(QLMPreTrainedModel):
    """Embedding, blocks and a final norm: token ids (b, l) to hidden states (b, l, d).

    ``backend`` decides where circuits run; the config's record of one is never opened.

    >>> model = QLMModel(QLMConfig(d_model=32, blocks=[{"kind": "harmonic"}]))
    >>> model(torch.tensor([[1, 2, 3]])).last_hidden_state.shape
    torch.Size([1, 3, 32])
    """

    def __init__(self, config: QLMConfig, backend: str | Backend = "statevector") -> None:
        super().__init__(config)
        opened = open_backend(backend)
        config.recorded_backend = opened.spec
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(_build(config, entry, opened) for entry in config.blocks or ())
        self.norm = nn.RMSNorm(config.d_model, eps=1e-6)
        self.post_init()
        for name, layer in self.quantum_layers():
            layer.label = name

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: RecurrentState | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("the model expects either input_ids or inputs_embeds, got both or neither; pass one.")
        if input_ids is not None:
            _check_ids(input_ids, self.config.vocab_size)
            inputs_embeds = self.embed(input_ids)
        assert inputs_embeds is not None
        keep = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        state = past_key_values
        if keep and state is None:
            state = RecurrentState(len(self.layers))
        if state is not None:
            state.check(len(self.layers), len(inputs_embeds))
        hidden, losses = self._through_blocks(inputs_embeds, _mask(attention_mask, inputs_embeds), state)
        if state is not None:
            state.advance(hidden.shape[1])
        output = BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=state)  # pyright: ignore[reportArgumentType] -- our own cache class
        output.auxiliary_loss = sum(losses) if losses else None  # pyright: ignore[reportAttributeAccessIssue] -- travels beside the declared fields
        return output

    def _through_blocks(
        self, hidden: Tensor, mask: Tensor | None, state: RecurrentState | None
    ) -> tuple[Tensor, list[Tensor]]:
        hardness, routed, losses = None, None, []
        for position, block in enumerate(self.layers):
            own = () if state is None else state.blocks[position]
            output = block(hidden, Context(mask, hardness, routed, own))
            hidden = output.hidden
            if state is not None:
                state.blocks[position] = output.state
            if output.hardness is not None:
                hardness, routed = output.hardness, output.routed
            if output.loss is not None:
                losses.append(output.loss)
        return hidden, losses

    def reports(self) -> dict[str, Any]:
        """Return each block's report of the last call, by "position.kind"; blocks with nothing to say are left out."""
        kinds = [entry["kind"] for entry in self.config.blocks or ()]
        named = zip(enumerate(kinds), self.layers, strict=True)
        return {f"{position}.{kind}": block.report for (position, kind), block in named if block.report is not None}


def _build(config: QLMConfig, entry: dict[str, Any], backend: Backend) -> Block:
    cls, typed = block_class(entry["kind"]), block_config(entry, config.quantum)
    return cls(config.d_model, typed, backend) if cls.holds_circuit else cls(config.d_model, typed)  # pyright: ignore[reportCallIssue]


def _mask(attention_mask: Tensor | None, embedded: Tensor) -> Tensor | None:
    """The part of a (b, past + l) padding mask that belongs to these tokens, or None without padding."""
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2 or attention_mask.shape[1] < embedded.shape[1]:
        raise ValueError(
            f"attention_mask expects shape (batch, {embedded.shape[1]}) or longer, got {tuple(attention_mask.shape)}; "
            "a recurrent model takes a padding mask alone."
        )
    mask = attention_mask[:, attention_mask.shape[1] - embedded.shape[1] :].bool()
    return None if bool(mask.all()) else mask


def _check_ids(input_ids: Tensor, vocab_size: int) -> None:
    if input_ids.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(input_ids))
    if low < 0 or high >= vocab_size:
        bad = low if low < 0 else high
        index = tuple(int(k) for k in (input_ids == bad).nonzero()[0])
        raise IndexError(
            f"token ids expect 0 to {vocab_size - 1}, got {bad} first at index {index}; check the tokenizer."
        )


def _share(labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """This call's part of a step's loss: Trainer sums, over accumulation steps and processes, losses that are each
    divided by the number of labels in all of them."""
    if num_items_in_batch is None:
        return 1.0
    return (labels[:, 1:] != -100).sum() / num_items_in_batch


class QLMForCausalLM(QLMPreTrainedModel, GenerationMixin):
    """A hybrid causal language model: logits (b, l, v), and with labels the mean cross-entropy in nats.

    In training the blocks' auxiliary losses are added to the loss. ``generate()`` carries a ``RecurrentState``, so
    a step costs the same at any length.

    >>> model = QLMForCausalLM(QLMConfig.preset("tiny-hybrid", d_model=32)).eval()
    >>> model(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 258])
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed.weight"}  # noqa: RUF012 -- transformers' class attribute

    def __init__(self, config: QLMConfig, backend: str | Backend = "statevector") -> None:
        super().__init__(config)
        self.model = QLMModel(config, backend)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def reports(self) -> dict[str, Any]:
        """Return each block's report of the last call, by "position.kind"."""
        return self.model.reports()

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride] -- called by keyword
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        is_first_iteration: bool = False,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Hand on what transformers prepares; once the state holds the prefix, new tokens need no padding mask."""
        prepared = super().prepare_inputs_for_generation(  # pyright: ignore[reportAttributeAccessIssue] -- lazy module
            input_ids,
            attention_mask=attention_mask,
            is_first_iteration=is_first_iteration,
            use_cache=use_cache,
            **kwargs,
        )
        prepared["attention_mask"] = attention_mask if is_first_iteration or not use_cache else None
        return prepared

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: RecurrentState | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        output = self.model(input_ids, attention_mask, past_key_values, inputs_embeds, use_cache)
        hidden = output.last_hidden_state
        if isinstance(logits_to_keep, Tensor):
            hidden = hidden[:, logits_to_keep]
        elif logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
            if output.auxiliary_loss is not None:
                loss = loss + _share(labels, kwargs.get("num_items_in_batch")) * output.auxiliary_loss
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)
