"""Heads whose logits come from complex amplitudes that are linear in a short vector.

Axis legend: n tokens, d model width, r width of the vector, v vocabulary; 2r real parts, then imaginary ones.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from circuits._suggest import unknown
from qlm.heads.base import Head
from qlm.precision import at_least_single
from tensornet.log_space import log_or_minus_infinity

MODES = ("circuit", "twin")
"""What ``quantum`` may be: Born's rule on the amplitudes, or softmax of their real parts."""


def check_amplitude_mode(kind: str, mode: str) -> None:
    """Raise ValueError for a mode other than "circuit" and "twin".

    >>> check_amplitude_mode("born_mps", "twin")
    """
    if mode in ("separable", "frozen", "off"):
        raise ValueError(
            f"head '{kind}' holds no circuit that could be {mode}, got quantum='{mode}'; give the head its own mode, "
            "circuit (Born's rule) or twin (softmax)."
        )
    if mode not in MODES:
        raise ValueError(unknown("quantum mode", mode, MODES))


@dataclass(frozen=True)
class AmplitudeReport:
    """What the last call did: tokens (padding included, for which a head answers too), and the mean ``leaked`` mass of
    integers that name no token, before it was shared out."""

    tokens: int
    leaked: float


class AmplitudeHead(Head):
    """``psi_v(h) = sum_r W_vr z_r(h)`` with ``z = A h + b``, W and z complex; a subclass says what W is.

    ``quantum="circuit"`` reads ``p(v) = |psi_v|^2 / sum_u |psi_u|^2``; "twin" reads softmax of ``Re psi_v``, a low-rank
    softmax head of the same parameters: the rule alone is swapped. Either returns log p in float32 or float64, also
    under autocast. Born's Z is ``z^dagger (W^dagger W) z``, so that ``log_prob`` of given targets needs no sum over the
    vocabulary; softmax has no such form.

    Fresh weights make one component of z equal to 1, and of all rows of W alike: psi_v is a constant plus something
    smaller, the distribution near uniform, and log p near linear in the parameters, as a softmax head's logits are.
    Rows of W carry gains ``exp(s)``, so that frequencies, which differ by orders of magnitude, are learned in log
    space: on 32,768 tokens that saves about two thirds of the steps.
    """

    report: AmplitudeReport | None = None
    config: Any

    def __init__(self, d_model: int, vocab_size: int, config: Any, width: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.is_twin = config.quantum == "twin"
        self.encode = nn.Linear(d_model, 2 * width)

    @abstractmethod
    def rows(self) -> Tensor:
        """W (v, 2r), real parts beside imaginary ones."""

    @abstractmethod
    def born_log_prob(self, vector: Tensor, targets: Tensor) -> Tensor:
        """log p (n,) of targets (n,) for complex vectors z (n, r)."""

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start with one component of z at 1."""
        self.encode.reset_parameters()
        nn.init.zeros_(self.encode.bias)
        self.encode.bias[0] = 1.0

    def leaked(self, vector: Tensor) -> float:
        """Mean mass outside the vocabulary for complex vectors z (n, r)."""
        del vector
        return 0.0

    def forward(self, hidden: Tensor) -> Tensor:
        real, imaginary = self._vector(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            rows = self.rows().to(real.dtype).T
            if self.is_twin:
                logs = (torch.cat((real, -imaginary), -1) @ rows).log_softmax(-1)
            else:
                re, im = _in_range(real, imaginary)
                masses = (torch.cat((re, -im), -1) @ rows).square() + (torch.cat((im, re), -1) @ rows).square()
                logs = log_or_minus_infinity(masses) - masses.sum(-1, keepdim=True).log()
        self._write_report(real, imaginary)
        return logs.reshape(*hidden.shape[:-1], self.vocab_size)

    def log_prob(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return ``log p(target | hidden)`` in nats, shape (...); with Born's rule without a sum over the vocabulary.

        Raises IndexError for targets outside [0, v).
        """
        outside = (targets < 0) | (targets >= self.vocab_size)
        if bool(outside.any()):
            raise IndexError(
                f"targets expect token ids from 0 to {self.vocab_size - 1}, got {int(targets[outside][0])}; mask them."
            )
        if self.is_twin:
            return super().log_prob(hidden, targets)
        real, imaginary = self._vector(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            logs = self.born_log_prob(torch.complex(*_in_range(real, imaginary)), targets.flatten())
        self._write_report(real, imaginary)
        return logs.reshape(targets.shape)

    def _vector(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of z, (n, r) each."""
        real, imaginary = at_least_single(self.encode(hidden.reshape(-1, hidden.shape[-1]))).chunk(2, -1)
        return real, imaginary

    @torch.no_grad()
    def _write_report(self, real: Tensor, imaginary: Tensor) -> None:
        measured = len(real) > 0 and not self.is_twin
        leaked = self.leaked(torch.complex(real, imaginary)) if measured else 0.0
        self.report = AmplitudeReport(len(real), leaked)


def _in_range(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors z divided by their largest parts, which leaves p as it is and keeps squares from underflow."""
    largest = torch.maximum(real.detach().abs(), imaginary.detach().abs()).amax(-1, keepdim=True)
    if bool((largest == 0).any()):
        raise ValueError(
            "a Born head expects a vector z that is not 0, got one: no distribution belongs to it; draw the head's "
            "weights again."
        )
    return real / largest, imaginary / largest
