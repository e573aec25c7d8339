"""A selective state-space layer.

Axis legend: b batch, l sequence, d model width, e inner channels, n states of a channel, r rank of the steps.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from circuits._suggest import unknown
from classical_kernels import selective_scan
from qlm.blocks.base import Block, BlockOutput, Context, real_tokens
from qlm.blocks.convolution import CausalConvolution
from qlm.fields import check_types
from qlm.precision import at_least_single

DISCRETIZATIONS = ("euler", "zoh")
"""How an input enters the state within a step: Euler's rule, or held over it, which is exact."""
_SHORTEST, _LONGEST = 1e-3, 1e-1
"""Fresh step sizes, log-uniform."""
_OUT_SPREAD = 0.02
"""Standard deviation of fresh weights to the stream: the update starts small beside embeddings of 0.1."""


@dataclass(frozen=True)
class MambaConfig:
    """``expansion``: inner channels over d_model; ``n_states`` of each; ``taps``: reach of the causal convolution;
    ``delta_rank``: of the map to step sizes, 0 for ``d_model / 16``, rounded up; ``discretization``: "euler" (Mamba's)
    or "zoh"."""

    expansion: int = 2
    n_states: int = 16
    taps: int = 4
    delta_rank: int = 0
    discretization: str = "euler"

    def __post_init__(self) -> None:
        check_types("mamba", self)
        if self.discretization not in DISCRETIZATIONS:
            raise ValueError(unknown("mamba discretization", self.discretization, DISCRETIZATIONS))
        if min(self.expansion, self.n_states, self.taps) < 1 or self.delta_rank < 0:
            raise ValueError(
                "mamba expects expansion, n_states and taps of at least 1 and delta_rank >= 0, got "
                f"{self.expansion}, {self.n_states}, {self.taps} and {self.delta_rank}; correct them."
            )


class Mamba(Block):
    """``h + W_o (y * silu(z))``, where each channel of y reads n states that decay and take in by the token.

    ``x, z = W_i norm(h)``; u is a causal depthwise convolution of x with SiLU, ``B, C`` (b, l, n) and the steps
    ``delta = softplus(W_d W_r u + c)`` are maps of it; then ``s_t = exp(delta_t A) s_{t-1} + delta_t B_t u_t`` (with
    "zoh" the exact ``(exp(delta_t A) - 1) / A B_t u_t``) and ``y_t = C_t . s_t + D u_t``. A starts at -1, ..., -n
    in each channel, D at 1, steps at 0.001 to 0.1, so that channels remember 10 to 1000 tokens. State: s (b, e, n), the
    last inputs of the convolution (b, c - 1, e): constant in the length; left padding moves neither. Cost: O(l e (d +
    n)), see ``selective_scan``.

    Source: Gu & Dao 2023, arXiv:2312.00752, section 3.4 and its reference initialisation.

    >>> block = Mamba(8, MambaConfig(n_states=4))
    >>> output = block(torch.zeros(2, 5, 8), Context())
    >>> output.hidden.shape, output.state[0].shape
    (torch.Size([2, 5, 8]), torch.Size([2, 16, 4]))
    """

    Config = MambaConfig

    def __init__(self, d_model: int, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        inner, self.rank = config.expansion * d_model, config.delta_rank or math.ceil(d_model / 16)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.value_gate = nn.Linear(d_model, 2 * inner, bias=False)
        self.convolution = CausalConvolution(inner, config.taps)
        self.selection = nn.Linear(inner, self.rank + 2 * config.n_states, bias=False)
        self.delta = nn.Linear(self.rank, inner)
        self.log_decay = nn.Parameter(torch.zeros(inner * config.n_states))  # flat: weight decay is for matrices
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        inner, states = len(self.skip), torch.arange(1, self.config.n_states + 1)
        self.log_decay.copy_(states.log().repeat(inner))
        nn.init.ones_(self.skip)
        nn.init.uniform_(self.delta.weight, -(self.rank**-0.5), self.rank**-0.5)
        steps = torch.empty(inner).uniform_(math.log(_SHORTEST), math.log(_LONGEST)).exp()
        self.delta.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        nn.init.normal_(self.out.weight, 0.0, _OUT_SPREAD)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        mask = None if context.mask is None else real_tokens(hidden, context.mask)
        states, tail = context.state or (None, None)
        x, z = self.value_gate(self.norm(hidden)).chunk(2, -1)
        if mask is not None:
            x = x * mask[..., None]
        u, tail = self.convolution(x, tail)
        low, B, C = self.selection(u).split((self.rank, self.config.n_states, self.config.n_states), -1)
        delta = functional.softplus(at_least_single(self.delta(low)))
        A = -at_least_single(self.log_decay).exp().unflatten(0, (-1, self.config.n_states))
        y, states = selective_scan(
            u, delta, A, B, C, self.skip, states, z, discretization=self.config.discretization, mask=mask
        )
        return BlockOutput(hidden + self.out(y.to(z.dtype)), (states, tail))
