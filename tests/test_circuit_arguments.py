"""Numbers that are none, and wires that are not there: one sentence each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from circuits import Circuit, Op
from circuits.library import angle_encoding, hardware_efficient, reuploading

LOOSE: Any = Circuit
FAMILIES: Any = angle_encoding, hardware_efficient, reuploading


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: Circuit(2).remap((0, 1), 1), ValueError, "remap expects wires below 1, got 1"),
        (lambda: LOOSE(1).repeat(1.5), TypeError, "repeat expects an integer times, got 1.5"),
        (lambda: LOOSE(3).prefix("a"), TypeError, "prefix expects an integer number of ops, got 'a'"),
        (lambda: LOOSE(3).draw("a"), TypeError, "a drawing expects an integer width, got 'a'"),
        (lambda: LOOSE(3).angles([[1.0]], [1.0]), TypeError, "numpy arrays or tensors, got inputs as list"),
        (lambda: FAMILIES[0]("a"), TypeError, "angle_encoding expects an integer n_wires, got 'a'"),
        (lambda: FAMILIES[1](2.5, 1), TypeError, "hardware_efficient expects an integer n_wires, got 2.5"),
        (lambda: FAMILIES[1](2, True), TypeError, "hardware_efficient expects an integer depth, got True"),
        (lambda: FAMILIES[2](0, 1), ValueError, "reuploading expects n_wires of at least 1, got 0"),
        (lambda: FAMILIES[2](2, -1), ValueError, "reuploading expects depth of at least 0, got -1"),
        (lambda: Op("RX", (0,), (0.1,)), ValueError, "unknown gate 'RX': did you mean 'rx'"),
    ],
)
def test_wrong_arguments_get_one_sentence(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()


def test_numpy_integers_are_integers() -> None:
    size: Any = np.int64(2)
    assert hardware_efficient(size, size) == hardware_efficient(2, 2)
    assert Circuit(2).repeat(size) == Circuit(2)
