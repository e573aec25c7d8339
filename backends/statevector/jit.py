"""How the kernels are compiled: an entry for small and one for large circuits, kept on disk with all that they call.

numba looks at the file of the function that it keeps, alone, and would go on running kernels of another file that has
changed since. So only entries are kept, under a name that tells the sources of all they are made from.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numba

_OPTIONS = {"nogil": True, "error_model": "numpy"}
fast = numba.njit(**_OPTIONS, fastmath={"reassoc", "contract", "nsz", "arcp"})
"""Compile a kernel with sums in any order; NaN, infinity and division keep their meaning. Not kept on disk."""
exact = numba.njit(**_OPTIONS)
"""Compile a kernel to the letter. Not kept on disk."""


def keep(entry: Callable[..., None], *modules: ModuleType) -> Any:
    """Compile a function, which calls kernels of these modules, and keep it on disk."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(str(module.__file__)).read_bytes())
    entry.__qualname__ = entry.__name__ = f"{entry.__name__}_{digest.hexdigest()[:16]}"
    return numba.njit(cache=True, **_OPTIONS)(entry)


def is_kept(compiled: Any) -> bool:
    """Whether a kept entry was compiled for this machine before, in any precision."""
    folder, entry = compiled.stats.cache_path, compiled.py_func
    name = f"{entry.__module__.rpartition('.')[2]}.{entry.__qualname__}"
    return folder is not None and any(Path(folder).glob(f"{name}-*.nbi"))
