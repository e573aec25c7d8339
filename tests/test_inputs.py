"""What a model is called with: ids, embeddings, masks, labels; the right ones in every type, the wrong ones refused.

Axis legend: b batch, l sequence, d model width.
"""

from typing import Any

import pytest
import torch
from tiny_models import logits, tiny_ids, tiny_model

from qlm import QLMForCausalLM


@pytest.fixture(scope="module")
def model() -> QLMForCausalLM:
    return tiny_model()


def one_sentence(error: pytest.ExceptionInfo[BaseException]) -> None:
    """Expected, got, remedy."""
    message = str(error.value)
    assert "expect" in message
    assert "got" in message
    assert ";" in message
    assert message.endswith(".")
    assert "\n" not in message


def test_ids_and_labels_of_32_bits_are_those_of_64(model: QLMForCausalLM) -> None:
    ids = tiny_ids()
    with torch.no_grad():
        long, short = (model(kind, labels=kind) for kind in (ids, ids.int()))
    assert torch.equal(long.logits, short.logits)
    assert torch.equal(long.loss, short.loss)


@pytest.mark.parametrize(("bad", "index"), [(258, (1, 4)), (-1, (0, 2))])
def test_token_ids_out_of_range_are_refused(model: QLMForCausalLM, bad: int, index: tuple[int, int]) -> None:
    ids = tiny_ids()
    ids[index] = bad
    with pytest.raises(IndexError, match=rf"expect 0 to 257, got {bad} first at index \({index[0]}, {index[1]}\)"):
        model(ids)
    with pytest.raises(IndexError, match=rf"labels expect -100 or 0 to 257, got {bad} first at index \({index[0]}"):
        model(tiny_ids(), labels=ids)


@pytest.mark.parametrize(
    ("kind", "got"),
    [
        (torch.float32, "one of float32"),
        (torch.bool, "one of bool"),
        (torch.uint8, "one of uint8"),
        (torch.int16, "one of int16"),
        (None, "list"),
    ],
)
def test_ids_and_labels_of_another_type_are_refused(model: QLMForCausalLM, kind: torch.dtype | None, got: str) -> None:
    bad: Any = [[1, 2]] if kind is None else tiny_ids().to(kind)
    with pytest.raises(TypeError, match=f"^input_ids expect a tensor of int64 or int32, got {got};") as error:
        model(bad)
    one_sentence(error)
    with pytest.raises(TypeError, match=f"^labels expect a tensor of int64 or int32, got {got};") as error:
        model(tiny_ids(), labels=bad)
    one_sentence(error)


@pytest.mark.parametrize("shape", [(9,), (2, 9, 1), ()])
def test_ids_of_another_shape_are_refused(model: QLMForCausalLM, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^input_ids expect shape \(batch, length\), got \(") as error:
        model(torch.ones(shape, dtype=torch.int64))
    one_sentence(error)


@pytest.mark.parametrize("shape", [(2, 8), (1, 9), (18,), (9, 2), (2, 9, 1)])
def test_labels_of_another_shape_are_refused(model: QLMForCausalLM, shape: tuple[int, ...]) -> None:
    labels = torch.ones(shape, dtype=torch.int64)
    for given in ({"input_ids": tiny_ids()}, {"inputs_embeds": torch.zeros(2, 9, 16)}):
        with pytest.raises(ValueError, match=r"^labels expect the inputs' shape \(2, 9\), got \(") as error:
            model(**given, labels=labels)
        one_sentence(error)


@pytest.mark.parametrize("kept", [2, torch.tensor([0])])
def test_labels_expect_all_logits(model: QLMForCausalLM, kept: int | torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^labels expect all logits, got logits_to_keep="):
        model(tiny_ids(), labels=tiny_ids(), logits_to_keep=kept)


def test_embeddings_are_checked(model: QLMForCausalLM) -> None:
    with pytest.raises(TypeError, match=r"^inputs_embeds expect a floating tensor, got one of int64") as error:
        model(inputs_embeds=torch.ones(2, 9, 16, dtype=torch.int64))
    one_sentence(error)
    for shape in ((2, 9, 15), (9, 16), (2, 9, 16, 1)):
        with pytest.raises(ValueError, match=r"^inputs_embeds expect shape \(batch, length, 16\), got") as error:
            model(inputs_embeds=torch.zeros(shape))
        one_sentence(error)


def test_ids_or_embeddings_and_not_both(model: QLMForCausalLM) -> None:
    for given in ({}, {"input_ids": tiny_ids(), "inputs_embeds": torch.zeros(2, 9, 16)}):
        for labels in (None, tiny_ids()):
            with pytest.raises(ValueError, match="either input_ids or inputs_embeds, got both or neither") as error:
                model(**given, labels=labels)
            one_sentence(error)


@pytest.mark.parametrize("shape", [(2, 8), (1, 9), (9,), (2, 1, 9, 9)])
def test_masks_of_another_shape_are_refused(model: QLMForCausalLM, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^attention_mask expects shape \(2, 9\) or longer, got \(") as error:
        model(tiny_ids(), attention_mask=torch.zeros(shape))
    one_sentence(error)


def test_an_empty_text_has_no_logits(model: QLMForCausalLM) -> None:
    assert logits(model, tiny_ids()[:, :0]).shape == (2, 0, 258)
