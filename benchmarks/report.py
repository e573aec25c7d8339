"""The page of measurements, made from the records that benchmarks leave in ``benchmarks/results``.

    python -m benchmarks.report docs/measurements.md

Each section names the command that makes its record; those without a record yet are left out.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
HEAD = """# Measurements

Made by `python -m benchmarks.report docs/measurements.md` from the records in `benchmarks/results`. Ratios are of
medians over interleaved rounds in one process, after the results were checked against one another; what is measured,
and how, each benchmark says in its own docstring. Nothing here was measured on a GPU.
"""
Record = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(table(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def of_figures(record: Record) -> str:
    verdicts = {True: "met", False: "**missed**", None: ""}
    rows = []
    for found in record["figures"]:
        goal = "" if found["goal"] is None else f"{'at most' if found['at_most'] else 'at least'} {found['goal']:g}"
        ratio = "not measured" if found["ratio"] is None else f"{found['ratio']:.3g}"
        rows.append((found["figure"], found["size"], found["against"], ratio, goal, verdicts[found["met"]]))
    return table(("figure", "size", "beside", "ratio", "goal", ""), rows)


def of_stream(record: Record) -> str:
    said = [
        (f"tokens of one document, preset {record['preset']}", f"{record['tokens']:,}"),
        ("megabytes more per million tokens", f"{record['slope']:+.2f}"),
        ("speed of the last tenth over the first", f"{record['last_over_first']:.3f}"),
        ("tokens a second", f"{record['tokens_per_second']:,.0f}"),
        ("loss in parts less loss in one piece", f"{record['difference']:.2g}"),
    ]
    return table(("figure", "value"), said)


def of_claims(record: Record) -> str:
    budget, corpus = record["budget"], record["corpus"]
    head = (
        f"Width {budget['width']}, {budget['tokens']:,} tokens for each model in steps of {budget['step_tokens']:,}, "
        f"rates {', '.join(f'{rate:g}' for rate in budget['rates'])}, corpus {corpus['sha256'][:12]}. Bits per byte:\n"
    )
    rows = [
        (
            str(row["length"]),
            row["model"],
            f"{mean(row['found']):.4f} ± {stdev(row['found']):.4f}",
            f"{row['rate']:g}{' (edge of the grid)' if row['at_edge'] else ''}",
            str(len(row["found"])),
        )
        for row in record["rows"]
    ]
    verdicts = [(one["claim"], one["verdict"], one["why"]) for one in record["verdicts"]]
    told = table(("length", "model", "bits per byte", "rate", "seeds"), rows)
    return "\n".join([head, told, "", table(("claim", "verdict", "why"), verdicts)])


SECTIONS: tuple[tuple[str, str, str, Callable[[Record], str]], ...] = (
    ("Small circuits", "statevector", "python -m benchmarks.statevector", of_figures),
    ("Large circuits", "wide_states", "python -m benchmarks.wide_states", of_figures),
    ("Scans", "scan", "python -m benchmarks.scan", of_figures),
    ("Selective scans", "selective_scan", "python -m benchmarks.selective_scan", of_figures),
    ("Models", "models", "python -m benchmarks.models", of_figures),
    ("Mamba beside its peers", "mamba_peers", "python -m benchmarks.mamba_peers", of_figures),
    ("A stream", "stream", "python -m benchmarks.stream", of_stream),
    (
        "The published claims of Harmonic",
        "claims_harmonic",
        "python -m benchmarks.claims.harmonic --data FOLDER",
        of_claims,
    ),
)
"""Title, record, the command that makes it, and how it is told."""


def page(folder: Path) -> str:
    """The whole page from the records in a folder."""
    parts = [HEAD]
    for title, name, command, told in SECTIONS:
        path = folder / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            parts.append(f"## {title}\n\n`{command}`\n\n{told(record)}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.parse_args().page.write_text(page(RESULTS), encoding="utf-8")


if __name__ == "__main__":
    main()
