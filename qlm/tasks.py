"""Small synthetic tasks that tell models apart: what each can and cannot keep.

Axis legend: b batch, l tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qlm.inputs import IGNORED


@dataclass(frozen=True)
class TaskBatch:
    """Token ids (b, l) and, at the positions that count, what is asked there; ``IGNORED`` elsewhere, (b, l).

    The answer stands at its own position, not one earlier: no shift.
    """

    inputs: Tensor
    targets: Tensor


Task = Callable[[int, torch.Generator], TaskBatch]
"""A batch of so many rows, drawn by the generator."""


def parity(n_bits: int) -> Task:
    """Return the task to tell, after each of ``n_bits`` random bits (tokens 0 and 1), whether the ones so far are odd.

    It needs a state that flips: a linear recurrence whose decays are positive cannot hold it at any length, one with
    negative or complex ones can (Grazzi et al. 2024, arXiv:2411.12537). Raises ValueError for fewer than one bit.

    >>> batch = parity(4)(1, torch.Generator().manual_seed(0))
    >>> batch.inputs.tolist(), batch.targets.tolist()
    ([[0, 1, 1, 0]], [[0, 1, 0, 0]])
    """
    if n_bits < 1:
        raise ValueError(f"parity expects at least 1 bit, got {n_bits}; raise it.")

    def draw(batch: int, generator: torch.Generator) -> TaskBatch:
        bits = torch.randint(2, (batch, n_bits), generator=generator)
        return TaskBatch(bits, bits.cumsum(1) % 2)

    return draw


def associative_recall(n_pairs: int, n_keys: int = 16) -> Task:
    """Return the task to recall values by their keys: ``n_pairs`` pairs are shown, then each key again, reordered.

    Keys are tokens 0 to ``n_keys`` - 1, distinct within a row, values ``n_keys`` to ``2 n_keys`` - 1. A row is k v k v
    ... and then k k ...; the value is asked where a key comes again, and not read in. It needs a memory addressed by
    content that holds all pairs (multi-query recall of Arora et al. 2023, arXiv:2312.04927). Raises ValueError for more
    pairs than keys, or none.

    >>> batch = associative_recall(2, 4)(1, torch.Generator().manual_seed(0))
    >>> batch.inputs.tolist(), batch.targets.tolist()
    ([[2, 7, 3, 7, 2, 3]], [[-100, -100, -100, -100, 7, 7]])
    """
    if not 1 <= n_pairs <= n_keys:
        raise ValueError(f"associative_recall expects 1 to {n_keys} pairs, one for each key, got {n_pairs}; change it.")

    def draw(batch: int, generator: torch.Generator) -> TaskBatch:
        keys = torch.rand(batch, n_keys, generator=generator).argsort(1)[:, :n_pairs]
        values = torch.randint(n_keys, 2 * n_keys, (batch, n_pairs), generator=generator)
        order = torch.rand(batch, n_pairs, generator=generator).argsort(1)
        shown = torch.stack((keys, values), 2).flatten(1)
        inputs = torch.cat((shown, keys.gather(1, order)), 1)
        return TaskBatch(inputs, torch.cat((torch.full_like(shown, IGNORED), values.gather(1, order)), 1))

    return draw


def task_loss(model: nn.Module, batch: TaskBatch) -> Tensor:
    """Return the mean cross-entropy (nats) where something is asked, of a model that maps ids to logits.

    >>> from qlm import QLMConfig, QLMForCausalLM
    >>> model = QLMForCausalLM(QLMConfig(vocab_size=8, d_model=8, blocks=[{"kind": "harmonic"}]))
    >>> task_loss(model, parity(4)(2, torch.Generator())).shape
    torch.Size([])
    """
    logits = model(batch.inputs, use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def task_accuracy(model: nn.Module, batch: TaskBatch) -> float:
    """Return the share of what is asked that the likeliest token answers.

    >>> from qlm import QLMConfig, QLMForCausalLM
    >>> model = QLMForCausalLM(QLMConfig(vocab_size=8, d_model=8, blocks=[{"kind": "harmonic"}])).eval()
    >>> 0 <= task_accuracy(model, associative_recall(2, 4)(8, torch.Generator())) <= 1
    True
    """
    asked = batch.targets != IGNORED
    found = model(batch.inputs, use_cache=False).logits.argmax(-1) == batch.targets
    return float(found[asked].float().mean())
