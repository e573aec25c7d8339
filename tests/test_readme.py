"""What the README shows runs: its Python, its commands, and its tables agree with the code."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_line import ok

from backends import backend_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    monkeypatch.chdir(tmp_path)
    assert blocks("python")
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102 -- our own page is what is tested


def test_qlm_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As written, in an empty folder; training alone is cut to a few steps."""
    pytest.importorskip("qiskit_ibm_runtime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QLM_LEDGER", str(tmp_path / "ledger.sqlite3"))
    qlm = [command[1:] for command in commands() if command[0] == ".venv/bin/qlm"]
    assert len(qlm) >= 4
    for arguments in qlm:
        short = ["--steps", "2"] if arguments[0] == "train" else []
        ok(*arguments, *short)


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "make"], ids=" ".join)
def test_make_targets_exist(command: list[str]) -> None:
    made = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def test_every_command_is_covered() -> None:
    assert {command[0] for command in commands()} <= {"make", ".venv/bin/qlm", "pip"}


def test_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for command in commands():
        if command[0] == "pip":
            named = re.findall(r"\[([a-z,]+)\]", command[-1])
            assert set(",".join(named).split(",")) <= set(extras)
    assert sys.version_info >= (3, 11)


def test_table_of_backends_is_complete() -> None:
    opened = re.findall(r"^\| `([a-z]+[^`]*)`", README, re.MULTILINE)
    for kind in backend_names():
        assert any(spec.startswith(kind) for spec in opened), kind
