"""A block that reads the next token: what the causality gate must catch. It is registered by tests alone."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qlm.blocks.base import Block, BlockOutput, Context


@dataclass(frozen=True)
class LeakyConfig:
    """``reads``: "next", the token after each, or "mean", the mean over the whole sequence."""

    reads: str = "next"


class Leaky(Block):
    """Adds a linear map of the next position's stream, or of the mean over all positions."""

    Config = LeakyConfig

    def __init__(self, d_model: int, config: LeakyConfig) -> None:
        super().__init__()
        self.reads = config.reads
        self.mix = nn.Linear(d_model, d_model)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        if self.reads == "next":
            seen = torch.cat((hidden[:, 1:], torch.zeros_like(hidden[:, :1])), 1)
        else:
            seen = hidden.mean(1, keepdim=True).expand_as(hidden)
        return BlockOutput(hidden + self.mix(seen))
