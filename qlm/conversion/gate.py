"""Whether a model reads the future: measured by value and by gradient, on the model as it is.

Axis legend: r rows, one for each place t, l sequence, d model width, v vocabulary.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

TOLERANCE = 1e-10
"""Largest change of a logit, and largest gradient, in float64, that counts as none."""
_ROWS = 8
"""Rows of a call, so that logits over a large vocabulary stay small in memory."""


class LeakError(ValueError):
    """A model's earlier logits change with later tokens; the message is one sentence.

    >>> issubclass(LeakError, ValueError)
    True
    """


@dataclass(frozen=True)
class Causality:
    """What later tokens do to earlier logits, in float64 over texts of ``length`` random tokens.

    ``by_value``: largest change of a logit before place t when all tokens from t on are others, over all t.
    ``by_gradient``: largest derivative of a random combination of the logits at s by the embeddings after s, over all
    s. ``reach``: largest change of the last logits when the first token is another: 0 for a model without a memory,
    of which the zeros above would say little.

    >>> Causality(0.0, 0.0, 1.0, 32).holds, Causality(0.0, math.nan, 1.0, 32).holds
    (True, False)
    """

    by_value: float
    by_gradient: float
    reach: float
    length: int

    @property
    def holds(self) -> bool:
        """Whether nothing came back from the future; not so where a figure is no number."""
        return self.by_value <= TOLERANCE and self.by_gradient <= TOLERANCE


def measure_causality(model: PreTrainedModel, length: int = 32, seed: int = 0) -> Causality:
    """Return what later tokens do to earlier logits of a causal language model; the model stays as it is.

    A copy of the model is taken to float64, in evaluation mode. Longer texts may show what these do not: a block
    that looks ahead within chunks of 64 tokens does so here as well, one that does beyond 32 does not. Raises
    ValueError for a length below 2. Cost: ``length - 1`` texts forward, and as many forward and backward.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_attention_heads=2,
    ...     num_hidden_layers=1)
    >>> measure_causality(LlamaForCausalLM(config), length=4).holds
    True
    """
    if length < 2:
        raise ValueError(f"the causality gate expects a length of at least 2 tokens, got {length}; raise it.")
    exact: Any = deepcopy(model).double().eval().requires_grad_(False)
    vocab_size = int(exact.get_input_embeddings().num_embeddings)
    draws = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (1, length), generator=draws).to(model.device)
    others = (ids + torch.randint(1, vocab_size, (1, length), generator=draws).to(model.device)) % vocab_size
    before = _logits(exact, ids)
    weights = torch.randn(vocab_size, generator=draws, dtype=torch.float64).to(model.device)
    values, gradients = [], []
    for places in torch.arange(1, length, device=model.device).split(_ROWS):
        values.append(_worst_value(exact, ids, others, before, places))
        gradients.append(_worst_gradient(exact, ids, places - 1, weights))
    first = torch.cat((others[:, :1], ids[:, 1:]), 1)
    reach = float((_logits(exact, first) - before)[:, -1].abs().max())
    return Causality(_worst(values), _worst(gradients), reach, length)


def refuse_leak(found: Causality) -> None:
    """Raise LeakError unless nothing came back from the future.

    >>> refuse_leak(Causality(0.0, 0.0, 1.0, 32))
    """
    if not found.holds:
        raise LeakError(
            f"a language model expects logits that no later token changes, got changes of {found.by_value:.1e} and "
            f"gradients of {found.by_gradient:.1e}; it is not saved: mend the block."
        )


def _worst_value(model: PreTrainedModel, ids: Tensor, others: Tensor, before: Tensor, places: Tensor) -> float:
    """Largest change before each place t when the tokens from it on are others."""
    later = torch.arange(ids.shape[1], device=ids.device) >= places[:, None]
    changes = (_logits(model, torch.where(later, others, ids)) - before).abs().amax(2)
    return _worst([float(one) for one in changes[~later]])


def _worst_gradient(model: PreTrainedModel, ids: Tensor, places: Tensor, weights: Tensor) -> float:
    """Largest derivative of the logits at each place s by the embeddings after it."""
    embedded = model.get_input_embeddings()(ids.expand(len(places), -1)).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    rows = torch.arange(len(places), device=ids.device)
    (gradient,) = torch.autograd.grad((logits[rows, places] @ weights).sum(), embedded)
    later = torch.arange(ids.shape[1], device=ids.device) > places[:, None]
    return _worst([float(one) for one in gradient.abs().amax(2)[later]])


@torch.no_grad()
def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits


def _worst(figures: list[float]) -> float:
    """The largest of them; NaN where one is no number, which ``max`` may pass over."""
    return math.nan if any(map(math.isnan, figures)) else max(figures)
