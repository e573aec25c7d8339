"""A hierarchy of selective recurrences, each level fed with the prediction error of the one below.

Axis legend: b batch, l sequence, d model width, k levels, c convolution taps.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from circuits._suggest import unknown
from classical_kernels import scan
from classical_kernels.token_steps.cpu import HarmonicWeights, advance, step_harmonic
from qlm.blocks.base import Block, BlockOutput, Context, real_tokens
from qlm.blocks.convolution import CausalConvolution
from qlm.blocks.norm import RMSNorm
from qlm.blocks.untouched import parameters_of
from qlm.fields import check_types
from qlm.precision import at_least_single

SIGNALS = ("error", "raw")
"""What a level hands to the one above."""
_LONGEST_PERIOD = 2**20
"""Tokens that are counted, exactly in float32, before a count starts anew."""


@dataclass(frozen=True)
class HarmonicConfig:
    """``taus``: time scale of each level in tokens, fast first. ``taps``: reach of the causal convolution before it.
    ``signal``: "error" (see ``Harmonic``), or "raw": the ablation in which a level hands up its state itself.
    ``stride``: level k moves at every ``stride**(k-1)``-th token alone, 1 for at each; taus stay in tokens."""

    taus: tuple[float, ...] = (4.0, 32.0, 128.0)
    taps: int = 4
    signal: str = "error"
    stride: int = 1

    def __post_init__(self) -> None:
        check_types("harmonic", self)
        object.__setattr__(self, "taus", tuple(float(tau) for tau in self.taus))
        if self.signal not in SIGNALS:
            raise ValueError(unknown("harmonic signal", self.signal, SIGNALS))
        if not self.taus or min(self.taus) <= 0 or self.taps < 1:
            raise ValueError(f"harmonic expects positive taus and taps >= 1, got {self.taus} and {self.taps}.")
        if self.stride < 1 or self.stride ** (len(self.taus) - 1) > _LONGEST_PERIOD:
            raise ValueError(
                f"harmonic expects a stride of at least 1 whose top level moves every {_LONGEST_PERIOD} tokens or more "
                f"often, got {self.stride} with {len(self.taus)} levels; change either."
            )


class Harmonic(Block):
    """Levels k = 1..K, per channel: ``h_k(t) = a_k h_k(t-1) + (1 - a_k) e_k(t)``, output ``sum_k h_k``.

    ``e_1 = v(t)`` and ``e_{k+1}(t) = h_k(t) - p_{k+1} h_{k+1}(t-1)``: what the upper level's *previous* state did not
    predict of the lower one. Decays ``a_k = sigmoid(W_k u(t) + c_k)`` depend on the token, with c_k set so that
    ``a_k = exp(-1/tau_k)`` at the start. The prediction p in (0, 1) is one learned gain per channel, so the error
    folds into the decay, ``a_k - (1 - a_k) p_k`` in (-1, 1), and each level stays one scan. It shortens the memory:
    at the start p = 1/2, and upper levels of tau 32 and 128 forget as plain ones of 21 and 85 would. With signal "raw"
    p is 0 and has no parameter. u is a causal depthwise convolution of the normalised stream, and a gate silu(g(t))
    multiplies the output. With a stride s, level k moves at the real tokens whose number, from 1, is a multiple of
    ``s**(k-1)``, and keeps its state in between; it takes in the error at those tokens alone, and its decay a move is
    ``exp(-s**(k-1)/tau_k)`` at the start. State: the levels (b, K, d), the last c - 1 convolution inputs (b, c - 1, d),
    and with a stride the number of real tokens modulo the slowest level's period (b, 1): constant in the length. Left
    padding moves no state. Cost: O(l d**2), whatever the stride. One token without gradients and without a stride takes
    compiled steps, see ``classical_kernels.token_steps``.

    Source: the hierarchy of the Harmonic system (Zenodo 20381713), in the form of a gated linear recurrence.

    >>> block = Harmonic(8, HarmonicConfig())
    >>> block(torch.zeros(2, 5, 8), Context()).hidden.shape
    torch.Size([2, 5, 8])
    """

    Config = HarmonicConfig

    def __init__(self, d_model: int, config: HarmonicConfig) -> None:
        super().__init__()
        self.taus = config.taus
        self.taps = config.taps
        self.periods = tuple(config.stride**level for level in range(len(config.taus)))
        self.norm = RMSNorm(d_model, eps=1e-6)
        self.convolution = CausalConvolution(d_model, config.taps)
        self.value_gate = nn.Linear(d_model, 2 * d_model, bias=False)
        self.decay = nn.Linear(d_model, len(config.taus) * d_model)
        predicted = len(config.taus) - 1 if config.signal == "error" else 0
        self.prediction = nn.Parameter(torch.zeros(predicted, d_model), requires_grad=predicted > 0)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        width = self.out.in_features
        rates = [period / tau for period, tau in zip(self.periods, self.taus, strict=True)]
        logits = [-rate - math.log(-math.expm1(-rate)) for rate in rates]  # of exp(-rate)
        self.decay.bias.copy_(torch.tensor(logits).repeat_interleave(width))
        nn.init.normal_(self.decay.weight, 0.0, 0.2 / math.sqrt(width))
        nn.init.zeros_(self.prediction)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        if hidden.shape[1] == self.periods[-1] == 1 and len(context.state) == 2 and context.mask is None:
            stepped = self._step(hidden, *context.state)
            if stepped is not None:
                return BlockOutput(stepped[0], stepped[1:])
        mask = None if context.mask is None else real_tokens(hidden, context.mask)
        normed = self.norm(hidden)
        if mask is not None:
            normed = torch.where(mask[..., None], normed, torch.zeros_like(normed))
        levels, tail, *counted = context.state or (None, None)
        u, tail = self.convolution(normed, tail)
        value_gate, logits = self.value_gate(u), self.decay(u)
        if levels is not None and hidden.shape[1] == self.periods[-1] == 1 and mask is None:
            stepped = advance(logits, value_gate, self.prediction, levels)
            if stepped is not None:
                return BlockOutput(hidden + self.out(stepped[0]), (stepped[1], tail))
        value, gate = value_gate.chunk(2, -1)
        # In bfloat16 a decay near 1 would have one of four values: decays and levels are never narrower than float32.
        decays = torch.sigmoid(at_least_single(logits))
        shares = 1 - decays
        if len(self.prediction):  # 0 for the first level, which predicts nothing
            decays = decays - shares * functional.pad(torch.sigmoid(self.prediction).flatten(), (hidden.shape[2], 0))
        levelled = zip(decays.chunk(len(self.taus), -1), shares.chunk(len(self.taus), -1), strict=True)
        moves, count = self._moves(hidden, mask, counted)
        signal, signals, finals = value.to(decays.dtype), [], []
        for level, (decay, share) in enumerate(levelled):
            first = None if levels is None else levels[:, level].to(decay.dtype)
            if first is not None and hidden.shape[1] == 1 and moves[level] is None:
                signal = torch.addcmul(share * signal, decay, first[:, None])  # generation: checks cost more than this
                final = signal[:, 0]
            else:
                signal, final = scan(decay, share * signal, first, mask=moves[level])
            finals.append(final)
            signals.append(signal)
        total = sum(signals[1:], signals[0])
        update = self.out(total.to(gate.dtype) * functional.silu(gate))
        return BlockOutput(hidden + update, (torch.stack(finals, 1), tail, *count))

    def _step(self, hidden: Tensor, levels: Tensor, tail: Tensor) -> tuple[Tensor, ...] | None:
        """One token in one compiled call, and the new state; None where its parts have to be called."""
        norm, filters = parameters_of(self.norm, RMSNorm), parameters_of(self.convolution, CausalConvolution)
        value_gate, decay, out = (parameters_of(part, nn.Linear) for part in (self.value_gate, self.decay, self.out))
        weights: list[Any] = [norm.get("weight"), filters.get("weight"), filters.get("bias"), value_gate.get("weight")]
        weights += [decay.get("weight"), decay.get("bias"), self.prediction, out.get("weight")]
        added = value_gate.get("bias") is not None or out.get("bias") is not None
        if added or self.norm.eps is None or any(weight is None for weight in weights):
            return None
        return step_harmonic(hidden, HarmonicWeights(*weights), self.norm.eps, levels, tail)

    def _moves(
        self, hidden: Tensor, mask: Tensor | None, counted: list[Tensor]
    ) -> tuple[list[Tensor | None], tuple[Tensor, ...]]:
        """At which tokens (b, l) each level moves, None for all, and the new count of tokens where one is kept."""
        longest = self.periods[-1]
        if longest == 1:
            return [mask] * len(self.taus), ()
        real = real_tokens(hidden, mask)
        before = counted[0] if counted else torch.zeros(len(hidden), 1, device=hidden.device)
        numbers = before.long() + real.long().cumsum(1)
        moves: list[Tensor | None] = [real & (numbers % period == 0) for period in self.periods]
        after = before.long() + real.long().sum(1, keepdim=True)
        return moves, ((after % longest).to(torch.promote_types(hidden.dtype, torch.float32)),)
