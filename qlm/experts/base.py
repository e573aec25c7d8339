"""What every expert is, and experts by name: one line each.

Axis legend: m tokens of one expert, d model width.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor, nn

from circuits._suggest import unknown

EXPERTS: dict[str, str] = {
    "cayley": "qlm.experts.cayley:CayleyExpert",
    "dense": "qlm.experts.dense:DenseExpert",
    "tt": "qlm.experts.tensor_train:TTExpert",
    "tucker": "qlm.experts.tucker:TuckerExpert",
}
"""Kind of expert -> module:class."""


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """Sizes of an expert: model width, inner width over it, and the rank of kinds that have one.

    >>> ExpertShape(d_model=16, expansion=2).inner
    32
    """

    d_model: int
    expansion: int = 1
    rank: int = 8

    @property
    def inner(self) -> int:
        """The inner width."""
        return self.expansion * self.d_model


class Expert(nn.Module, ABC):
    """Two linear maps with a GELU between: tokens (m, d) to their updates (m, d). Built as ``Expert(shape)``.

    No tokens cost nothing, yet touch every parameter: distributed training waits for each gradient it was promised.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (m, d), each by itself."""

    @abstractmethod
    def flops(self, n_tokens: int) -> int:
        """Counted flops of matrix products and solves for so many tokens; 0 for none."""


def expert_class(kind: str) -> type[Expert]:
    """Import and return an expert's class; ValueError for an unknown kind (did you mean ...).

    >>> expert_class("dense").__name__
    'DenseExpert'
    """
    if kind not in EXPERTS:
        raise ValueError(unknown("expert", kind, EXPERTS))
    module, _, name = EXPERTS[kind].partition(":")
    return getattr(import_module(module), name)


def check_rank_held(kind: str, shape: ExpertShape, held: int) -> None:
    """Raise ValueError where a factorised expert's maps hold less than the rank asked for.

    >>> check_rank_held("tt", ExpertShape(16, rank=4), held=4)
    """
    if shape.rank > held:
        raise ValueError(
            f"{kind} experts expect a rank up to the {held} that their cores hold at d_model={shape.d_model} and "
            f"expansion={shape.expansion}, got {shape.rank}; lower the rank."
        )
