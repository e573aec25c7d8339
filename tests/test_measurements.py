"""The page of measurements says what the records say."""

import json
from pathlib import Path

from benchmarks.report import RESULTS, SECTIONS, page

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_is_made_from_the_records() -> None:
    assert (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8") == page(RESULTS)


def test_a_missed_goal_is_said(tmp_path: Path) -> None:
    told = {"figure": "scan", "size": "4 x 4", "against": "copy", "ratio": 1.5, "goal": 1.2, "at_most": True}
    record = {"figures": [{**told, "met": False}, {**told, "ratio": None, "met": None}]}
    (tmp_path / "scan.json").write_text(json.dumps(record))
    written = page(tmp_path)
    assert "| scan | 4 x 4 | copy | 1.5 | at most 1.2 | **missed** |" in written
    assert "| scan | 4 x 4 | copy | not measured | at most 1.2 |  |" in written
    assert written.count("## ") == 1  # sections without a record are left out


def test_commands_name_modules_that_exist() -> None:
    for _, _, command, _ in SECTIONS:
        module = command.split()[2].replace(".", "/")
        assert (ROOT / f"{module}.py").exists() or (ROOT / module / "__main__.py").exists()
