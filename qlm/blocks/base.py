"""What every block is.

Axis legend: b batch, l sequence, d model width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Context:
    """What a block may read beside the residual stream, all of it causal.

    ``mask`` (b, l): false at padding, None without padding. ``hardness`` (b, l) in [0, 1] and ``routed`` (b, l), from
    the last router before the block, or None. ``state``: the block's own tensors after the previous part, () at the
    start of a text; ``keep``: whether the state after this part will be read, so that a block may spare a costly one.
    """

    mask: Tensor | None = None
    hardness: Tensor | None = None
    routed: Tensor | None = None
    state: tuple[Tensor, ...] = ()
    keep: bool = True


@dataclass(frozen=True, kw_only=True)
class CircuitReport:
    """What a part with circuits did in its last call; each block adds its own figures.

    ``tokens``: the real (unpadded) ones. ``executions``: circuits run, 0 for controls without one. ``shots`` of each,
    None where the backend is exact. ``output_share``: norm of what the quantum part, or its stand-in, adds to the
    block's update over that of the whole update; 0 for "off".
    """

    tokens: int
    executions: int
    shots: int | None = None
    output_share: float = 0.0


@dataclass(frozen=True, slots=True)
class BlockOutput:
    """What a block hands on: the residual stream (b, l, d), its new state, and what it set for blocks after it.

    ``loss`` is a scalar added to the model's training loss. ``hardness`` and ``routed`` are None where the block sets
    none, and the earlier ones stay.
    """

    hidden: Tensor
    state: tuple[Tensor, ...] = ()
    hardness: Tensor | None = None
    routed: Tensor | None = None
    loss: Tensor | None = None


def real_tokens(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Return which tokens (b, l) of the residual stream (b, l, d) are no padding, all without a mask.

    ValueError for a mask of another shape, such as one of pairs.

    >>> real_tokens(torch.zeros(1, 2, 8), torch.tensor([[0, 1]]))
    tensor([[False,  True]])
    """
    if mask is None:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    if mask.shape != hidden.shape[:2]:
        raise ValueError(
            f"a block expects a padding mask {tuple(hidden.shape[:2])}, got {tuple(mask.shape)}: it is causal by "
            "itself; pass true at real tokens."
        )
    return mask.to(torch.bool)


def update_tokens(hidden: Tensor, mask: Tensor | None, update: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the stream (b, l, d) with ``update`` of its real tokens (m, d), packed, added to them.

    Padding is left as it is, and costs nothing; in a compiled graph, whose shapes are fixed, it is computed as well.

    >>> update_tokens(torch.zeros(1, 2, 1), torch.tensor([[0, 1]]), lambda tokens: tokens + len(tokens))
    tensor([[[0.],
             [1.]]])
    """
    if mask is None:
        return hidden + update(hidden.flatten(0, 1)).reshape(hidden.shape)
    real = real_tokens(hidden, mask)
    if torch.compiler.is_compiling():
        return hidden + torch.where(real[..., None], update(hidden.flatten(0, 1)).reshape(hidden.shape), 0)
    return hidden.masked_scatter(real[..., None], hidden[real] + update(hidden[real]))


def places(chosen: Tensor) -> Tensor:
    """Return the numbers of the true entries of (m,), shape (k,); in a compiled graph, which cannot pack, all numbers.

    >>> places(torch.tensor([True, False, True]))
    tensor([0, 2])
    """
    if torch.compiler.is_compiling():
        return torch.arange(len(chosen), device=chosen.device)
    return chosen.nonzero().squeeze(1)


def norm_share(part: Tensor, whole: Tensor) -> float:
    """Return ``|part| / |whole|``, 0 where the whole is.

    >>> norm_share(torch.ones(1), torch.full((4,), 2.0))
    0.25
    """
    norm = float(whole.norm())
    return float(part.norm()) / norm if norm > 0 else 0.0


Writer = TypeVar("Writer", bound=Callable[..., None])


def writes_report(write: Writer) -> Writer:
    """Decorate what writes a block's report: without gradients, and not at all in a compiled graph.

    >>> writes_report(lambda block: print(torch.is_grad_enabled()))(None)
    False
    """

    @wraps(write)
    def written(*arguments: Any) -> None:
        if not torch.compiler.is_compiling():
            with torch.no_grad():
                write(*arguments)

    return cast("Writer", written)


class Block(nn.Module, ABC):
    """A residual block. Each has a frozen dataclass ``Config``, which checks itself, and is built as ``Block(d_model,
    config, ...)``.

    ``holds_circuit`` tells whether it takes ``quantum=`` and ``backend=``; such a block keeps what the mode swaps in a
    ``qlm.controls.QuantumPart``. ``report`` is a typed summary of the last call, a ``CircuitReport`` where there are
    circuits (None before one, and for blocks with nothing to say). Compiled graphs write none, and run circuits for
    every token: which ones could be left out is known only when they run.
    """

    Config: ClassVar[type[Any]]
    holds_circuit: ClassVar[bool] = False
    report: Any = None

    @abstractmethod
    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        """Map the residual stream (b, l, d); position t may depend on positions up to t alone."""

    def init_weights(self) -> None:
        """Set parameters whose start differs from their module's default; buffers of fixed values too."""
