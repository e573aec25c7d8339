"""A layer of a Transformer: the baseline that recurrences are compared with.

Axis legend: b batch, l sequence, t past and present tokens, d model width, n heads, e width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from qlm.blocks.base import Block, BlockOutput, Context, real_tokens
from qlm.fields import check_types
from qlm.precision import at_least_single

_OUT_SPREAD = 0.02
"""Standard deviation of fresh weights from either half to the stream: updates start small beside embeddings of 0.1."""


@dataclass(frozen=True)
class TransformerConfig:
    """``n_heads``, each of an even width; ``hidden``: inner width of the feed-forward half, 0 for ``8 d_model / 3``,
    which makes a layer ``12 d_model**2`` numbers; ``base``: of the rotary wavelengths, in tokens."""

    n_heads: int = 4
    hidden: int = 0
    base: float = 10000.0

    def __post_init__(self) -> None:
        check_types("transformer", self)
        if self.n_heads < 1 or self.hidden < 0 or not self.base > 1:
            raise ValueError(
                f"transformer expects n_heads >= 1, hidden >= 0 and base > 1, got {self.n_heads}, {self.hidden} and "
                f"{self.base}; correct them."
            )


class Transformer(Block):
    """``h + W_o attend(norm(h))``, then ``h + W_2 (silu(W_g x) * W_1 x)`` with ``x = norm(h)``.

    Attention is causal, ``softmax(q_t . k_s / sqrt(e))`` over s <= t, with rotary positions: pairs of q and k are
    turned by ``t base**(-2 i / e)``, so that scores depend on distances alone. Padding is read by no real token. State:
    keys and values (b, t, d) of all past tokens and which are real (b, t): it grows with the text.

    Raises ValueError for a d_model that its heads do not divide into even widths. Cost: O(l d**2 + l t d).

    Source: Vaswani et al. 2017, arXiv:1706.03762, in the form of LLaMA (Touvron et al. 2023, arXiv:2302.13971): RMS
    norms before each half, SwiGLU (Shazeer 2020, arXiv:2002.05202), rotary positions (Su et al. 2021,
    arXiv:2104.09864), no biases.

    >>> block = Transformer(8, TransformerConfig(n_heads=2))
    >>> output = block(torch.zeros(1, 3, 8), Context())
    >>> output.hidden.shape, output.state[0].shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 8]))
    """

    Config = TransformerConfig

    def __init__(self, d_model: int, config: TransformerConfig) -> None:
        super().__init__()
        if d_model % (2 * config.n_heads):
            raise ValueError(
                f"transformer expects d_model to be a multiple of {2 * config.n_heads}, an even width for each of "
                f"{config.n_heads} heads, got {d_model}; change either."
            )
        self.config = config
        hidden = config.hidden or round(8 * d_model / 3)
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.query_key_value = nn.Linear(d_model, 3 * d_model, bias=False)
        self.attention_out = nn.Linear(d_model, d_model, bias=False)
        self.feed_forward_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.gate_up = nn.Linear(d_model, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        for out in (self.attention_out, self.down):
            nn.init.normal_(out.weight, 0.0, _OUT_SPREAD)

    def forward(self, hidden: Tensor, context: Context) -> BlockOutput:
        real = real_tokens(hidden, context.mask)
        attended, state = self._attend(self.attention_norm(hidden), real, context)
        hidden = hidden + self.attention_out(attended)
        gate, up = self.gate_up(self.feed_forward_norm(hidden)).chunk(2, -1)
        return BlockOutput(hidden + self.down(functional.silu(gate) * up), state)

    def _attend(self, normed: Tensor, real: Tensor, context: Context) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What tokens (b, l, d) read, and the state after them."""
        n_past = context.state[0].shape[1] if context.state else 0
        query, key, value = self.query_key_value(normed).chunk(3, -1)
        turns = self._turns(n_past, normed.shape[1], normed)
        query, key = _turned(self._heads(query), turns), _turned(self._heads(key), turns)
        state = (key.flatten(2), value, real.to(value.dtype))
        if context.state:
            state = tuple(torch.cat((old.to(new.dtype), new), 1) for old, new in zip(context.state, state, strict=True))
        elif context.keep:
            state = (state[0], value.clone(), state[2])  # a view would keep queries and keys alive too
        keys, values, known = state
        q, k, v = (self._heads(one).transpose(1, 2) for one in (query.flatten(2), keys, values))
        every = (context.mask is None and not n_past) or bool(known.all())
        if every and not n_past:
            read = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif every and normed.shape[1] == 1:
            read = functional.scaled_dot_product_attention(q, k, v)
        else:
            read = functional.scaled_dot_product_attention(q, k, v, attn_mask=_readable(known != 0, n_past))
        return read.transpose(1, 2).flatten(2), state

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(2, (self.config.n_heads, -1))

    def _turns(self, first: int, n_tokens: int, like: Tensor) -> Tensor:
        """Rotary angles (l, 1, e / 2) in radians of the tokens from ``first`` on."""
        width = like.shape[2] // self.config.n_heads
        dtype = at_least_single(like).dtype
        powers = torch.arange(0, width, 2, dtype=dtype, device=like.device) / width
        positions = torch.arange(first, first + n_tokens, dtype=dtype, device=like.device)
        return (positions[:, None] * self.config.base**-powers).unsqueeze(1)


def _turned(rows: Tensor, turns: Tensor) -> Tensor:
    """Rows (b, l, n, e) with the pairs (i, i + e / 2) turned by the angles (l, 1, e / 2)."""
    left, right = rows.chunk(2, -1)
    cos, sin = turns.cos().to(rows.dtype), turns.sin().to(rows.dtype)
    return torch.cat((left * cos - right * sin, left * sin + right * cos), -1)


def _readable(known: Tensor, n_past: int) -> Tensor:
    """Which of the tokens (b, t) each of the last t - n_past ones may read, (b, 1, l, t); itself in any case."""
    positions = torch.arange(known.shape[1], device=known.device)
    own = positions[n_past:, None]
    return (((positions <= own) & known[:, None, :]) | (positions == own))[:, None]
