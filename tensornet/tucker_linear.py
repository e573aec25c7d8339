"""A linear layer whose weight is a Tucker decomposition.

Axes: b vectors, m rows and n columns of a weight, r_k ranks of its modes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tensornet.contraction import Work, product_work
from tensornet.factorise import balanced_factors, split_sizes
from tensornet.factorised_linear import FactorisedLinear
from tensornet.tucker import Tucker, mode_ranks, modes_work, multiply_modes


@dataclass(frozen=True)
class TuckerPlan:
    """Counted work of both forms of a product with a Tucker weight.

    >>> TuckerPlan(reconstruct=Work(flops=10), contract=Work(flops=20)).form
    'reconstruct'
    """

    reconstruct: Work
    contract: Work

    @property
    def form(self) -> str:
        """Either "reconstruct", where the matrix is built first, or "contract": the one of smaller cost."""
        return "reconstruct" if self.reconstruct.cost <= self.contract.cost else "contract"

    @property
    def flops(self) -> int:
        """Counted flops of that form."""
        return (self.reconstruct if self.form == "reconstruct" else self.contract).flops


class TuckerLinear(FactorisedLinear):
    """`y = x W^T + bias` with W a Tucker decomposition.

    W `(out_features, in_features)` is reshaped to a tensor `(m_1..m_d, n_1..n_d)`: `rows` (m_1..m_d) factorise
    `out_features`, `columns` (n_1..n_d) `in_features`; where not given they are balanced over two each. Each of the
    2 d modes has rank `mode_ranks(..., max_rank)`, so the core has at most `max_rank ** (2 d)` entries. Fresh factors
    are orthonormal, and the mean square of W is `1 / (3 in_features)` (that of nn.Linear) exactly.

    Raises ValueError where factorisations do not match, TypeError where sizes are no integers. Cost of a call:
    `plan(n_tokens)`.
    Source: Kim et al., ICLR 2016 (arXiv:1511.06530), for the layer; see `Tucker`.

    >>> layer = TuckerLinear(128, 128, max_rank=4, rows=(16, 8), columns=(8, 16), bias=False)
    >>> layer.n_parameters, layer(torch.zeros(2, 5, 128)).shape
    (448, torch.Size([2, 5, 128]))
    """

    def _allocate(
        self,
        max_rank: int,
        rows: Sequence[int] | None,
        columns: Sequence[int] | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        if rows is None and columns is None:
            rows = balanced_factors(self.out_features, 2)
        self.rows, self.columns = split_sizes(self.out_features, self.in_features, rows, columns)
        sizes = (*self.rows, *self.columns)
        ranks = mode_ranks(sizes, max_rank)
        self.core = nn.Parameter(torch.zeros(ranks, device=device, dtype=dtype))
        self.factors = nn.ParameterList(
            nn.Parameter(torch.zeros(size, rank, device=device, dtype=dtype))
            for size, rank in zip(sizes, ranks, strict=True)
        )

    def _draw(self) -> None:
        for factor in self.factors:
            drawn = torch.randn_like(factor, dtype=torch.float64)
            factor.copy_(torch.linalg.qr(drawn).Q)
        self.core.normal_()
        self.core.mul_(math.sqrt(self.out_features / 3) / torch.linalg.vector_norm(self.core))

    def _fit(self, weight: Tensor, max_rank: int) -> None:
        parts = Tucker.from_tensor(weight.reshape(*self.rows, *self.columns), max_rank)
        self.core.copy_(parts.core)
        for parameter, factor in zip(self.factors, parts.factors, strict=True):
            parameter.copy_(factor)

    @property
    def max_rank(self) -> int:
        """The largest rank of a mode."""
        return max(self.max_ranks)

    @property
    def max_ranks(self) -> tuple[int, ...]:
        """Ranks of the modes: rows, then columns."""
        return tuple(self.core.shape)

    def to_matrix(self) -> Tensor:
        """The dense weight `(out_features, in_features)`."""
        d = len(self.rows)
        factors = list(self.factors)
        state = multiply_modes(self._core_matrix(), factors[d:], outer=math.prod(self.max_ranks[:d]))
        state = multiply_modes(state, factors[:d], outer=1, inner=self.in_features)
        return state.reshape(self.out_features, self.in_features)

    def plan(self, n_tokens: int) -> TuckerPlan:
        """Counted work of a call on `n_tokens` in both forms; the call takes the cheaper.

        >>> layer = TuckerLinear(128, 128, max_rank=4)
        >>> layer.plan(1).form, layer.plan(100000).flops < 2 * 100000 * 128 * 128
        ('contract', True)
        """
        if n_tokens < 0:
            raise ValueError(f"expected a number of tokens of at least 0, got {n_tokens}")
        d, ranks = len(self.rows), self.max_ranks
        heads, tails = math.prod(ranks[:d]), math.prod(ranks[d:])
        expand_in = list(zip(self.columns, ranks[d:], strict=True))
        expand_out = list(zip(self.rows, ranks[:d], strict=True))
        project_in = [(rank, size) for size, rank in expand_in]
        build = modes_work(expand_in, heads) + modes_work(expand_out, 1, self.in_features)
        dense = product_work(n_tokens, self.out_features, self.in_features, 1)
        chain = modes_work(project_in, n_tokens) + product_work(n_tokens, heads, tails, 1)
        return TuckerPlan(build + dense, chain + modes_work(expand_out, n_tokens))

    def forward(self, x: Tensor) -> Tensor:
        """`x` `(..., in_features)` to `(..., out_features)`. Raises ValueError on another last axis."""
        flat = self._flatten(x)
        if self.plan(len(flat)).form == "reconstruct":
            y = F.linear(flat, self.to_matrix(), self.bias)
        else:
            y = self._contract(flat)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _contract(self, flat: Tensor) -> Tensor:
        """Project the columns' modes, multiply by the core, expand the rows' modes."""
        d, factors = len(self.rows), list(self.factors)
        state = multiply_modes(flat, [factor.T for factor in factors[d:]], outer=len(flat))
        matrix = self._core_matrix()
        state = F.linear(state.reshape(len(flat), matrix.shape[1]), matrix)
        y = multiply_modes(state, factors[:d], outer=len(flat)).reshape(len(flat), self.out_features)
        return y if self.bias is None else y + self.bias

    def _core_matrix(self) -> Tensor:
        return self.core.reshape(math.prod(self.max_ranks[: len(self.rows)]), -1)

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return f"rows={self.rows}, columns={self.columns}, ranks={self.max_ranks}, bias={self.bias is not None}"
