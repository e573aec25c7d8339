"""The claims' scripts run whole, tiny; their verdicts follow from the numbers."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.claims import harmonic
from benchmarks.claims.paired import Row, Runs
from qlm.data import load_corpus
from qlm.evaluation import count_parameters

TINY = ["--lengths", "16", "32", "--tokens", "128", "--step-tokens", "64", "--width", "16", "--seeds", "2"]


def test_harmonic_runs_whole(tmp_path: Path) -> None:
    """Every model at every length with its rate, its seeds, and a verdict for each claim."""
    out = tmp_path / "claims.json"
    given = [*TINY, "--rates", "0.01", "--asked-bytes", "256", "--out", str(out)]
    harmonic.main(["--data", "python-docs", *given])
    record = json.loads(out.read_text())
    assert {(row["model"], row["length"]) for row in record["rows"]} == {
        *((name, length) for name in harmonic.MODELS for length in (16, 32)),
        *((name, 16) for name in harmonic.ABLATIONS),
    }
    assert all(len(row["found"]) == 2 and all(1 < bits < 9 for bits in row["found"]) for row in record["rows"])
    assert len(record["verdicts"]) == 5
    assert record["verdicts"][-1]["verdict"] == "reproduced"  # of the memory


def test_runs_are_paired_tuned_and_of_equal_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed's windows are the same for all; the rate is the best on validation text; sizes differ by 2 % at most."""
    text = torch.arange(256).repeat(4)
    batches = [harmonic.windows(text, 16, 3, seed=5) for _ in range(2)]
    assert torch.equal(batches[0](), batches[1]())
    assert not torch.equal(batches[0](), harmonic.windows(text, 16, 3, seed=6)())
    corpus, asked = load_corpus("python-docs"), []
    budget = harmonic.Budget(tokens=128, step_tokens=64, width=16, rates=(1e-4, 1e-2), asked_bytes=256)
    row = harmonic.measured("harmonic", corpus, 16, 2, budget)
    assert row.rate == 1e-2
    assert row.found == harmonic.measured("harmonic", corpus, 16, 2, budget).found
    monkeypatch.setattr(harmonic, "bits_per_byte", lambda model, data, context: asked.append(data) or 1.0)
    harmonic.measured("mamba", corpus, 16, 2, budget)
    assert asked == [corpus.valid[:256]] * 2 + [corpus.test[:256]] * 2
    cores = [count_parameters(harmonic.built(name, 128)).core for name in harmonic.MODELS]
    assert max(cores) < 1.02 * min(cores) * 1.02


def invented(harmonic_at_32: float, other: float = 2.0, ablated: float = 2.0) -> Runs:
    """Two lengths, three seeds with a little spread; Harmonic at 1.9 at the first."""
    spread = (0.0, 0.001, 0.002)

    def row(name: str, length: int, bits: float, wobble: float) -> Row:
        return Row(name, length, 1e-3, tuple(bits + wobble * k * s for k, s in enumerate(spread, 1)), 1.0)

    rows = [row(name, length, other, 1.0) for name in harmonic.MODELS[1:] for length in (16, 32)]
    rows += [row("harmonic", 16, 1.9, 0.5), row("harmonic", 32, harmonic_at_32, 0.5)]
    return Runs([*rows, *(row(name, 16, ablated, 1.0) for name in harmonic.ABLATIONS)])


@pytest.mark.parametrize(
    ("runs", "verdicts"),
    [
        (invented(1.8), ["reproduced", "reproduced", "reproduced", "reproduced"]),
        (invented(1.9), ["reproduced", "not reproduced", "reproduced", "reproduced"]),
        (invented(2.1, ablated=1.8), ["not reproduced", "not reproduced", "not reproduced", "not reproduced"]),
        (invented(1.8, ablated=1.9), ["reproduced", "reproduced", "not reproduced", "partly"]),
    ],
)
def test_verdicts_follow_from_the_numbers(runs: Runs, verdicts: list[str]) -> None:
    found = [harmonic.wins(runs), harmonic.growth(runs), harmonic.hierarchy(runs), harmonic.prediction(runs)]
    assert [verdict.verdict for verdict in found] == verdicts


def test_too_little_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        harmonic.main(["--data", "python-docs", "--seeds", "1"])
    assert "expected 2 seeds or more" in capsys.readouterr().err
