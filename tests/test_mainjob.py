"""The main job on a tiny preset: what it writes and says, and that the commands it ends with work."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import ok
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tiny_runs import BLOCKS, python_docs, tiny_recipe

from qlm import mainjob
from qlm.comparison import Baselines, Pair, Result, measure_baselines, verdicts
from qlm.data import Corpus
from qlm.evaluation import Evaluation, ParameterCount
from qlm.intervals import t_interval, t_quantile
from qlm.presets import PRESETS
from qlm.results import paragraph
from qlm.runs import RunFolder, next_name

BASELINES = Baselines(order_3=2.7, order_6=2.0, xz_alone=2.8, xz_given=2.05)


def pair(hybrid: float, twin: float, seed: int = 0) -> Pair:
    def result(bits: float, parameters: ParameterCount) -> Result:
        figures = Evaluation(100, bits, 0.2, 20, 5e3, 0.01, 0.3, parameters)
        return Result(RunFolder(Path("none")), 1e3, 10, figures)

    counts = ParameterCount(10, 90, 36, 0), ParameterCount(10, 91, 0, 37)
    return Pair(seed, result(hybrid, counts[0]), result(twin, counts[1]))


def short(corpus: Corpus) -> Corpus:
    return replace(corpus, train=corpus.train[:4000], valid=corpus.valid[:3000])


def test_the_main_job_writes_and_says_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny-test", {"d_model": 16, "blocks": BLOCKS})
    recipe = tiny_recipe(steps=2)
    corpus = short(python_docs())
    job = mainjob.Job("tiny-test", "python-docs", corpus, recipe, tmp_path)
    threads = torch.get_num_threads()
    try:
        results = [
            mainjob.train_one(job, recipe, tmp_path / name, mode) for name, mode in (("h", "circuit"), ("t", "twin"))
        ]
    finally:
        torch.set_num_threads(threads)
    with (tmp_path / "said.txt").open("w") as file:
        mainjob.report(job, [Pair(0, *results)], Console(file=file, width=140))
    said = (tmp_path / "said.txt").read_text()
    for row in ("hybrid", "twin", "n-gram, order 3", "n-gram, order 6", "xz alone", "xz given training text"):
        assert re.search(rf"^ *{row} +\d\.\d\d\d ", said, re.MULTILINE), row
    assert "6 weights in circuits, " in said
    assert "One seed cannot tell the hybrid from its twin" in said
    written = {path.name for path in (tmp_path / "h").iterdir()}
    assert {"entropy.html", "entropy.png", "loss.png", "metrics.json"} <= written
    commands = [shlex.split(line) for line in said.splitlines() if " entropy --model " in line]
    backends = [words[words.index("--backend") + 1] for words in commands]
    assert backends == ["aer", "ibm:fake_manila"]
    pytest.importorskip("qiskit_ibm_runtime")
    for words in commands:
        arguments = words[words.index("entropy") :]
        ok(*arguments[:-1], 3)  # 3 tokens instead of 64
    shown = ok(*commands[1][commands[1].index("entropy") : -1], 3)
    assert "noise" in shown


def test_runs_are_numbered(tmp_path: Path) -> None:
    assert next_name(tmp_path, "tiny").name == "tiny-001"
    for name in ("tiny-001", "tiny-001-twin", "tiny-004-twin", "other-009"):
        (tmp_path / name).mkdir()
    assert next_name(tmp_path, "tiny").name == "tiny-005"


@pytest.mark.parametrize(
    ("hybrid", "expected"),
    [
        (1.9, ("0.800 bits per byte better; it reaches", "0.100 bits per byte better", "0.150 bits per byte better")),
        (2.31, ("0.390 bits per byte better; it misses", "0.310 bits per byte worse", "0.260 bits per byte worse")),
        (2.9, ("0.200 bits per byte worse; it misses", "0.900 bits per byte worse", "0.850 bits per byte worse")),
    ],
)
def test_verdicts_follow_the_numbers(hybrid: float, expected: tuple[str, str, str]) -> None:
    said = verdicts([pair(hybrid, 2.0)], BASELINES)
    for line, words in zip((said[3], said[4], said[6]), expected, strict=True):
        assert words in line


def test_one_seed_tells_nothing_and_several_have_an_interval() -> None:
    assert "One seed cannot tell" in verdicts([pair(1.9, 2.0)], BASELINES)[1]
    clear = [pair(1.9 + 0.01 * k, 2.1 + 0.011 * k, k) for k in range(5)]
    assert "leaves 0 out: on this text the hybrid is better" in verdicts(clear, BASELINES)[1]
    unclear = [pair(2.0, 2.0 + 0.1 * (-1) ** k, k) for k in range(5)]
    assert "holds 0: these seeds do not tell" in verdicts(unclear, BASELINES)[1]
    worse = verdicts([pair(2.2, 2.0), pair(2.21, 2.0)], BASELINES)[1]
    assert "the twin is better" in worse
    assert "+0.2050" in worse


@pytest.mark.parametrize(
    ("change", "words"), [(0.0004, "all but ignores"), (0.3, "relies on"), (-0.02, "would be better without")]
)
def test_a_circuit_that_is_ignored_is_named(change: float, words: str) -> None:
    given = pair(2.0, 2.0)
    evaluation = replace(given.hybrid.evaluation, ablation_change=change)
    said = verdicts([replace(given, hybrid=replace(given.hybrid, evaluation=evaluation))], BASELINES)[2]
    assert f"{change:+.4f}" in said
    assert words in said


def test_baselines_are_measured_on_the_validation_text() -> None:
    found = measure_baselines(short(python_docs()))
    assert found.order_3 < found.xz_alone
    assert found.xz_given < found.xz_alone
    assert 1.0 < found.order_6 < 8.0


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.7062047), (2, 4.3026527), (4, 2.7764451), (9, 2.2621572), (30, 2.0422725)]
)
def test_quantiles_are_those_of_the_tables(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=1e-7)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9), st.floats(-3, 3))
def test_intervals_move_with_their_values(values: list[float], shift: float) -> None:
    here, there = t_interval(values), t_interval([value + shift for value in values])
    assert there.mean - here.mean == pytest.approx(shift, abs=1e-9)
    assert there.high - there.low == pytest.approx(here.high - here.low, abs=1e-6)
    assert here.mean - here.low == pytest.approx(here.high - here.mean, abs=1e-9)


def test_an_interval_needs_two_values() -> None:
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        t_interval([1.0])
    assert t_interval([1.0, 3.0]).high == pytest.approx(2 + 12.7062047, abs=1e-6)


def test_the_paragraph_is_prose() -> None:
    prose = "Objects are created by " + "words and clauses that go on " * 10
    assert paragraph(f"x = 1\ny = 2\n\n   {prose}\n\nend".encode()) == prose.strip()
    assert paragraph(b"no prose at all: 1 2 3") == "no prose at all: 1 2 3"
