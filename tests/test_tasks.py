"""The synthetic tasks: what they ask, and that their answers follow from what was shown.

Axis legend: b batch, l tokens.
"""

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from qlm.inputs import IGNORED
from qlm.tasks import Task, associative_recall, parity, task_accuracy, task_loss


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_parity_is_that_of_each_prefix() -> None:
    batch = parity(50)(20, draws())
    assert set(batch.inputs.unique().tolist()) == {0, 1}
    for t in range(50):
        assert torch.equal(batch.targets[:, t], batch.inputs[:, : t + 1].sum(1) % 2)
    assert 0.4 < float(batch.inputs.float().mean()) < 0.6


def test_recall_asks_for_each_key_once_and_its_value() -> None:
    batch = associative_recall(5, 8)(200, draws())
    assert batch.inputs.shape == batch.targets.shape == (200, 15)
    for ids, asked in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        pairs = dict(zip(ids[:10:2], ids[1:10:2], strict=True))
        assert len(pairs) == 5
        assert max(pairs) < 8 <= min(pairs.values())
        assert asked[:10] == [IGNORED] * 10
        assert sorted(ids[10:]) == sorted(pairs)
        assert [pairs[key] for key in ids[10:]] == asked[10:]


@pytest.mark.parametrize("task", [parity(9), associative_recall(3)])
def test_draws_repeat_under_their_seed(task: Task) -> None:
    one, same, other = task(4, draws(1)), task(4, draws(1)), task(4, draws(2))
    assert torch.equal(one.inputs, same.inputs)
    assert torch.equal(one.targets, same.targets)
    assert not torch.equal(one.inputs, other.inputs)


class Knowing(nn.Module):
    """Says the given answers."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, _ids: Tensor, use_cache: bool) -> CausalLMOutputWithPast:
        assert not use_cache
        return CausalLMOutputWithPast(logits=20.0 * nn.functional.one_hot(self.answers.clamp(min=0), 32).float())  # pyright: ignore[reportArgumentType]


def test_accuracy_and_loss_are_over_what_is_asked() -> None:
    batch = associative_recall(4)(50, draws())
    assert task_accuracy(Knowing(batch.targets), batch) == 1.0
    assert float(task_loss(Knowing(batch.targets), batch)) < 1e-6
    wrong = batch.targets.clone()
    wrong[:, -1] = 0  # a key, never a value
    assert task_accuracy(Knowing(wrong), batch) == 0.75
    assert float(task_loss(Knowing(wrong), batch)) == pytest.approx(5.0, abs=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: parity(0), "at least 1 bit, got 0"),
        (lambda: associative_recall(0), "1 to 16 pairs, one for each key, got 0"),
        (lambda: associative_recall(5, 4), "1 to 4 pairs, one for each key, got 5"),
    ],
)
def test_bad_sizes_are_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()
