"""Pictures: every gate and angle is there, nothing leaves the canvas, and the command line writes them."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from oracles import random_circuit
from typer.testing import CliRunner

from circuits import GATES, Circuit, Input, Op, Reset, Weight
from circuits.draw import angle
from circuits.interop.openqasm import dumps
from circuits.library import reuploading


def texts(circuit: Circuit, width: float = 18.0) -> list[str]:
    return [text.get_text() for text in circuit.figure(width).axes[0].texts]


def test_angles_and_wires_are_written() -> None:
    ops = (Op("ry", (0,), (Input(0),)), Op("rzz", (0, 2), (Weight(1, 2.0),)), *Reset(1), Op("cx", (2, 0)))
    found = texts(Circuit(3, ops, (Weight(0),)))
    assert sorted(found) == sorted(["0", "1", "2", "RY", "x0", "RZZ", "RZZ", "2·w1", "2·w1", "|0⟩", "global phase: w0"])


@pytest.mark.parametrize("seed", range(3))
def test_every_op_is_drawn_within_the_axes(seed: int) -> None:
    circuit = random_circuit(np.random.default_rng(seed), 4, 40, resets=True)
    axes = circuit.figure(12).axes[0]
    found = [text.get_text() for text in axes.texts]
    for name in ("rx", "ry", "rz", "p", "rxx", "ryy", "rzz"):
        assert found.count(name.upper()) == GATES[name].n_wires * sum(op.name == name for op in circuit.ops)
    shown = {angle(slot) for slot in circuit.slots if len(angle(slot)) <= 24}
    assert shown <= set(found)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for text in axes.texts:
        x, y = text.get_position()
        assert left < x < right
        assert top < y < bottom
    assert sum(marker.get_marker() == "+" for marker in axes.lines) == sum(op.name == "cx" for op in circuit.ops)


def test_long_circuits_wrap_and_each_row_names_its_wires() -> None:
    found = texts(reuploading(2, 4), 12)
    assert found.count("0") == found.count("1") > 1
    tall, wide = (reuploading(2, 4).figure(width).get_size_inches() for width in (12, 500))
    assert tall[1] > 2 * wide[1]
    assert tall[0] < wide[0]


def test_an_empty_circuit_and_a_narrow_picture() -> None:
    assert texts(Circuit(2)) == ["0", "1"]
    with pytest.raises(ValueError, match="a picture expects a width of at least 4 gates, got 3; widen"):
        Circuit(1).figure(3)


def draw(*arguments: object) -> tuple[int, str]:
    from qlm.cli import app

    result = CliRunner().invoke(app, ["draw", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_line_reads_openqasm_and_writes_pictures(tmp_path: Path) -> None:
    circuit = reuploading(2, 1)
    source, picture = tmp_path / "mine.qasm", tmp_path / "mine.png"
    source.write_text(dumps(circuit))
    code, shown = draw(source)
    assert code == 0
    assert circuit.draw(80) in shown
    assert draw(source, "--out", picture)[0] == 0
    image = matplotlib.image.imread(picture)
    assert image.shape[1] > image.shape[0] > 100
    assert 0.01 < np.mean(image[..., :3] < 0.5) < 0.5  # some ink, mostly paper
    for out, message in (("mine.gif", "to end in .png"), ("no/where.png", "a path it can write")):
        code, shown = draw(source, "--out", tmp_path / out)
        assert code == 2
        assert message in " ".join(shown.split())
    source.write_text("qubit q; if (1) x q;")
    code, shown = draw(source)
    assert code == 2
    assert "line 1: expects gates and resets, got 'if'" in " ".join(shown.split())
