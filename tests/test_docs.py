"""The pages in docs/: their code runs and does what they say."""

import re
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ok

from backends import open_backend, registry
from backends.base import Backend
from circuits import Z
from circuits.library import reuploading
from qlm import QuantumLayer

PAGE = (Path(__file__).parent.parent / "docs" / "write_a_backend.md").read_text(encoding="utf-8")


(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Backend]:
    """The page's backend, in a package of its own."""
    (tmp_path / "page_dense.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "page_dense", raising=False)
    return import_module("page_dense").Dense


@pytest.fixture
def installed(dense: type[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page's entry point would bring it."""
    point = EntryPoint("dense", "my_package.dense:Dense", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: dense)

    def entry_points(group: str) -> tuple[Any, ...]:
        return (point,) if group == registry.ENTRY_POINT_GROUP else ()

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_the_page_names_the_group() -> None:
    assert f'entry-points."{registry.ENTRY_POINT_GROUP}"' in PAGE


def test_the_backend_is_as_short_as_it_says() -> None:
    body = CODE[CODE.index("@dataclass") :]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 40


@pytest.mark.usefixtures("installed")
def test_the_backend_keeps_its_word() -> None:
    shown = ok("backends", "check", "dense")
    assert " 0 failed" in shown
    assert "dense" in ok("backends")


@pytest.mark.usefixtures("installed")
def test_the_backend_trains_a_layer() -> None:
    torch.manual_seed(0)
    circuit = reuploading(2, 2)
    layer = QuantumLayer(circuit, (Z(0),), backend="dense").double()
    inputs = torch.randn(3, 2, dtype=torch.float64)
    layer(inputs).sum().backward()
    other = QuantumLayer(circuit, (Z(0),), backend=open_backend("statevector")).double()
    other.load_state_dict(layer.state_dict())
    other(inputs).sum().backward()
    assert layer.weights.grad is not None
    assert other.weights.grad is not None
    torch.testing.assert_close(layer.weights.grad, other.weights.grad, atol=1e-6, rtol=0)
