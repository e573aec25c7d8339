"""Three ways to attend with a kernel: divided by its sum, through a softmax, and within a window.

Axis legend: b batch, l tokens, t past tokens, w angles, m numbers of a row, e numbers of a value, p window, f features.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from classical_kernels import causal_attention, causal_linear_attention
from classical_kernels.linear_attention.chunked import final_state
from classical_kernels.linear_attention.features import Plain
from qlm.blocks.base import places
from qlm.blocks.kernel_parts import CircuitKernel, TwinKernel

FORMS = ("auto", "linear", "quadratic")
"""How sums over all earlier tokens are computed."""
NORMALISATIONS = ("kernel", "softmax")
"""What turns similarities into weights."""
CROSSOVER = {0: 0, 1: 128, 2: 128, 3: 128, 4: 256, 5: 1024}
"""By wires, the length in tokens beyond which the linear form is the faster one."""
_SAMPLE = 64


def choose_form(length: int, n_wires: int) -> str:
    """Return "linear" for texts longer than ``CROSSOVER[n_wires]`` tokens, else "quadratic"; 0 wires: no kernel.

    Time of the quadratic form over that of the linear one, forward and backward, with 64 values, one thread, as
    ``python -m benchmarks.kernel_attention --only crossover`` measured it (processor time, torch 2.13, Zen 5):

    ======  =====  =====  =====  =====  =====  =====  =====
    qubits     64    128    256    512   1024   2048   4096
    ======  =====  =====  =====  =====  =====  =====  =====
    1        0.61   0.53   1.34   2.20   3.95   7.52  14.08
    2        0.51   0.45   1.23   2.09   4.14   6.47  12.63
    3        0.44   0.49   1.13   1.66   2.64   4.69   8.79
    4        0.47   0.40   0.85   1.30   2.23   3.36   6.27
    5        0.40   0.32   0.48   0.61   0.92   1.11   1.98
    ======  =====  =====  =====  =====  =====  =====  =====

    A state of more qubits, 4**n features, was not measured, and is not chosen.

    >>> choose_form(2048, 4), choose_form(128, 4), choose_form(2048, 8)
    ('linear', 'quadratic', 'quadratic')
    """
    return "linear" if length > CROSSOVER.get(n_wires, length) else "quadratic"


@dataclass(frozen=True)
class Tokens:
    """Angles of queries and keys (b, l, w), values (b, l, e), and the mask ``real`` (b, l), true at real tokens."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    real: Tensor

    @property
    def length(self) -> int:
        """Tokens of a row, padding included."""
        return self.values.shape[1]


@dataclass(frozen=True)
class Rule:
    """What turns similarities into weights: ``(K + eps / t) / (sum K + eps)``, or ``softmax(K / tau)``."""

    eps: float
    tau: float | None = None


@dataclass(frozen=True)
class Attended:
    """Values read (b, l, e), those of a uniform average beside them, the state after, and what was seen of the kernel.

    ``sample``: off-diagonal similarities, detached, any number of them.
    """

    values: Tensor
    uniform: Tensor
    state: tuple[Tensor, ...]
    sample: Tensor
    form: str


class Comparer:
    """A circuit's part, its stand-in, or nothing: rows of tokens, packed so that padding runs no circuit."""

    def __init__(self, part: CircuitKernel | TwinKernel | None) -> None:
        self.part = part
        self.similarity: Any = Plain() if part is None else part.similarity

    def rows(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Rows (b, l, m) of queries and keys, zero at padding; m = 0 without a part."""
        if self.part is None:
            nothing = tokens.queries[..., :0]
            return nothing, nothing
        index = places(tokens.real.flatten())
        queries, keys = (angles.flatten(0, 1)[index] for angles in (tokens.queries, tokens.keys))
        found = self.part(queries, keys)
        found = found * tokens.real.flatten()[index, None, None]  # where nothing was packed
        rows = found.new_zeros(tokens.real.numel(), *found.shape[1:]).index_copy(0, index, found)
        q, k = rows.unflatten(0, tokens.real.shape).unbind(2)
        return q, k

    def sample(self, q: Tensor, k: Tensor, real: Tensor) -> Tensor:
        """Similarities of the queries and keys of at most 64 distinct real tokens, evenly spread over the batch."""
        if torch.compiler.is_compiling():
            return q.new_zeros(0)
        index = real.flatten().nonzero().squeeze(1)
        chosen = index[:: max(1, -(-len(index) // _SAMPLE))]
        with torch.no_grad():
            found = self.similarity.inner(*(rows.flatten(0, 1)[chosen] for rows in (q, k)))
        return found[~torch.eye(len(chosen), dtype=torch.bool, device=found.device)]


def attend_all(
    comparer: Comparer, tokens: Tokens, rule: Rule, form: str, state: tuple[Tensor, ...], keep: bool = True
) -> Attended:
    """All earlier tokens, weighed ``(K_ts + eps / n_t) / (sum_s K_ts + eps)``, n_t the number of real tokens up to t.

    The state (b, f + 1, e + 1) is that of ``causal_linear_attention``, of constant size, in both forms; a text that
    goes on from a state reads it in the linear form. It is left out unless it is to be kept.
    """
    q, k = comparer.rows(tokens)
    real = tokens.real.to(tokens.values.dtype)
    past = state[0][:, -1].to(real.dtype) if state else real.new_zeros(len(real), tokens.values.shape[-1] + 1)
    count = real.cumsum(1) + past[:, -1:]
    shift = rule.eps / count.clamp(min=1)
    mask = None if not torch.compiler.is_compiling() and bool(tokens.real.all()) else tokens.real
    if state or form == "linear":
        start = state[0].to(real.dtype) if state else None
        sums, total, last = causal_linear_attention(
            q, k, tokens.values, start, mask, shift, feature_map=comparer.similarity
        )
    else:
        sums, total = causal_attention(q, k, tokens.values, mask, shift, comparer.similarity)
        last = final_state(k, tokens.values, mask, comparer.similarity) if keep else None
    read = sums / (total + (count == 0)).unsqueeze(-1)  # before its first token a row has read nothing
    written = (tokens.values * real.unsqueeze(-1)).detach().cumsum(1) + past[:, None, :-1]
    uniform = written / count.clamp(min=1).unsqueeze(-1)
    ran = "linear" if state or form == "linear" else "quadratic"
    return Attended(read, uniform, () if last is None else (last,), comparer.sample(q, k, tokens.real), ran)


def attend_softmax(comparer: Comparer, tokens: Tokens, tau: float, state: tuple[Tensor, ...]) -> Attended:
    """All earlier tokens, weighed ``softmax(K_t / tau)``; the state holds their rows, values and mask, and grows."""
    q, k = comparer.rows(tokens)
    values, real = tokens.values, tokens.real.to(tokens.values.dtype)
    if state:
        k, values, real = (
            torch.cat((old.to(new.dtype), new), 1) for old, new in zip(state, (k, values, real), strict=True)
        )
    mask = None if not torch.compiler.is_compiling() and bool((real > 0).all()) else real > 0
    read, _ = causal_attention(q, k, values, mask, None, comparer.similarity, tau)
    sums, count = (values * real.unsqueeze(-1)).detach().cumsum(1), real.cumsum(1)
    uniform = (sums / count.clamp(min=1).unsqueeze(-1))[:, values.shape[1] - tokens.length :]
    own = k[:, k.shape[1] - tokens.length :]
    return Attended(read, uniform, (k, values, real), comparer.sample(q, own, tokens.real), "quadratic")


def attend_window(comparer: Comparer, tokens: Tokens, rule: Rule, window: int, state: tuple[Tensor, ...]) -> Attended:
    """The last ``window`` tokens, the query's own among them; by states, or by one circuit per pair without them.

    Weights as in the other two, over the window alone. The state holds the keys' angles (b, p - 1, w), values and mask
    of the last p - 1 tokens, so that it suits every backend.
    """
    fresh = (tokens.keys, tokens.values, tokens.real.to(tokens.values.dtype))
    old = state or tuple(part.new_zeros(len(part), window - 1, *part.shape[2:]) for part in fresh)
    keys, values, real = (torch.cat((past.to(part.dtype), part), 1) for past, part in zip(old, fresh, strict=True))
    if not tokens.length:
        return Attended(tokens.values * 1, tokens.values, (keys, values, real), tokens.values.flatten(), "window")
    seen = (real.unfold(1, window, 1) > 0) & tokens.real.unsqueeze(-1)
    part = comparer.part
    if part is None or part.has_states:
        idle = tokens.queries.new_zeros(len(keys), window - 1, tokens.queries.shape[-1])
        q, k = comparer.rows(Tokens(torch.cat((idle, tokens.queries), 1), keys, values, real > 0))
        near = k.unfold(1, window, 1).mT
        found = comparer.similarity.inner(q[:, window - 1 :].unsqueeze(-2), near).squeeze(-2)
        form = "window"
    else:
        near = keys.unfold(1, window, 1).mT.flatten(0, 1)
        found = part(tokens.queries.flatten(0, 1), near, seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        form = "pairs"
    banded = values.unfold(1, window, 1).mT
    read = (_weights(found, seen, rule).unsqueeze(-2) @ banded).squeeze(-2)
    even = seen.to(read.dtype)
    uniform = (even.unsqueeze(-2) @ banded.detach()).squeeze(-2) / even.sum(-1, keepdim=True).clamp(min=1)
    kept = tuple(part[:, tokens.length :].clone() for part in (keys, values, real))
    return Attended(read, uniform, kept, found.detach()[..., :-1][seen[..., :-1]], form)


def _weights(similarities: Tensor, seen: Tensor, rule: Rule) -> Tensor:
    """Weights (b, l, p) of the keys in each window, 0 for those that are not seen."""
    if rule.tau is not None:
        lowest = torch.finfo(similarities.dtype).min  # not -inf: a query of padding sees no key at all
        return torch.softmax((similarities / rule.tau).masked_fill(~seen, lowest), -1) * seen
    shift = rule.eps / seen.sum(-1, keepdim=True, dtype=similarities.dtype).clamp(min=1)
    return (similarities + shift) * seen / ((similarities * seen).sum(-1, keepdim=True) + rule.eps)
