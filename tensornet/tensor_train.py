"""Tensor trains as values: TT-SVD, canonical form, truncation and their errors.

Axes: r, q left and right bond; n site; m, n row and column of an operator's site; s = n or m n.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tensornet.factorise import check_max_rank, split_sizes


@dataclass(frozen=True, eq=False)
class TensorTrain:
    """A tensor as a chain of small cores, `A[i_1..i_d] = G_1[:, i_1, :] G_2[:, i_2, :] ... G_d[:, i_d, :]`.

    `cores` are `(r, n, q)`, or `(r, m, n, q)` for an operator (a matrix with factorised rows and columns); the
    first left bond and the last right bond are 1. `error_bound` is an upper bound on the Frobenius distance to
    the tensor that the train was made from: after one `from_tensor` it is that distance (up to rounding), and
    each later `truncate` adds its own (triangle inequality).

    Raises ValueError where cores do not chain. Source: Oseledets, SIAM J. Sci. Comput. 33, 2295 (2011).

    >>> train = TensorTrain.from_tensor(torch.arange(24.0).reshape(2, 3, 4), max_rank=2)
    >>> train.ranks, torch.allclose(train.to_tensor(), torch.arange(24.0).reshape(2, 3, 4), atol=1e-5)
    ((2, 2), True)
    """

    cores: tuple[Tensor, ...]
    error_bound: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "cores", tuple(self.cores))
        for core in self.cores:
            _check_tensor(core)
        shapes = [tuple(core.shape) for core in self.cores]
        if not shapes or {len(shape) for shape in shapes} not in ({3}, {4}):
            raise ValueError(f"expected cores (r, n, q), or (r, m, n, q) for an operator, got shapes {shapes}")
        bonds = [1, *(shape[-1] for shape in shapes)]
        if bonds[-1] != 1 or any(shape[0] != bond for shape, bond in zip(shapes, bonds, strict=False)):
            raise ValueError(f"expected equal bonds between neighbours and 1 at both ends, got shapes {shapes}")
        if min(min(shape) for shape in shapes) < 1:
            raise ValueError(f"expected every core axis to be at least 1, got shapes {shapes}")

    @classmethod
    def from_tensor(cls, tensor: Tensor, max_rank: int | None = 8, tolerance: float | None = None) -> "TensorTrain":
        """Compress a dense tensor by TT-SVD: one SVD per bond, left to right.

        Bonds keep at most `max_rank` singular values (None: all) and, where `tolerance` is given, no more than
        needed for a relative Frobenius error of `tolerance`. The squared error is the sum of all discarded
        squares, since each cut is orthogonal to those after it (exact, see `error_bound`); it is at most
        sum_k of the discarded squares of the tensor's own unfoldings (theorem 2.2), and hence at most
        sqrt(d - 1) times the error of the best train of the same ranks (corollary 2.4).

        Raises TypeError unless `tensor` is a torch tensor (arrays are not converted) of float32/64 or
        complex64/128 and `max_rank` an integer, ValueError where it is a scalar, empty or not finite, or
        `max_rank` < 1. Cost: d - 1 SVDs, the first of `n_1` x `N / n_1`.
        """
        _check_dense(tensor)
        _check_limits(max_rank, tolerance)
        sizes = tuple(tensor.shape)
        budget = _budget(torch.linalg.vector_norm(tensor), tolerance, len(sizes))
        cores: list[Tensor] = []
        discarded: list[float] = []
        rest, bond = tensor, 1
        for size in sizes[:-1]:
            u, s, vh = torch.linalg.svd(rest.reshape(bond * size, -1), full_matrices=False)
            kept = _kept(s, max_rank, budget)
            discarded.append(_root_of_squares(s[kept:]))
            cores.append(u[:, :kept].reshape(bond, size, kept))
            rest, bond = s[:kept, None] * vh[:kept], kept
        cores.append(rest.reshape(bond, sizes[-1], 1))
        return cls(tuple(cores), math.hypot(*discarded))

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        rows: Sequence[int] | None = None,
        columns: Sequence[int] | None = None,
        max_rank: int | None = 8,
        tolerance: float | None = None,
    ) -> "TensorTrain":
        """Compress a matrix `(prod rows, prod columns)` to an operator train with cores `(r, m_k, n_k, q)`.

        The TT-SVD of the tensor with axes (m_1 n_1), ..., (m_d n_d); factorisations are balanced over three
        cores where not given. Raises as `from_tensor`, and ValueError where the products do not match.

        >>> train = TensorTrain.from_matrix(torch.eye(128), (8, 4, 4), (4, 4, 8), max_rank=4)
        >>> sum(core.numel() for core in train.cores)
        512
        """
        _check_tensor(matrix)
        if matrix.ndim != 2:
            raise ValueError(f"expected a matrix, got shape {tuple(matrix.shape)}; use from_tensor for tensors")
        rows, columns = split_sizes(matrix.shape[0], matrix.shape[1], rows, columns)
        n_sites = len(rows)
        paired = [axis for k in range(n_sites) for axis in (k, n_sites + k)]
        sites = [m * n for m, n in zip(rows, columns, strict=True)]
        train = cls.from_tensor(matrix.reshape(*rows, *columns).permute(paired).reshape(sites), max_rank, tolerance)
        cores = (
            core.reshape(core.shape[0], m, n, core.shape[-1])
            for core, m, n in zip(train.cores, rows, columns, strict=True)
        )
        return cls(tuple(cores), train.error_bound)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The inner bond dimensions `(r_1, ..., r_{d-1})`."""
        return tuple(core.shape[-1] for core in self.cores[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `to_tensor()`: `(n_1..n_d)`, or `(m_1..m_d, n_1..n_d)` for an operator."""
        return tuple(core.shape[axis] for axis in range(1, self.cores[0].ndim - 1) for core in self.cores)

    @property
    def n_parameters(self) -> int:
        """How many numbers the cores hold."""
        return sum(core.numel() for core in self.cores)

    @property
    def norm(self) -> Tensor:
        """Frobenius norm (a 0-d real tensor), from the cores alone: cost O(d s r^3)."""
        overlap = self.cores[0].new_ones(1, 1)
        for core in self.cores:
            site = core.reshape(core.shape[0], -1, core.shape[-1])
            overlap = torch.einsum("ab,asc,bsd->cd", overlap, site.conj(), site)
        return overlap.real.reshape(()).clamp_min(0).sqrt()

    def to_tensor(self) -> Tensor:
        """The dense tensor, of shape `shape`. Cost: O(N r) flops and N numbers of memory."""
        dense = self.cores[0].reshape(-1, self.cores[0].shape[-1])
        for core in self.cores[1:]:
            dense = (dense @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])
        if self.cores[0].ndim == 3:
            return dense.reshape(self.shape)
        n_sites = len(self.cores)
        sites = [size for core in self.cores for size in core.shape[1:3]]
        return dense.reshape(sites).permute(*range(0, 2 * n_sites, 2), *range(1, 2 * n_sites, 2))

    def to_matrix(self) -> Tensor:
        """The dense matrix `(prod rows, prod columns)` of an operator. Raises ValueError for cores (r, n, q)."""
        if self.cores[0].ndim != 4:
            raise ValueError("expected an operator with cores (r, m, n, q), got cores (r, n, q); use to_tensor")
        return self.to_tensor().reshape(math.prod(core.shape[1] for core in self.cores), -1)

    def canonical(self) -> "TensorTrain":
        """The same tensor in left-canonical form with every bond in its Schmidt basis, descending.

        All cores but the last are isometries, and index j of bond k is the j-th singular vector of unfolding k.
        Keeping a prefix of one bond is therefore the best approximation of that rank at that bond (Eckart-Young);
        keeping prefixes of all bonds errs by at most the sum, over bonds, of the root of the discarded squares.
        Cost: O(d s r^3).
        """
        cores, _, _ = _schmidt_sweep(self.cores, None, None)
        return TensorTrain(cores, self.error_bound)

    def singular_values(self) -> tuple[Tensor, ...]:
        """Singular values of each unfolding (the Schmidt values at each bond), descending. Cost: O(d s r^3)."""
        return _schmidt_sweep(self.cores, None, None)[1]

    def truncate(self, max_rank: int | None = None, tolerance: float | None = None) -> "TensorTrain":
        """The train rounded to smaller bonds (algorithm 2): at most `max_rank`, or to a relative `tolerance`.

        Its own error is exact and is added to `error_bound`. Raises ValueError where `max_rank` < 1 or neither
        limit is given. Cost: O(d s r^3).
        """
        if max_rank is None and tolerance is None:
            raise ValueError("expected max_rank or tolerance, got neither; use canonical() to keep all bonds")
        _check_limits(max_rank, tolerance)
        cores, _, discarded = _schmidt_sweep(self.cores, max_rank, tolerance)
        return TensorTrain(cores, self.error_bound + discarded)


def unfolding_bounds(tensor: Tensor, ranks: Sequence[int]) -> tuple[float, float]:
    """Lower and upper bound on the error of TT-SVD at the bond dimensions `ranks` (Frobenius norm).

    With `e_k` the root of the discarded squares of unfolding k, no train of these ranks comes closer than
    `max_k e_k`, and TT-SVD comes at least as close as `sqrt(sum_k e_k^2)` (Oseledets 2011, theorem 2.2).

    Raises ValueError unless there is one rank per bond. Cost: d - 1 SVDs of the whole tensor.

    >>> unfolding_bounds(torch.diag(torch.tensor([3.0, 2.0, 1.0])), ranks=(1,))
    (2.236..., 2.236...)
    """
    _check_dense(tensor)
    if len(ranks) != tensor.ndim - 1:
        raise ValueError(f"expected one rank for each of {tensor.ndim - 1} bonds, got {tuple(ranks)}")
    tails = [
        _root_of_squares(torch.linalg.svdvals(tensor.reshape(math.prod(tensor.shape[:k]), -1))[rank:])
        for k, rank in enumerate(ranks, start=1)
    ]
    return max(tails, default=0.0), math.hypot(*tails)


def _schmidt_sweep(
    cores: Sequence[Tensor], max_rank: int | None, tolerance: float | None
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], float]:
    """QR from right to left, then SVD from left to right: cores, each bond's spectrum, and the error made."""
    chain = list(cores)
    for k in range(len(chain) - 1, 0, -1):
        core = chain[k]
        q, r = torch.linalg.qr(core.reshape(core.shape[0], -1).mH)
        chain[k] = q.mH.reshape(q.shape[1], *core.shape[1:])
        chain[k - 1] = chain[k - 1] @ r.mH
    # No host read-out when nothing is cut, so that canonical form also works on the meta device.
    budget = None if tolerance is None else _budget(torch.linalg.vector_norm(chain[0]), tolerance, len(chain))
    spectra: list[Tensor] = []
    discarded: list[float] = []
    for k in range(len(chain) - 1):
        core = chain[k]
        u, s, vh = torch.linalg.svd(core.reshape(-1, core.shape[-1]), full_matrices=False)
        kept = _kept(s, max_rank, budget)
        if kept < len(s):
            discarded.append(_root_of_squares(s[kept:]))
        chain[k] = u[:, :kept].reshape(*core.shape[:-1], kept)
        carry = s[:kept, None] * vh[:kept]
        chain[k + 1] = torch.tensordot(carry, chain[k + 1], dims=1)
        spectra.append(s[:kept])
    return tuple(chain), tuple(spectra), math.hypot(*discarded)


def _budget(norm: Tensor, tolerance: float | None, n_sites: int) -> float | None:
    """How much each of the d - 1 cuts may discard for a total relative error of `tolerance`."""
    return None if tolerance is None else tolerance * norm.item() / math.sqrt(max(1, n_sites - 1))


def _kept(s: Tensor, max_rank: int | None, budget: float | None) -> int:
    """How many leading singular values stay: at least 1, at most `max_rank`, tail within `budget`."""
    kept = len(s)
    if budget is not None:
        tails = s.double().square().flip(0).cumsum(0).sqrt().flip(0)  # tails[j]: error of keeping the first j
        kept = max(1, int((tails > budget).sum()))
    return kept if max_rank is None else min(kept, max_rank)


def _root_of_squares(values: Tensor) -> float:
    return torch.linalg.vector_norm(values.double()).item()


def _check_dense(tensor: Tensor) -> None:
    _check_tensor(tensor)
    if tensor.dtype not in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        raise TypeError(f"expected float32/64 or complex64/128 for an SVD, got {tensor.dtype}; convert it first")
    if tensor.ndim == 0 or tensor.numel() == 0:
        raise ValueError(f"expected a tensor with at least one axis and no empty one, got {tuple(tensor.shape)}")
    if not torch.isfinite(tensor).all():
        raise ValueError("expected finite numbers, got NaN or infinity; clean the tensor before compressing it")


def _check_tensor(given: object) -> None:
    """An array is not converted: its dtype (float64, integers) would silently decide that of the cores."""
    if not isinstance(given, Tensor):
        raise TypeError(f"expected a torch tensor, got {type(given).__name__}; pass torch.as_tensor of it")


def _check_limits(max_rank: int | None, tolerance: float | None) -> None:
    if max_rank is not None:
        check_max_rank(max_rank)
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise ValueError(f"expected a finite tolerance of at least 0, got {tolerance}")
