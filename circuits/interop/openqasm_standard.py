"""The standard gates of OpenQASM 2 and 3, and the definitions that exports write.

The standard gates are our own table's, or written here in OpenQASM in terms of those. In OpenQASM 3 phases are those of
its specification: ``U(t, f, l) = exp(i t / 2) P(f) RY(t) P(l)`` and ``u3(t, f, l) = RZ(f) RY(t) RZ(l)``. OpenQASM 2,
which leaves global phases open, is read as ``U = u3 = P(f) RY(t) P(l)``.
"""

from collections.abc import Mapping
from functools import lru_cache

from circuits.gates import GATES
from circuits.interop.openqasm_definitions import definitions
from circuits.interop.openqasm_gates import Defined, GateLike, Native, expansion

DEFINITIONS = {
    "sxdg": "gate sxdg a { h a; sdg a; h a; }",
    "rxx": "gate rxx(theta) a, b { h a; h b; cx a, b; rz(theta) b; cx a, b; h b; h a; }",
    "ryy": "gate ryy(theta) a, b { sdg a; h a; sdg b; h b; cx a, b; rz(theta) b; cx a, b; h a; s a; h b; s b; }",
    "rzz": "gate rzz(theta) a, b { cx a, b; rz(theta) b; cx a, b; }",
}
"""What an export writes for gates outside ``stdgates.inc``; a text that defines one of them so is given our gate."""

_COMPOSITES = {"cp": (1, 2), "crx": (1, 2), "cry": (1, 2), "crz": (1, 2), "ccx": (0, 3), "cswap": (0, 3)}
_BUILT_IN = {
    2: "gate U(t, f, l) a { p(l) a; ry(t) a; p(f) a; } gate CX a, b { cx a, b; }",
    3: "gate U(t, f, l) a { gphase(t / 2); p(l) a; ry(t) a; p(f) a; }",
}
_INCLUDED = {
    2: """
    gate u0(t) a { id a; }
    gate u1(l) a { p(l) a; }
    gate u2(f, l) a { p(l) a; ry(pi / 2) a; p(f) a; }
    gate u3(t, f, l) a { p(l) a; ry(t) a; p(f) a; }
    gate u(t, f, l) a { p(l) a; ry(t) a; p(f) a; }
    gate cu1(l) a, b { cp(l) a, b; }
    gate cu3(t, f, l) a, b { cp(l) a, b; cry(t) a, b; cp(f) a, b; }
    gate cu(t, f, l, g) a, b { p(g) a; cp(l) a, b; cry(t) a, b; cp(f) a, b; }
    gate csx a, b { ctrl @ sx a, b; }
    gate rccx a, b, c { h c; t c; cx b, c; tdg c; cx a, c; t c; cx b, c; tdg c; h c; }
    gate rc3x a, b, c, d {
        h d; t d; cx c, d; tdg d; h d; cx a, d; t d; cx b, d; tdg d; cx a, d; t d; cx b, d; tdg d;
        h d; t d; cx c, d; tdg d; h d;
    }
    gate c3x a, b, c, d { ctrl(3) @ x a, b, c, d; }
    gate c3sqrtx a, b, c, d { ctrl(3) @ sx a, b, c, d; }
    gate c4x a, b, c, d, e { ctrl(4) @ x a, b, c, d, e; }
    """,
    3: """
    gate CX a, b { cx a, b; }
    gate phase(l) a { p(l) a; }
    gate cphase(l) a, b { cp(l) a, b; }
    gate u1(l) a { p(l) a; }
    gate u2(f, l) a { rz(l) a; ry(pi / 2) a; rz(f) a; }
    gate u3(t, f, l) a { rz(l) a; ry(t) a; rz(f) a; }
    gate cu(t, f, l, g) a, b { p(g) a; cp(l) a, b; cry(t) a, b; cp(f) a, b; }
    """,
}
INCLUDES = {2: "qelib1.inc", 3: "stdgates.inc"}
"""The one include of each version."""


def built_in(version: int) -> dict[str, GateLike]:
    """Return the gates that need no include.

    >>> sorted(built_in(2)), sorted(built_in(3))
    (['CX', 'U'], ['U', 'gphase'])
    """
    phase: dict[str, GateLike] = {"gphase": _natives()["gphase"]} if version == 3 else {}
    return {**phase, **_defined(_BUILT_IN[version])}


def included(version: int) -> dict[str, GateLike]:
    """Return the gates of the version's include.

    >>> "rzz" in included(2), "rzz" in included(3)
    (True, False)
    """
    names = [gate.name for gate in GATES.values() if (gate.qasm_standard if version == 3 else gate.name != "ryy")]
    natives = {name: _natives()[name] for name in [*names, *_COMPOSITES]}
    return {**natives, **_defined(_INCLUDED[version])}


def recognised(gate: Defined) -> GateLike:
    """Return our own gate where a text defines it as exports do, else the definition.

    >>> recognised(definitions("gate rzz(t) a, b { cx a, b; rz(t) b; cx a, b; }", included(3))["rzz"])
    Native(name='rzz', n_params=1, n_wires=2, size=1, depth=0)
    """
    if gate.name not in DEFINITIONS:
        return gate
    canonical = _defined(DEFINITIONS[gate.name])[gate.name]
    alike = (gate.size, gate.n_params, gate.n_wires) == (canonical.size, canonical.n_params, canonical.n_wires)
    if alike and expansion(gate) == expansion(canonical):
        return Native(gate.name, gate.n_params, gate.n_wires)
    return gate


def _natives() -> dict[str, GateLike]:
    """Every gate of our own table that definitions may use."""
    primitive = {gate.name: Native(gate.name, gate.n_angles, gate.n_wires) for gate in GATES.values()}
    composite = {name: Native(name, *arity) for name, arity in _COMPOSITES.items()}
    return {"gphase": Native("gphase", 1, 0), **primitive, **composite}


@lru_cache(maxsize=8)
def _defined(text: str) -> Mapping[str, Defined]:
    return definitions(text, _natives())
