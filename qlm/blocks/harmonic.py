"""A hierarchy of selective recurrences, each level fed with the prediction error of the one below.

Axis legend: b batch, l sequence, d model width, k levels, c convolution taps.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from circuits._suggest import unknown
from classical_kernels import scan
from qlm.blocks.base import Block, BlockOutput, Context, real_tokens
from qlm.fields import check_types
from qlm.precision import at_least_single

SIGNALS = ("error", "raw")
"""What a level hands to the one above."""


@dataclass(frozen=True)
class HarmonicConfig:
    """``taus``: time scale of each level in tokens, fast first. ``taps``: reach of the causal convolution before it.
    ``signal``: "error" (see ``Harmonic``), or "raw": the ablation in which a level hands up its state itself."""

    taus: tuple[float, ...] = (4.0, 32.0, 128.0)
    taps: int = 4
    signal: str = "error"

    def __post_init__(self) -> None:
        check_types("harmonic", self)
        object.__setattr__(self, "taus", tuple(float(tau) for tau in self.taus))
        if self.signal not in SIGNALS:
            raise ValueError(unknown("harmonic signal", self.signal, SIGNALS))
        if not self.taus or min(self.taus) <= 0 or self.taps < 1:
            raise ValueError(f"harmonic expects positive taus and taps >= 1, got {self.taus} and {self.taps}.")


class Harmonic(Block):
    """Levels k = 1..K, per channel: ``h_k(t) = a_k h_k(t-1) + (1 - a_k) e_k(t)``, output ``sum_k h_k``.

    ``e_1 = v(t)`` and ``e_{k+1}(t) = h_k(t) - p_{k+1} h_{k+1}(t-1)``: what the upper level's *previous* state did not
    predict of the lower one. Decays ``a_k = sigmoid(W_k u(t) + c_k)`` depend on the token, with c_k set so that
    ``a_k = exp(-1/tau_k)`` at the start. The prediction p in (0, 1) is one learned gain per channel, so the error
    folds into the decay, ``a_k - (1 - a_k) p_k`` in (-1, 1), and each level stays one scan. It shortens the memory:
    at the start p = 1/2, and upper levels of tau 32 and 128 forget as plain ones of 21 and 85 would. With signal "raw"
    p is 0 and has no parameter. u is a causal depthwise convolution of the normalised stream, and a gate silu(g(t))
    multiplies the output. State: the levels (b, K, d) and the last c - 1 convolution inputs (b, c - 1, d): constant in
    the length. Left padding moves no state. Cost: O(l d**2).

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
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.convolution = nn.Conv1d(d_model, d_model, config.taps, groups=d_model)
        self.value_gate = nn.Linear(d_model, 2 * d_model, bias=False)
        self.decay = nn.Linear(d_model, len(config.taus) * d_model)
        predicted = len(config.taus) - 1 if config.signal == "error" else 0
        self.prediction = nn.Parameter(torch.zeros(predicted, d_model), requires_grad=predicted > 0)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        width = self.out.in_features
        decays = [math.exp(-1 / tau) for tau in self.taus]
        logits = [math.log(decay / (1 - decay)) for decay in decays]
        self.decay.bias.copy_(torch.tensor(logits).repeat_interleave(width))
        nn.init.normal_(self.decay.weight, 0.0, 0.2 / math.sqrt(width))
        nn.init.zeros_(self.prediction)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        mask = None if context.mask is None else real_tokens(hidden, context.mask)[..., None]
        normed = self.norm(hidden)
        if mask is not None:
            normed = torch.where(mask, normed, torch.zeros_like(normed))
        levels, tail = context.state or (None, None)
        u, tail = self._convolve(normed, tail)
        value, gate = self.value_gate(u).chunk(2, -1)
        # In bfloat16 a decay near 1 would have one of four values: decays and levels are never narrower than float32.
        decays = torch.sigmoid(at_least_single(self.decay(u))).chunk(len(self.taus), -1)
        signal, total, finals = value.to(decays[0].dtype), torch.zeros_like(decays[0]), []
        for level, a in enumerate(decays):
            gain = torch.sigmoid(self.prediction[level - 1]) if level and len(self.prediction) else 0.0
            decay, drive = a - (1 - a) * gain, (1 - a) * signal
            if mask is not None:
                decay = torch.where(mask, decay, torch.ones_like(decay))
                drive = torch.where(mask, drive, torch.zeros_like(drive))
            signal, final = scan(decay, drive, None if levels is None else levels[:, level].to(drive.dtype))
            finals.append(final)
            total = total + signal
        update = self.out(total.to(gate.dtype) * functional.silu(gate))
        return BlockOutput(hidden + update, (torch.stack(finals, 1), tail))

    def _convolve(self, normed: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
        """Causal depthwise convolution with SiLU; returns it and the inputs that the next part needs."""
        if tail is None:
            tail = normed.new_zeros(normed.shape[0], self.taps - 1, normed.shape[2])
        if not normed.shape[1]:
            return normed, tail  # torch's convolution refuses an empty text
        padded = torch.cat((tail.to(normed.dtype), normed), 1)
        u = functional.silu(self.convolution(padded.mT)).mT
        return u, padded[:, padded.shape[1] - (self.taps - 1) :].clone()  # a view would keep the whole part alive
