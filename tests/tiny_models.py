"""Tiny models for tests: two recurrences around a router, and a tensor-train layer."""

from typing import Any

import torch
from torch import Tensor, nn

from qlm import QLMConfig, QLMForCausalLM
from qlm.blocks.quantum_router import QuantumRouter

BLOCKS: tuple[dict[str, Any], ...] = (
    {"kind": "harmonic"},
    {"kind": "quantum_router", "n_wires": 2, "depth": 1},
    {"kind": "tt_feed_forward", "ranks": [1, 2, 3]},
    {"kind": "harmonic", "taus": [8.0]},
)


def still_blocks(**router: Any) -> list[dict[str, Any]]:
    """The blocks without their draws in training: no exploration, no nested ranks; some keys of the router changed."""
    changes = {"quantum_router": {"exploration": 0.0, **router}, "tt_feed_forward": {"nested": 0.0}}
    return [{**entry, **changes.get(entry["kind"], {})} for entry in BLOCKS]


def router_of(model: QLMForCausalLM) -> QuantumRouter:
    """The model's router."""
    return next(module for module in model.modules() if isinstance(module, QuantumRouter))


def circuit_weights(model: QLMForCausalLM) -> nn.Parameter:
    """The weights of the model's circuit."""
    return next(layer for _, layer in model.quantum_layers()).weights


def tiny_config(**changes: Any) -> QLMConfig:
    """A configuration of width 16 with all kinds of block."""
    return QLMConfig(**{"d_model": 16, "blocks": [dict(entry) for entry in BLOCKS], **changes})


def tiny_model(spread: float = 0.3, backend: str = "statevector", **changes: Any) -> QLMForCausalLM:
    """A model whose parameters are all ``spread`` away from their start, and which routes about half the tokens."""
    torch.manual_seed(0)
    model = QLMForCausalLM(tiny_config(**changes), backend)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
        for block in model.modules():
            if isinstance(block, QuantumRouter):
                nn.init.normal_(block.predict.weight, 0.0, 0.5)
                nn.init.constant_(block.threshold, 0.5)
    return model.eval()


def tiny_ids(batch: int = 2, length: int = 9, seed: int = 1) -> Tensor:
    """Random byte ids (batch, length)."""
    return torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(seed))


def logits(model: QLMForCausalLM, ids: Tensor | None = None, **inputs: Any) -> Tensor:
    """Logits of a call without gradients, by default on the tiny ids."""
    with torch.no_grad():
        return model(tiny_ids() if ids is None else ids, **inputs).logits


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Every tensor of the two state dicts is equal, to the bit and in its dtype."""
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert tensor.dtype == other.state_dict()[name].dtype, name
        assert torch.equal(tensor, other.state_dict()[name]), name
