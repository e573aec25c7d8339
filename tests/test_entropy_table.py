"""The entropy table: columns, files, selections."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qlm.entropy_table import COLUMNS, CONTROLS, Cut, EntropyRow, EntropyTable, Measurement

DATA = b'a"\xff,\n'
TOKENS = ("a", '"', "\\xff", ",", "\\n")


@pytest.fixture
def table() -> EntropyTable:
    text = DATA.decode("utf-8", "surrogateescape")
    about = Measurement("statevector", "von_neumann", 0, None, False, 50, 8, text, (Cut("0.router", 4, (1, 0)),))
    rows = [
        EntropyRow(k, token, k, k + 1, "0.router", (1, 0), control, (k + 1) / 7 + c, 0.0, None, None, 1 / (3 + k))
        for c, control in enumerate(CONTROLS)
        for k, token in enumerate(TOKENS)
    ]
    return EntropyTable.from_rows(about, rows)


def test_rows_are_the_columns(table: EntropyTable) -> None:
    assert EntropyTable.from_rows(table.about, table.rows()) == table
    assert len(table) == len(table.rows()) == 15
    assert table.select(control="untrained").entropy == tuple((k + 1) / 7 + 1 for k in range(5))
    assert table.select(control="untrained", block="0.router").blocks() == ("0.router",)


def test_json_round_trip_is_exact(table: EntropyTable, tmp_path: Path) -> None:
    noisy = replace(table, purity=(0.5,) * len(table), purity_stderr=(0.1,) * len(table))
    for number, written in enumerate((table, noisy)):
        path = tmp_path / f"{number}.json"
        written.to_json(path)
        assert EntropyTable.from_json(path) == written
        assert EntropyTable.from_json(path).about.data == DATA
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    for name in ("other", "broken"):
        with pytest.raises(ValueError, match="an entropy table expects"):
            EntropyTable.from_json(tmp_path / f"{name}.json")


def test_csv_round_trip_is_exact(table: EntropyTable, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "entropy.csv")
    with (tmp_path / "entropy.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(COLUMNS)
    assert tuple(float(row["entropy"]) for row in read) == table.entropy
    assert tuple(row["token"] for row in read) == table.token
    assert (read[0]["wires"], read[0]["purity"]) == ("1 0", "")


def test_pandas_is_asked_for_by_name(table: EntropyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("qlm.entropy_table.import_module", missing)
    with pytest.raises(ImportError, match="pip install pandas"):
        table.to_pandas()


def test_select_refuses_unknown_names(table: EntropyTable) -> None:
    with pytest.raises(ValueError, match="did you mean 'trained'"):
        table.select(control="traned")
    with pytest.raises(ValueError, match=r"did you mean '0\.router'"):
        table.select(block="0.ruter")
    with pytest.raises(ValueError, match="columns of one length"):
        replace(table, entropy=())
