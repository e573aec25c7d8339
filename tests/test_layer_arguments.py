"""What no circuit layer can be built of, and what it cannot read: one sentence each."""

import numpy as np
import pytest
import torch

from circuits import Circuit, Input, Op, Weight, Z
from qlm import QuantumLayer

BELL = Circuit(2, (Op("ry", (0,), (Input(0),)), Op("rx", (1,), (Weight(0),)), Op("cx", (0, 1))))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((BELL, Z(0)), TypeError, r"sequence of observables, got a PauliSum; write \(Z\(0\),\)"),
        ((BELL, 3), TypeError, r"sequence of Pauli sums, got int; write \(Z\(0\),\)"),
        ((BELL, ()), ValueError, "at least one observable, got none"),
        ((BELL, ("Z",)), TypeError, "expects a Pauli sum, got str"),
        ((BELL, (Z(2),)), ValueError, "expects wires below 2, got 2"),
        (("bell", (Z(0),)), TypeError, "expects a Circuit, got str"),
        ((BELL, (Z(0),), 3), TypeError, "a string or a Backend, got int"),
        ((BELL, (Z(0),), "statevector", 3), TypeError, "a name, a rule or None, got int"),
        ((BELL, (Z(0),), "statevector", "spas"), ValueError, "did you mean 'spsa'"),
    ],
)
def test_what_is_no_layer_is_refused_when_it_is_built(
    arguments: tuple[object, ...], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        QuantumLayer(*arguments)  # pyright: ignore[reportArgumentType] -- the point


@pytest.mark.parametrize(
    ("inputs", "error", "sentence"),
    [
        ([[0.1]], TypeError, "inputs expect a torch tensor, got list; pass torch.as_tensor of it"),
        (np.zeros((1, 1)), TypeError, "inputs expect a torch tensor, got ndarray"),
        (None, TypeError, "inputs expect a torch tensor, got NoneType"),
        (torch.zeros(1, 1) + 0j, TypeError, "real numbers in radians, got torch.complex64"),
        (torch.zeros(4, 2), ValueError, r"inputs expect shape \(batch, 1\), got \(4, 2\)"),
        (torch.zeros(3, 4, 2), ValueError, r"inputs expect shape \(..., 1\), got \(3, 4, 2\); give one column"),
    ],
)
def test_what_a_layer_cannot_read_is_refused_by_its_name(inputs: object, error: type[Exception], sentence: str) -> None:
    module = QuantumLayer(BELL, (Z(0),))
    module.label = "layers.1"
    for call in (module, lambda given: module.entropy(given, (0,))):
        if call is not module and isinstance(inputs, torch.Tensor) and inputs.ndim == 3:
            continue  # entropies are asked for in batches alone
        with pytest.raises(error, match=f"^layer 'layers.1': .*{sentence}"):
            call(inputs)  # pyright: ignore[reportArgumentType] -- the point
