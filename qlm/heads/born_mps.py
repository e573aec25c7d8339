"""A Born head for real vocabularies: a matrix product state over the digits of the token's id.

Axis legend: n tokens, d model width, v vocabulary; cores (a, D, b, 2) with real and imaginary parts last.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from qlm.fields import check_types
from qlm.heads.amplitudes import AmplitudeHead, check_amplitude_mode
from qlm.precision import at_least_single
from tensornet import BornMPS
from tensornet.factorise import padded_factors

_SPREAD = 0.5
"""Norm of what is added to each column of the identity, and of a fresh last column, in each core."""


@dataclass(frozen=True)
class BornMPSConfig:
    """``bond``: width of all bonds, the open one too; ``n_digits``: how many nearly equal digits write a token's id;
    ``quantum``: "circuit" for Born's rule, "twin" for softmax."""

    bond: int = 16
    n_digits: int = 3
    quantum: str = "circuit"

    def __post_init__(self) -> None:
        check_types("born_mps", self)
        check_amplitude_mode("born_mps", self.quantum)
        if self.bond < 1 or self.n_digits < 1:
            raise ValueError(
                f"born_mps expects bond and n_digits of at least 1, got {self.bond} and {self.n_digits}; raise them."
            )


class BornMPSHead(AmplitudeHead):
    """``p(v | h) = |z(h)^T G_1[d_1] ... G_K[d_K]|^2 / Z`` over the digits d of v; ``AmplitudeHead``, ``BornMPS``.

    Quantum-inspired: no circuit runs. The digits' product can exceed the vocabulary: that mass is reported as leaked,
    and left out of Z exactly. Each core has a gain ``exp(s)`` per value of its digit. Token ids should be ordered (by
    frequency, say): neighbours share digits. The twin reads the same cores as logits.
    Cost: O(v b^2 + n v b) for all log-probabilities, O(K D b^3 + n K b^2) for ``log_prob``, with no sum over v.

    Han et al. 2018, Phys. Rev. X 8, 031012, here conditioned on h through the left bond.

    >>> head = BornMPSHead(8, 1000, BornMPSConfig(bond=4))
    >>> [tuple(core.shape[:3]) for core in head.cores]
    [(4, 10, 4), (4, 10, 4), (4, 10, 1)]
    """

    Config = BornMPSConfig

    def __init__(self, d_model: int, vocab_size: int, config: BornMPSConfig) -> None:
        digits = padded_factors(vocab_size, config.n_digits)
        right = [math.prod(digits[place:]) for place in range(len(digits))] + [1]
        bonds = [config.bond, *(min(config.bond, size) for size in right[1:])]
        super().__init__(d_model, vocab_size, config, config.bond)
        shapes = [(one, digit, other, 2) for digit, (one, other) in zip(digits, pairwise(bonds), strict=True)]
        self.cores = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)
        self.gains = nn.ParameterList(nn.Parameter(torch.zeros(digit)) for digit in digits)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        super().init_weights()
        for core in self.cores:
            left, n_values, right, _ = core.shape
            nn.init.normal_(core, 0.0, _SPREAD / math.sqrt(2 * left))
            core[..., 0] += torch.eye(left, right, device=core.device)[:, None].expand(left, n_values, right)
            core[0, :, 0, 0] = 1.0
        for gain in self.gains:
            nn.init.zeros_(gain)

    @property
    def state(self) -> BornMPS:
        """The matrix product state in the cores' precision, float32 at least."""
        cores = [
            torch.view_as_complex(at_least_single(core) * at_least_single(gain).exp()[:, None, None])
            for core, gain in zip(self.cores, self.gains, strict=True)
        ]
        return BornMPS(tuple(cores), self.vocab_size)

    def rows(self) -> Tensor:
        rows = self.state.rows()
        return torch.cat((rows.real, rows.imag), -1)

    def born_log_prob(self, vector: Tensor, targets: Tensor) -> Tensor:
        return self.state.log_prob(vector, targets)

    def leaked(self, vector: Tensor) -> float:
        return float(self.state.leaked(vector).mean())
