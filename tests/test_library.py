"""Circuit families: the states, spectra, numbers and sizes that their docstrings promise."""

import numpy as np
import pytest
from oracles import NOTHING, density, expectations, random_data, reduced

from circuits import Circuit, Input, Op, Weight, X, Z
from circuits.library import angle_encoding, hardware_efficient, reuploading


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_angle_encoding_is_a_product_state_with_cosine_expectations(axis: str) -> None:
    circuit = angle_encoding(3, axis)
    inputs, _ = random_data(np.random.default_rng(0), circuit, 4)
    pauli = X if axis == "z" else Z
    observed = expectations(circuit, inputs, NOTHING, [pauli(wire) for wire in range(3)])
    np.testing.assert_allclose(observed, np.cos(inputs), atol=1e-14)
    joint = expectations(circuit, inputs, NOTHING, [pauli(0) @ pauli(2)])
    np.testing.assert_allclose(joint[:, 0], np.cos(inputs[:, 0]) * np.cos(inputs[:, 2]), atol=1e-14)
    rho = density(circuit, inputs[0])
    parts = [reduced(rho, (wire,)) for wire in range(3)]
    np.testing.assert_allclose(np.kron(np.kron(parts[0], parts[1]), parts[2]), rho, atol=1e-14)


def test_angle_encoding_has_one_rotation_per_input() -> None:
    assert angle_encoding(2, "x") == Circuit(2, (Op("rx", (0,), (Input(0),)), Op("rx", (1,), (Input(1),))))
    assert [op.name for op in angle_encoding(2, "z").ops] == ["h", "rz", "h", "rz"]
    assert (angle_encoding(5).n_inputs, angle_encoding(5).n_weights, angle_encoding(5).depth) == (5, 0, 1)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("wire", [0, 2])
def test_reuploading_is_a_fourier_series_up_to_its_depth(depth: int, wire: int) -> None:
    circuit = reuploading(3, depth)
    rng = np.random.default_rng(depth)
    n_points = 16
    inputs = np.tile(rng.uniform(-3, 3, 3), (n_points, 1))
    inputs[:, wire] = 2 * np.pi * np.arange(n_points) / n_points
    weights = rng.uniform(-3, 3, circuit.n_weights)
    spectrum = np.abs(np.fft.rfft(expectations(circuit, inputs, weights, [Z(0), Z(1), Z(2)]), axis=0)) / n_points
    assert spectrum[depth + 1 :].max() < 1e-14  # no frequency above the depth, and none between the integers
    assert spectrum[depth].max() > 1e-3  # and the highest one is there


def test_a_frequency_between_the_integers_would_show() -> None:
    """The spectrum test can fail: a scaled encoding leaks into the high frequencies."""
    inputs = (2 * np.pi * np.arange(16) / 16)[:, None]
    scaled = Circuit(1, (Op("ry", (0,), (Input(0, scale=0.5),)),))
    spectrum = np.abs(np.fft.rfft(expectations(scaled, inputs, NOTHING, [Z(0)]), axis=0))
    assert spectrum[2:].max() > 1e-2


@pytest.mark.parametrize(("n_wires", "depth"), [(1, 1), (2, 2), (4, 3), (3, 0)])
def test_reuploading_layers_and_numbers(n_wires: int, depth: int) -> None:
    circuit = reuploading(n_wires, depth)
    assert circuit.n_inputs == (n_wires if depth else 0)
    assert circuit.n_weights == 3 * n_wires * depth
    ring = n_wires if n_wires > 1 else 0
    assert len(circuit.ops) == depth * (4 * n_wires + ring)
    weights = [slot.index for slot in circuit.slots if isinstance(slot, Weight)]
    assert weights == list(range(3 * n_wires * depth))
    inputs = [slot.index for slot in circuit.slots if isinstance(slot, Input)]
    assert inputs == list(range(n_wires)) * depth


@pytest.mark.parametrize(
    ("entangler", "pairs"),
    [
        ("ring", [("cx", (0, 1)), ("cx", (1, 2)), ("cx", (2, 0))]),
        ("chain", [("cx", (0, 1)), ("cx", (1, 2))]),
        ("cz-ring", [("cz", (0, 1)), ("cz", (1, 2)), ("cz", (2, 0))]),
        ("cz-chain", [("cz", (0, 1)), ("cz", (1, 2))]),
    ],
)
def test_hardware_efficient_layers(entangler: str, pairs: list[tuple[str, tuple[int, int]]]) -> None:
    circuit = hardware_efficient(3, 2, entangler)
    half = len(circuit.ops) // 2
    for layer, ops in enumerate((circuit.ops[:half], circuit.ops[half:])):
        rotations = [Op(f"r{axis}", (k // 3,), (Weight(9 * layer + k),)) for k, axis in enumerate("xyz" * 3)]
        assert list(ops) == rotations + [Op(name, pair) for name, pair in pairs]
    assert (circuit.n_weights, circuit.n_inputs) == (18, 0)


def test_small_sizes() -> None:
    assert [op.name for op in hardware_efficient(1, 1).ops] == ["rx", "ry", "rz"]
    assert [op.wires for op in hardware_efficient(2, 1).ops[-2:]] == [(0, 1), (1, 0)]
    assert hardware_efficient(2, 0) == Circuit(2) == reuploading(2, 0)


def test_encoder_and_ansatz_compose() -> None:
    assert angle_encoding(3) + hardware_efficient(3, 1) == reuploading(3, 1)


def test_families_entangle() -> None:
    circuit = reuploading(3, 1)
    inputs, weights = random_data(np.random.default_rng(2), circuit, 1)
    purity = [
        np.trace(part @ part).real for part in (reduced(density(circuit, inputs[0], weights), (k,)) for k in range(3))
    ]
    assert max(purity) < 0.99


def test_families_refuse() -> None:
    with pytest.raises(ValueError, match="angle_encoding expects axis 'x', 'y' or 'z', got 'w'; pick"):
        angle_encoding(2, "w")
    with pytest.raises(ValueError, match="angle_encoding expects n_wires of at least 1, got 0"):
        angle_encoding(0)
    with pytest.raises(ValueError, match=r"unknown entangler 'rng': did you mean 'ring'.* Known: chain, cz-chain"):
        hardware_efficient(2, 1, "rng")
    with pytest.raises(ValueError, match="reuploading expects depth of at least 0, got -1"):
        reuploading(2, -1)
