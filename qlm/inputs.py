"""What a call of a model may be given: one sentence for anything else, before a block runs.

Axis legend: b batch, l sequence, d model width.
"""

import torch
from torch import Tensor

from qlm.config import QLMConfig

_IDS = (torch.int64, torch.int32)
IGNORED = -100
"""The label of a position that counts in no loss."""


def check_inputs(input_ids: Tensor | None, inputs_embeds: Tensor | None, config: QLMConfig) -> tuple[int, int]:
    """Check that there are either token ids or embeddings, and those; return their (batch, length).

    >>> check_inputs(torch.tensor([[0, 257]]), None, QLMConfig())
    (1, 2)
    """
    if input_ids is not None and inputs_embeds is None:
        check_ids(input_ids, config.vocab_size)
        return input_ids.shape[0], input_ids.shape[1]
    if inputs_embeds is None or input_ids is not None:
        raise ValueError("the model expects either input_ids or inputs_embeds, got both or neither; pass one.")
    check_embeddings(inputs_embeds, config.d_model)
    return inputs_embeds.shape[0], inputs_embeds.shape[1]


def check_ids(input_ids: Tensor, vocab_size: int) -> None:
    """Check token ids (b, l): int64 or int32, as torch's embedding takes, from 0 to ``vocab_size`` - 1.

    Raises TypeError for another type, ValueError for another shape, IndexError for an id that is none.

    >>> check_ids(torch.tensor([[0, 257]]), 258)
    """
    _check_integers("input_ids", input_ids)
    if input_ids.ndim != 2:
        raise ValueError(
            f"input_ids expect shape (batch, length), got {tuple(input_ids.shape)}; one text is a batch of 1: "
            "input_ids[None]."
        )
    _check_range("token ids expect", input_ids, input_ids, vocab_size, "check the tokenizer")


def check_embeddings(inputs_embeds: Tensor, d_model: int) -> None:
    """Check embeddings (b, l, d); TypeError for what is no floating tensor, ValueError for another shape.

    >>> check_embeddings(torch.zeros(1, 2, 8), 8)
    """
    if not isinstance(inputs_embeds, Tensor) or not inputs_embeds.is_floating_point():
        raise TypeError(
            f"inputs_embeds expect a floating tensor, got {_kind(inputs_embeds)}; token ids are passed as input_ids."
        )
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != d_model:
        raise ValueError(
            f"inputs_embeds expect shape (batch, length, {d_model}), got {tuple(inputs_embeds.shape)}; pass what the "
            "model's own embedding gives."
        )


def check_labels(labels: Tensor, shape: tuple[int, ...], vocab_size: int) -> Tensor:
    """Return labels as int64: of the inputs' ``shape`` (b, l), int64 or int32, each -100 (ignored) or a token id.

    The model shifts them: labels are the input ids themselves. Raises TypeError, ValueError and IndexError as
    ``check_ids`` does.

    >>> check_labels(torch.tensor([[-100, 3]]), (1, 2), 258)
    tensor([[-100,    3]])
    """
    _check_integers("labels", labels)
    if tuple(labels.shape) != tuple(shape):
        raise ValueError(
            f"labels expect the inputs' shape {tuple(shape)}, got {tuple(labels.shape)}; pass the unshifted input ids, "
            f"with {IGNORED} where no loss is counted."
        )
    _check_range(f"labels expect {IGNORED} or", labels, labels[labels != IGNORED], vocab_size, "check the tokenizer")
    return labels.long()  # torch's cross-entropy takes no other


def padding_mask(attention_mask: Tensor | None, embedded: Tensor) -> Tensor | None:
    """Return the part of a (b, past + l) padding mask that belongs to these embeddings (b, l, d); None without padding.

    Raises ValueError for another shape.

    >>> padding_mask(torch.tensor([[0, 1, 1]]), torch.zeros(1, 2, 8)) is None
    True
    """
    if attention_mask is None:
        return None
    batch, length = embedded.shape[:2]
    if attention_mask.ndim != 2 or len(attention_mask) != batch or attention_mask.shape[1] < length:
        raise ValueError(
            f"attention_mask expects shape ({batch}, {length}) or longer, got {tuple(attention_mask.shape)}; a "
            "recurrent model takes a padding mask alone."
        )
    mask = attention_mask[:, attention_mask.shape[1] - length :].bool()
    return None if not torch.compiler.is_compiling() and bool(mask.all()) else mask


def _check_integers(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.dtype not in _IDS:
        raise TypeError(
            f"{name} expect a tensor of int64 or int32, got {_kind(tensor)}; convert it: torch.as_tensor(ids).long()."
        )


def _check_range(expects: str, whole: Tensor, counted: Tensor, vocab_size: int, remedy: str) -> None:
    if torch.compiler.is_compiling() or counted.numel() == 0:  # a graph cannot look at values
        return
    low, high = (int(value) for value in torch.aminmax(counted))
    if low < 0 or high >= vocab_size:
        bad = low if low < 0 else high
        index = tuple(int(k) for k in (whole == bad).nonzero()[0])
        raise IndexError(f"{expects} 0 to {vocab_size - 1}, got {bad} first at index {index}; {remedy}.")


def _kind(given: object) -> str:
    return f"one of {str(given.dtype).removeprefix('torch.')}" if isinstance(given, Tensor) else type(given).__name__
