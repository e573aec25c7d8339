"""Kernel attention by its formula, small blocks of it, and a backend that lacks what a device lacks.

Axis legend: b batch, l sequence, d model width, w angles, e numbers of a value, p window.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backends import Capabilities, Estimate, open_backend
from backends.base import Request
from backends.statevector import Statevector
from circuits import Circuit, PauliSum
from qlm.blocks.kernel_attention import KernelAttention, KernelAttentionConfig
from qlm.blocks.kernel_parts import TwinKernel

WAYS: list[dict[str, Any]] = [
    {"form": "linear"},
    {"form": "quadratic"},
    {"normalisation": "softmax"},
    {"window": 3},
    {"window": 3, "normalisation": "softmax"},
    {"window": 2},
]


@dataclass(frozen=True)
class Stateless(Statevector):
    """The state-vector simulator without what a device lacks: states and derivatives. Exact, so that nothing hides."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exact=True, batch=True, max_wires=8, gates=super().capabilities.gates)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        with torch.no_grad():
            return super()._expectations(circuit, angles, observables, request)


def block(backend: Any = "statevector", d_model: int = 8, **changes: Any) -> KernelAttention:
    """A small block in float64, far from its start."""
    torch.manual_seed(0)
    config = KernelAttentionConfig(**{"n_wires": 2, "depth": 1, "d_value": 3, **changes})
    built = KernelAttention(d_model, config, backend).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built.eval()


def stream(length: int = 7, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, 8, generator=generator, dtype=torch.float64)


def left_padded(length: int = 7) -> Tensor:
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[1, :3] = False
    return mask


def kernel_by_hand(made: KernelAttention, hidden: Tensor) -> Tensor:
    """Similarities (b, l, l) from the definition, without the block's own machinery."""
    normed = made.norm(hidden)
    q, k = (math.pi * torch.tanh(made.encode(normed))).chunk(2, -1)
    core = made.core
    if core is None:
        return hidden.new_zeros(*hidden.shape[:2], hidden.shape[1])
    if isinstance(core, TwinKernel):
        assert core.bend is not None
        bent = [
            a + torch.tanh(a / math.pi @ core.bend.inner.weight.T + core.bend.inner.bias) @ core.bend.outer.weight.T
            for a in (q, k)
        ]
        if core.kind == "dot":
            return bent[0] @ bent[1].mT / math.sqrt(q.shape[-1])
        return torch.cos((bent[0].unsqueeze(2) - bent[1].unsqueeze(1)) / 2).square().prod(-1)
    weights = core.layer.weights.double()
    circuit, backend = core.layer.circuit, open_backend("statevector")
    return torch.stack(
        [
            backend.fidelity(circuit, q[i], inputs_b=k[i], weights_a=weights, weights_b=weights, gram=True).values
            for i in range(len(hidden))
        ]
    )


def by_hand(made: KernelAttention, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
    """The block's output by the formula in its docstring, one query at a time."""
    config, kernel = made.config, kernel_by_hand(made, hidden)
    values = made.value(made.norm(hidden))
    out = torch.zeros_like(values)
    for i in range(hidden.shape[0]):
        for t in range(hidden.shape[1]):
            first = max(0, t - config.window + 1) if config.window else 0
            seen = [s for s in range(first, t + 1) if mask is None or bool(mask[i, s])]
            if not seen or (mask is not None and not bool(mask[i, t])):
                continue
            row = kernel[i, t, seen]
            if config.by_softmax:
                a = torch.softmax(row / (1.0 if config.quantum == "twin" and config.twin == "dot" else config.tau), 0)
            else:
                a = (row + config.eps / len(seen)) / (row.sum() + config.eps)
            out[i, t] = a @ values[i, seen]
    return hidden + made.out(out)
