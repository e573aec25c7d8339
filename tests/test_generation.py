"""``generate()`` with a recurrent state says what it says without one.

Axis legend: b batch, l sequence.
"""

from typing import Any

import pytest
import torch
from tiny_models import logits, tiny_ids, tiny_model
from torch import Tensor
from transformers import pipeline

from qlm import ByteTokenizer, QLMForCausalLM

PAD = 257


@pytest.fixture(scope="module")
def model() -> QLMForCausalLM:
    return tiny_model().double()


def generate(model: Any, ids: Tensor, use_cache: bool, new: int = 12, **options: Any) -> Tensor:
    mask = (ids != PAD).long()
    torch.manual_seed(5)
    return model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=new,
        min_new_tokens=new,
        use_cache=use_cache,
        pad_token_id=PAD,
        **options,
    )


def left_padded(rows: list[list[int]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[PAD] * (width - len(row)) + row for row in rows])


ROWS = [[10, 20, 30, 40, 50, 60, 70], [9], [200, 3, 77]]


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": True, "temperature": 1.3, "top_k": 40},
        {"do_sample": True, "num_return_sequences": 2},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 3},
    ],
    ids=["greedy", "beams", "sampling", "two-samples", "best-beams"],
)
@pytest.mark.parametrize("ids", [tiny_ids(3, 6), left_padded(ROWS)], ids=["even", "left-padded"])
def test_with_and_without_cache_agree(model: QLMForCausalLM, options: dict[str, Any], ids: Tensor) -> None:
    cached, slow = (generate(model, ids, use_cache, **options) for use_cache in (True, False))
    assert cached.shape == (3 * options.get("num_return_sequences", 1), ids.shape[1] + 12)
    assert torch.equal(cached, slow)


def test_greedy_is_the_argmax_of_each_step(model: QLMForCausalLM) -> None:
    ids = tiny_ids(2, 5)
    said = generate(model, ids, True, do_sample=False)
    for t in range(5, 17):
        scores = logits(model, said[:, :t])[:, -1]
        scores[:, 256] = -torch.inf  # min_new_tokens forbids the end of text
        assert torch.equal(said[:, t], scores.argmax(-1))


def test_padding_changes_nothing_that_is_said(model: QLMForCausalLM) -> None:
    together = generate(model, left_padded(ROWS), True, do_sample=False)
    for row, said in zip(ROWS, together, strict=True):
        alone = generate(model, torch.tensor([row]), True, do_sample=False)
        assert torch.equal(said[-12:], alone[0, -12:])


def test_each_step_reads_one_token(model: QLMForCausalLM) -> None:
    lengths: list[int] = []
    handle = model.model.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    try:
        generate(model, tiny_ids(1, 6), True, do_sample=False)
        assert lengths == [6] + [1] * 11
        lengths.clear()
        generate(model, tiny_ids(1, 6), False, do_sample=False)
        assert lengths == list(range(6, 18))
    finally:
        handle.remove()


def test_generation_continues_from_a_kept_state(model: QLMForCausalLM) -> None:
    """A long prefix is read once; several continuations start from forks of its state."""
    prefix, more = tiny_ids(1, 20), torch.tensor([[5, 6]])
    with torch.no_grad():
        state = model(prefix, use_cache=True).past_key_values
    ids = torch.cat((prefix, more), 1)
    for _ in range(2):
        said = generate(model, ids, True, do_sample=False, past_key_values=state.fork())
        assert torch.equal(said, generate(model, ids, False, do_sample=False))
    assert state.seen == 20


def test_sampling_repeats_under_torchs_seed(model: QLMForCausalLM) -> None:
    ids = tiny_ids(1, 4)
    assert torch.equal(generate(model, ids, True, do_sample=True), generate(model, ids, True, do_sample=True))
    assert not torch.equal(generate(model, ids, True, do_sample=True), generate(model, ids, True, do_sample=False))


def test_returned_state_goes_on(model: Any) -> None:
    output = model.generate(
        tiny_ids(2, 5),
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
        pad_token_id=PAD,
        return_dict_in_generate=True,
    )
    assert output.past_key_values.seen == 8  # the last token is said, not read
    following = logits(model, output.sequences[:, 8:], past_key_values=output.past_key_values)[:, -1]
    torch.testing.assert_close(following, logits(model, output.sequences)[:, -1], atol=1e-10, rtol=0)


def test_text_generation_pipeline() -> None:
    model: Any = tiny_model()
    say = pipeline("text-generation", model=model, tokenizer=ByteTokenizer(), device="cpu")
    said = say("Once ", max_new_tokens=5, do_sample=False, return_full_text=False)
    ids = torch.tensor([list(b"Once ")])
    expected = model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=PAD)[0, 5:]
    assert said[0]["generated_text"] == ByteTokenizer().decode(expected, skip_special_tokens=True)
    both = say(["a", "bcd"], max_new_tokens=3, do_sample=False, batch_size=2)
    assert [answer[0]["generated_text"][: len(start)] for answer, start in zip(both, ("a", "bcd"), strict=True)] == [
        "a",
        "bcd",
    ]
