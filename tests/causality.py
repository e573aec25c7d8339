"""The causality gate: functions that measure how much a model's logits know of what they must not.

Every block and every configuration passes it. Axis legend: b batch, l sequence, v vocabulary.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from qlm import QLMForCausalLM
from qlm.blocks.quantum_router import QuantumRouter

Logits = Callable[[Tensor], Tensor]
"""Logits (b, l, v) of token ids (b, l)."""

TOLERANCE = 1e-10
"""Largest change of a logit, in float64 and evaluation mode, that counts as none."""
WORST_Z = 4.0
"""Standard errors below the entropy of uniform tokens at which a loss shows a leak."""


def whole(model: QLMForCausalLM) -> Logits:
    """The logits of one call on the whole sequence."""

    def logits(ids: Tensor) -> Tensor:
        with torch.no_grad():
            return model(ids, use_cache=False).logits

    return logits


def in_parts(model: QLMForCausalLM, sizes: Sequence[int]) -> Logits:
    """The logits of calls on parts of the given sizes and on the rest, each with the state of the one before."""

    def logits(ids: Tensor) -> Tensor:
        rest = ids.shape[1] - sum(sizes)
        state, parts = None, []
        with torch.no_grad():
            for part in ids.split([*sizes, rest] if rest else [*sizes], 1):
                output = model(part, past_key_values=state, use_cache=True)
                state = output.past_key_values
                parts.append(output.logits)
        return torch.cat(parts, 1)

    return logits


def leak_to_earlier(logits: Logits, ids: Tensor, vocab_size: int) -> float:
    """Largest change of a logit before position t when token t alone is changed, over all t and rows."""
    before, worst = logits(ids), 0.0
    for t in range(1, ids.shape[1]):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % vocab_size
        worst = max(worst, float((logits(changed) - before)[:, :t].abs().max()))
    return worst


def leak_between_rows(logits: Logits, ids: Tensor, vocab_size: int) -> float:
    """Largest change of row i's logits when all other rows are changed, reordered away or taken out, over all i."""
    before, worst = logits(ids), 0.0
    for i in range(len(ids)):
        changed = (ids + 1) % vocab_size
        changed[i] = ids[i]
        for after in (logits(changed)[i], logits(ids[i : i + 1])[0], logits(changed.flip(0))[-1 - i]):
            worst = max(worst, float((after - before[i]).abs().max()))
    return worst


def effect_on_later(logits: Logits, ids: Tensor, vocab_size: int) -> float:
    """Largest change of the last logits when the first token is changed: 0 for a model without a memory."""
    changed = ids.clone()
    changed[:, 0] = (changed[:, 0] + 1) % vocab_size
    return float((logits(changed) - logits(ids))[:, -1].abs().max())


def spread(model: QLMForCausalLM, scale: float = 0.3) -> QLMForCausalLM:
    """Move every parameter away from its start, in place, so that nothing is zero, and route about half the tokens."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
        for block in routers(model):
            nn.init.normal_(block.predict.weight, 0.0, 1.0)
            nn.init.zeros_(block.predict.bias)
            nn.init.constant_(block.threshold, 0.5)
    return model


def routers(model: QLMForCausalLM) -> list[QuantumRouter]:
    """The model's routers that route."""
    return [m for m in model.modules() if isinstance(m, QuantumRouter) and m.core is not None]


def gain_over_uniform(
    model: QLMForCausalLM, steps: int = 200, batch: int = 16, length: int = 16, n_fresh: int = 100_000
) -> float:
    """Train on uniform random tokens; return how far the loss on fresh ones lies below log(vocabulary), in its errors.

    ``z = (log v - mean loss) / stderr``, over at least ``n_fresh`` predicted tokens. No causal model can make z large:
    uniform tokens cannot be predicted.
    """
    vocab_size = model.config.vocab_size
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(steps):
        ids = torch.randint(vocab_size, (batch, length))
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    model.eval()
    losses = []
    for _ in range(10):
        ids = torch.randint(vocab_size, (math.ceil(n_fresh / 10 / (length - 1)), length))
        with torch.no_grad():
            logits = model(ids, use_cache=False).logits[:, :-1]
        losses.append(functional.cross_entropy(logits.flatten(0, 1).double(), ids[:, 1:].flatten(), reduction="none"))
    fresh = torch.cat(losses)
    assert len(fresh) >= n_fresh
    return float((math.log(vocab_size) - fresh.mean()) / (fresh.std() / math.sqrt(len(fresh))))
