"""Models that read one token at a time: the whole text's logits, branches, and states that are looked at again."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from qlm import QLMConfig, QLMForCausalLM


def small(dtype: torch.dtype = torch.float64) -> QLMForCausalLM:
    torch.manual_seed(0)
    model = QLMForCausalLM(
        QLMConfig(d_model=32, blocks=[{"kind": "harmonic"}, {"kind": "mamba"}, {"kind": "harmonic"}])
    )
    return (model.double() if dtype == torch.float64 else model).eval()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tokens_one_by_one_are_the_whole(dtype: torch.dtype) -> None:
    model = small(dtype)
    ids = torch.randint(256, (2, 40))
    with torch.no_grad():
        whole = model(ids).logits
        state, parts = model(ids[:, :1], use_cache=True).past_key_values, []
        for t in range(1, 40):
            parts.append(model(ids[:, t : t + 1], past_key_values=state, use_cache=True).logits)
    close: dict[str, Any] = {"rtol": 1e-11, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
    assert_close(torch.cat(parts, 1), whole[:, 1:], **close)
    assert state is not None
    assert state.get_seq_length() == 40


def test_branches_do_not_meet() -> None:
    """A state and its fork go two ways, and tensors that somebody kept stay what they were."""
    model = small()
    with torch.no_grad():
        state: Any = model(torch.randint(256, (1, 9)), use_cache=True).past_key_values
        kept = [tensor for tensors in state.blocks for tensor in tensors]
        copies = [tensor.clone() for tensor in kept]
        branch = state.fork()
        ways = [
            [model(torch.tensor([[t]]), past_key_values=way, use_cache=True).logits for t in (1, 2)]
            for way in (state, branch)
        ]
    assert_close(ways[0], ways[1], rtol=0, atol=0)
    assert_close(kept, copies, rtol=0, atol=0)


def test_a_state_accepted_once_is_looked_at_again_when_it_or_the_model_changes() -> None:
    model, token = small(torch.float32), torch.tensor([[65]])
    with torch.no_grad():
        state: Any = model(torch.randint(256, (1, 9)), use_cache=True).past_key_values
        for _ in range(2):
            model(token, past_key_values=state, use_cache=True)
        with pytest.raises(ValueError, match="2 rows"):
            model(token.expand(2, 1), past_key_values=state)
        good = state.blocks[0]
        state.blocks[0] = (good[0][:, :2], good[1])
        with pytest.raises(ValueError, match="expects states of shapes"):
            model(token, past_key_values=state)
        state.blocks[0] = (good[0].double(), good[1])
        with pytest.raises(ValueError, match="expects states of float32 or narrower"):
            model(token, past_key_values=state)
        state.blocks[0] = good
        model(token, past_key_values=state)
        with pytest.raises(ValueError, match="expects states of float64"):
            model.double()(token, past_key_values=state)
