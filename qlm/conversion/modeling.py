"""A pretrained model with blocks where attention stood, as transformers knows it.

Axis legend: b batch, l sequence, d model width, v vocabulary.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from qlm.blocks.base import Block, Context
from qlm.checkpoint_files import CheckpointError, check_weights, local_folder, read_object
from qlm.conversion.cache import ConvertedCache, RecurrentLayer
from qlm.conversion.config import ARCHITECTURES, ConvertedConfig
from qlm.inputs import padding_mask
from qlm.registry import block_class, block_config


class BlockMixer(nn.Module):
    """A block in attention's place: what it adds to the normalised stream x (b, l, d), ``block(x) - x``.

    The layer around it keeps its own norm and residual sum; the block normalises once more. The difference has the
    rounding of x + update in the block's precision, too coarse in bfloat16: blocks stay in float32 in such a model.

    >>> mixer = BlockMixer(block_class("harmonic")(8, block_config({"kind": "harmonic"}, "off")), 0)
    >>> mixer(torch.randn(1, 3, 8))[0].shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, block: Block, layer_idx: int) -> None:
        super().__init__()
        self.block = block
        self.layer_idx = layer_idx
        for module in block.modules():
            module.__dict__["_is_hf_initialized"] = (
                True  # else transformers draws it anew, as the original draws its own
            )

    def forward(
        self,
        hidden_states: Tensor,
        past_key_values: ConvertedCache | None = None,
        real_tokens: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Return what the block adds, and None for attention's weights; masks of pairs and rotations are not read."""
        x = hidden_states.to(next(self.block.parameters()).dtype)
        layer = None if past_key_values is None else past_key_values.layers[self.layer_idx]
        state = () if layer is None else layer.state  # pyright: ignore[reportAttributeAccessIssue] -- the model checks its cache
        output = self.block(x, Context(real_tokens, state=state, keep=layer is not None))
        if isinstance(layer, RecurrentLayer):
            layer.advance(output.state, x.shape[1])
        return (output.hidden - x).to(hidden_states.dtype), None


class ConvertedForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model whose attention layers ``config.layers`` are blocks: logits (b, l, v), loss in nats.

    ``base`` is the original with ``BlockMixer`` in its ``self_attn``. ``generate()`` carries a ``ConvertedCache``:
    where every layer was replaced a step takes the same time and memory at any length; attention that is left keeps
    keys and values. Padding masks (b, past + l) act as in the original: padding is read by no real token. Positions are
    read by attention alone; ones that start anew within a row, which mark packed texts, are refused.

    >>> config = ConvertedConfig(base={"model_type": "llama", "vocab_size": 11, "hidden_size": 8,
    ...     "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}, layers=[0])
    >>> ConvertedForCausalLM(config)(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 11])
    """

    config_class = ConvertedConfig
    config: ConvertedConfig
    _is_stateful = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _keep_in_fp32_modules_strict = {"block"}  # noqa: RUF012 -- transformers' class attribute

    def __init__(self, config: ConvertedConfig) -> None:
        super().__init__(config)
        assert config.block is not None  # the config completes it
        assert config.layers is not None
        cls, typed = block_class(config.block["kind"]), block_config(config.block, "off")
        self.base: Any = getattr(transformers, ARCHITECTURES[config.base.model_type])(config.base)
        for index in config.layers:
            block = cls(config.base.hidden_size, typed)  # pyright: ignore[reportCallIssue]
            self.base.model.layers[index].self_attn = BlockMixer(block, index)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a folder that ``save_pretrained`` wrote, from safetensors alone, and nothing from a network.

        Raises CheckpointError (a ValueError) for a folder with a pickle in it, another model's, or one whose tensors
        are not exactly the model's.
        """
        folder = local_folder(Path(pretrained_model_name_or_path))
        assert folder is not None  # a Path is never a name on the Hub
        if kwargs.get("use_safetensors") is False:
            raise ValueError("from_pretrained expects safetensors, got use_safetensors=False; pickles are never read.")
        built = _on_meta(cls, _read_config(folder))
        check_weights(folder, built)
        loaded = super().from_pretrained(
            folder, *args, **{**kwargs, "use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        frozen = {name for name, parameter in built.named_parameters() if not parameter.requires_grad}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and name not in frozen)  # transformers thaws what it reads
        return loaded

    def get_input_embeddings(self) -> nn.Module:
        return self.base.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.base.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.base.set_output_embeddings(new_embeddings)

    def mixers(self) -> dict[int, BlockMixer]:
        """Return the blocks in attention's place, by their layers."""
        return {index: self.base.model.layers[index].self_attn for index in self.config.layers or ()}

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: ConvertedCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("the model expects either input_ids or inputs_embeds, got both or neither; pass one.")
        real = padding_mask(attention_mask, given)
        replaced = self.config.layers or []
        if attention_mask is None and position_ids is not None:
            _refuse_packed(position_ids)
        keep = (self.config.use_cache and not self.training) if use_cache is None else use_cache
        if past_key_values is None and keep:
            past_key_values = ConvertedCache(self.config.base, replaced)
        if past_key_values is not None:
            _check_cache(past_key_values, replaced, self.config.base.num_hidden_layers)
        if len(replaced) == self.config.base.num_hidden_layers:
            # Nothing reads a mask of pairs: one that is ready, of whatever size, keeps (l, past + l) from being made.
            attention_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=given.device)
        return self.base(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=keep,
            logits_to_keep=logits_to_keep,
            real_tokens=real,
            **kwargs,
        )


def replace_attention(
    teacher: PreTrainedModel, block: dict[str, Any] | None = None, layers: list[int] | None = None
) -> ConvertedForCausalLM:
    """Return a copy of a model with fresh blocks (harmonic by default) in place of attention, on its device.

    It has the model's dtype, the blocks at least float32.

    Raises ValueError for a model of another layout, and as ``ConvertedConfig`` does; TypeError for one without a head.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_attention_heads=2,
    ...     num_hidden_layers=2)
    >>> replace_attention(LlamaForCausalLM(config), {"kind": "mamba"}, [1]).mixers().keys()
    dict_keys([1])
    """
    base = deepcopy(teacher.config)
    base.name_or_path = ""  # where the original lay on this machine says nothing on another
    config = ConvertedConfig(base=base, block=block, layers=layers)
    expected = ARCHITECTURES[teacher.config.model_type]
    if type(teacher).__name__ != expected:
        raise TypeError(f"a conversion expects a {expected}, got a {type(teacher).__name__}; pass the causal model.")
    student = ConvertedForCausalLM(config)
    copied = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    missing = student.base.load_state_dict(copied, strict=False, assign=True).missing_keys
    assert all(".self_attn.block." in name for name in missing), missing
    if teacher.generation_config is not None:
        student.generation_config = deepcopy(teacher.generation_config)
    student.tie_weights()
    for mixer in student.mixers().values():
        mixer.to(torch.promote_types(teacher.dtype, torch.float32))
    # The dtype came with the tensors: a cast of the whole would round the rotations' frequencies too.
    return student.to(teacher.device).train(teacher.training)  # pyright: ignore[reportArgumentType, reportReturnType] -- transformers wraps nn.Module.to


def _check_cache(cache: Any, replaced: list[int], n_layers: int) -> None:
    """Raise unless the cache is one of a model with these layers replaced."""
    if not isinstance(cache, ConvertedCache):
        raise TypeError(
            f"past_key_values expects a ConvertedCache, got {type(cache).__name__}; pass what an earlier call "
            "returned, or None."
        )
    held = [index for index, layer in enumerate(cache.layers) if isinstance(layer, RecurrentLayer)]
    if held != replaced or len(cache.layers) != n_layers:
        raise ValueError(
            f"the model expects a cache of {n_layers} layers with states at {replaced}, got {len(cache.layers)} layers "
            f"with states at {held}; continue a text with the model that began it."
        )


def _refuse_packed(position_ids: Tensor) -> None:
    """Packed texts are told by their positions; a recurrence would carry the one's state into the other."""
    if not torch.compiler.is_compiling() and bool((position_ids.diff(dim=-1) != 1).any()):  # a graph sees no values
        raise ValueError(
            "a converted model expects positions that count up by one in each row, got some that do not; give each "
            "text a row of its own, with an attention_mask."
        )


def _on_meta(cls: type[ConvertedForCausalLM], config: ConvertedConfig) -> ConvertedForCausalLM:
    """A model without memory, for its names, shapes and what is frozen in it."""
    with torch.device("meta"):
        return cls(config)


def _read_config(folder: Path) -> ConvertedConfig:
    content = read_object(folder / "config.json")
    if content is None or content.get("model_type") != ConvertedConfig.model_type:
        found = None if content is None else content.get("model_type")
        raise CheckpointError(
            f"a converted model expects a config.json of model_type '{ConvertedConfig.model_type}', got {found!r} in "
            f"{folder}; name a folder that qlm convert wrote."
        )
    return ConvertedConfig.from_pretrained(folder, local_files_only=True)
