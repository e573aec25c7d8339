"""Strings that open backends: round trips, options, typing errors, third parties."""

from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
from torch import Tensor

from backends import BACKENDS, Backend, Capabilities, Estimate, Request, backend_names, open_backend, registry
from backends.statevector import Statevector
from circuits import Circuit, PauliSum


@dataclass(frozen=True)
class Other(Backend):
    """A third party's backend with every kind of option."""

    kind: ClassVar[str] = "other"
    argument: ClassVar[str | None] = "device"

    device: str = "none"
    shots: int | None = None
    rate: float = 0.5
    exact: bool = True
    limit: int | str = 3
    handle: int | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(exact=True, max_wires=3)

    def _expectations(
        self, circuit: Circuit, angles: Tensor, observables: tuple[PauliSum, ...], request: Request
    ) -> Estimate:
        raise NotImplementedError

    def _samples(
        self, circuit: Circuit, angles: Tensor, wires: tuple[int, ...], shots: int, seed: int | None
    ) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Other`` as an installed package would bring it: through the entry-point group."""
    point = EntryPoint("other", f"{__name__}:Other", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Other)

    def entry_points(group: str) -> tuple[EntryPoint, ...]:
        assert group == registry.ENTRY_POINT_GROUP
        return (point,)

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_a_string_becomes_a_backend_and_a_backend_stays() -> None:
    backend = open_backend("statevector")
    assert backend == Statevector()
    assert open_backend(backend) is backend
    assert backend.spec == "statevector"


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("other", Other()),
        ("other:fast.qubit", Other(device="fast.qubit")),
        ("other?shots=4096", Other(shots=4096)),
        ("other?shots=None", Other()),
        ("other?exact=False&rate=1e-3", Other(exact=False, rate=1e-3)),
        ("other:x?limit=7", Other(device="x", limit=7)),
        ("other?limit=seven", Other(limit="seven")),
        ("other:a%26b", Other(device="a%26b")),
    ],
)
def test_options_are_read_by_their_fields_types(text: str, expected: Backend) -> None:
    backend = open_backend(text)
    assert backend == expected
    assert repr(backend) == repr(expected)


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    "backend",
    [Other(), Other("gpu"), Other(shots=3, rate=2.5), Other(exact=False, limit="a&b=c d+e%"), Other(limit="path/to:x")],
)
def test_spec_opens_an_equal_backend(backend: Backend) -> None:
    assert open_backend(backend.spec) == backend


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("statevectr", "unknown backend 'statevectr': did you mean 'statevector'"),
        ("othr", "unknown backend 'othr': did you mean 'other'"),
        ("", "unknown backend ''"),
        ("other?shot=3", "unknown option of backend 'other' 'shot': did you mean 'shots'"),
        ("other?handle=3", "unknown option of backend 'other' 'handle'"),
        ("other?shots=many", "option 'shots' of backend 'other' expects int .*got 'many'"),
        ("other?exact=maybe", "option 'exact' of backend 'other' expects bool, got 'maybe'"),
        ("other?shots", "options of backend 'other' expect name=value, got 'shots'"),
        ("other?shots=3&shots=4", "expects option 'shots' once, got it twice"),
        ("statevector:fast", "backend 'statevector' expects nothing after the colon, got 'fast'"),
        ("statevector?shots=3", "unknown option of backend 'statevector' 'shots': it takes none; leave it out.$"),
    ],
)
def test_a_mistyped_string_says_what_was_meant(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_backend(text)


def test_what_is_no_string_is_refused() -> None:
    with pytest.raises(TypeError, match="open_backend expects a string or a Backend, got int; try 'statevector'"):
        open_backend(3)  # pyright: ignore[reportArgumentType] -- the point


@pytest.mark.usefixtures("third_party")
def test_names_list_ours_first_and_then_third_parties() -> None:
    assert backend_names() == [*BACKENDS, "other"]
    assert backend_names()[0] == "statevector"
