"""What every test shares: poisoned uninitialised memory, one thread per worker, one hypothesis profile, the data."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch.utils._device import _device_constructors

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("hybridqlm", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("hybridqlm")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores already


# torch fills a tensor of 32768 or more elements with its OpenMP pool, in which a forked child waits for ever.
_FILLED_BY_ONE_THREAD = 2**14


def _poisoned(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same allocator, whose floating and complex results start as NaN."""

    @functools.wraps(allocate)
    def poison(*args: object, **kwargs: object) -> torch.Tensor:
        tensor = allocate(*args, **kwargs)
        is_inexact = tensor.is_floating_point() or tensor.is_complex()
        if not is_inexact or tensor.layout != torch.strided or "out" in kwargs:
            return tensor
        with torch.no_grad():
            if torch.compiler.is_compiling():
                return tensor.fill_(float("nan"))
            for piece in tensor.as_strided((tensor.numel(),), (1,)).split(_FILLED_BY_ONE_THREAD):
                piece.fill_(float("nan"))
        return tensor

    return poison


@pytest.fixture(scope="session", autouse=True)
def _poison_uninitialised_memory() -> Iterator[None]:
    """Memory that nobody wrote shows as NaN instead of as last week's plausible numbers."""
    _device_constructors()  # torch.device("meta") knows functions by identity, in a list made at its first use: now
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
            patch.setattr(owner, name, _poisoned(getattr(owner, name)))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of measuring texts: `QLM_DATA`, or `data` in the folder shared with the checkout's neighbours."""
    path = Path(os.environ.get("QLM_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no measuring texts: {path} is not a folder; name one in QLM_DATA")
    return path
