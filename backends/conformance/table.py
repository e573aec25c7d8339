"""The README's table of backends: what each can do, and how far its results are from the reference.

    python -m backends.conformance.table README.md

rewrites the part between the two markers. All figures come from one run of the suite per backend.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from backends.conformance import results
from backends.conformance.suite import Check, Outcome, run
from backends.registry import open_backend

SHOWN = (
    "statevector",
    "pennylane:default.qubit",
    "pennylane:lightning.qubit",
    "aer",
    "aer:matrix_product_state",
    "aer?shots=4096",
    "aer:density_matrix?noise=fake_torino",
    "quimb:exact",
    "quimb:mps",
    "quimb:permmps?max_bond=4",
    "ibm:fake_manila",
    "dask?workers=2",
)
"""One row each; every kind of backend has at least one."""

MEASURED: dict[str, Check] = {
    "expectations": results.expectations_are_right,
    "probabilities": results.probabilities_are_right,
    "density": results.densities_are_right,
    "entropy": results.entropies_are_right,
    "fidelity": results.fidelities_are_right,
    "gradient": results.gradients_are_right,
}
"""Column -> the check whose largest deviation it holds, beyond what the results themselves declare as truncated. A
noisy backend's deviations are its noise, which the suite bounds and does not measure."""

START, END = "<!-- backends: made by `make backends-table` -->", "<!-- end of backends -->"


def markdown(specs: Iterable[str] = SHOWN) -> str:
    """Return the table; deviations are in the results' units, or in standard errors where shots are counted.

    >>> print(markdown(["statevector"]).splitlines()[2][:30])
    | `statevector` | exact | auto
    """
    headings = ("backend", "results", "gradients", "resets", "wires", *MEASURED)
    rows = [_row(spec) for spec in specs]
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rewrite(page: str, table: str) -> str:
    """Return a page with its table between the markers replaced; ValueError where it has no markers.

    >>> rewrite(f"a\\n{START}\\nold\\n{END}\\nb", "new") == f"a\\n{START}\\n\\nnew\\n\\n{END}\\nb"
    True
    """
    if START not in page or END not in page:
        raise ValueError(f"the page expects the markers {START} and {END}, got a page without; add them.")
    return re.sub(f"{re.escape(START)}.*{re.escape(END)}", lambda _: f"{START}\n\n{table}\n\n{END}", page, flags=re.S)


def _row(spec: str) -> Sequence[str]:
    backend = open_backend(spec)
    can = backend.capabilities
    found = dict(zip(MEASURED, run(backend, list(MEASURED.values())), strict=True))
    return (
        f"`{spec}`",
        can.results,
        "autograd" if can.autograd else "parameter shift",
        "yes" if can.reset else "no",
        str(can.max_wires),
        *(_deviation(outcome, can.noisy) for outcome in found.values()),
    )


def _deviation(outcome: Outcome, noisy: bool) -> str:
    if noisy:
        return "noise"
    if outcome.verdict == "skip":
        return "-"
    if outcome.measured is None or outcome.verdict == "fail":
        raise ValueError(f"the table expects backends that pass, got '{outcome.name}': {outcome.sentence}")
    if outcome.measured.unit == "stderr":
        return f"{outcome.measured.deviation:.1f} stderr"
    return f"{outcome.measured.deviation:.0e}"


def main() -> None:
    """Rewrite the page named on the command line."""
    page = Path(sys.argv[1])
    page.write_text(rewrite(page.read_text(encoding="utf-8"), markdown()), encoding="utf-8")


if __name__ == "__main__":
    main()
