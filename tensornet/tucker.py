"""Tucker decompositions as values, and a linear layer whose weight is one.

Axes: n_k modes of a tensor, r_k their ranks; b vectors, m rows and n columns of a weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tensornet.contraction import Work, product, product_work
from tensornet.factorise import balanced_factors, check_max_rank, split_sizes


def mode_ranks(sizes: Sequence[int], max_rank: int) -> tuple[int, ...]:
    """Ranks `r_k = min(max_rank, n_k, prod of the other modes)`: what a tensor of these sizes can use.

    Raises as `check_max_rank`.

    >>> mode_ranks((8, 16, 16, 8), 10), mode_ranks((6, 2), 10)
    ((8, 10, 10, 8), (2, 2))
    """
    check_max_rank(max_rank)
    total = math.prod(sizes)
    return tuple(min(max_rank, size, total // size) for size in sizes)


@dataclass(frozen=True, eq=False)
class Tucker:
    """A tensor as a small core times one matrix per mode, `A[i_1..i_d] = sum_a C[a_1..a_d] prod_k U_k[i_k, a_k]`.

    `core` is `(r_1..r_d)`, `factors` are `(n_k, r_k)`. `error_bound` is the Frobenius distance to the tensor that it
    was made from, up to rounding (0 where it was made from parts). Raises ValueError where shapes do not fit.
    Source: Tucker 1966; De Lathauwer, De Moor, Vandewalle, SIAM J. Matrix Anal. Appl. 21, 1253 (2000).

    >>> parts = Tucker.from_tensor(torch.arange(24.0).reshape(2, 3, 4), max_rank=2)
    >>> parts.ranks, torch.allclose(parts.to_tensor(), torch.arange(24.0).reshape(2, 3, 4), atol=1e-4)
    ((2, 2, 2), True)
    """

    core: Tensor
    factors: tuple[Tensor, ...]
    error_bound: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))
        shapes = [tuple(factor.shape) for factor in self.factors]
        if not shapes or [shape[1:] for shape in shapes] != [(rank,) for rank in self.core.shape]:
            raise ValueError(
                f"expected one factor (n_k, r_k) per axis of the core {tuple(self.core.shape)}, got shapes {shapes}"
            )

    @classmethod
    def from_tensor(cls, tensor: Tensor, max_rank: int = 8) -> "Tucker":
        """Compress a dense tensor by the higher-order SVD, its modes cut one after the other.

        Mode k keeps the leading left singular vectors of the k-th unfolding of what is left of the tensor. The cuts
        are orthogonal to each other, so the squared error is the sum of all discarded squares exactly; it is at most
        `sum_k` of the discarded squares of the tensor's own unfoldings, and hence at most sqrt(d) times the error of
        the best decomposition of the same ranks. Exact at full rank.

        Raises TypeError unless `tensor` is a torch tensor of float32/64, ValueError where it is a scalar, empty or
        not finite; and as `check_max_rank`. Cost: d SVDs, the first of `n_1` x `N / n_1`.
        Source: Vannieuwenhoven, Vandebril, Meerbergen, SIAM J. Sci. Comput. 34, A1027 (2012).

        >>> error = Tucker.from_tensor(torch.diag(torch.tensor([5.0, 4.0, 3.0])), max_rank=1).error_bound
        >>> round(error, 4)
        5.0
        """
        _check_tensor(tensor)
        core, factors, discarded = tensor, [], 0.0
        for mode, rank in enumerate(mode_ranks(tensor.shape, max_rank)):
            unfolding = core.movedim(mode, 0).reshape(core.shape[mode], -1)
            left, singular, right = torch.linalg.svd(unfolding, full_matrices=False)
            discarded += float(singular[rank:].double().square().sum())
            factors.append(left[:, :rank])
            kept = singular[:rank, None] * right[:rank]
            rest = [size for axis, size in enumerate(core.shape) if axis != mode]
            core = kept.reshape(rank, *rest).movedim(0, mode)
        return cls(core.contiguous(), tuple(factors), math.sqrt(discarded))

    @property
    def ranks(self) -> tuple[int, ...]:
        """`(r_1, ..., r_d)`."""
        return tuple(self.core.shape)

    def to_tensor(self) -> Tensor:
        """The dense tensor `(n_1..n_d)`. Cost: one product per mode.

        >>> Tucker(torch.ones(1, 1), (torch.ones(2, 1), torch.ones(3, 1))).to_tensor().shape
        torch.Size([2, 3])
        """
        return _through(self.core, self.factors, 1).reshape([len(factor) for factor in self.factors])


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


class TuckerLinear(nn.Module):
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

    def __init__(
        self,
        in_features: int,
        out_features: int,
        max_rank: int = 8,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        if rows is None and columns is None:
            rows = balanced_factors(out_features, 2)
        self.rows, self.columns = split_sizes(out_features, in_features, rows, columns)
        sizes = (*self.rows, *self.columns)
        ranks = mode_ranks(sizes, max_rank)
        self.core = nn.Parameter(torch.zeros(ranks, device=device, dtype=dtype))
        self.factors = nn.ParameterList(
            nn.Parameter(torch.zeros(size, rank, device=device, dtype=dtype))
            for size, rank in zip(sizes, ranks, strict=True)
        )
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        max_rank: int = 8,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
    ) -> "TuckerLinear":
        """The layer nearest to `linear` by `Tucker.from_tensor` (done in float64), on its device and in its dtype.

        Raises as the constructor, and TypeError for another kind of layer. Cost: 2 d SVDs.

        >>> dense = nn.Linear(16, 16)
        >>> full = TuckerLinear.from_linear(dense, max_rank=16)
        >>> torch.allclose(full.to_matrix(), dense.weight, atol=1e-6)
        True
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(
                f"expected an nn.Linear, got {type(linear).__name__}; a tensor alone goes to Tucker.from_tensor"
            )
        weight = linear.weight.detach()
        layer = cls(
            linear.in_features,
            linear.out_features,
            max_rank,
            rows,
            columns,
            bias=linear.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        parts = Tucker.from_tensor(weight.double().reshape(*layer.rows, *layer.columns), max_rank)
        with torch.no_grad():
            layer.core.copy_(parts.core)
            for parameter, factor in zip(layer.factors, parts.factors, strict=True):
                parameter.copy_(factor)
            if layer.bias is not None:
                layer.bias.copy_(linear.bias)
        return layer

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights and bias (bias uniform in +-1/sqrt(in_features), as nn.Linear's)."""
        for factor in self.factors:
            drawn = torch.randn_like(factor, dtype=torch.float64)
            factor.copy_(torch.linalg.qr(drawn).Q)
        self.core.normal_()
        self.core.mul_(math.sqrt(self.out_features / 3) / torch.linalg.vector_norm(self.core))
        if self.bias is not None:
            self.bias.uniform_(-1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    @property
    def max_rank(self) -> int:
        """The largest rank of a mode."""
        return max(self.max_ranks)

    @property
    def max_ranks(self) -> tuple[int, ...]:
        """Ranks of the modes: rows, then columns."""
        return tuple(self.core.shape)

    @property
    def n_parameters(self) -> int:
        """Numbers in the core, the factors and the bias."""
        return sum(parameter.numel() for parameter in self.parameters())

    def to_matrix(self) -> Tensor:
        """The dense weight `(out_features, in_features)`."""
        d = len(self.rows)
        factors = list(self.factors)
        state = _through(self._core_matrix(), factors[d:], outer=math.prod(self.max_ranks[:d]))
        state = _through(state, factors[:d], outer=1, inner=self.in_features)
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
        build = _through_work(expand_in, heads) + _through_work(expand_out, 1, self.in_features)
        dense = product_work(n_tokens, self.out_features, self.in_features, 1)
        chain = _through_work(project_in, n_tokens) + product_work(n_tokens, heads, tails, 1)
        return TuckerPlan(build + dense, chain + _through_work(expand_out, n_tokens))

    def forward(self, x: Tensor) -> Tensor:
        """`x` `(..., in_features)` to `(..., out_features)`. Raises ValueError on another last axis."""
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a torch tensor x, got {type(x).__name__}; pass torch.as_tensor of it")
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"expected x of shape (..., {self.in_features}), got {tuple(x.shape)}")
        flat = x.reshape(math.prod(x.shape[:-1]), self.in_features)
        if self.plan(len(flat)).form == "reconstruct":
            y = F.linear(flat, self.to_matrix(), self.bias)
        else:
            y = self._contract(flat)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _contract(self, flat: Tensor) -> Tensor:
        """Project the columns' modes, multiply by the core, expand the rows' modes."""
        d, factors = len(self.rows), list(self.factors)
        state = _through(flat, [factor.T for factor in factors[d:]], outer=len(flat))
        matrix = self._core_matrix()
        state = F.linear(state.reshape(len(flat), matrix.shape[1]), matrix)
        y = _through(state, factors[:d], outer=len(flat)).reshape(len(flat), self.out_features)
        return y if self.bias is None else y + self.bias

    def _core_matrix(self) -> Tensor:
        return self.core.reshape(math.prod(self.max_ranks[: len(self.rows)]), -1)

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return f"rows={self.rows}, columns={self.columns}, ranks={self.max_ranks}, bias={self.bias is not None}"


def _through(state: Tensor, matrices: Sequence[Tensor], outer: int, inner: int = 1) -> Tensor:
    """Multiply mode k of `state` (outer, shared_1..shared_d, inner) by matrices (rows_k, shared_k), the last first."""
    for k in reversed(range(len(matrices))):
        before = outer * math.prod(matrix.shape[1] for matrix in matrices[:k])
        state = product(matrices[k], state.reshape(before, matrices[k].shape[1], inner))
        inner *= len(matrices[k])
    return state


def _through_work(shapes: Sequence[tuple[int, int]], outer: int, inner: int = 1) -> Work:
    """Work of `_through` for matrices of these shapes (rows, shared)."""
    work = Work()
    for k in reversed(range(len(shapes))):
        rows, shared = shapes[k]
        work += product_work(outer * math.prod(shape[1] for shape in shapes[:k]), rows, shared, inner)
        inner *= rows
    return work


def _check_tensor(tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"expected a torch tensor, got {type(tensor).__name__}; pass torch.as_tensor of it")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected float32 or float64, got {tensor.dtype}; convert it")
    if tensor.ndim < 1 or tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"expected a finite tensor of at least one axis and one entry, got {tuple(tensor.shape)}")
