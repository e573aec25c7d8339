"""Ranks, correlations, AUC, their intervals and the lines of random states: against brute force and simulation."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from qlm import entropy_statistics as statistics
from qlm.entropy_table import CONTROLS, Cut, EntropyRow, EntropyTable, Measurement


def ranks_by_counting(values: list[float]) -> list[float]:
    return [1 + sum(b < a for b in values) + (values.count(a) - 1) / 2 for a in values]


@pytest.mark.parametrize("levels", [3, 50])
def test_rank_statistics_against_brute_force(levels: int) -> None:
    generator = np.random.default_rng(levels)
    a, b = (generator.integers(levels, size=40).astype(float) for _ in range(2))
    assert statistics.ranks(a).tolist() == ranks_by_counting(a.tolist())
    brute = np.corrcoef(ranks_by_counting(a.tolist()), ranks_by_counting(b.tolist()))[0, 1]
    assert statistics.spearman(a, b) == pytest.approx(brute, abs=1e-12)
    assert statistics.pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    pairs = [float(x > y) + float(x == y) / 2 for x in a for y in b]
    assert statistics.auc(a, b) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert statistics.auc(a, b) + statistics.auc(b, a) == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(ValueError, match="at least one number"):
        statistics.auc([], b)


def first_mean(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.mean())


def covers(draw: Callable[[np.random.Generator], np.ndarray], n_texts: int = 100) -> float:
    """Share of texts whose interval for the mean holds the true mean, 0."""
    generator = np.random.default_rng(0)
    texts = [draw(generator) for _ in range(n_texts)]
    return (
        sum(not statistics.bootstrap(first_mean, text, text, k).excludes(0.0) for k, text in enumerate(texts)) / n_texts
    )


def test_intervals_cover() -> None:
    share = covers(lambda generator: generator.standard_normal(120))
    assert 0.85 < share < 1.0  # 0.95 less a small-sample loss, with 4 standard errors of 100 texts


def test_intervals_know_that_neighbours_depend_on_each_other() -> None:
    """A walk with memory has a wider interval than the same numbers in random order."""
    generator = np.random.default_rng(1)
    steps = generator.standard_normal(400)
    walk = np.array([sum(0.8**lag * steps[t - lag] for lag in range(30)) for t in range(400)])
    mixed = generator.permutation(walk)
    widths = [found.high - found.low for found in (statistics.bootstrap(first_mean, c, c, 0) for c in (walk, mixed))]
    assert widths[0] > 1.5 * widths[1]


def test_bootstrap_draws_pairs_and_repeats_itself() -> None:
    a = np.arange(20.0)
    same = statistics.bootstrap(lambda x, y: float(np.abs(x - y).max()), a, a, 0)
    assert same == statistics.Statistic(0.0, 0.0, 0.0)
    noisy = np.random.default_rng(0).standard_normal(20)
    assert statistics.bootstrap(statistics.auc, a, noisy, 4) == statistics.bootstrap(statistics.auc, a, noisy, 4)
    assert statistics.bootstrap(statistics.auc, a, noisy, 4) != statistics.bootstrap(statistics.auc, a, noisy, 5)


@pytest.mark.parametrize("wires", [(0,), (0, 1)])
def test_reference_lines_are_those_of_haar_random_states(wires: tuple[int, ...]) -> None:
    generator = np.random.default_rng(2)
    states = generator.standard_normal((4000, 16)) + 1j * generator.standard_normal((4000, 16))
    matrices = (states / np.linalg.norm(states, axis=1, keepdims=True)).reshape(4000, 2 ** len(wires), -1)
    spectra = np.linalg.svd(matrices, compute_uv=False) ** 2
    cut = Cut("a", 4, wires)
    entropies = -(spectra * np.log(spectra)).sum(1)
    page = statistics.haar_entropy(cut, "von_neumann")
    assert abs(entropies.mean() - page) < 4 * entropies.std() / math.sqrt(4000)
    purities = (spectra**2).sum(1)
    mean_purity = math.exp(-statistics.haar_entropy(cut, "renyi2"))
    assert abs(purities.mean() - mean_purity) < 4 * purities.std() / math.sqrt(4000)
    assert page < cut.max_entropy


def test_summary_of_known_columns() -> None:
    about = Measurement("statevector", "von_neumann", 0, None, False, 9, 8, "abc", (Cut("0.r", 2, (0,)),))
    entropies = {"trained": (0.1, 0.2, 0.6), "untrained": (0.0, 0.1, 0.3), "shuffled": (0.3, 0.3, 0.3)}
    rows = [
        EntropyRow(k, "x", k, k + 1, "0.r", (0,), control, entropies[control][k], 0.0, None, None, (3.0, 2.0, 1.0)[k])
        for control in CONTROLS
        for k in range(3)
    ]
    (summary,) = EntropyTable.from_rows(about, rows).summary()
    assert summary.spread["trained"].mean == pytest.approx(0.3)
    assert summary.spread["trained"].sd == pytest.approx(math.sqrt(0.14 / 3))
    assert summary.spread["shuffled"].sd == 0.0
    assert summary.spearman is not None
    assert summary.spearman.value == pytest.approx(-1.0)
    untrained = summary.spearman_controls["untrained"]
    assert untrained is not None
    assert untrained.value == pytest.approx(-1.0)
    assert summary.spearman_controls["shuffled"] is summary.spearman_beyond["shuffled"] is None
    beyond = summary.spearman_beyond["untrained"]
    assert beyond is not None
    assert (beyond.value, beyond.low, beyond.high) == pytest.approx((0.0, 0.0, 0.0))
    assert summary.auc_untrained.value == pytest.approx(6.5 / 9)
    assert summary.auc_shuffled.value == pytest.approx(1 / 3)
    assert summary.max_entropy == pytest.approx(math.log(2))
    assert summary.certified is None


def test_correlation_to_surprisal_is_set_against_that_of_the_controls() -> None:
    """Trained entropies that follow surprisal beside controls that do not: the difference says so, tokens in pairs."""
    rng = np.random.default_rng(0)
    n = 300
    surprisal = rng.normal(size=n)
    columns = {
        "trained": surprisal + 0.5 * rng.normal(size=n),
        "untrained": rng.normal(size=n),
        "shuffled": surprisal + 0.5 * rng.normal(size=n),
    }
    about = Measurement("statevector", "von_neumann", 0, None, False, n, 8, "x" * n, (Cut("0.r", 2, (0,)),))
    rows = [
        EntropyRow(k, "x", k, k + 1, "0.r", (0,), control, columns[control][k], 0.0, None, None, surprisal[k])
        for control in CONTROLS
        for k in range(n)
    ]
    (summary,) = EntropyTable.from_rows(about, rows).summary()
    far, near = (summary.spearman_beyond[control] for control in ("untrained", "shuffled"))
    assert far is not None
    assert near is not None
    expected = statistics.spearman(columns["trained"], surprisal) - statistics.spearman(columns["untrained"], surprisal)
    assert far.value == pytest.approx(expected, abs=1e-8)  # entropies are ranked after rounding to 1e-9
    assert far.low > 0.5
    assert far.excludes(0.0)
    assert not near.excludes(0.0)
    # The same resample of tokens for both columns: narrower than two intervals side by side.
    both = [statistics.bootstrap(statistics.spearman, columns[c], surprisal, 0) for c in ("trained", "shuffled")]
    assert near.high - near.low < sum(one.high - one.low for one in both)
