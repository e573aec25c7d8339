"""What both model classes share: reading checkpoints, fresh weights, and the backend of their circuits."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from backends.base import Backend
from backends.registry import open_backend
from qlm.blocks.base import Block
from qlm.checkpoint_files import (
    CheckpointError,
    adapted_base,
    check_state_dict,
    check_weights,
    local_folder,
    read_config,
)
from qlm.config import QLMConfig
from qlm.heads.base import Head
from qlm.quantum import QuantumLayer
from qlm.registry import BLOCKS, HEADS
from tensornet import TTLinear


class QLMPreTrainedModel(PreTrainedModel):
    """The base of QLMModel and QLMForCausalLM, and of a user's own model around QLMModel."""

    config_class = QLMConfig
    config: QLMConfig
    base_model_prefix = "model"
    _is_stateful = True
    _no_split_modules = [path.rpartition(":")[2] for path in (*BLOCKS.values(), *HEADS.values())]  # noqa: RUF012 -- transformers' class attribute

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a model as transformers does, from safetensors alone; ``backend=`` says where its circuits run.

        A folder is checked before a tensor is read: no pickle in it, our config.json, every tensor present, in its
        shape, in one file or in shards, and no other. ``QLMModel`` reads a causal model's folder, and a causal model
        that of a ``QLMModel`` where its head is tied to the embedding. Raises CheckpointError (a ValueError) for any
        other folder, for a path that is none, and for a model of the Hub that lacks tensors; ValueError for
        ``quantum=``, since each block's mode is part of its checkpoint.
        """
        if "quantum" in kwargs:
            raise ValueError(
                f"from_pretrained expects each block's own quantum mode, got quantum={kwargs['quantum']!r}; it belongs "
                "to the checkpoint: build another model from a QLMConfig."
            )
        if kwargs.get("use_safetensors") is False:
            raise ValueError("from_pretrained expects safetensors, got use_safetensors=False; pickles are never read.")
        cls._check_source(pretrained_model_name_or_path, **kwargs)
        both: Any = super().from_pretrained(
            pretrained_model_name_or_path, *args, **{**kwargs, "use_safetensors": True, "output_loading_info": True}
        )
        loaded, info = both
        if info["missing_keys"]:
            raise CheckpointError(
                f"a checkpoint expects every tensor of its model, got none for '{min(info['missing_keys'])}' in "
                f"{pretrained_model_name_or_path}; build the model from its QLMConfig to draw fresh weights."
            )
        _freeze_as_built(loaded)
        return (loaded, info) if kwargs.get("output_loading_info") else loaded

    @classmethod
    def _check_source(
        cls,
        name: Any,
        config: Any = None,
        state_dict: dict[str, Tensor] | None = None,
        subfolder: str = "",
        variant: str | None = None,
        adapter_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check what a model is to be read from, as far as it lies on this machine."""
        if name is None:
            if state_dict is None:
                raise CheckpointError("from_pretrained expects a folder or a state_dict, got neither; pass one.")
            check_state_dict(state_dict, _on_meta(cls, config))
            return
        adapter = (adapter_kwargs or {}).get("_adapter_model_path")  # the Auto classes' way to name it
        if adapter is not None:
            local_folder(adapter)
        folder = local_folder(name, subfolder)
        if folder is None:
            return
        base = adapted_base(folder)
        if base is not None:
            cls._check_source(base, config, variant=variant, **kwargs)
            return
        if not isinstance(config, PreTrainedConfig):
            source = folder if config is None else local_folder(config) or config
            if isinstance(source, Path):
                read_config(source)
            config, _ = QLMConfig.from_pretrained(source, return_unused_kwargs=True, **kwargs)
        check_weights(folder, _on_meta(cls, config), variant)

    def post_init(self) -> None:
        """Finish construction; circuits' layers are labelled by their names in the model that is built last."""
        super().post_init()
        for name, layer in self.quantum_layers():
            layer.label = name

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Transformers takes a module of ours without parameters of its own for one that was read; blocks and heads
        may have set those of their children."""
        super()._initialize_weights(module, is_custom_code and not isinstance(module, Block | Head))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw what no checkpoint gave; transformers marks parameters that were read."""
        if isinstance(module, Block | Head | TTLinear):  # they may write into what has been read: put that back
            read = [tensor for tensor in module.parameters() if getattr(tensor, "_is_hf_initialized", False)]
            values = [tensor.clone() for tensor in read]
            module.reset_parameters() if isinstance(module, TTLinear) else module.init_weights()
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


def _on_meta(cls: type[QLMPreTrainedModel], config: Any) -> QLMPreTrainedModel:
    """A model without memory, for its names, shapes and what is frozen in it."""
    if not isinstance(config, QLMConfig):
        raise TypeError(f"{cls.__name__} expects a QLMConfig, got {type(config).__name__}; pass config=QLMConfig(...).")
    with torch.device("meta"):
        return cls(deepcopy(config))


def _freeze_as_built(model: QLMPreTrainedModel) -> None:
    """Take from parameters the gradients that their blocks do not give them: transformers thaws all that it reads."""
    built = _on_meta(type(model), model.config)
    frozen = {name for name, parameter in built.named_parameters() if not parameter.requires_grad}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
