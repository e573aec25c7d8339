"""Metrics as TensorBoard's event files, when they are asked for."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from qlm.runs import RunFolder

FOLDER = "tensorboard"
"""Where event files lie in a run folder."""


def check_tensorboard() -> None:
    """Raise ImportError, with what to install, where TensorBoard is missing."""
    try:
        import_module("tensorboard")  # torch's writer needs it, and says so less plainly
    except ImportError:
        raise ImportError(
            "--tensorboard expects the package tensorboard, which is not installed; pip install "
            "'hybridqlm[tensorboard]', or leave it out: metrics.jsonl holds the same figures."
        ) from None


class EventFiles:
    """Writes lines of metrics as scalars; those from ``first_step`` on replace what an interrupted run wrote."""

    def __init__(self, path: Path, first_step: int = 1) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(path), purge_step=first_step)

    def write(self, line: dict[str, Any]) -> None:
        """Write the numbers of a line at its step."""
        for name, value in scalars({name: value for name, value in line.items() if name != "step"}):
            self.writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what is left to disk."""
        self.writer.close()


class MetricLines:
    """Where lines of metrics go: metrics.jsonl, and event files where there are some."""

    def __init__(self, folder: RunFolder, events: EventFiles | None = None) -> None:
        self.folder = folder
        self.events = events

    def write(self, line: dict[str, Any]) -> None:
        """Write a line."""
        self.folder.append(line)
        if self.events is not None:
            self.events.write(line)

    def close(self) -> None:
        """Write what is left to disk."""
        if self.events is not None:
            self.events.close()


def scalars(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers in a line, those of a part under ``part/name``; what is None is left out.

    >>> list(scalars({"loss": 2, "grad_norm": None, "output_share": {"0.router": 0.5}}))
    [('loss', 2.0), ('output_share/0.router', 0.5)]
    """
    for name, value in line.items():
        if isinstance(value, dict):
            yield from ((f"{name}/{inner}", number) for inner, number in scalars(value))
        elif value is not None:
            yield name, float(value)
