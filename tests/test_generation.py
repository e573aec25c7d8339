"""``generate()`` with a recurrent state says what it says without one.

Axis legend: b batch, l sequence.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_blocks import SMALL
from tiny_models import logits, tiny_ids, tiny_model
from torch import Tensor
from transformers import pipeline

from qlm import ByteTokenizer, QLMForCausalLM, RecurrentState
from qlm.generation import generate_from

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


@pytest.mark.parametrize("kinds", [("harmonic", "quantum_router"), ("transformer",), ("mamba", "rotational")])
def test_branches_from_a_saved_state_read_nothing_again(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """Of a long text the state's file alone is kept: each branch says what it would after the whole text."""
    model = tiny_model(blocks=[{"kind": kind, **SMALL.get(kind, {})} for kind in kinds]).double()
    text = tiny_ids(2, 30)
    shared: dict[str, Any] = {"do_sample": False, "suppress_tokens": [PAD]}
    options = {"max_new_tokens": 7, "min_new_tokens": 7, **shared}
    with torch.no_grad():
        model(text, use_cache=True).past_key_values.save(tmp_path / "state")
    state = RecurrentState.load(tmp_path / "state").to("cpu")
    read: list[int] = []
    handle = model.model.register_forward_pre_hook(lambda module, args: read.append(args[0].shape[1]))
    for more in (tiny_ids(2, 1, 5), tiny_ids(2, 40, 6)):
        said, after = generate_from(model, state, more, **options)
        assert read == [more.shape[1]] + [1] * 6
        whole = torch.cat((text, more), 1)
        assert torch.equal(said, generate(model, whole, False, 7, **shared)[:, whole.shape[1] :])
        assert (state.seen, after.seen) == (30, 30 + more.shape[1] + 6)
        further, _ = generate_from(model, after, said[:, -1:], **options)
        read.clear()
        whole = torch.cat((whole, said), 1)
        assert torch.equal(further, generate(model, whole, False, 7, **shared)[:, whole.shape[1] :])
        read.clear()
    handle.remove()


def test_continuations_that_cannot_be_are_refused(model: QLMForCausalLM) -> None:
    with torch.no_grad():
        state = model(tiny_ids(1, 4), use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"expects ids of shape \(batch, at least 1\), got \(1, 0\)"):
        generate_from(model, state, tiny_ids(1, 0))
    with pytest.raises(ValueError, match="one sample of each row"):
        generate_from(model, state, tiny_ids(1, 1), num_beams=2)
    with pytest.raises(ValueError, match="and 2 rows, got 4 blocks and 1 rows"):
        generate_from(model, state, tiny_ids(2, 1), max_new_tokens=1)


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
