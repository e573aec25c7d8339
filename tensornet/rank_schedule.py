"""Per-token ranks: drawing them for training, checking them, and a gradient through the choice."""

from collections.abc import Sequence

import torch
from torch import Tensor


def nested_ranks(
    n: int,
    choices: Sequence[int],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw `n` bond ranks uniformly from `choices`: training under them keeps every prefix good (nested dropout).

    A network that sees only its full rank has no reason to keep its bonds ordered; one that is cut at a random
    rank in training learns to put what matters most first. Returns int64 `(n,)` on the generator's device.

    Raises ValueError unless `choices` are integers of at least 1. Source: Rippel, Gelbart, Adams, ICML 2014
    (there with geometric draws).

    >>> sorted(set(nested_ranks(100, (2, 4, 8), torch.Generator().manual_seed(0)).tolist()))
    [2, 4, 8]
    """
    if not choices or min(choices) < 1:
        raise ValueError(f"expected at least one rank, each at least 1, got {tuple(choices)}; e.g. (2, 4, 8)")
    device = generator.device if generator is not None else torch.device("cpu")
    picks = torch.randint(len(choices), (n,), generator=generator, device=device)
    return torch.tensor(list(choices), device=device)[picks]


def rank_straight_through(y_low: Tensor, y_high: Tensor, soft: Tensor) -> Tensor:
    """The output at the chosen rank, with a gradient for the choice: `y_low + (soft - sg(soft)) sg(y_high - y_low)`.

    `sg` stops gradients. The value is `y_low`, unchanged; `y_low` keeps its own gradient; and `soft` (one number
    per token, in steps of rank) receives `<dL/dy, y_high - y_low>`, the finite difference between the outputs at
    the chosen rank and at the next one. It is biased, as every straight-through gradient is.

    Shapes: `y_low`, `y_high` `(..., features)`, `soft` `(...)`. Raises ValueError where they do not match.
    Source: Bengio, Leonard, Courville, arXiv:1308.3432 (2013).

    >>> soft = torch.zeros(3, requires_grad=True)
    >>> rank_straight_through(torch.zeros(3, 2), torch.ones(3, 2), soft).sum().backward()
    >>> soft.grad
    tensor([2., 2., 2.])
    """
    if y_low.shape != y_high.shape or soft.shape != y_low.shape[:-1]:
        raise ValueError(
            f"expected y_low and y_high of one shape (..., features) and soft (...), got {tuple(y_low.shape)}, "
            f"{tuple(y_high.shape)} and {tuple(soft.shape)}"
        )
    return y_low + (soft - soft.detach()).unsqueeze(-1) * (y_high - y_low).detach()


def check_rank(rank: int, held: int) -> None:
    """Raise TypeError unless `rank` is an integer, ValueError unless 1 <= `rank` <= `held`.

    >>> check_rank(3, held=4)
    """
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"expected a rank as an integer, got {rank!r}; pass 1 to {held}")
    if not 1 <= rank <= held:
        raise ValueError(
            f"expected a rank from 1 to the {held} that the cores hold, got {rank}; build the layer with a larger "
            "max_rank or ask for less"
        )


def check_ranks(ranks: Tensor, shape: torch.Size, held: int) -> None:
    """Raise unless `ranks` is an integer tensor of `shape` with all entries in 1..`held` (reads them: a sync).

    >>> check_ranks(torch.tensor([1, 4]), torch.Size([2]), held=4)
    """
    if not isinstance(ranks, Tensor):
        raise TypeError(f"expected ranks as a torch tensor, got {type(ranks).__name__}; pass torch.tensor of them")
    if ranks.is_floating_point() or ranks.is_complex() or ranks.dtype == torch.bool:
        raise TypeError(f"expected integer ranks, got {ranks.dtype}; round them and convert with .long()")
    if ranks.shape != shape:
        raise ValueError(f"expected one rank per token, shape {tuple(shape)}, got {tuple(ranks.shape)}")
    if ranks.numel():
        low, high = torch.stack(ranks.aminmax()).tolist()
        check_rank(low, held)
        check_rank(high, held)
