"""Text from a model, token by token, at a constant cost per token."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qlm.encoders import ByteEncoder, TextEncoder
from qlm.modeling import QLMForCausalLM
from qlm.state import RecurrentState
from qlm.tokenizer import PAD_ID


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: ``temperature`` 0 takes the likeliest. Raises ValueError for bad numbers.

    >>> Sampling(temperature=0.0).max_new_tokens
    200
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"generation expects max_new_tokens of at least 1, got {self.max_new_tokens}; raise it.")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"generation expects a finite temperature >= 0, got {self.temperature}; try 0.8.")


def generate_text(
    model: QLMForCausalLM, prompt: str, sampling: Sampling | None = None, encoder: TextEncoder | None = None
) -> str:
    """Return a continuation of the prompt, which follows an end-of-text token; invalid UTF-8 shows as U+FFFD.

    ``encoder`` None: bytes. Stops early at an end-of-text token. Torch's random state is untouched.

    >>> from qlm.config import QLMConfig
    >>> _ = torch.manual_seed(0)
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}])).eval()
    >>> len(generate_text(model, "one", Sampling(3, 0.0)).encode()) >= 1
    True
    """
    chosen = Sampling() if sampling is None else sampling
    reader = ByteEncoder() if encoder is None else encoder
    ids = torch.tensor([[reader.start_id, *reader.encode(prompt.encode("utf-8")).tolist()]], device=model.device)
    how = (
        {"do_sample": True, "temperature": chosen.temperature, "top_k": 0}
        if chosen.temperature
        else {"do_sample": False}
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(chosen.seed)
        made = model.generate(  # pyright: ignore[reportAttributeAccessIssue] -- transformers' protocol asks too much
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=chosen.max_new_tokens,
            eos_token_id=reader.start_id,
            pad_token_id=reader.pad_id,
            **how,
        )
    return reader.decode(made[0, ids.shape[1] :].tolist())


def generate_from(
    model: QLMForCausalLM, state: RecurrentState, ids: Tensor, **options: Any
) -> tuple[Tensor, RecurrentState]:
    """Return what ``generate()`` says (b, n) after a kept state and the tokens ``ids`` (b, l), and the state after it.

    The text behind the state is neither needed nor read again; the state given stays as it is, so that several
    continuations may branch from it. Of what is said, the last token has not been read yet: begin with it to go on.
    ``options`` are those of ``generate()``. Raises ValueError for no tokens, since one is needed to ask what follows,
    for several samples of a row (repeat the rows, and the state's, instead), and what the model raises for a state
    that does not fit.

    >>> from qlm.config import QLMConfig
    >>> model = QLMForCausalLM(QLMConfig(d_model=8, blocks=[{"kind": "harmonic"}])).eval()
    >>> state = model(torch.tensor([[1, 2, 3]]), use_cache=True).past_key_values.detach()
    >>> said, after = generate_from(model, state, torch.tensor([[4]]), max_new_tokens=2, min_new_tokens=2)
    >>> said.shape, state.seen, after.seen
    (torch.Size([1, 2]), 3, 5)
    """
    if ids.ndim != 2 or not ids.shape[1]:
        raise ValueError(
            f"a continuation expects ids of shape (batch, at least 1), got {tuple(ids.shape)}; keep the last token of "
            "the text back from the state."
        )
    if options.get("num_return_sequences", 1) != 1 or options.get("num_beams", 1) != 1:
        raise ValueError(
            "a continuation expects one sample of each row, got num_return_sequences or num_beams; repeat ids and the "
            "state with batch_repeat_interleave."
        )
    carried, seen = state.fork(), state.seen
    carried.seen = 0  # transformers leaves out as many ids as were seen: here none of them were
    made: Any = model.generate(  # pyright: ignore[reportAttributeAccessIssue] -- transformers' protocol asks too much
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=carried,
        return_dict_in_generate=True,
        **{"pad_token_id": PAD_ID, **options},
    )
    carried.advance(seen)
    return made.sequences[:, ids.shape[1] :], carried
