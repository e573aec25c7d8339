"""Circuits as OpenQASM 3."""

import math

from circuits.gates import GATES
from circuits.interop.openqasm_lexer import MAX_OPS, MAX_WIRES
from circuits.interop.openqasm_standard import DEFINITIONS, INCLUDES
from circuits.ir import RESET, Circuit
from circuits.slots import Input, Product, Slot, Weight, leaves

_DENOMINATORS = (1, 2, 3, 4, 6, 8, 16)


def dumps(circuit: Circuit) -> str:
    """Return the circuit as OpenQASM 3: wire k is ``q[k]``, Input(i) ``input_i``, Weight(j) ``weight_j``.

    A ``gate`` definition is written for each gate outside ``stdgates.inc``. ``loads`` returns an equal circuit, except
    that a product with a plain number comes back as a scaled slot of the same value. Raises ValueError for a circuit
    beyond the limits of ``loads``. Cost O(ops).

    >>> from circuits import Op
    >>> print(dumps(Circuit(2, (Op("ry", (1,), (Input(0, scale=2.0),)), Op("cx", (1, 0))))), end="")
    OPENQASM 3.0;
    include "stdgates.inc";
    input float[64] input_0;
    qubit[2] q;
    ry(2.0*input_0) q[1];
    cx q[1], q[0];
    """
    if circuit.n_wires > MAX_WIRES or len(circuit.ops) > MAX_OPS:
        raise ValueError(
            f"dumps expects at most {MAX_WIRES} wires and {MAX_OPS} ops, got {circuit.n_wires} and "
            f"{len(circuit.ops)}; split the circuit."
        )
    used = {op.name for op in circuit.ops}
    defined = [GATES[name] for name in GATES if name in used and not GATES[name].qasm_standard]
    read = {leaf for slot in (*circuit.slots, *circuit.global_phase) for leaf in leaves(slot)}
    names = sorted({(isinstance(leaf, Weight), leaf.index) for leaf in read})
    lines = [
        "OPENQASM 3.0;",
        f'include "{INCLUDES[3]}";',
        *(DEFINITIONS[gate.name] for gate in defined),
        *(f"input float[64] {'weight' if weight else 'input'}_{index};" for weight, index in names),
        f"qubit[{circuit.n_wires}] q;",
        *(f"gphase({formula(slot)});" for slot in circuit.global_phase),
    ]
    for op in circuit.ops:
        name = RESET if op.name == RESET else GATES[op.name].qasm
        angles = f"({', '.join(formula(slot) for slot in op.slots)})" if op.slots else ""
        lines.append(f"{name}{angles} {', '.join(f'q[{wire}]' for wire in op.wires)};")
    return "\n".join(lines) + "\n"


def formula(slot: Slot) -> str:
    """Return a slot as an expression, exactly: numbers by ``repr``, or as the multiple of pi that they are.

    >>> formula(Product(Input(0), Weight(1, scale=2.0), shift=-math.pi / 2))
    'input_0*(2.0*weight_1) - pi/2'
    """
    if isinstance(slot, Product):
        core = f"{_factor(slot.left)}*{_factor(slot.right)}"
        core = core if slot.scale == 1 else f"({core})"
    elif isinstance(slot, Input | Weight):
        core = f"{'input' if isinstance(slot, Input) else 'weight'}_{slot.index}"
    else:
        return _number(slot)
    scale = "" if slot.scale == 1 else "-" if slot.scale == -1 else f"{_number(slot.scale)}*"
    shift = f" {'-' if slot.shift < 0 else '+'} {_number(abs(slot.shift))}" if slot.shift else ""
    return f"{scale}{core}{shift}"


def _factor(slot: Slot) -> str:
    text = formula(slot)
    return text if text.isidentifier() else f"({text})"


def _number(value: float) -> str:
    for denominator in _DENOMINATORS:
        numerator = round(value * denominator / math.pi) if abs(value) < 64 else 0
        if numerator and numerator * math.pi / denominator == value:
            times = {1: "pi", -1: "-pi"}.get(numerator, f"{numerator}*pi")
            return times if denominator == 1 else f"{times}/{denominator}"
    return repr(value)
