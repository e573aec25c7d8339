"""Heads as part of a model's config: what every head keeps, the linear one's past, and what is refused.

Axis legend: b batch, l sequence, d model width, v vocabulary.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import logits, tiny_ids, tiny_model
from torch import nn

from qlm import QLMConfig, QLMForCausalLM
from qlm.heads.linear import LinearHead


def test_the_linear_head_is_what_models_had_before(tmp_path: Path) -> None:
    """Its names, its tie, and checkpoints whose config says nothing of a head."""
    model = tiny_model()
    assert type(model.lm_head) is LinearHead
    assert isinstance(model.lm_head, nn.Linear)
    assert model.lm_head.weight is model.model.embed.weight
    assert [name for name in model.state_dict() if name.startswith("lm_head")] == ["lm_head.weight"]
    assert model.config.head == {"kind": "linear"}
    assert model.config.tie_word_embeddings is True
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored.pop("head") == {"kind": "linear"}
    path.write_text(json.dumps(stored))
    loaded = QLMForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.head == {"kind": "linear"}
    assert torch.equal(logits(loaded), logits(model))


def test_linear_log_prob_is_the_log_softmax_of_its_logits() -> None:
    model, targets = tiny_model(), tiny_ids(seed=2)
    with torch.no_grad():
        hidden = model.model(tiny_ids()).last_hidden_state
        assert isinstance(model.lm_head, LinearHead)
        found = model.lm_head.log_prob(hidden, targets)
    expected = logits(model).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        ({"kind": "liner"}, ValueError, "unknown head 'liner': did you mean 'linear'"),
        ({"kind": "linear", "rank": 3}, ValueError, "unknown key of head 'linear' 'rank'"),
        ({}, ValueError, "a head expects a dictionary with a 'kind', got {}; write {'kind': 'linear'}"),
        ("linear", TypeError, "config key 'head' expects .*, got 'linear'"),
    ],
)
def test_bad_heads_are_refused(head: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        QLMConfig(head=head)
