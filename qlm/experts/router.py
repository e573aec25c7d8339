"""Routers of a mixture of experts: the probabilities of a circuit's basis states, and their classical twin.

Axis legend: n tokens, i angles, e experts.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backends.base import Backend
from circuits import Circuit
from qlm.controls import CircuitPart, QuantumPart, build_part
from qlm.probabilities import ProbabilityLayer


class CircuitRouter(CircuitPart[ProbabilityLayer]):
    """``p_i = |<i| U(theta) |phi(x)>|^2`` of the first e basis states: angles (n, i) to (n, e); a sum below 1 leaks.

    >>> from circuits.library import vqc_router
    >>> CircuitRouter(vqc_router(2, 0), 3, "statevector")(torch.full((1, 2), math.pi / 2))
    tensor([[0.2500, 0.2500, 0.2500]])
    """

    def __init__(self, circuit: Circuit, n_experts: int, backend: str | Backend) -> None:
        super().__init__(ProbabilityLayer(circuit, backend))
        self.n_experts = n_experts

    def forward(self, angles: Tensor) -> Tensor:
        return self.layer(angles)[..., : self.n_experts]


class SoftmaxRouter(QuantumPart):
    """The twin: ``softmax(W_2 tanh(W_1 x / pi + b_1))``, angles (n, i) to (n, e); nothing leaks.

    The hidden width makes its parameter count the nearest to ``n_parameters``, the circuit's weights: equal to within
    one hidden unit of ``i + 1 + e``.

    >>> SoftmaxRouter(3, 8, 27).n_parameters
    24
    """

    def __init__(self, n_inputs: int, n_experts: int, n_parameters: int) -> None:
        super().__init__()
        n_hidden = max(1, round(n_parameters / (n_inputs + 1 + n_experts)))
        self.inner = nn.Linear(n_inputs, n_hidden)
        self.outer = nn.Linear(n_hidden, n_experts, bias=False)

    def forward(self, angles: Tensor) -> Tensor:
        return torch.softmax(self.outer(torch.tanh(self.inner(angles / math.pi))), -1)


def build_router(
    mode: str, circuit: Circuit, n_experts: int, backend: str | Backend
) -> CircuitRouter | SoftmaxRouter | None:
    """Return a ``CircuitRouter`` or a ``SoftmaxRouter``, as ``build_part`` does.

    >>> from circuits.library import vqc_router
    >>> build_router("off", vqc_router(2, 1), 4, "statevector") is None
    True
    """
    return build_part(
        mode,
        circuit,
        lambda kept: CircuitRouter(kept, n_experts, backend),
        lambda: SoftmaxRouter(circuit.n_inputs, n_experts, circuit.n_weights),
    )


@dataclass(frozen=True)
class Routing:
    """Where tokens go: ``g`` (n, e) sums to 1; ``leaked`` mass (n,), detached; ``lost`` (n,): whether all of it did."""

    g: Tensor
    leaked: Tensor
    lost: Tensor


def renormalise(chances: Tensor) -> Routing:
    """Return ``g = p / sum p`` over the experts (n, e), and the leaked mass ``1 - sum p``.

    Where all mass leaks, to within rounding, nothing is known of the token: g is uniform and carries no gradient. A
    negative p, which error mitigation on hardware can return, counts as 0.

    >>> routing = renormalise(torch.tensor([[0.25, 0.5], [0.0, 0.0]]))
    >>> routing.g, routing.leaked, routing.lost
    (tensor([[0.3333, 0.6667],
            [0.5000, 0.5000]]), tensor([0.2500, 1.0000]), tensor([False,  True]))
    """
    kept = chances.clamp(min=0)
    total = kept.sum(-1, keepdim=True)
    lost = total <= 4 * torch.finfo(total.dtype).eps
    g = torch.where(lost, 1 / chances.shape[-1], kept / total.masked_fill(lost, 1.0))
    return Routing(g, (1 - total.detach().squeeze(-1)).clamp(min=0), lost.squeeze(-1))


def route_first(n_tokens: int, n_experts: int, k: int, like: Tensor) -> Routing:
    """Return the routing without a router: every token on the first k experts alike; dtype and device of ``like``.

    >>> route_first(1, 4, 2, torch.zeros(0)).g
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    first = (torch.arange(n_experts, device=like.device) < k).to(like.dtype) / k
    nothing = like.new_zeros(n_tokens)
    return Routing(first.expand(n_tokens, n_experts), nothing, nothing > 0)
