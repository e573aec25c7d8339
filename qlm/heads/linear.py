"""The usual head: one matrix, tied to the embedding unless the config says otherwise."""

from dataclasses import dataclass

from torch import nn

from qlm.heads.base import Head


@dataclass(frozen=True)
class LinearHeadConfig:
    """It has no keys."""


class LinearHead(nn.Linear, Head):  # pyright: ignore[reportIncompatibleMethodOverride] -- nn.Linear calls it input
    """Logits ``W h``: (..., d) to (..., v). Cost O(d v) per token.

    >>> import torch
    >>> LinearHead(4, 10, LinearHeadConfig())(torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 10])
    """

    Config = LinearHeadConfig
    can_tie = True

    def __init__(self, d_model: int, vocab_size: int, config: LinearHeadConfig) -> None:
        super().__init__(d_model, vocab_size, bias=False)
        self.config = config

    def init_weights(self) -> None:
        self.reset_parameters()
