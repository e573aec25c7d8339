"""A state-space layer whose states turn: pairs of numbers rotated by angles that depend on the token.

Axis legend: b batch, l sequence, d model width, g heads, p channels of a head, n complex states of a channel.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from classical_kernels import scan
from qlm.blocks.base import Block, BlockOutput, Context, real_tokens
from qlm.fields import check_types
from qlm.precision import at_least_single

_SHORTEST, _LONGEST = 1e-3, 1e-1
"""Fresh step sizes, log-uniform; the decay's rate starts at 1 to 16, as Mamba's does."""
_FASTEST = 16.0
_OUT_SPREAD = 0.02
"""Standard deviation of fresh weights to the stream: the update starts small beside embeddings of 0.1."""


@dataclass(frozen=True)
class RotationalConfig:
    """``expansion``: inner channels over d_model; ``n_heads`` share them, each with its own steps and angles;
    ``n_states``: complex states of a channel."""

    expansion: float = 2.0
    n_heads: int = 8
    n_states: int = 4

    def __post_init__(self) -> None:
        check_types("rotational", self)
        if not self.expansion > 0 or min(self.n_heads, self.n_states) < 1:
            raise ValueError(
                f"rotational expects expansion > 0, n_heads >= 1 and n_states >= 1, got {self.expansion}, "
                f"{self.n_heads} and {self.n_states}; correct them."
            )


class Rotational(Block):
    """``h + W_o (y * silu(z))``, where each channel of y reads n complex states that decay and turn by the token.

    Per head: the step ``delta = softplus(.)``, the decay ``exp(-delta exp(a))``, the angle ``phi = pi tanh(.)`` of each
    state and the mixture ``lambda = sigmoid(.)`` are maps of norm(h), and so are the channels x and the complex B and C
    (b, l, n), normalised and with a bias. With ``r_t = exp(-delta_t exp(a) + i phi_t)`` and ``v_t = B_t x_t``,

    ``s_t = r_t s_{t-1} + delta_t (lambda_t v_t + (1 - lambda_t) r_t v_{t-1})``, ``y_t = Re(C_t^* . s_t) + D x_t``:

    the trapezoidal rule at lambda = 1/2, where it starts, and Euler's at 1. Reading the token before makes up for a
    convolution. Decays alone, being positive, cannot count; a half turn a token counts modulo 2. State: s and the last
    v (b, g p, n, 2), as real and imaginary parts; left padding moves neither. Under autocast states run in
    float32. Raises ValueError for inner channels that are no multiple of the heads. Cost: O(l g p (d + n)), and
    several arrays (b, l, g p, n) of complex numbers in memory.

    Source: the trapezoidal rule and the data-dependent rotation of Mamba-3 (Lahoti et al. 2026); its angles are
    ``delta_t theta_t``, ours do not depend on the step.

    >>> block = Rotational(8, RotationalConfig(n_heads=2, n_states=3))
    >>> output = block(torch.zeros(2, 5, 8), Context())
    >>> output.hidden.shape, output.state[0].shape
    (torch.Size([2, 5, 8]), torch.Size([2, 16, 3, 2]))
    """

    Config = RotationalConfig

    def __init__(self, d_model: int, config: RotationalConfig) -> None:
        super().__init__()
        inner, heads, states = round(config.expansion * d_model), config.n_heads, config.n_states
        if inner % heads or not inner:
            raise ValueError(
                f"rotational expects expansion x d_model to be a multiple of its {heads} heads, got {inner}; change "
                "either."
            )
        self.config = config
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.value_gate = nn.Linear(d_model, 2 * inner, bias=False)
        self.selection = nn.Linear(d_model, 4 * states, bias=False)
        self.selection_norm = nn.RMSNorm(2 * states, eps=1e-6)
        self.selection_bias = nn.Parameter(torch.ones(4 * states))
        self.dynamics = nn.Linear(d_model, heads * (2 + states))
        self.log_decay = nn.Parameter(torch.zeros(heads))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        heads, states = self.config.n_heads, self.config.n_states
        self.log_decay.uniform_(1.0, _FASTEST).log_()
        nn.init.ones_(self.skip)
        nn.init.ones_(self.selection_bias)
        steps = torch.empty(heads).uniform_(math.log(_SHORTEST), math.log(_LONGEST)).exp()
        inverse = steps + torch.log(-torch.expm1(-steps))  # of softplus
        turns = torch.atanh(10.0 ** (-2 * torch.arange(states) / states) / math.pi)  # from 1 to 0.01 radians
        self.dynamics.bias.copy_(torch.cat((inverse, torch.zeros(heads), turns.repeat(heads))))
        nn.init.normal_(self.out.weight, 0.0, _OUT_SPREAD)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        mask = None if context.mask is None else real_tokens(hidden, context.mask)
        normed = self.norm(hidden)
        x, z = self.value_gate(normed).chunk(2, -1)
        selected = self.selection(normed).to(self.selection_norm.weight.dtype)
        B, C = (self.selection_norm(one) for one in selected.chunk(2, -1))
        dynamics = self.dynamics(normed)
        with torch.autocast(hidden.device.type, enabled=False):
            x, B, C, dynamics = (at_least_single(one) for one in (x, B, C, dynamics))
            y, state = self._run(x, B, C, dynamics, mask, context.state)
            y = y + self.skip * x
        return BlockOutput(hidden + self.out(y.to(z.dtype) * functional.silu(z)), state)

    def _run(
        self, x: Tensor, B: Tensor, C: Tensor, dynamics: Tensor, mask: Tensor | None, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What channels (b, l, g p) read of their states, and the state after them."""
        heads, states = self.config.n_heads, self.config.n_states
        delta, mixture, turns = dynamics.split((heads, heads, heads * states), -1)
        delta, mixture = functional.softplus(delta), torch.sigmoid(mixture)
        rate = -delta * at_least_single(self.log_decay).exp()
        turn = torch.polar(rate.exp().unsqueeze(-1).expand(*rate.shape, states), self._angles(turns))
        bias_B, bias_C = at_least_single(self.selection_bias).chunk(2)
        if mask is not None:
            x = x * mask[..., None]
        v = torch.view_as_complex((x[..., None] * (B + bias_B)[:, :, None]).unflatten(3, (states, 2)))
        first, last = (torch.view_as_complex(one.to(x.dtype)) for one in state) if state else (None, None)
        before = torch.cat((v.new_zeros(v.shape[0], 1, *v.shape[2:]) if last is None else last[:, None], v), 1)
        share = x.shape[2] // heads
        now, earlier, turn = (one.repeat_interleave(share, 2) for one in (delta * mixture, delta * (1 - mixture), turn))
        drive = now[..., None] * v + earlier[..., None] * turn * before[:, :-1]
        s, final = scan(turn, drive, first, mask=mask)
        read = (torch.view_as_real(s).flatten(3) @ (C + bias_C)[..., None]).squeeze(-1)
        return read, (torch.view_as_real(final), torch.view_as_real(before[:, -1].clone()))

    def _angles(self, turns: Tensor) -> Tensor:
        return math.pi * torch.tanh(turns).unflatten(-1, (self.config.n_heads, self.config.n_states))
