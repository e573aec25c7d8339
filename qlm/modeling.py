"""The model as transformers knows it: ``from_pretrained``, ``generate()``, Trainer and PEFT work unchanged.

Axis legend: b batch, l sequence, d model width, v vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from backends.base import Backend
from backends.registry import open_backend
from qlm.blocks.base import Block, Context
from qlm.blocks.norm import RMSNorm
from qlm.config import QLMConfig
from qlm.heads.base import Head
from qlm.inputs import IGNORED, check_inputs, check_labels, padding_mask
from qlm.pretrained import QLMPreTrainedModel
from qlm.registry import block_class, block_config, head_class, head_config
from qlm.state import Layout, RecurrentState, StateForm


class QLMModel(QLMPreTrainedModel):
    """Embedding, blocks and a final norm: token ids (b, l) to hidden states (b, l, d).

    ``backend`` decides where circuits run; the config's record of one is never opened.

    >>> model = QLMModel(QLMConfig(d_model=32, blocks=[{"kind": "harmonic"}]))
    >>> model(torch.tensor([[1, 2, 3]])).last_hidden_state.shape
    torch.Size([1, 3, 32])
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # noqa: RUF012 -- transformers' class attribute

    def __init__(self, config: QLMConfig, backend: str | Backend = "statevector") -> None:
        super().__init__(config)
        opened = open_backend(backend)
        config.recorded_backend = opened.spec
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(_build(config, entry, opened) for entry in config.blocks or ())
        self.norm = RMSNorm(config.d_model, eps=1e-6)
        self._layout: Layout | None = None
        self._accepted: tuple[int, int, torch.dtype, StateForm] | None = None  # of the last state that was checked
        self.post_init()

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
        check_inputs(input_ids, inputs_embeds, self.config)
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids)
        assert inputs_embeds is not None
        keep = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        state = past_key_values
        if keep and state is None:
            state = RecurrentState(len(self.layers))
        if state is not None:
            self._check_state(state, inputs_embeds)
        hidden, losses = self._through_blocks(inputs_embeds, padding_mask(attention_mask, inputs_embeds), state)
        if state is not None:
            state.advance(hidden.shape[1])
        output = BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=state)  # pyright: ignore[reportArgumentType] -- our own cache class
        output.auxiliary_loss = sum(losses) if losses else None  # pyright: ignore[reportAttributeAccessIssue] -- travels beside the declared fields
        return output

    def _check_state(self, state: RecurrentState, embedded: Tensor) -> None:
        if not isinstance(state, RecurrentState):
            raise TypeError(
                f"past_key_values expects a RecurrentState, got {type(state).__name__}; pass what an earlier call "
                "returned, or None."
            )
        form = None
        if not torch.compiler.is_compiling():
            form = (len(self.layers), len(embedded), embedded.dtype, state.form())
            if form == self._accepted:  # the usual case of generation
                return
        state.check(len(self.layers), len(embedded))
        if not state.seen and not any(state.blocks):
            return
        if self._layout is None:
            self._layout = self._empty_layout(embedded[:1, :0])
        state.check_layout(self._layout, embedded.dtype == torch.float64)
        if form is not None:
            self._accepted = form

    @torch.no_grad()
    def _empty_layout(self, nothing: Tensor) -> Layout:
        """The shapes of the states after an empty text (1, 0, d): what a later text's states must have."""
        states, reports = [], [block.report for block in self.layers]
        with torch.random.fork_rng(devices=[]):
            for block, report in zip(self.layers, reports, strict=True):
                states.append(block(nothing, Context()).state)
                block.report = report
        return tuple(tuple(tuple(tensor.shape[1:]) for tensor in tensors) for tensors in states)

    def _through_blocks(
        self, hidden: Tensor, mask: Tensor | None, state: RecurrentState | None
    ) -> tuple[Tensor, list[Tensor]]:
        hardness, routed, losses = None, None, []
        for position, block in enumerate(self.layers):
            own = () if state is None else state.blocks[position]
            output = block(hidden, Context(mask, hardness, routed, own, keep=state is not None))
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


def _build_head(config: QLMConfig, backend: Backend) -> Head:
    assert config.head is not None  # the config completes it
    entry = config.head
    cls, typed = head_class(entry["kind"]), head_config(entry, config.quantum, config.vocab_size)
    shape = (config.d_model, config.vocab_size)
    return cls(*shape, typed, backend) if cls.holds_circuit else cls(*shape, typed)  # pyright: ignore[reportCallIssue]


def _share(asked: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor | float:
    """This call's part of a step's loss: Trainer sums, over accumulation steps and processes, losses that are each
    divided by the number of labels in all of them."""
    if num_items_in_batch is None:
        return 1.0
    return (asked != IGNORED).sum() / num_items_in_batch


class QLMForCausalLM(QLMPreTrainedModel, GenerationMixin):
    """A hybrid causal language model: logits (b, l, v), and with labels the mean cross-entropy in nats.

    ``lm_head`` is what the config's ``head`` says.
    In training the blocks' auxiliary losses are added to the loss. ``generate()`` carries a ``RecurrentState``, so
    a step costs the same at any length.

    >>> model = QLMForCausalLM(QLMConfig.preset("tiny-hybrid", d_model=32)).eval()
    >>> model(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 258])
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed.weight"}  # noqa: RUF012 -- transformers' class attribute

    def __init__(self, config: QLMConfig, backend: str | Backend = "statevector") -> None:
        super().__init__(config)
        opened = open_backend(backend)
        self.model = QLMModel(config, opened)
        self.lm_head: nn.Module = _build_head(config, opened)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module | None:
        """The head where it is one matrix; None for a head of another form."""
        return self.lm_head if isinstance(self.lm_head, nn.Linear) else None

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resize embedding and head as transformers does; ValueError for a head of another form than one matrix."""
        changes = new_num_tokens is not None or pad_to_multiple_of is not None
        if changes and self.get_output_embeddings() is None:
            raise ValueError(
                f"a resized vocabulary expects a linear head, got '{self._head_kind}', which is built for its "
                f"{self.config.vocab_size} tokens; build a model from a QLMConfig with the new vocab_size."
            )
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    def reports(self) -> dict[str, Any]:
        """Return each block's report of the last call, by "position.kind", and the head's, as "head.kind"."""
        said = self.lm_head.report if isinstance(self.lm_head, Head) else None
        return {**self.model.reports(), **({} if said is None else {f"head.{self._head_kind}": said})}

    @property
    def _head_kind(self) -> str:
        assert self.config.head is not None
        return self.config.head["kind"]

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
        if labels is not None:
            if isinstance(logits_to_keep, Tensor) or logits_to_keep:
                raise ValueError(
                    f"labels expect all logits, got logits_to_keep={logits_to_keep}; leave one of them out."
                )
            labels = check_labels(labels, check_inputs(input_ids, inputs_embeds, self.config), self.config.vocab_size)
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
                asked = kwargs.get("shift_labels", labels[:, 1:])
                loss = loss + _share(asked, kwargs.get("num_items_in_batch")) * output.auxiliary_loss
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=output.past_key_values)
