"""How a dimension is split over the cores of a tensor train, and how large its bonds can be."""

import math
from collections.abc import Sequence


def balanced_factors(size: int, n_factors: int) -> tuple[int, ...]:
    """The most balanced factorisation of `size` into `n_factors` integers, largest first.

    Of all factorisations it is the one with the smallest sum (by the AM-GM inequality the nearest to equal
    factors). A prime has only the trivial one, `(size, 1, 1)`, which is legal and compresses little.

    Raises TypeError unless both numbers are integers, ValueError unless at least 1. Cost: a search over the
    divisors of `size`.

    >>> balanced_factors(128, 3)
    (8, 4, 4)
    """
    for number in (size, n_factors):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"expected a size and a number of factors as integers, got {number!r}; pass 1 or more")
    if size < 1 or n_factors < 1:
        raise ValueError(f"expected a size and a number of factors of at least 1, got {size} and {n_factors}")
    divisors = [k for k in range(1, size + 1) if size % k == 0]
    best = _search(size, n_factors, size, divisors)
    assert best is not None  # (size, 1, ..., 1) is always among the candidates
    return best


def _search(size: int, n_factors: int, largest: int, divisors: Sequence[int]) -> tuple[int, ...] | None:
    """Smallest-sum factorisation with no factor above `largest`, in descending order; None where there is none."""
    if n_factors == 1:
        return (size,) if size <= largest else None
    best: tuple[int, ...] | None = None
    for first in divisors:
        if first > largest or size % first or first**n_factors < size:
            continue
        tail = _search(size // first, n_factors - 1, first, divisors)
        if tail is not None and (best is None or first + sum(tail) < sum(best)):
            best = (first, *tail)
    return best


def padded_factors(size: int, n_factors: int) -> tuple[int, ...]:
    """Factors, largest first, whose product is at least `size`: exact when that is balanced, padded when not.

    The exact factorisation is taken when its largest factor is at most twice the even share
    `ceil(size ** (1 / n_factors))`; else each factor is the even share of what the factors before it left.

    Raises ValueError unless both numbers are at least 1.

    >>> padded_factors(256, 3), padded_factors(50257, 3)
    ((8, 8, 4), (37, 37, 37))
    """
    exact = balanced_factors(size, n_factors)
    share = _ceil_root(size, n_factors)
    if exact[0] <= 2 * share:
        return exact
    factors, left = [], size
    for remaining in range(n_factors, 0, -1):
        factors.append(_ceil_root(left, remaining))
        left = -(-left // factors[-1])
    return tuple(factors)


def _ceil_root(size: int, degree: int) -> int:
    """Smallest integer whose `degree`-th power is at least `size` (no rounding error, unlike `size ** (1/degree)`)."""
    root = max(1, round(size ** (1 / degree)) - 1)
    while root**degree < size:
        root += 1
    return root


def bond_ranks(site_sizes: Sequence[int], max_rank: int) -> tuple[int, ...]:
    """Bond dimensions `(1, r_1, ..., r_{d-1}, 1)` of a train capped at `max_rank`.

    A bond never needs more than the product of the site sizes on either of its sides, so `r_k = min(max_rank,
    prod(s_1..s_k), prod(s_{k+1}..s_d))` holds every tensor that a train of rank `max_rank` can hold.

    Raises as `check_max_rank`.

    >>> bond_ranks((32, 16, 32), 4), bond_ranks((4, 4, 4), 99)
    ((1, 4, 4, 1), (1, 4, 4, 1))
    """
    check_max_rank(max_rank)
    cuts = range(1, len(site_sizes))
    inner = (min(max_rank, math.prod(site_sizes[:k]), math.prod(site_sizes[k:])) for k in cuts)
    return (1, *inner, 1)


def check_max_rank(max_rank: int) -> None:
    """Raise TypeError unless `max_rank` is an integer (True is none), ValueError unless it is at least 1.

    >>> check_max_rank(8)
    """
    if isinstance(max_rank, bool) or not isinstance(max_rank, int):
        raise TypeError(f"expected max_rank to be an integer, got {max_rank!r}; pass 1 or more")
    if max_rank < 1:
        raise ValueError(f"expected max_rank of at least 1, got {max_rank}; rank 1 is the smallest bond")


def split_sizes(
    n_rows: int, n_columns: int, rows: Sequence[int] | None, columns: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Factorisations of a matrix' two sides: the given ones, checked, or balanced ones over three cores.

    Chosen rows descend and chosen columns ascend, so that no core is large in both and the products
    `m_k n_k` are even: 128 x 128 becomes rows (8, 4, 4) and columns (4, 4, 8). Where only one side is given,
    the other gets as many factors.

    Raises ValueError when a product or the two numbers of factors do not match.

    >>> split_sizes(128, 128, None, None)
    ((8, 4, 4), (4, 4, 8))
    """
    n_cores = len(rows or columns or (0, 0, 0))
    chosen_rows = tuple(rows) if rows else balanced_factors(n_rows, n_cores)
    chosen_columns = tuple(columns) if columns else balanced_factors(n_columns, n_cores)[::-1]
    for name, factors, size in (("rows", chosen_rows, n_rows), ("columns", chosen_columns, n_columns)):
        check_factors(name, factors)
        if math.prod(factors) != size:
            raise ValueError(
                f"expected {name} whose product is {size}, got {factors} with product {math.prod(factors)}; "
                f"{balanced_factors(size, len(factors))} would do"
            )
    if len(chosen_rows) != len(chosen_columns):
        raise ValueError(
            f"expected as many rows as columns (one pair per core), got {chosen_rows} and {chosen_columns}; "
            "pad the shorter with ones"
        )
    return chosen_rows, chosen_columns


def check_factors(name: str, factors: Sequence[int]) -> None:
    """Raise ValueError unless `factors` holds at least one integer and all are at least 1.

    >>> check_factors("rows", (8, 4, 4))
    """
    if not factors or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in factors):
        raise ValueError(f"expected {name} to be integers of at least 1, got {tuple(factors)}; e.g. (8, 4, 4)")
