"""Multiplying vectors by an operator train: reconstruct the matrix, or contract core by core.

One family of plans covers both. Neighbouring cores are first merged into groups; the vectors then pass the
groups one after the other. One group is reconstruction followed by a dense product; one core per group is plain
contraction; what lies between is often the fastest contraction, since merged cores make large products.

Axes: b vector, r/q left/right bond, m/n row/column of a core, w columns still to be contracted, p vectors times
rows already produced.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Site = tuple[int, int, int, int]  # shape (r, m, n, q) of a core
T = TypeVar("T")

FLOPS_PER_BYTE = 16
"""What moving one byte costs, in flops of a large product: the one fitted number of the rule.

Measured by `benchmarks/tt_linear.py` on one thread of a shared AMD EPYC core, 128 to 1,024 features, ranks 2 to 16,
1 to 2,048 tokens, with and without backward. The rule names the faster form in 249 of 288 cases, and in 222 of the
238 where the two differ by more than a quarter; its time over that of the faster form is 1.06 in the geometric mean
(always to reconstruct 1.93, always to contract 1.38). Among all plans (`--fit`) its pick takes 1.14 times the
fastest, 1.27 with flops alone, and any price from 8 to 120 does as well. Most of its errors are reconstructions that
it misses when a small layer is trained. Accelerators were not measured: there the form may be the slower one, never
the result another.
"""


@dataclass(frozen=True)
class Work:
    """What a plan does, counted from shapes: flops of all products, and bytes that pass (at 4 per number).

    Bytes are what products read and write, an operand shared by a batch counted once per entry (so small batched
    products, which are slow, are dear), and what is copied to reorder axes.

    >>> (Work(flops=2, bytes=8) + Work(flops=3)).cost
    133
    """

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    @property
    def cost(self) -> int:
        """`flops + FLOPS_PER_BYTE * bytes`: orders plans, predicts no time."""
        return self.flops + FLOPS_PER_BYTE * self.bytes


@dataclass(frozen=True)
class Plan:
    """One way to multiply: sizes of the groups of merged cores, from which end they are applied, and the work.

    >>> Plan((3,), False, Work(flops=10)).form, Plan((1, 2), True, Work(flops=10)).form
    ('reconstruct', 'contract')
    """

    groups: tuple[int, ...]
    from_right: bool
    work: Work

    @property
    def form(self) -> str:
        """Either "reconstruct", where all cores are merged to the matrix, or "contract"."""
        return "reconstruct" if len(self.groups) == 1 else "contract"


@dataclass(frozen=True)
class Choice:
    """Both forms for one shape, and the rule's pick.

    `contract` is the cheapest contraction (None for a single core, which is the matrix itself).
    """

    reconstruct: Plan
    contract: Plan | None

    @property
    def picked(self) -> Plan:
        """The plan of smaller cost."""
        if self.contract is None or self.reconstruct.work.cost <= self.contract.work.cost:
            return self.reconstruct
        return self.contract

    @property
    def form(self) -> str:
        """Either "reconstruct" or "contract"."""
        return self.picked.form

    @property
    def flops(self) -> int:
        """Counted flops of the picked plan."""
        return self.picked.work.flops


@lru_cache(maxsize=4096)
def choose(sites: tuple[Site, ...], n_vectors: int) -> Choice:
    """The cheapest reconstruction and the cheapest contraction for `n_vectors`, from counted work alone.

    All `2^(d-1)` groupings are counted from both ends. A pure function of shapes, hence remembered.

    >>> sites = ((1, 8, 4, 4), (4, 4, 4, 4), (4, 4, 8, 1))
    >>> choose(sites, 1).form, choose(sites, 4096).form
    ('contract', 'reconstruct')
    """
    reconstruct, *contractions = possible_plans(sites, n_vectors)
    return Choice(reconstruct, min(contractions, key=lambda plan: plan.work.cost, default=None))


GRAPH_VECTORS = 1024
"""What a graph of `torch.compile` is planned for: its batch may vary from call to call."""


@torch.compiler.assume_constant_result
def chosen_for_graphs(sites: tuple[Site, ...]) -> tuple[tuple[int, ...], bool]:
    """`choose` in a form that `torch.compile` can hold: the picked plan's groups and direction for 1,024 vectors.

    >>> chosen_for_graphs(((1, 8, 4, 4), (4, 4, 4, 4), (4, 4, 8, 1)))
    ((3,), True)
    """
    plan = choose(sites, GRAPH_VECTORS).picked
    return plan.groups, plan.from_right


def possible_plans(sites: Sequence[Site], n_vectors: int) -> list[Plan]:
    """Every grouping of neighbouring cores, from either end, with its counted work; the first is to reconstruct.

    >>> [plan.groups for plan in possible_plans(((1, 2, 2, 2), (2, 2, 2, 1)), 1)]
    [(2,), (1, 1), (1, 1)]
    """
    return [
        Plan(groups, from_right, count_work(sites, groups, from_right, n_vectors))
        for groups in _compositions(len(sites))
        for from_right in ((True,) if len(groups) == 1 else (True, False))
    ]


def multiply(x: Tensor, cores: Sequence[Tensor], plan: Plan, bias: Tensor | None = None) -> Tensor:
    """`x W^T + bias` for vectors `x` `(b, n)` and the matrix W `(m, n)` that `cores` represent, as `plan` says.

    Every plan gives the same numbers up to rounding. Cost: `plan.work`.

    >>> cores = (torch.ones(1, 2, 3, 2), torch.ones(2, 2, 2, 1))
    >>> multiply(torch.ones(1, 6), cores, Plan((1, 1), False, Work()))
    tensor([[12., 12., 12., 12.]])
    """
    merged = [_merge(group) for group in _grouped(cores, plan.groups)]
    if len(merged) == 1:
        return F.linear(x, merged[0].reshape(merged[0].shape[1:3]), bias)
    y = _apply_from_right(x, merged) if plan.from_right else _apply_from_left(x, merged)
    return y if bias is None else y + bias


def multiply_masked(x: Tensor, cores: Sequence[Tensor], ranks: Tensor, bias: Tensor | None = None) -> Tensor:
    """The oracle for per-vector ranks: `x W^T + bias`, bond entries at or above each vector's rank set to zero.

    `x` `(b, n)`, `ranks` `(b,)`. It is written to be read, and saves nothing: all work is done at full rank.
    """
    batch, rest = x.shape
    rows, state = 1, x
    for core in cores:
        r, m, n, q = core.shape
        rest //= n
        state = torch.einsum("bprnw,rmnq->bpmqw", state.reshape(batch, rows, r, n, rest), core)
        keep = torch.arange(q, device=x.device) < ranks[:, None]
        state = state * keep.to(state.dtype)[:, None, None, :, None]
        rows *= m
    y = state.reshape(batch, rows)
    return y if bias is None else y + bias


def reconstruct(cores: Sequence[Tensor]) -> Tensor:
    """The matrix `(m_1..m_d, n_1..n_d)` of operator cores.

    >>> reconstruct((torch.ones(1, 2, 3, 2), torch.ones(2, 2, 2, 1))).shape
    torch.Size([4, 6])
    """
    merged = _merge(cores)
    return merged.reshape(merged.shape[1:3])


def count_work(sites: Sequence[Site], groups: Sequence[int], from_right: bool, n_vectors: int) -> Work:
    """Counted work of one plan: merging each group, then one product per group.

    >>> count_work(((1, 4, 8, 1),), (1,), False, 10).flops
    640
    """
    work = Work()
    merged: list[Site] = []
    for group in _grouped(sites, groups):
        work += _merge_work(group)
        merged.append((group[0][0], math.prod(s[1] for s in group), math.prod(s[2] for s in group), group[-1][3]))
    produced, rest = 1, math.prod(site[2] for site in sites)
    if from_right:  # the mirror image: rows and columns change roles in what is left and what is produced
        merged = [(q, m, n, r) for r, m, n, q in reversed(merged)]
    for left, m, n, right in merged:
        rest //= n
        # From the left, b * rows produced are outer and columns left inner; from the right the other way round.
        outer, inner = (n_vectors * rest, produced) if from_right else (n_vectors * produced, rest)
        work += product_work(outer, m * right, left * n, inner)
        if not from_right:
            work += Work(bytes=8 * left * m * n * right)  # the core's axes are reordered first
        produced *= m
    return work


def product_work(outer: int, rows: int, shared: int, inner: int) -> Work:
    """Work of one `product`; a plain matrix product where `inner` is 1.

    >>> product_work(outer=10, rows=2, shared=3, inner=1)
    Work(flops=120, bytes=224)
    """
    flops = 2 * outer * rows * shared * inner
    streamed = outer * inner * (rows + shared)
    return Work(flops, 4 * (streamed + (1 if inner == 1 else outer) * rows * shared))


def _merge_work(group: Sequence[Site]) -> Work:
    work, held = Work(), 1
    for position, (left, m, n, right) in enumerate(group):
        if position:
            work += product_work(held, m * n * right, left, 1)
        held *= m * n if position else left * m * n
    moved = 8 * held * group[-1][3] if len(group) > 1 else 0
    return work + Work(bytes=moved)


def _merge(cores: Sequence[Tensor]) -> Tensor:
    """Neighbouring cores as one core (r, m_1 m_2.., n_1 n_2.., q)."""
    if len(cores) == 1:
        return cores[0]
    left, right = cores[0].shape[0], cores[-1].shape[3]
    chain = cores[0].reshape(-1, cores[0].shape[3])
    for core in cores[1:]:
        chain = (chain @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[3])
    sizes = [size for core in cores for size in core.shape[1:3]]
    last = len(sizes) + 1
    ordered = chain.reshape(left, *sizes, right).permute(0, *range(1, last, 2), *range(2, last, 2), last)
    return ordered.reshape(left, math.prod(sizes[0::2]), math.prod(sizes[1::2]), right)


def _apply_from_left(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """First core first. The state is (p, r n, w); a product leaves (p, m q, w), and q is next to the next n."""
    outer, rest, state = len(x), x.shape[1], x
    for core in cores:
        r, m, n, q = core.shape
        rest //= n
        matrix = core.permute(1, 3, 0, 2).reshape(m * q, r * n)
        state = product(matrix, state.reshape(outer, r * n, rest))
        outer *= m
    return state.reshape(len(x), math.prod(core.shape[1] for core in cores))


def _apply_from_right(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """Last core first: the mirror image, (b w, n q, rows produced) to (b w, r m, rows produced)."""
    outer, rows, state = x.numel(), 1, x
    for core in reversed(cores):
        r, m, n, q = core.shape
        outer //= n
        state = product(core.reshape(r * m, n * q), state.reshape(outer, n * q, rows))
        rows *= m
    return state.reshape(len(x), rows)


def product(matrix: Tensor, state: Tensor) -> Tensor:
    """`matrix` (rows, shared) times `state` (outer, shared, inner): (outer, rows, inner), or (outer, rows) for inner 1.

    >>> product(torch.ones(2, 3), torch.ones(5, 3, 4)).shape
    torch.Size([5, 2, 4])
    """
    if state.shape[2] == 1:
        return F.linear(state.squeeze(2), matrix)
    return torch.matmul(matrix, state)


def _grouped(items: Sequence[T], groups: Sequence[int]) -> Iterator[Sequence[T]]:
    ends = list(itertools.accumulate(groups))
    return (items[end - size : end] for end, size in zip(ends, groups, strict=True))


def _compositions(total: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as an ordered sum of positive integers: (3,), (1, 2), (2, 1), (1, 1, 1)."""
    for n_cuts in range(total):
        for cuts in itertools.combinations(range(1, total), n_cuts):
            yield tuple(b - a for a, b in itertools.pairwise((0, *cuts, total)))
