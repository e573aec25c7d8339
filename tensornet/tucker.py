"""Tucker decompositions as values.

Axes: n_k modes of a tensor, r_k their ranks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tensornet.contraction import Work, product, product_work
from tensornet.factorise import check_max_rank


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
        return multiply_modes(self.core, self.factors, 1).reshape([len(factor) for factor in self.factors])


def multiply_modes(state: Tensor, matrices: Sequence[Tensor], outer: int, inner: int = 1) -> Tensor:
    """Multiply mode k of `state` (outer, shared_1..shared_d, inner) by matrices (rows_k, shared_k), the last first.

    Returns any shape of (outer, rows_1..rows_d, inner).

    >>> multiply_modes(torch.ones(1, 2, 3), [torch.ones(4, 2), torch.ones(5, 3)], outer=1).numel()
    20
    """
    for k in reversed(range(len(matrices))):
        before = outer * math.prod(matrix.shape[1] for matrix in matrices[:k])
        state = product(matrices[k], state.reshape(before, matrices[k].shape[1], inner))
        inner *= len(matrices[k])
    return state


def modes_work(shapes: Sequence[tuple[int, int]], outer: int, inner: int = 1) -> Work:
    """Work of `multiply_modes` for matrices of these shapes (rows, shared).

    >>> modes_work([(4, 2), (5, 3)], outer=1).flops
    140
    """
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
