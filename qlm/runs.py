"""A run folder: what a training run was asked to do, its metrics, its checkpoints, its final model.

``run.json`` is written first and marks the folder as ours: only a folder with it is ever overwritten. Beside it stand
config.json, metrics.jsonl (one line per log), checkpoint-N/ (for ``--resume``), and at the end model.safetensors, the
tokenizer's files, metrics.json, loss.png and paragraph.txt (validation text for the entropy views).
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MARKER = "run.json"
_FORMAT = "hybridqlm-run-1"
EXISTING = ("refuse", "resume", "overwrite")
"""What to do with a run folder that exists."""


class RunFolderError(ValueError):
    """A run folder that cannot be used as asked; the message is one sentence with a remedy.

    >>> issubclass(RunFolderError, ValueError)
    True
    """


@dataclass(frozen=True)
class RunRecord:
    """What a run was asked to do, as run.json holds it. ``data`` is the corpus' source, ``recipe`` plain JSON.

    >>> RunRecord("python-docs", "ab12", "statevector", {"steps": 10}).recipe["steps"]
    10
    """

    data: str
    corpus_sha256: str
    backend: str
    recipe: dict[str, Any]
    format: str = _FORMAT


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run.

    >>> RunFolder(Path("runs/a")).metrics.name
    'metrics.jsonl'
    """

    path: Path

    @property
    def metrics(self) -> Path:
        """One JSON object per line, written while training."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """The figures of the finished run."""
        return self.path / "metrics.json"

    @property
    def paragraph(self) -> Path:
        """A paragraph of validation text."""
        return self.path / "paragraph.txt"

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.summary.is_file()

    def checkpoints(self) -> list[Path]:
        """Return the checkpoint-N folders, earliest first."""
        named = [path for path in self.path.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
        return sorted(named, key=lambda path: int(path.name.removeprefix("checkpoint-")))

    def record(self) -> RunRecord:
        """Read run.json; RunFolderError where it is missing or not ours."""
        content = _read_marker(self.path)
        if content is None:
            raise RunFolderError(
                f"a run folder expects its {MARKER}, got none in {self.path}; name a folder that qlm train wrote."
            )
        return RunRecord(**content)

    def lines(self) -> list[dict[str, Any]]:
        """Return the metrics' lines; a half-written last one is left out."""
        if not self.metrics.is_file():
            return []
        lines = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def append(self, line: dict[str, Any]) -> None:
        """Add one line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the metrics' lines after a step, from which training is repeated, and return those before it."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        return kept


def create_run(path: Path, record: RunRecord, existing: str = "refuse") -> RunFolder:
    """Make a run's folder with its marker, or return the one to resume.

    ``existing``: "refuse" any folder that holds files; "overwrite" removes it first, if it holds our marker;
    "resume" expects an unfinished run with the same record. Raises RunFolderError.
    """
    if existing not in EXISTING:
        raise RunFolderError(f"existing expects one of {', '.join(EXISTING)}, got '{existing}'; choose one.")
    folder = RunFolder(path)
    if existing == "resume":
        _check_same(folder, record)
        return folder
    try:
        if path.is_dir() and any(path.iterdir()):
            _clear(path, existing)
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / MARKER, asdict(record))
    except OSError as error:
        raise RunFolderError(
            f"a run folder expects a writable place, got '{error.strerror}' for {path}; choose another --out."
        ) from None
    return folder


def _clear(path: Path, existing: str) -> None:
    ours = _read_marker(path) is not None
    if existing != "overwrite":
        remedy = "pass --resume or --overwrite, or choose another --out" if ours else "choose another --out"
        raise RunFolderError(f"a new run expects an empty or missing folder, got {path}, which holds files; {remedy}.")
    if not ours:
        raise RunFolderError(
            f"--overwrite expects a run folder with a {MARKER}, got {path}, whose files are no run; choose another "
            "--out."
        )
    shutil.rmtree(path)


def _check_same(folder: RunFolder, record: RunRecord) -> None:
    if not folder.path.is_dir():
        raise RunFolderError(f"--resume expects a run folder, got {folder.path}, which is none; leave --resume out.")
    began = folder.record()
    for name, now in asdict(record).items():
        then = getattr(began, name)
        if name == "recipe":
            differing = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
            pairs: Iterable[tuple[str, Any, Any]] = [(key, then.get(key), now.get(key)) for key in differing]
        else:
            pairs = [(name, then, now)] if now != then else []
        for key, before, after in pairs:
            raise RunFolderError(
                f"--resume expects what the run began with, {key} {before!r}, got {after!r}; pass the same or start a "
                "new run."
            )
    if not folder.checkpoints():
        raise RunFolderError(
            f"--resume expects a checkpoint, got none in {folder.path}; start again with --overwrite instead."
        )


def next_name(root: Path, stem: str) -> Path:
    """Return the first ``root/stem-001``, ``-002``, ... beyond all that exist with this stem.

    >>> next_name(Path("no-such-folder"), "tiny").name
    'tiny-001'
    """
    numbers = [path.name.removeprefix(f"{stem}-")[:3] for path in root.glob(f"{stem}-[0-9][0-9][0-9]*")]
    return root / f"{stem}-{max((int(number) for number in numbers), default=0) + 1:03d}"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text so that a reader sees the old file or the new one, never half of it."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def _read_marker(path: Path) -> dict[str, Any] | None:
    """The content of run.json, None where it is missing or not ours."""
    try:
        content = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = set(RunRecord.__dataclass_fields__)
    return content if isinstance(content, dict) and content.get("format") == _FORMAT and set(content) == known else None
