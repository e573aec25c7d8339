"""A Born head for real vocabularies: a complex matrix of low rank.

Axis legend: n tokens, d model width, r rank, v vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qlm.fields import check_types
from qlm.heads.amplitudes import AmplitudeHead, check_amplitude_mode
from qlm.precision import at_least_single
from tensornet.log_space import log_or_minus_infinity, squared_modulus

_SPREAD = 0.5
"""Norm of a fresh row of W beside the component that all rows share, over that component."""
_SHARED = 0.3
"""That component under Born's rule, whose probabilities do not depend on it; Adam's steps relative to it do: at 1, as
for softmax, a thousand words cost 0.2 nats more after 120 steps."""


@dataclass(frozen=True)
class BornLowRankConfig:
    """``rank``: complex columns of W; ``quantum``: "circuit" for Born's rule, "twin" for softmax."""

    rank: int = 32
    quantum: str = "circuit"

    def __post_init__(self) -> None:
        check_types("born_low_rank", self)
        check_amplitude_mode("born_low_rank", self.quantum)
        if self.rank < 1:
            raise ValueError(f"born_low_rank expects a rank of at least 1, got {self.rank}; raise it.")


class BornLowRank(AmplitudeHead):
    """``p(v | h) = |sum_r W_vr z_r(h)|^2 / z^dagger (W^dagger W) z`` with a full complex W (v, r); ``AmplitudeHead``.

    Quantum-inspired: no circuit runs, and nothing leaks. ``2 r (d + 1 + v) + v`` parameters; the twin is a low-rank
    softmax of rank 2r. ``W_v = exp(s_v) w_v``, w stored as real and imaginary parts (v, 2r), with a gain per token.
    Cost per token: O(v r) for all log-probabilities, O(r^2) for ``log_prob`` beside O(v r^2) once per call.

    >>> head = BornLowRank(8, 1000, BornLowRankConfig(rank=4))
    >>> hidden, targets = torch.randn(5, 8), torch.arange(5)
    >>> torch.allclose(head.log_prob(hidden, targets), head(hidden)[targets, targets], atol=1e-4)
    True
    """

    Config = BornLowRankConfig

    def __init__(self, d_model: int, vocab_size: int, config: BornLowRankConfig) -> None:
        super().__init__(d_model, vocab_size, config, config.rank)
        self.weight = nn.Parameter(torch.zeros(vocab_size, 2 * config.rank))
        self.gain = nn.Parameter(torch.zeros(vocab_size))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        super().init_weights()
        shared = 1.0 if self.is_twin else _SHARED
        nn.init.normal_(self.weight, 0.0, shared * _SPREAD / math.sqrt(2 * self.config.rank))
        self.weight[:, 0] = shared
        nn.init.zeros_(self.gain)

    def rows(self) -> Tensor:
        return at_least_single(self.weight) * at_least_single(self.gain).exp()[:, None]

    def born_log_prob(self, vector: Tensor, targets: Tensor) -> Tensor:
        real, imaginary = self.rows().chunk(2, -1)
        weight = torch.complex(real, imaginary)
        mass = ((vector @ (weight.T @ weight.conj())) * vector.conj()).sum(-1).real
        amplitudes = (weight[targets] * vector).sum(-1)
        return log_or_minus_infinity(squared_modulus(amplitudes)) - mass.log()
