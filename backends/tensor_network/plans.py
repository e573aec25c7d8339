"""In which order to contract a network: found once by cotengra, kept in memory, and on disk as JSON."""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path as File

from backends.extras import require
from backends.tensor_network.cost import Cost
from backends.tensor_network.network import Network, Path

_WORTH_KEEPING = 64
"""Tensors from which a plan is kept on disk: smaller ones are found in less time than a file is read with."""
_SEARCHES = 32
"""Randomised greedy searches per plan: 0.15 s for 200 tensors, 1.5 s for 600; the best of them is kept."""
_FORMAT = 1


def plan(network: Network, sizes: Mapping[int, int], directory: str | None) -> Path:
    """Return a path for a network whose legs have these sizes; batches plan as the next power of two, to share plans.

    ``directory``: where plans are kept between processes; None: nowhere. The same network always gets the same plan.
    Raises ImportError without cotengra, ValueError for a directory that cannot be written or a file that is no plan.
    """
    rounded = tuple(sorted((leg, 1 << (size - 1).bit_length()) for leg, size in sizes.items()))
    return _plan(network.legs, network.output, rounded, directory)


@lru_cache(maxsize=512)
def _plan(
    legs: tuple[tuple[int, ...], ...],
    output: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    directory: str | None,
) -> Path:
    if directory is None or len(legs) < _WORTH_KEEPING:
        return _searched(legs, output, dict(sizes))
    text = json.dumps((_FORMAT, _SEARCHES, legs, output, sizes))
    file = File(directory).expanduser() / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    try:
        if file.exists():
            return _checked(json.loads(file.read_text()), len(legs), file)
        path = _searched(legs, output, dict(sizes))
        _write(file, path)
    except OSError as error:
        raise ValueError(
            f"plan_dir expects a folder that can be written, got '{directory}' ({error.strerror}); pass another, or "
            "plan_dir=None to keep plans in memory."
        ) from error
    except json.JSONDecodeError:
        raise ValueError(f"plan_dir expects files of plans, got an unreadable '{file}'; delete it.") from None
    return path


def _searched(legs: tuple[tuple[int, ...], ...], output: tuple[int, ...], sizes: Mapping[int, int]) -> Path:
    if len(legs) < 3:
        return ((0, 1),) * (len(legs) - 1)
    cotengra = require("quimb:exact", "cotengra", "tensornet")
    optimizer = cotengra.RandomGreedyOptimizer(max_repeats=_SEARCHES, seed=0, parallel=False)
    return tuple(tuple(pair) for pair in optimizer.search(legs, output, sizes).get_path())


def _checked(found: object, n_tensors: int, file: File) -> Path:
    """A path read from a file: pairs of positions, each among the tensors that are left."""
    pairs = found if isinstance(found, list) else []
    left = range(n_tensors, 1, -1)
    if len(pairs) != len(left) or not all(map(_is_pair, pairs, left)):
        raise ValueError(f"plan_dir expects files of plans, got '{file}', which is none for its network; delete it.")
    return tuple(tuple(pair) for pair in pairs)


def _is_pair(pair: object, left: int) -> bool:
    whole = isinstance(pair, list) and len(pair) == 2 and all(type(k) is int and 0 <= k < left for k in pair)
    return whole and pair[0] != pair[1]  # pyright: ignore[reportIndexIssue] -- a list, as just checked


def _write(file: File, path: Path) -> None:
    """All at once, since another process may be reading."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as out:
        json.dump(path, out)
    os.replace(name, file)


def price(network: Network, sizes: Mapping[int, int], path: Path, itemsize: int, kept: bool) -> Cost:
    """Return what contracting along a path costs; ``kept``: intermediates stay for a backward pass, as large again."""
    uses = Counter(leg for legs in (*network.legs, network.output) for leg in legs)
    terms = list(network.legs)
    held = sum(_size(legs, sizes) for legs in terms)
    flops, peak = 0.0, held
    for pair in path:
        left, right = (terms.pop(k) for k in sorted(pair, reverse=True))
        both = dict.fromkeys(left + right)
        flops += 8.0 * _size(both, sizes)
        uses.subtract((*left, *right))
        legs = tuple(leg for leg in both if uses[leg])
        uses.update(legs)
        terms.append(legs)
        held += _size(legs, sizes)
        peak = max(peak, held)
        if not kept:
            held -= _size(left, sizes) + _size(right, sizes)
    return Cost(flops, (2 if kept else 1) * itemsize * peak, 2)


def _size(legs: Mapping[int, None] | tuple[int, ...], sizes: Mapping[int, int]) -> int:
    return prod(sizes[leg] for leg in legs)
