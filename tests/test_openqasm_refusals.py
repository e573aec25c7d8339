"""What OpenQASM texts are refused, in one sentence with the line; and that no text makes the reader hang or fall."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import random_circuit

from circuits import Circuit, Op
from circuits.interop import openqasm, openqasm_export, openqasm_gates
from circuits.interop.openqasm import OpenQASMError, dumps, loads

HEADER = 'OPENQASM 3.0; include "stdgates.inc"; input float p; qubit[3] q; bit[2] c;\n'
OLD = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; creg c[2];\n'


def bomb(levels: int, step: str = "{0} a; {0} a;", first: str = "gate g0 a { x a; }") -> str:
    """Definitions of which each uses the one before twice."""
    gates = " ".join(f"gate g{k} a {{ {step.format(f'g{k - 1}')} }}" for k in range(1, levels + 1))
    return f"{HEADER}{first} {gates} g{levels} q[0];"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ("if (c[0] == 1) x q[0];", "expects gates and resets, got 'if': control flow are not read"),
        ("for int i in [0:2] { x q[i]; }", "got 'for': control flow"),
        ("while (true) { x q[0]; }", "got 'while': control flow"),
        ("def f(qubit a) { x a; }", "got 'def': subroutines and calibrations"),
        ("extern f(float) -> float;", "got 'extern': subroutines"),
        ("defcal x q { }", "got 'defcal': subroutines"),
        ("delay[10ns] q[0];", "got 'delay': timing"),
        ("float x = 2.0;", "got 'float': variables"),
        ("let a = q[0:1];", "got 'let': variables"),
        ("output float x;", "got 'output': variables"),
        ("pragma something", "got 'pragma': pragmas"),
        ("@reversible\nx q[0];", "got '@': pragmas"),
        ("x $0;", "expects a declared qubit or register, got '\\$0'; declare it"),
        ("measure $0;", "expects a declared qubit or register, got '\\$0'"),
        ('include "mine.inc";', "expects the include \"stdgates.inc\" alone, got 'mine.inc'; inline"),
        ('include "../../etc/passwd";', "expects the include \"stdgates.inc\" alone"),
        ("foo q[0];", "expects a gate that is known here, got 'foo'; Define it"),
        ("rxx(0.1) q[0], q[1];", "expects a gate that is known here, got 'rxx'; did you mean"),
        ("rx q[0];", "expects 1 parameters for 'rx', got 0; pass"),
        ("rx(0.1, 0.2) q[0];", "expects 1 parameters for 'rx', got 2; pass"),
        ("cx q[0];", "expects 2 qubits for 'cx' and its controls, got 1; correct"),
        ("ctrl @ x q[0];", "expects 2 qubits for 'x' and its controls, got 1; correct"),
        ("gphase(0.1) q[0];", "expects 0 qubits for 'gphase' and its controls, got 1"),
        ("cx q[0], q[0];", "expects distinct qubits for 'cx', got one twice; correct"),
        ("cx q, q;", "expects distinct qubits for 'cx', got one twice; correct"),
        ("qubit[2] r; cx q, r;", "expects registers of one size, got 2 and 3; name"),
        ("x q[3];", "expects an index within 'q' of size 3, got 3; correct"),
        ("x q[-4];", "expects an index within 'q' of size 3, got -4; correct"),
        ("x q[0.5];", "expects an integer as one index, got 0.5; correct"),
        ("x q[0:1];", "expects '\\]', got ':'; correct"),
        ("x q[p];", "got 'p'; declare it first"),
        ("qubit r; x r[0];", "expects an index within 'r' of size 1, got 0"),
        ("x r;", "expects a declared qubit or register, got 'r'; declare"),
        ("x c[0];", "expects a declared qubit or register, got 'c'; declare"),
        ("reset r;", "expects a declared qubit or register, got 'r'; declare"),
        ("qubit q;", "expects a name that is free, got 'q'; rename"),
        ("qubit pi;", "expects a name that is free, got 'pi'; rename"),
        ("input float q;", "expects a name that is free, got 'q'; rename"),
        ("input int k;", "expects inputs of type float or angle, got int; declare"),
        ("input bit[2] k;", "expects float, angle, int or uint here, got 'bit'; declare"),
        ("const int k = 0.5;", "expects a value of type int for 'k', got 0.5; correct"),
        ("const float k = p;", "expects a parameter, a constant or one of .*, got 'p'; declare it first"),
        ("qubit[0] r;", "expects a size from 1 to 4096, got 0; correct"),
        ("qubit[5000] r;", "expects a size from 1 to 4096, got 5000; correct"),
        ("qubit[4096] r;", "expects at most 4096 qubits, got 4099; split"),
        ("rx(1/2) q[0];", "expects integers that divide evenly, got 1/2; write 1.0"),
        ("rx(1/0) q[0];", "expects a divisor other than 0, got 0; correct"),
        ("rx(1/p) q[0];", "expects a number below the fraction bar, got a free parameter; bind"),
        ("rx(sin(p)) q[0];", "expects a number in sin\\(...\\), got a free parameter; compute"),
        ("rx(2**p) q[0];", "expects a number as exponent, got a free parameter; bind"),
        ("rx(p**3) q[0];", "expects a free parameter to the power 1 or 2, got 3; bind"),
        ("input float r; rx((p + r) * p) q[0];", "expects products of two parameters, got one of sums; multiply"),
        ("rx(" + "*".join("p" * 40) + ") q[0];", "expects products nested at most 16 deep, got more; split"),
        ("rx(9**9**9**9) q[0];", "expects a finite real power, got 9 to .*; correct"),
        ("rx(sqrt(-1)) q[0];", "expects a number in the domain of sqrt, got -1; correct"),
        ("rx(ln(0)) q[0];", "expects a number in the domain of ln, got 0; correct"),
        ("rx(1e400) q[0];", "expects finite numbers, got one that is too large; write"),
        ("rx(1e300 * 1e300) q[0];", "expects finite numbers, got one that is too large; write"),
        ("rx(1e300 * p * 1e300) q[0];", "expects finite coefficients, got one that overflows; scale"),
        ("rx(" + "9" * 5000 + ") q[0];", "expects finite numbers, got one that is too large; write"),
        ("rx(10ns) q[0];", "expects a plain number, got '10n...'; units"),
        ("rx(2im) q[0];", "expects a plain number, got '2i...'; units"),
        ("rx(2^3) q[0];", "expects '\\)', got '\\^'; correct"),
        ("rx(float(2)) q[0];", "expects a parameter, a constant or one of .*, got 'float'"),
        ("rx(0.1 q[0];", "expects '\\)', got 'q'; correct"),
        ("rx() q[0];", "expects 1 parameters for 'rx', got 0"),
        ("x q[0]", "expects ';', got the end of the text; correct"),
        ("x q[0]; ?", "expects a token of OpenQASM, got '\\?'; correct"),
        ("/* never closed", "expects an end to this comment, got '/\\* never clo'; correct"),
        ('"text";', 'expects a statement, got \'"text"\'; correct'),
        ("pow(0.5) @ x q[0];", "expects an integer in pow\\(...\\), got 0.5; correct"),
        ("pow(p) @ x q[0];", "got 'p'; declare it first"),
        ("pow @ x q[0];", "expects '\\(', got '@'; correct"),
        ("ctrl(0) @ x q[0];", "expects at least 1 control, got 0; leave"),
        ("ctrl(40) @ x q[0];", "expects 41 qubits for 'x' and its controls, got 1"),
        ("qubit[14] r; ctrl(13) @ x " + ", ".join(f"r[{k}]" for k in range(14)) + ";",
         "expects 1 to 11 controls, got 13"),
        ("inv @ reset q[0];", "expects a gate that is known here, got 'reset'"),
        ("gate g a { x b; }", "expects a qubit of this gate, got 'b'; Correct"),
        ("gate g a { reset a; }", "expects a gate that is known here, got 'reset'"),
        ("gate g a { measure a; }", "expects a gate that is known here, got 'measure'"),
        ("gate g(t) a { rx(u) a; }", "got 'u'; declare it first"),
        ("gate g(t) a { rx(p) a; }", "got 'p'; declare it first"),
        ("gate g a { g a; }", "expects a gate that is known here, got 'g'"),
        ("gate g(t, t) a { x a; }", "expects distinct names in the gate 'g', got 't' twice; rename"),
        ("gate g a, a { x a; }", "expects distinct names in the gate 'g', got 'a' twice; rename"),
        ("gate g(pi) a { x a; }", "expects free names for parameters, got 'pi'; rename"),
        ("gate g a { x a; } gate g a { y a; }", "expects a new name for a gate, got 'g' again; rename"),
        ("gate U(t) a { x a; }", "expects a new name for a gate, got 'U' again; rename"),
        ("gate g a { x a;", "expects a gate, got the end of the text; correct"),
        ("gate g a { barrier", "expects ';', got the end of the text; correct"),
        ("c = measure q;", "expects a bit for each qubit measured, got 2 and 3; match"),
        ("c[5] = measure q[0];", "expects an index within 'c' of size 2, got 5; correct"),
        ("measure q -> d;", "expects a declared bit, got 'd'; declare"),
        ("qreg r[2]; opaque g a;", "got 'opaque': subroutines"),
    ],
)  # fmt: skip
def test_statements_of_version_3(statements: str, message: str) -> None:
    with pytest.raises(OpenQASMError, match=rf"^line [0-9]+: .*{message}") as caught:
        loads(HEADER + statements)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expects at least one qubit to be declared, got none; declare"),
        ("OPENQASM 4.0; qubit q;", "line 1: expects OpenQASM 2.0, 3.0 or 3.1, got '4.0'; translate"),
        ("x q;", "line 1: expects a gate that is known here, got 'x'; Define it, or include the standard gates"),
        (f"{OLD}\nif (c == 1) x q[0];", "line 3: expects gates and resets, got 'if': control flow"),
        (f"{OLD}ctrl @ x q[0], q[1];", "line 2: expects a gate that is known here, got 'ctrl'"),
        (f"{OLD}qubit[2] r;", "line 2: expects a gate that is known here, got 'qubit'"),
        (f"{OLD}opaque magic a;", "line 2: expects gates and resets, got 'opaque'"),
        (f"{OLD}rx(2**3) q[0];", "line 2: expects '\\)', got '\\*\\*'"),
        (f"{OLD}x q[-1];", "line 2: expects an index within 'q' of size 3, got -1"),
        (f"{OLD}gphase(1.0);", "line 2: expects a gate that is known here, got 'gphase'"),
        ('OPENQASM 2.0; include "stdgates.inc";',
         "line 1: expects the include \"qelib1.inc\" alone, got 'stdgates.inc'"),
    ],
)  # fmt: skip
def test_other_texts(text: str, message: str) -> None:
    with pytest.raises(OpenQASMError, match=f"^{message}"):
        loads(text)


@pytest.mark.parametrize("value", [b"qubit q;", None, 3])
def test_what_is_no_string(value: Any) -> None:
    with pytest.raises(TypeError, match=r"loads expects a string of OpenQASM, got .*; read the file"):
        loads(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(40), "expects a gate that expands to at most 1000000 ops, got 1099511627776; split"),
        (bomb(60, first="gate g0 a { }"), "at most 1000000 ops, got 1152921504606846976"),
        (bomb(63, "pow(9999999) @ {0} a;"), "expects gate definitions nested at most 64 deep, got more at 'g32'"),
        (bomb(20, "pow(9999999) @ {0} a;"), "at most 1000000 ops, got 4611686018427387904"),
        (bomb(100, "{0} a;"), "expects gate definitions nested at most 64 deep, got more at 'g64'; inline"),
        (f"{HEADER}pow(1000000000) @ h q[0];", "expects a gate that expands to at most 1000000 ops, got 1000000000"),
        (f"{HEADER}pow(2000) @ pow(2000) @ h q[0];", "expects a gate that expands to at most 1000000 ops, got 4000000"),
        (f"{HEADER}pow(2000) @ pow(-2000) @ cp(1) q[0], q[1];", "expects a gate that expands to at most 1000000 ops"),
        (f"{HEADER}pow(200000) @ cswap q[0], q[1], q[2];", "expects a text that expands to at most 1000000 ops"),
        (f"{HEADER}{'inv @ ' * 65} x q[0];", "expects at most 64 modifiers, got more; define a gate"),
        (f"{HEADER}rx({'(' * 65}1{')' * 65}) q[0];", "expects an expression of at most 64 levels, got more; split"),
        (f"{HEADER}rx({'(' * 100_000}", "expects an expression of at most 64 levels, got more; split"),
        (f"{HEADER}rx({'-' * 100_000}1) q[0];", "expects an expression of at most 64 levels, got more; split"),
        (f"{HEADER}rx({'2**' * 1000}1) q[0];", "expects an expression of at most 64 levels, got more; split"),
        (f"{HEADER}rx({'1+' * 1000}1) q[0];", "expects an expression of at most 64 levels, got more; split"),
        (f"{HEADER}rx({'sin(' * 1000}1) q[0];", "expects an expression of at most 64 levels, got more; split"),
        (f"{HEADER}{'qubit[4096] r;'}", "expects at most 4096 qubits, got 4099; split"),
    ],
    ids=range(17),
)  # fmt: skip
def test_bombs_are_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(OpenQASMError, match=message) as caught:
        loads(text)
    assert len(str(caught.value)) < 300


def test_controls_that_nest_are_refused_before_they_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openqasm_gates, "MAX_OPS", 20_000)
    names = [", ".join(f"a{i}" for i in range(k + 1)) for k in range(12)]
    gates = [f"gate g{k} {names[k]} {{ ctrl @ g{k - 1} {names[k]}; }}" for k in range(1, 12)]
    qubits = ", ".join(f"r[{k}]" for k in range(12))
    with pytest.raises(OpenQASMError, match="expects a text that expands to at most 20000 ops, got more; split"):
        loads(f"{HEADER}gate g0 a {{ h a; t a; }} {' '.join(gates)} qubit[12] r; g11 {qubits};")


def test_limits_hold_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    text = dumps(random_circuit(np.random.default_rng(0), 2, 5))
    monkeypatch.setattr(openqasm_gates, "MAX_OPS", 3)
    with pytest.raises(OpenQASMError, match="got more; split"):
        loads(text)
    monkeypatch.setattr(openqasm, "MAX_CHARACTERS", 10)
    with pytest.raises(OpenQASMError, match=r"expects a text of at most 10 characters, got .*; split"):
        loads(text)
    monkeypatch.setattr(openqasm_export, "MAX_OPS", 3)
    for circuit in (Circuit(1, (Op("h", (0,)),) * 4), Circuit(5000)):
        with pytest.raises(ValueError, match=r"dumps expects at most 4096 wires and 3 ops, got .*; split"):
            dumps(circuit)


PIECES = [*" ;,(){}[]@*/-+.0129eqxp\"'$", "gate ", "ctrl @ ", "rx("]


def _mutated(text: str, edits: list[tuple[float, str]]) -> str:
    for where, piece in edits:
        at = int(where * len(text))
        text = text[:at] + piece + text[at + len(piece) :]
    return text


def _outcome(read: Callable[[], Circuit]) -> str:
    try:
        read()
    except OpenQASMError as error:
        return str(error)
    return ""


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from(PIECES)), max_size=6),
    st.sampled_from([0, 1]),
)  # fmt: skip
def test_damaged_texts_are_read_or_refused_in_one_sentence(edits: list[tuple[float, str]], seed: int) -> None:
    text = _mutated(dumps(random_circuit(np.random.default_rng(seed), 3, 12, resets=True)), edits)
    message = _outcome(lambda: loads(text))
    assert "\n" not in message
    assert len(message) < 400
