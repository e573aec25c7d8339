"""What every head is.

Axis legend: d model width, v vocabulary; ... any leading axes, batch and sequence in a model.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn


class Head(nn.Module, ABC):
    """The last part of a causal model: hidden states (..., d) to logits (..., v). Each has a nested frozen dataclass
    ``Config`` and is built as ``Head(d_model, vocab_size, config, ...)``.

    Softmax of the logits is the distribution of the next token; heads that compute probabilities return their
    logarithms, which softmax leaves alone. ``holds_circuit`` tells whether it takes ``backend=``; a head whose config
    has a key ``quantum`` has modes. ``can_tie`` tells whether its one weight is of the embedding's shape and may be the
    embedding's. A position's logits depend on that position's hidden state alone; a head knows no padding and answers
    there too. ``report`` is a typed summary of the last call, a ``CircuitReport`` where there are circuits.
    """

    Config: ClassVar[type[Any]]
    holds_circuit: ClassVar[bool] = False
    can_tie: ClassVar[bool] = False
    report: Any = None

    @classmethod
    def fitted(cls, config: Any, vocab_size: int) -> Any:
        """Return the config with what depends on the vocabulary filled in; ValueError where the two do not fit."""
        del vocab_size
        return config

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states (..., d) to logits (..., v)."""

    def log_prob(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return ``log p(target | hidden)`` in nats, shape (...), for token ids (...) in [0, v)."""
        return self(hidden).log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)

    def init_weights(self) -> None:
        """Set parameters whose start differs from their module's default."""
