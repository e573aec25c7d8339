"""The harmonic hierarchy with neurons for levels: leaky integrators that fire and are reset.

Axis legend: b batch, l sequence, d model width, k levels.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qlm.blocks.base import Block, BlockOutput, Context, real_tokens
from qlm.blocks.convolution import CausalConvolution
from qlm.fields import check_types
from qlm.precision import at_least_single

_OUT_SPREAD = 0.02
"""Standard deviation of fresh weights to the stream: the update starts small beside embeddings of 0.1."""


@dataclass(frozen=True)
class HarmonicSpikingConfig:
    """``taus``: time scale of each level in tokens, fast first; ``taps``: reach of the causal convolution before them;
    ``sharpness``: of the surrogate slope around the threshold, in thresholds: larger is narrower."""

    taus: tuple[float, ...] = (4.0, 32.0, 128.0)
    taps: int = 4
    sharpness: float = 2.0

    def __post_init__(self) -> None:
        check_types("harmonic_spiking", self)
        object.__setattr__(self, "taus", tuple(float(tau) for tau in self.taus))
        if not self.taus or min(self.taus) <= 0 or self.taps < 1 or not 0 < self.sharpness < math.inf:
            raise ValueError(
                "harmonic_spiking expects positive taus, taps >= 1 and a finite sharpness > 0, got "
                f"{self.taus}, {self.taps} and {self.sharpness}; correct them."
            )


@dataclass(frozen=True)
class SpikingReport:
    """What the last call did: real (unpadded) tokens, and the share of neurons that fired a token, by level."""

    tokens: int
    rates: tuple[float, ...]


class HarmonicSpiking(Block):
    """Levels of leaky integrate-and-fire neurons, ``v_k(t) = a_k v_k(t-1) + (1 - a_k) e_k(t) - c_k s_k(t-1)``.

    ``s_k(t) = 1`` where ``v_k(t) >= c_k``, else 0: a neuron that fired loses its threshold c_k > 0, which is learned
    per channel. ``e_1`` is the normalised value of the token, ``e_{k+1}(t) = s_k(t) - p s_{k+1}(t-1)``: levels send one
    another nothing but spikes. ``sum_k s_k`` goes through a gate to the stream; decays, predictions, values and gates
    are ``Harmonic``'s. Fresh thresholds are half the spread that white noise gives v, ``sqrt((1 - a) / (1 + a)) / 2``.
    Backward, a spike has the slope of a fast sigmoid, ``1 / (c (1 + sharpness |v / c - 1|)^2)``, in place of 0.

    Resets make this no linear recurrence and no scan: it runs token by token, in Python. State: v and s (b, k, d) and
    the last inputs of the convolution (b, c - 1, d). Left padding moves no state. Cost: O(l d**2), and l k steps.

    Source: Neftci et al. 2019, IEEE Signal Process. Mag. 36, 51 (surrogate gradients); Zenke & Ganguli 2018 (the fast
    sigmoid); the hierarchy of the Harmonic system (Zenodo 20381713).

    >>> block = HarmonicSpiking(8, HarmonicSpikingConfig())
    >>> block(torch.zeros(2, 5, 8), Context()).hidden.shape, block.report.tokens
    (torch.Size([2, 5, 8]), 10)
    """

    Config = HarmonicSpikingConfig
    report: SpikingReport | None = None

    def __init__(self, d_model: int, config: HarmonicSpikingConfig) -> None:
        super().__init__()
        self.config = config
        n_levels = len(config.taus)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.convolution = CausalConvolution(d_model, config.taps)
        self.value_gate = nn.Linear(d_model, 2 * d_model, bias=False)
        self.value_norm = nn.RMSNorm(d_model, eps=1e-6)  # thresholds are in units of the values' spread
        self.decay = nn.Linear(d_model, n_levels * d_model)
        self.prediction = nn.Parameter(torch.zeros(n_levels - 1, d_model), requires_grad=n_levels > 1)
        self.log_threshold = nn.Parameter(torch.zeros(n_levels * d_model))
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        width = self.out.in_features
        rates = torch.tensor([1 / tau for tau in self.config.taus], dtype=torch.float64)
        decays = torch.exp(-rates)
        self.decay.bias.copy_((-rates - torch.log(-torch.expm1(-rates))).repeat_interleave(width))
        nn.init.normal_(self.decay.weight, 0.0, 0.2 / math.sqrt(width))
        nn.init.zeros_(self.prediction)
        spreads = torch.sqrt((1 - decays) / (1 + decays))
        self.log_threshold.copy_((spreads / 2).log().repeat_interleave(width))
        nn.init.normal_(self.out.weight, 0.0, _OUT_SPREAD)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        real = real_tokens(hidden, context.mask)
        normed = torch.where(real[..., None], self.norm(hidden), 0)
        potentials, spikes, tail = context.state or (None, None, None)
        u, tail = self.convolution(normed, tail)
        value, gate = self.value_gate(u).chunk(2, -1)
        decays = torch.sigmoid(at_least_single(self.decay(u))).unflatten(2, (len(self.config.taus), -1))
        if potentials is None or spikes is None:
            potentials = spikes = decays.new_zeros(len(hidden), *decays.shape[2:])
        fired, state = self._run(
            self.value_norm(value).to(decays.dtype), decays, real, (potentials, spikes.to(decays.dtype))
        )
        update = self.out(fired.sum(2).to(gate.dtype) * functional.silu(gate))
        self._write_report(fired, real)
        return BlockOutput(hidden + update, (*state, tail))

    def _run(
        self, value: Tensor, decays: Tensor, real: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Spikes (b, l, k, d) of values (b, l, d), and the potentials and spikes (b, k, d) after them."""
        thresholds = at_least_single(self.log_threshold).exp().unflatten(0, (decays.shape[2], -1))
        gains = torch.sigmoid(at_least_single(self.prediction))
        (v, s), rows = state, []
        for x, a, moves in zip(value.unbind(1), decays.unbind(1), real[..., None].unbind(1), strict=True):
            potentials, spikes, signal = [], [], x
            for k in range(len(thresholds)):
                error = signal - gains[k - 1] * s[:, k] if k else signal
                potential = a[:, k] * v[:, k] + (1 - a[:, k]) * error - thresholds[k] * s[:, k]
                signal = fire(potential / thresholds[k] - 1, self.config.sharpness)
                potentials.append(potential)
                spikes.append(signal)
            v = torch.where(moves[..., None], torch.stack(potentials, 1), v)
            s = torch.where(moves[..., None], torch.stack(spikes, 1), s)
            rows.append(s)
        return torch.stack(rows, 1) if rows else decays, (v, s)

    @torch.no_grad()
    def _write_report(self, fired: Tensor, real: Tensor) -> None:
        rates = fired[real].mean((0, 2)) if bool(real.any()) else fired.new_zeros(fired.shape[2])
        self.report = SpikingReport(int(real.sum()), tuple(rates.tolist()))


def fire(excess: Tensor, sharpness: float) -> Tensor:
    """Return 1 where the excess is 0 or more, else 0, with the slope ``1 / (1 + sharpness |excess|)^2`` backward.

    >>> excess = torch.tensor([-0.5, 0.0], requires_grad=True)
    >>> spikes = fire(excess, 2.0)
    >>> spikes.sum().backward()
    >>> spikes.tolist(), excess.grad.tolist()
    ([0.0, 1.0], [0.25, 1.0])
    """
    return _Fire.apply(excess, sharpness)  # pyright: ignore[reportReturnType] -- apply is untyped


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, excess: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(excess)
        ctx.sharpness = sharpness
        return (excess >= 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride] -- as torch documents it
        (excess,) = ctx.saved_tensors
        return grad / (1 + ctx.sharpness * excess.abs()) ** 2, None
