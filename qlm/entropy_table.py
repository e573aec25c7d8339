"""Per-token entropies as a typed table: one row per token, block and control, and what it was measured with."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from circuits._suggest import unknown

CONTROLS = ("trained", "untrained", "shuffled")
"""The model itself; the same model at step 0; the mean over permutations of the text, matched back to the token."""
_FORMAT = "hybridqlm-entropy-1"
_CERTAIN = 1.96
"""Standard errors by which S2(A) must exceed S2(AB) before entanglement is claimed on a noisy backend."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which wires of a block's circuit are A; the rest is B. ``unitary``: the circuit holds no reset.

    >>> Cut("1.quantum_router", 4, (0, 1)).max_entropy == 2 * math.log(2)
    True
    """

    block: str
    n_wires: int
    wires: tuple[int, ...]
    unitary: bool = True

    @property
    def max_entropy(self) -> float:
        """``min(|A|, |B|) ln 2`` in nats: the largest entropy of A in a pure state of all wires."""
        return min(len(self.wires), self.n_wires - len(self.wires)) * math.log(2)


@dataclass(frozen=True, slots=True)
class Measurement:
    """How a table was measured: backend string, kind of entropy, seed, shots per circuit (None: exact), the text.

    ``noisy``: the backend's states are mixed by noise. ``executions``: circuits run for the entropies, each token of
    each control once per permutation. ``text`` holds the measured bytes as UTF-8, invalid ones as lone surrogates.
    """

    backend: str
    kind: str
    seed: int
    shots: int | None
    noisy: bool
    executions: int
    n_shuffles: int
    text: str
    cuts: tuple[Cut, ...]

    @property
    def data(self) -> bytes:
        """The measured bytes."""
        return self.text.encode("utf-8", "surrogateescape")

    def cut(self, block: str) -> Cut:
        """Return the cut of a block; raises ValueError for a block that was not measured (did you mean ...)."""
        for cut in self.cuts:
            if cut.block == block:
                return cut
        raise ValueError(unknown("block", block, [cut.block for cut in self.cuts]))

    def is_pure(self, block: str) -> bool:
        """Whether a subsystem's entropy is entanglement: no noise and no resets."""
        return not self.noisy and self.cut(block).unitary


@dataclass(frozen=True, slots=True)
class EntropyRow:
    """One token in one block under one control.

    ``token`` is printable (control bytes escaped), ``start`` and ``end`` its half-open span of bytes. ``entropy`` and
    ``stderr`` in nats; of "shuffled", the standard error of the mean over permutations. ``purity`` is the global
    Tr rho^2, None where the backend reports none. ``surprisal``: -log p(token | its past) in nats, trained model.
    """

    position: int
    token: str
    start: int
    end: int
    block: str
    wires: tuple[int, ...]
    control: str
    entropy: float
    stderr: float
    purity: float | None
    purity_stderr: float | None
    surprisal: float


COLUMNS = tuple(field.name for field in fields(EntropyRow))


@dataclass(frozen=True)
class EntropyTable:
    """Per-token entropies: columns of equal length (as in ``EntropyRow``), and ``about``, how they were measured.

    >>> about = Measurement("statevector", "von_neumann", 0, None, False, 1, 8, "a", (Cut("0.router", 2, (0,)),))
    >>> row = EntropyRow(0, "a", 0, 1, "0.router", (0,), "trained", 0.5, 0.0, None, None, 5.5)
    >>> table = EntropyTable.from_rows(about, [row])
    >>> table.entropy, table.select(control="trained").rows()[0] == row
    ((0.5,), True)
    """

    about: Measurement
    position: tuple[int, ...]
    token: tuple[str, ...]
    start: tuple[int, ...]
    end: tuple[int, ...]
    block: tuple[str, ...]
    wires: tuple[tuple[int, ...], ...]
    control: tuple[str, ...]
    entropy: tuple[float, ...]
    stderr: tuple[float, ...]
    purity: tuple[float | None, ...]
    purity_stderr: tuple[float | None, ...]
    surprisal: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in COLUMNS}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"an entropy table expects columns of one length, got {lengths}; build it from_rows.")

    def __len__(self) -> int:
        return len(self.position)

    @staticmethod
    def from_rows(about: Measurement, rows: Sequence[EntropyRow]) -> "EntropyTable":
        """Return the table of these rows, in their order."""
        return EntropyTable(about, **{name: tuple(getattr(row, name) for row in rows) for name in COLUMNS})

    def rows(self) -> tuple[EntropyRow, ...]:
        """Return the rows: by block, then control, then position."""
        columns = [getattr(self, name) for name in COLUMNS]
        return tuple(EntropyRow(*values) for values in zip(*columns, strict=True))

    def blocks(self) -> tuple[str, ...]:
        """Return the names of the blocks in the table, in the model's order."""
        return tuple(dict.fromkeys(self.block))

    def select(self, control: str | None = None, block: str | None = None) -> "EntropyTable":
        """Return the rows of one control, of one block, or of both; raises ValueError for unknown names."""
        if control is not None and control not in CONTROLS:
            raise ValueError(unknown("control", control, CONTROLS))
        if block is not None:
            self.about.cut(block)
        kept = [row for row in self.rows() if control in (None, row.control) and block in (None, row.block)]
        return EntropyTable.from_rows(self.about, kept)

    def certified(self) -> tuple[bool | None, ...]:
        """Return, row by row, whether S2(A) > S2(AB) holds by 1.96 standard errors, which no separable state allows.

        None where it was not tested: the state is pure (any entropy is entanglement), the kind is not "renyi2", or the
        backend reported no purity. Source: Horodecki & Horodecki 1996, Phys. Lett. A 210, 377.
        """
        return tuple(self._certify(row) for row in self.rows())

    def _certify(self, row: EntropyRow) -> bool | None:
        if row.purity is None or self.about.kind != "renyi2" or self.about.is_pure(row.block):
            return None
        error = math.hypot(row.stderr, (row.purity_stderr or 0.0) / row.purity)
        return row.entropy + math.log(row.purity) > _CERTAIN * error

    def summary(self) -> "tuple[Any, ...]":
        """Return one ``qlm.entropy_statistics.BlockSummary`` per block: means, correlations, AUCs, reference lines."""
        from qlm.entropy_statistics import summarise

        return tuple(summarise(self, block) for block in self.blocks())

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV (UTF-8): one header line, wires separated by blanks, an absent purity left empty."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(_flat(row) for row in self.rows())

    def to_json(self, path: str | Path) -> None:
        """Write everything, ``about`` included, as JSON; ``from_json`` gives an equal table."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        content = {"format": _FORMAT, "about": asdict(self.about), "columns": columns}
        Path(path).write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    @staticmethod
    def from_json(path: str | Path) -> "EntropyTable":
        """Read a table written by ``to_json``; raises ValueError for any other file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"an entropy table expects a JSON file, got {path} ({error}); write it again.") from None
        found = content.get("format") if isinstance(content, dict) else None
        if found != _FORMAT:
            raise ValueError(f"an entropy table expects the format {_FORMAT}, got {found!r} in {path}.")
        try:
            cuts = tuple(Cut(**{**cut, "wires": tuple(cut["wires"])}) for cut in content["about"].pop("cuts"))
            about = Measurement(**content["about"], cuts=cuts)
            columns = {name: tuple(values) for name, values in content["columns"].items()}
            columns["wires"] = tuple(tuple(wires) for wires in columns["wires"])
            return EntropyTable(about, **columns)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"an entropy table expects all that to_json writes, got {path} without a part ({error}); write it "
                "again."
            ) from None

    def to_pandas(self) -> Any:
        """Return the rows as a pandas DataFrame; raises ImportError without pandas."""
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError:
            raise ImportError("to_pandas expects the package 'pandas', which is missing; pip install pandas.") from None
        return pandas.DataFrame({name: list(getattr(self, name)) for name in COLUMNS})


def _flat(row: EntropyRow) -> Iterator[object]:
    """The row's values as CSV writes them."""
    for value in astuple(row):
        yield " ".join(map(str, value)) if isinstance(value, tuple) else value
