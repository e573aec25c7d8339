"""Text drawings, compared whole: what a reader sees."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import circuits_strategy, random_circuit

from circuits import GATES, Circuit, Input, Op, Product, Reset, Slot, Weight
from circuits.draw import angle, text
from circuits.library import reuploading

BELL = """
0: ─┤H├─●─
        │
1: ─────⊕─
"""

RING = """
0: ─┤RY(x0)├─┤RX(w0)├─┤RY(w1)├─┤RZ(w2)├─●───⊕─
                                        │   │
1: ─┤RY(x1)├─┤RX(w3)├─┤RY(w4)├─┤RZ(w5)├─⊕─●─┼─
                                          │ │
2: ─┤RY(x2)├─┤RX(w6)├─┤RY(w7)├─┤RZ(w8)├───⊕─●─
"""

MIXED = """
0: ─┤H├─●──────────●──┤RZZ(2·x0·x1)├──────┤√X†├───────────────────
        │          │        │
1: ─────┼─────⊕─×─┤H├───────┼──────────────|0⟩───────────┤T†├─────
        │     │ │           │
2: ─────┼─┤X├─┼─×─┤Y├─┤    RZZ     ├───┤P(-3π/4)├─────────────────
        │     │    │
3: ─────┼─────●────┼───────|0⟩───────┤     RXX     ├─┤RX(0.1235)├─
        │          │                        │
4: ─────⊕──────────●─────────────────┤RXX(2·w3+0.5)├──────────────

global phase: w0 + π/2
"""

WRAPPED = """
0: ─┤RX(w0)├─┤RY(w1)├─●─┤RX(w2)├┄
                      │
1: ───────────────────⊕─────────┄

0: ┄┤RY(w3)├─●─┤RX(w4)├─┤RY(w5)├┄
             │
1: ┄─────────⊕──────────────────┄

0: ┄●─
    │
1: ┄⊕─
"""


def mixed() -> Circuit:
    ops = (
        Op("h", (0,)),
        Op("cx", (0, 4)),
        Op("x", (2,)),
        Op("cx", (3, 1)),
        Op("swap", (1, 2)),
        Op("cy", (4, 2)),
        Op("ch", (0, 1)),
        Op("rzz", (0, 2), (Product(Input(0), Input(1), scale=2.0),)),
        *Reset((1, 3)),
        Op("rxx", (4, 3), (Weight(3, 2.0, 0.5),)),
        Op("sxdg", (0,)),
        Op("tdg", (1,)),
        Op("p", (2,), (-3 * math.pi / 4,)),
        Op("rx", (3,), (0.123456,)),
    )
    return Circuit(5, ops, global_phase=(Weight(0), math.pi / 2))


def step(first: int) -> tuple[Op, ...]:
    return (Op("rx", (0,), (Weight(first),)), Op("ry", (0,), (Weight(first + 1),)), Op("cx", (0, 1)))


@pytest.mark.parametrize(
    ("circuit", "width", "expected"),
    [
        (Circuit(2, (Op("h", (0,)), Op("cx", (0, 1)))), 100, BELL),
        (reuploading(3, 1), 100, RING),
        (mixed(), 100, MIXED),
        (Circuit(2, step(0) + step(2) + step(4)), 34, WRAPPED),
        (Circuit(2), 100, "\n0: ──\n1: ──\n"),
        (Circuit(2, (Op("s", (0,)), Op("id", (1,)))), 100, "\n0: ─┤S├─\n1: ─┤I├─\n"),
    ],
    ids=["bell", "ring", "mixed", "wrapped", "empty", "local"],
)
def test_drawing(circuit: Circuit, width: int, expected: str) -> None:
    assert f"\n{text(circuit, width)}\n" == expected
    assert circuit.draw(width) == text(circuit, width)


@pytest.mark.parametrize(
    ("slot", "formula"),
    [
        (0.0, "0"),
        (math.pi, "π"),
        (-math.pi, "-π"),
        (math.pi / 2, "π/2"),
        (-3 * math.pi / 8, "-3π/8"),
        (2 * math.pi / 3, "2π/3"),
        (3.14159, "3.142"),
        (1e-7, "1e-07"),
        (2.0, "2"),
        (Input(0), "x0"),
        (Weight(12, scale=-1.0), "-w12"),
        (Weight(3, scale=2.0, shift=0.5), "2·w3+0.5"),
        (Input(1, scale=math.pi, shift=-math.pi / 2), "π·x1-π/2"),
        (Product(Input(0), Input(1)), "x0·x1"),
        (Product(Input(0, shift=-math.pi), Input(1, shift=-math.pi), scale=2.0), "2·(x0-π)·(x1-π)"),
        (Product(Input(0), Weight(1, scale=-1.0), shift=1.0), "x0·(-w1)+1"),
        (Product(Product(Input(0), 0.5), Weight(1)), "x0·0.5·w1"),
        (Product(-0.5, Weight(1)), "(-0.5)·w1"),
    ],
)
def test_angles_read_as_formulas(slot: Slot, formula: str) -> None:
    assert angle(slot) == formula


@settings(max_examples=50)
@given(circuits_strategy(max_wires=5, resets=True), st.integers(20, 90))
def test_blocks_are_rectangles_that_fit_and_lines_connect(circuit: Circuit, width: int) -> None:
    drawing = text(circuit, width)
    blocks = [block.split("\n") for block in drawing.split("\n\n")]
    if circuit.global_phase:
        assert blocks.pop()[0].startswith("global phase: ")
    for block in blocks:
        wires = [line for line in block if ": " in line]
        assert [int(line.split(":")[0]) for line in wires] == list(range(circuit.n_wires))
        assert len({len(line) for line in wires}) == 1
        assert max(len(line) for line in block) <= width
        for above, line, below in zip(block, block[1:], block[2:], strict=False):
            for column in (k for k, mark in enumerate(line) if mark == "│"):
                assert above[column] != "─"  # a vertical line starts and ends on something
                assert below[column] != "─"


@pytest.mark.parametrize("seed", range(3))
def test_every_op_is_drawn_once(seed: int) -> None:
    circuit = random_circuit(np.random.default_rng(seed), 4, 40, resets=True)
    drawing = text(circuit, 100_000)
    count = {name: sum(op.name == name for op in circuit.ops) for name in (*GATES, "reset")}
    assert drawing.count("|0⟩") == count["reset"]
    assert drawing.count("×") == 2 * count["swap"]
    assert drawing.count("⊕") == count["cx"]
    assert drawing.count("●") == count["cx"] + count["cy"] + 2 * count["cz"] + count["ch"]
    for name in ("rx", "ry", "rz", "p", "rxx", "ryy", "rzz"):
        assert drawing.count(f"┤{name.upper()}(") == count[name]


def test_a_gate_without_a_symbol_of_its_own_is_a_box() -> None:
    for gate in GATES.values():
        drawing = text(Circuit(gate.n_wires, (Op(gate.name, tuple(range(gate.n_wires)), (0.5,) * gate.n_angles),)))
        assert len(drawing.split("\n")) == 2 * gate.n_wires - 1  # a row per wire and one between two linked ones
        if gate.n_angles:
            assert f"┤{gate.name.upper()}(0.5)├" in drawing


def test_a_long_formula_is_cut_to_fit() -> None:
    slot: Slot = Input(0)
    for k in range(12):
        slot = Product(slot, Weight(k, shift=0.1))
    drawing = text(Circuit(1, (Op("rx", (0,), (slot,)),)), 40)
    assert drawing == f"0: ─┤{'RX(x0·(w0+0.1)·(w1+0.1)·(w2+0.1)·(w3+0.1)'[:32]}…├─"


def test_a_width_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="a drawing expects width of at least 20, got 19"):
        text(Circuit(1), 19)
