"""Small models of Llama's layout, and the same converted, with weights far from zero."""

from typing import Any

import torch
from small_blocks import SMALL
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from qlm.conversion import replace_attention

VOCAB = 31
SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ORIGINALS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 4}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"attn_implementation": "eager"}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
}
CLOSE = 2e-5  # of logits around 3 from models that norm in float32 whatever their precision


def original(name: str = "llama", **changes: Any) -> PreTrainedModel:
    """A small model with weights far from zero, so that every part of it matters."""
    torch.manual_seed(0)
    model, config, own = ORIGINALS[name]
    return spread(model(config(vocab_size=VOCAB, **{**SIZE, **own, **changes})).eval())


def spread(model: Any) -> Any:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def converted(name: str = "llama", kind: str = "harmonic", layers: list[int] | None = None) -> Any:
    return spread(replace_attention(original(name), {"kind": kind, **SMALL.get(kind, {})}, layers))


def tokens(length: int = 9) -> torch.Tensor:
    return torch.randint(3, VOCAB, (2, length), generator=torch.Generator().manual_seed(1))
