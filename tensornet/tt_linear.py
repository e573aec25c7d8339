"""A linear layer whose weight is an operator train, with a rank that may differ for every token."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tensornet.contraction import Choice, Plan, Work, choose, chosen_for_graphs, multiply, multiply_masked, reconstruct
from tensornet.factorise import split_sizes
from tensornet.factorised_linear import FactorisedLinear
from tensornet.rank_schedule import apply_by_rank, check_rank, check_ranks
from tensornet.tensor_train import TensorTrain
from tensornet.train_parameters import fill_canonical, operator_parameters


class TTLinear(FactorisedLinear):
    """`y = x W^T + bias` with W `(out_features, in_features)` a tensor train.

    W = G_1 ... G_d with cores `(r_{k-1}, m_k, n_k, r_k)`; `rows` (m_1..m_d) factorise `out_features`, `columns`
    (n_1..n_d) `in_features`. Where not given they are balanced over three cores, rows descending and columns
    ascending. Bonds hold at most `max_rank`, and never more than their neighbours can use. Weights start
    Gaussian, in canonical form, scaled to a mean square of `1 / (3 in_features)` (that of nn.Linear) exactly.

    A token of rank r uses the first r entries of every bond. After `canonicalize_()` the entries are ordered by
    singular value; training under `nested_ranks` keeps them useful.

    Raises ValueError where factorisations do not match, TypeError where sizes are no integers. Cost of a call:
    `plan(n_tokens)`.
    Source: Novikov et al., NeurIPS 2015 (arXiv:1509.06569).

    >>> layer = TTLinear(128, 128, max_rank=4, rows=(8, 4, 4), columns=(4, 4, 8), bias=False)
    >>> layer.n_parameters, layer(torch.zeros(2, 5, 128)).shape
    (512, torch.Size([2, 5, 128]))
    """

    def _allocate(
        self,
        max_rank: int,
        rows: Sequence[int] | None,
        columns: Sequence[int] | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        self.rows, self.columns = split_sizes(self.out_features, self.in_features, rows, columns)
        self.cores = operator_parameters(self.rows, self.columns, max_rank, device, dtype)

    def _draw(self) -> None:
        drawn = [torch.randn_like(core, dtype=torch.float64) for core in self.cores]
        fill_canonical(self.cores, drawn, norm=math.sqrt(self.out_features / 3))

    def _fit(self, weight: Tensor, max_rank: int) -> None:
        fill_canonical(self.cores, TensorTrain.from_matrix(weight, self.rows, self.columns, max_rank).cores)

    @torch.no_grad()
    def canonicalize_(self) -> "TTLinear":
        """Rewrite the cores, W unchanged, so that every bond is in its Schmidt basis, descending.

        Prefixes of a bond are then the best truncation at that bond (see `TensorTrain.canonical`). All cores get
        the same norm. For load time: it moves an optimizer's parameters from under its moments.
        """
        fill_canonical(self.cores, [core.double() for core in self.cores])
        return self

    @property
    def max_rank(self) -> int:
        """The largest rank a token can have: the largest bond that the cores hold."""
        return max([1, *(core.shape[3] for core in self.cores[:-1])])

    def train_at(self, rank: int | None = None) -> TensorTrain:
        """The weight as a `TensorTrain` value, its bonds cut to their first `rank` entries."""
        return TensorTrain(tuple(self._cores_at(rank)))

    def weight(self, rank: int | None = None) -> Tensor:
        """The dense weight `(out_features, in_features)` at `rank` (None: all)."""
        return reconstruct(self._cores_at(rank))

    def plan(self, n_tokens: int, rank: int | None = None) -> Choice:
        """Which form a call on `n_tokens` takes, with the counted work of both.

        >>> choice = TTLinear(128, 128, max_rank=4).plan(4096)
        >>> choice.form, choice.flops == choice.reconstruct.work.flops
        ('reconstruct', True)
        """
        if n_tokens < 0:
            raise ValueError(f"expected a number of tokens of at least 0, got {n_tokens}")
        return choose(self._sites(rank), n_tokens)

    def flops(self, ranks: Tensor) -> int:
        """Counted flops of `forward_grouped` for these ranks: the sum of its plans, one per distinct rank."""
        check_ranks(ranks, ranks.shape, self.max_rank)
        distinct, counts = ranks.unique(return_counts=True)
        return sum(self.plan(n, rank).flops for rank, n in zip(distinct.tolist(), counts.tolist(), strict=True))

    def forward(self, x: Tensor, rank: int | None = None) -> Tensor:
        """`x` `(..., in_features)` to `(..., out_features)`, all tokens at `rank` (None: all that the cores hold).

        Raises ValueError on another last axis, or a rank that the cores do not hold.
        """
        flat = self._flatten(x)
        if torch.compiler.is_compiling():
            plan = Plan(*chosen_for_graphs(self._sites(rank)), Work())
        else:
            plan = self.plan(len(flat), rank).picked
        y = multiply(flat, self._cores_at(rank), plan, self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)

    def forward_masked(self, x: Tensor, ranks: Tensor) -> Tensor:
        """Each token at its own rank, by masks on the bonds: the oracle of `forward_grouped`; saves nothing.

        `ranks` are integers of shape `x.shape[:-1]`. Raises TypeError or ValueError where they are not, or lie
        outside 1..`max_rank`.
        """
        flat = self._flatten(x)
        check_ranks(ranks, x.shape[:-1], self.max_rank)
        y = multiply_masked(flat, list(self.cores), ranks.reshape(-1), self.bias)
        return y.reshape(*x.shape[:-1], self.out_features)

    def forward_grouped(self, x: Tensor, ranks: Tensor, max_groups: int = 4) -> Tensor:
        """Each token at its own rank: tokens are sorted by rank, and each distinct rank is one ordinary call.

        Equal to `forward_masked`, at the cost `flops(ranks)`. Raises as it does, and ValueError where there are
        more than `max_groups` distinct ranks, since each one costs a reconstruction or a contraction.

        >>> layer = TTLinear(8, 8, max_rank=4, rows=(4, 2), columns=(2, 4), dtype=torch.float64)
        >>> x, ranks = torch.randn(3, 8, dtype=torch.float64), torch.tensor([1, 4, 1])
        >>> torch.allclose(layer.forward_grouped(x, ranks), layer.forward_masked(x, ranks))
        True
        """
        flat = self._flatten(x)
        check_ranks(ranks, x.shape[:-1], self.max_rank)
        y = apply_by_rank(self, flat, ranks.reshape(-1), max_groups)
        if y is None:
            return self(x)  # no tokens: the weights are still touched, so that distributed training does not hang
        return y.reshape(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        bonds = tuple(core.shape[3] for core in self.cores[:-1])
        return f"rows={self.rows}, columns={self.columns}, ranks={bonds}, bias={self.bias is not None}"

    def _bonds(self, rank: int | None) -> list[tuple[int, int]]:
        if rank is None:
            return [(core.shape[0], core.shape[3]) for core in self.cores]
        check_rank(rank, self.max_rank)
        return [(min(rank, core.shape[0]), min(rank, core.shape[3])) for core in self.cores]

    def _sites(self, rank: int | None) -> tuple[tuple[int, int, int, int], ...]:
        bonds = self._bonds(rank)
        return tuple((r, m, n, q) for (r, q), m, n in zip(bonds, self.rows, self.columns, strict=True))

    def _cores_at(self, rank: int | None) -> list[Tensor]:
        return [core[:r, :, :, :q] for core, (r, q) in zip(self.cores, self._bonds(rank), strict=True)]
