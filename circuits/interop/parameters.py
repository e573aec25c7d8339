"""Free parameters of foreign circuits as inputs and weights, numbered as people count: p2 before p10."""

import re
from collections.abc import Iterable, Sequence

from circuits._suggest import unknown
from circuits.slots import Input, Weight

_OURS = re.compile(r"(input|weight)(?:_(\d{1,7})_?|\[(\d{1,7})\])")
"""How exports name input and weight k: ``input_k`` in OpenQASM, ``input[k]`` in Qiskit, ``_input_k_`` from both."""


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Return a sorting key that compares runs of digits as numbers.

    >>> sorted(["p10", "p2", "p"], key=natural)
    ['p', 'p2', 'p10']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((text, int(digits or -1)) for text, digits in zip(parts[::2], [*parts[1::2], ""], strict=True))


def numbered(names: Iterable[str], inputs: Sequence[str] = ()) -> dict[str, Input | Weight]:
    """Return the slot of each free parameter.

    Names that our own exports write (``input_3``, ``weight[0]``) keep kind and number where all names are such.
    Otherwise the names in ``inputs`` become Input(0), Input(1), ... in the order given, all others Weight(0), ... in
    natural order; in ``inputs`` the name of a vector stands for its elements in the order of their indices. Raises
    ValueError for a name in ``inputs`` that is no free parameter, or twice there.

    >>> numbered(("p10", "p2", "x"), inputs=("x",))
    {'p2': Weight(0), 'p10': Weight(1), 'x': Input(0)}
    """
    ordered = sorted(set(names), key=natural)
    ours = [_OURS.fullmatch(name.removeprefix("_")) for name in ordered]
    if all(ours) and not inputs:
        found = [(match[1], int(match[2] or match[3])) for match in ours if match]
        return {
            name: Input(index) if kind == "input" else Weight(index)
            for name, (kind, index) in zip(ordered, found, strict=True)
        }
    chosen = [name for wanted in inputs for name in _elements(wanted, ordered)]
    if len(set(chosen)) != len(chosen):
        twice = next(name for name in chosen if chosen.count(name) > 1)
        raise ValueError(f"inputs expects distinct parameters, got '{twice}' twice; name it once.")
    weights = [name for name in ordered if name not in set(chosen)]
    slots: dict[str, Input | Weight] = {name: Weight(k) for k, name in enumerate(weights)}
    return slots | {name: Input(k) for k, name in enumerate(chosen)}


def _elements(wanted: str, ordered: Sequence[str]) -> list[str]:
    """The parameter of that name, or the elements of the vector of that name."""
    found = [name for name in ordered if name == wanted] or [
        name for name in ordered if re.fullmatch(re.escape(wanted) + r"\[\d+\]", name)
    ]
    if not found:
        raise ValueError(unknown("free parameter", wanted, ordered))
    return found
