"""The main job's table: the hybrid beside its twin, n-grams and xz; and what the numbers do and do not say."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from qlm.compression import xz_bits_per_byte
from qlm.data import Corpus
from qlm.evaluation import Evaluation
from qlm.intervals import t_interval
from qlm.ngram import WittenBell
from qlm.runs import RunFolder

MARGIN = 0.4
"""Bits per byte by which the hybrid should beat the n-gram of order 3."""
NOTICED = 1e-3
"""Bits per byte below which a circuit's output counts as ignored."""


@dataclass(frozen=True)
class Baselines:
    """Validation bits per byte of models without a gradient: byte n-grams (Witten-Bell) and xz.

    >>> Baselines(3.0, 2.5, 3.1, 2.4).order_6
    2.5
    """

    order_3: float
    order_6: float
    xz_alone: float
    xz_given: float


@dataclass(frozen=True)
class Result:
    """One model of one seed: where it is, how it trained and what it is worth."""

    folder: RunFolder
    tokens_per_second: float
    circuit_executions: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Pair:
    """A hybrid and its twin from the same data, steps and seed."""

    seed: int
    hybrid: Result
    twin: Result

    @property
    def difference(self) -> float:
        """Bits per byte of the hybrid minus those of the twin; below 0 the hybrid is better."""
        return self.hybrid.evaluation.bits_per_byte - self.twin.evaluation.bits_per_byte


def measure_baselines(corpus: Corpus) -> Baselines:
    """Fit on the training text, measure on the validation text."""
    order_3, order_6 = (WittenBell(order).fit(corpus.train).bits_per_byte(corpus.valid) for order in (3, 6))
    given = xz_bits_per_byte(corpus.valid, given=corpus.train)
    return Baselines(order_3, order_6, xz_bits_per_byte(corpus.valid), given)


def comparison_table(pairs: Sequence[Pair], baselines: Baselines) -> Table:
    """Return the table; with several seeds, a model's figures are means over them."""
    table = Table(
        title="Validation text, one row per model",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    table.add_column("model", no_wrap=True)
    columns = (
        "bits per\nbyte",
        "core,\nembedding",
        "training\ntokens/s",
        "circuit\nexecutions",
        "quantum\npath",
        "circuit's\ngradient\nnorm",
        "bits lost\nwith mean\noutput",
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    several = f", {len(pairs)} seeds" if len(pairs) > 1 else ""
    table.add_row(f"hybrid{several}", *_figures([pair.hybrid for pair in pairs]), style="bold")
    table.add_row(f"twin{several}", *_figures([pair.twin for pair in pairs]))
    table.add_section()
    for name, value in (
        ("n-gram, order 3", baselines.order_3),
        ("n-gram, order 6", baselines.order_6),
        ("xz alone", baselines.xz_alone),
        ("xz given training text", baselines.xz_given),
    ):
        table.add_row(name, f"{value:.3f}", *["-"] * (len(columns) - 1))
    return table


def verdicts(pairs: Sequence[Pair], baselines: Baselines) -> list[str]:
    """Return what follows from the numbers, in words, whichever way they fall."""
    hybrid = _mean([pair.hybrid.evaluation.bits_per_byte for pair in pairs])
    ahead = baselines.order_3 - hybrid
    order_3 = "reaches" if ahead >= MARGIN else "misses"
    parts = pairs[0].hybrid.evaluation.parameters, pairs[0].twin.evaluation.parameters
    return [
        f"The replaced part alone: {parts[0].circuit} weights in circuits, {parts[1].twin} parameters in the twin.",
        _twin_verdict(pairs),
        _use_verdict(_mean([pair.hybrid.evaluation.ablation_change for pair in pairs])),
        f"Hybrid and n-gram of order 3: {_gap(ahead)}; it {order_3} the aim of {MARGIN} bits per byte.",
        f"Hybrid and n-gram of order 6: {_gap(baselines.order_6 - hybrid)}.",
        f"Hybrid and xz alone: {_gap(baselines.xz_alone - hybrid)}.",
        f"Hybrid and xz given the training text: {_gap(baselines.xz_given - hybrid)}.",
    ]


def _twin_verdict(pairs: Sequence[Pair]) -> str:
    if len(pairs) < 2:
        return (
            f"Hybrid minus twin: {pairs[0].difference:+.4f} bits per byte. One seed cannot tell the hybrid from its "
            "twin; --seeds 5 gives the difference with its interval."
        )
    interval = t_interval([pair.difference for pair in pairs])
    said = (
        "holds 0: these seeds do not tell the hybrid from its twin"
        if interval.holds_zero
        else f"leaves 0 out: on this text the {'hybrid' if interval.mean < 0 else 'twin'} is better"
    )
    return (
        f"Hybrid minus twin, paired over {interval.n} seeds: {interval.mean:+.4f} bits per byte, 95 % t-interval "
        f"[{interval.low:+.4f}, {interval.high:+.4f}], which {said}."
    )


def _use_verdict(change: float) -> str:
    """What the hybrid loses without its circuit's output."""
    said = f"Replacing the circuit's output by its mean changes the hybrid by {_signed(change)} bits per byte"
    if abs(change) < NOTICED:
        return f"{said}: it all but ignores what its circuit computes."
    return f"{said}: it {'relies on' if change > 0 else 'would be better without'} what its circuit computes."


def _signed(change: float) -> str:
    """Four decimals with a sign; 0 has none."""
    rounded = round(change, 4)
    return f"{rounded:+.4f}" if rounded else "0.0000"


def _gap(ahead: float) -> str:
    """By how much the hybrid is ahead of (or behind) a baseline."""
    return f"the hybrid is {abs(ahead):.3f} bits per byte {'better' if ahead > 0 else 'worse'}"


def _figures(results: Sequence[Result]) -> list[str]:
    evaluations = [result.evaluation for result in results]
    counted = evaluations[0].parameters
    executions = _mean([result.circuit_executions for result in results])
    return [
        f"{_mean([found.bits_per_byte for found in evaluations]):.3f}",
        f"{counted.core:,}\n{counted.embedding:,}",
        f"{_mean([result.tokens_per_second for result in results]):,.0f}",
        f"{executions:,.0f}",
        f"{_mean([found.routed_share for found in evaluations]):.0%}",
        f"{_mean([found.circuit_gradient_norm for found in evaluations]):.1e}",
        _signed(_mean([found.ablation_change for found in evaluations])),
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
