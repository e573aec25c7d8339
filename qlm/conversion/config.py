"""The configuration of a converted model: the original's own, and which of its layers hold which block."""

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from qlm.registry import BLOCKS, block_class, complete_entry

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Model type -> transformers' class, where ``model.model.layers[i].self_attn`` is called as Llama's."""


class ConvertedConfig(PreTrainedConfig):
    """Configuration of ``ConvertedForCausalLM``.

    ``base``: the original's configuration, or its dictionary with a ``model_type`` of ``ARCHITECTURES``. ``block``: the
    entry of ``qlm.registry.BLOCKS`` that stands where attention stood; missing keys are filled in. ``layers``: which
    layers hold one, None for all. Raises ValueError for another model type, an unknown block or one with a circuit,
    and for layers that are none.

    >>> base = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    >>> ConvertedConfig(base=base, layers=[1]).block["taus"]
    [4.0, 32.0, 128.0]
    """

    model_type = "qlm_converted"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {"base": SubConfigSpec(AutoConfig, "llama")}  # pyright: ignore[reportArgumentType] -- transformers looks the class up by the model type

    base: Any = None
    block: dict[str, Any] | None = None
    layers: list[int] | None = None
    use_cache: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.base, dict):
            check_model_type(self.base.get("model_type"), "the config's 'base'")
        self.block = complete_block({"kind": "harmonic"} if self.block is None else self.block)
        super().__post_init__(**kwargs)
        base = self.get_text_config()
        check_model_type(base.model_type, "the config's 'base'")
        self.layers = check_layers(self.layers, base.num_hidden_layers)

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> PreTrainedConfig:
        """The original's configuration: what transformers asks for widths, the vocabulary and special tokens."""
        return self.base


def check_model_type(found: Any, where: str) -> None:
    """Raise ValueError unless a model's type is one of ``ARCHITECTURES``.

    >>> check_model_type("llama", "model")
    """
    if not isinstance(found, str) or found not in ARCHITECTURES:
        raise ValueError(
            f"a conversion expects a model of Llama's layout ({', '.join(ARCHITECTURES)}), got {found!r} as the "
            f"model_type of {where}; name another model."
        )


def complete_block(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a block's entry with all its keys; ValueError for one that is unknown, or holds a circuit.

    >>> complete_block({"kind": "mamba", "n_states": 4})["discretization"]
    'euler'
    """
    complete = complete_entry(entry, "off")
    if block_class(complete["kind"]).holds_circuit:
        classical = [kind for kind in BLOCKS if not block_class(kind).holds_circuit]
        raise ValueError(
            f"a conversion expects a block without a circuit, got '{complete['kind']}'; choose one of "
            f"{', '.join(classical)}."
        )
    return complete


def check_layers(layers: Sequence[int] | None, n_layers: int) -> list[int]:
    """Return the layers to replace in order, all for None; ValueError for none, for repeats and for unknown ones.

    >>> check_layers([1, 0], 2)
    [0, 1]
    """
    chosen = list(range(n_layers)) if layers is None else sorted(layers)
    if not chosen or len(set(chosen)) != len(chosen) or chosen[0] < 0 or chosen[-1] >= n_layers:
        raise ValueError(
            f"layers expect different numbers from 0 to {n_layers - 1}, at least one, got {list(layers or ())}; "
            "correct them."
        )
    return chosen
