"""What an entropy table says: means, correlation to surprisal, separation from the controls, reference lines.

Axis legend: n tokens, in the order of the text.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backends.linalg import page_entropy
from qlm.entropy_table import CONTROLS, Cut, EntropyTable

N_RESAMPLES = 1000
_RESOLUTION = 9
"""Decimals beyond which entropies count as equal: rounding noise must not be ranked."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Statistic:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval leaves a value out."""
        return not self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (over the tokens, ddof 0) of one control's entropies, nats."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """One block's entropies in figures (nats).

    ``spread`` by control; ``spearman`` and ``pearson`` of the trained entropies with surprisal, None where one of them
    does not vary; ``spearman_controls``: the same of each control's entropies, and ``spearman_beyond``: how much larger
    the trained rank correlation is (a difference of two on the same tokens), by control. ``auc_untrained`` and
    ``auc_shuffled``: probability that a random trained token's entropy exceeds a random one of that control (ties count
    half; 0.5: no difference). ``haar_entropy``: mean for random states. ``certified``: share of the trained tokens with
    S2(A) > S2(AB) beyond the error, None where not tested.
    """

    block: str
    spread: dict[str, Spread]
    spearman: Statistic | None
    pearson: Statistic | None
    spearman_controls: dict[str, Statistic | None]
    spearman_beyond: dict[str, Statistic | None]
    auc_untrained: Statistic
    auc_shuffled: Statistic
    max_entropy: float
    haar_entropy: float
    certified: float | None


def summarise(table: EntropyTable, block: str) -> BlockSummary:
    """Return the figures of one block. Cost: ``N_RESAMPLES`` sorts of n numbers per interval."""
    parts = {control: table.select(control, block) for control in CONTROLS}
    entropies = {control: _rounded(part.entropy) for control, part in parts.items()}
    trained, surprisal = entropies["trained"], np.asarray(parts["trained"].surprisal)
    seed = table.about.seed
    tested = [flag for flag in parts["trained"].certified() if flag is not None]
    cut = table.about.cut(block)
    return BlockSummary(
        block,
        {control: Spread(float(values.mean()), float(values.std())) for control, values in entropies.items()},
        _correlation(spearman, trained, surprisal, seed),
        _correlation(pearson, trained, surprisal, seed),
        {control: _correlation(spearman, entropies[control], surprisal, seed) for control in CONTROLS[1:]},
        {control: _beyond(trained, entropies[control], surprisal, seed) for control in CONTROLS[1:]},
        bootstrap(auc, trained, entropies["untrained"], seed),
        bootstrap(auc, trained, entropies["shuffled"], seed),
        cut.max_entropy,
        haar_entropy(cut, table.about.kind),
        sum(tested) / len(tested) if tested else None,
    )


def _rounded(values: ArrayLike) -> Array:
    return np.round(np.asarray(values, dtype=np.float64), _RESOLUTION)


def _correlation(statistic: Callable[[Array, Array], float], a: Array, b: Array, seed: int) -> Statistic | None:
    return None if np.ptp(a) == 0 or np.ptp(b) == 0 else bootstrap(statistic, a, b, seed)


def _beyond(trained: Array, control: Array, surprisal: Array, seed: int) -> Statistic | None:
    """Rank correlation of the trained entropies with surprisal minus that of a control's, both on the same tokens."""
    if any(np.ptp(column) == 0 for column in (trained, control, surprisal)):
        return None

    def difference(both: Array, to: Array) -> float:
        return spearman(both[:, 0], to) - spearman(both[:, 1], to)

    return bootstrap(difference, np.stack((trained, control), 1), surprisal, seed)


def ranks(values: ArrayLike) -> Array:
    """Return ranks from 1, ties averaged, shape (n,). Cost n log n.

    >>> ranks([3.0, 1.0, 3.0]).tolist()
    [2.5, 1.0, 2.5]
    """
    array = np.asarray(values, dtype=np.float64)
    ordered = np.sort(array)
    below, upto = np.searchsorted(ordered, array, "left"), np.searchsorted(ordered, array, "right")
    return (below + upto + 1) / 2


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Return the linear correlation of two columns; NaN where one of them does not vary.

    >>> round(pearson([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 12)
    1.0
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm > 0 else math.nan


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Return the correlation of the ranks; NaN where one column does not vary.

    >>> spearman([1.0, 2.0, 3.0], [1.0, 10.0, 5.0])
    0.5
    """
    return pearson(ranks(a), ranks(b))


def auc(a: ArrayLike, b: ArrayLike) -> float:
    """Return ``P(x > y) + P(x = y) / 2`` for x drawn from a and y from b: the area under the ROC curve.

    >>> auc([1.0, 3.0], [2.0, 1.0])
    0.625
    """
    x, y = np.asarray(a, dtype=np.float64), np.sort(np.asarray(b, dtype=np.float64))
    if not len(x) or not len(y):
        raise ValueError(f"auc expects at least one number on each side, got {len(x)} and {len(y)}; measure more.")
    wins = np.searchsorted(y, x, "left") + np.searchsorted(y, x, "right")
    return float(wins.sum()) / (2 * len(x) * len(y))


def bootstrap(statistic: Callable[[Array, Array], float], a: Array, b: Array, seed: int) -> Statistic:
    """Return the statistic of two columns (n, ...) with its 95 % percentile interval over tokens.

    Tokens are drawn in pairs, both columns at once, and in runs of about ``n**(1/3)`` neighbours on a circle, because
    neighbouring tokens of a text are not independent. Resamples on which the statistic is undefined are left out. The
    interval speaks about tokens of such a text under this one model; it knows nothing of other training seeds.

    Source: the circular block bootstrap, Politis and Romano 1992.

    >>> bootstrap(auc, np.arange(9.0) + 9, np.arange(9.0), seed=0)
    Statistic(value=1.0, low=1.0, high=1.0)
    """
    n = len(a)
    length = max(1, round(n ** (1 / 3)))
    generator = np.random.default_rng(seed)
    starts = generator.integers(n, size=(N_RESAMPLES, -(-n // length), 1))
    drawn = ((starts + np.arange(length)) % n).reshape(N_RESAMPLES, -1)[:, :n]
    values = np.array([statistic(a[rows], b[rows]) for rows in drawn])
    value = statistic(a, b)
    defined = values[np.isfinite(values)]
    low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (math.nan, math.nan)
    return Statistic(value, float(low), float(high))


def haar_entropy(cut: Cut, kind: str) -> float:
    """Return the reference for random states of a cut in nats.

    "von_neumann": the Page mean. "renyi2": ``-log`` of the mean purity ``(m + n) / (m n + 1)`` (Lubkin 1978), a lower
    bound on the mean, since -log is convex.
    """
    m, n = 2 ** len(cut.wires), 2 ** (cut.n_wires - len(cut.wires))
    return page_entropy(m, n) if kind == "von_neumann" else -math.log((m + n) / (m * n + 1))
