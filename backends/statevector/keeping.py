"""What is kept between calls: programs, in caches bounded by memory as well as by number, and constants in torch.

Programs are kept in memory alone. Lowering a circuit takes 0.6 to 13 ms, and reading a stored program took 1.3 to 2.2
ms: files would save a process less than a tenth of what importing torch costs it. What is on disk are the compiled
kernels, named by the SHA-256 of their sources; numba adds its version and the CPU (``jit``).
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch

from backends.statevector.program import Program

P = ParamSpec("P")
T = TypeVar("T")
MOST = 1 << 27
"""Bytes of one cache. Programs that several caches hold are the same objects."""


def keep(weigh: Callable[[T], int], count: int, most: int = MOST) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep what a function of hashable positional arguments returned lately: at most ``count`` results, ``most`` bytes.

    The latest result stays whatever it weighs. Safe among threads, of which two may compute the same at once; both get
    the same object. Cost: a dictionary look-up.

    >>> made = []
    >>> square = keep(weigh=lambda number: number, count=3, most=10)(lambda x: (made.append(x), x * x)[1])
    >>> [square(x) for x in (1, 2, 1, 3, 1)], made  # 9 bytes push out the 4
    ([1, 4, 1, 9, 1], [1, 2, 3])
    """

    def kept(function: Callable[P, T]) -> Callable[P, T]:
        results: OrderedDict[tuple[object, ...], tuple[T, int]] = OrderedDict()
        lock = Lock()

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            key = args, tuple(kwargs.items())
            with lock:
                if key in results:
                    results.move_to_end(key)
                    return results[key][0]
            made = function(*args, **kwargs)
            with lock:
                made, _ = results.setdefault(key, (made, weigh(made)))
                while len(results) > 1 and (len(results) > count or sum(size for _, size in results.values()) > most):
                    results.popitem(last=False)
            return made

        return call

    return kept


def plain(function: Callable[P, T]) -> Callable[P, T]:
    """Make the tensors that a function returns fit to be kept: usable in every mode, whatever mode it is called in.

    Tensors made in inference mode cannot be saved for a gradient later, and those on a default device follow it.

    >>> with torch.inference_mode(), torch.device("meta"):
    ...     made = plain(torch.zeros)(1)
    >>> made.is_inference(), made.device.type
    (False, 'cpu')
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
            return function(*args, **kwargs)

    return call


def bytes_of(program: Program) -> int:
    """The memory of a program: nearly all of it permutations.

    >>> from backends.statevector.lowering import lower
    >>> from backends.statevector.structure import structure
    >>> from circuits.library import hardware_efficient
    >>> bytes_of(lower(structure(hardware_efficient(10, 2))[0])) // 2**10  # one ring: 4 + 4 + 1 bytes an amplitude
    11
    """
    tables = program.sources, program.targets, program.signs
    return sum(array.nbytes for array in (*tables, program.code, program.factors, program.diagonals))
