"""TensorBoard's event files: the same figures as metrics.jsonl, or one sentence where the package is missing."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny_plan

from qlm.event_files import MetricLines, check_tensorboard, scalars
from qlm.recipe import Plan
from qlm.training import train


class Writer:
    """Stands in for torch's SummaryWriter."""

    made: "list[Writer]" = []  # noqa: RUF012 -- what the test looks at

    def __init__(self, path: str, purge_step: int) -> None:
        self.path, self.purge_step, self.closed = path, purge_step, False
        self.found: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.found.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def asked() -> Plan:
    plan = tiny_plan("twin", steps=2, validate_every=2)
    return Plan(plan.config, plan.corpus, plan.recipe, tensorboard=True)


def test_event_files_hold_what_the_metrics_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [])
    run = train(asked(), tmp_path / "run")
    (writer,) = Writer.made
    assert (writer.path, writer.purge_step, writer.closed) == (str(tmp_path / "run" / "tensorboard"), 1, True)
    lines = [({k: v for k, v in line.items() if k != "step"}, line["step"]) for line in run.folder.lines()]
    assert writer.found == [(name, value, step) for line, step in lines for name, value in scalars(line)]
    assert {"loss", "bits_per_byte", "validation_bits_per_byte", "learning_rate"} <= {name for name, *_ in writer.found}
    MetricLines(run.folder).close()  # without event files there is nothing to close


def test_a_missing_tensorboard_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ImportError, match=r"^--tensorboard expects the package tensorboard, .*pip install 'hybridqlm\["
    ):
        train(asked(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    check_tensorboard()
