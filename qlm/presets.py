"""Named configurations.

``harmonic``, ``mamba``, ``rotational`` and ``transformer`` are baselines of one another: the same width and, to 2 % of
the Transformer's, as many parameters outside the embedding: a Transformer's layer, 12 d**2 numbers, holds as many as
two recurrent blocks of 6 d**2.
"""

from typing import Any


def _harmonic(**changes: Any) -> dict[str, Any]:
    return {"d_model": 128, "blocks": [{"kind": "harmonic", **changes} for _ in range(6)]}


PRESETS: dict[str, dict[str, Any]] = {
    "tiny-hybrid": {
        "d_model": 128,
        "blocks": [
            {"kind": "harmonic"},
            {"kind": "quantum_router"},
            {"kind": "tt_feed_forward"},
            {"kind": "harmonic"},
            {"kind": "tt_feed_forward"},
        ],
    },
    "harmonic": _harmonic(),
    "flat-tau-4": _harmonic(taus=[4.0, 4.0, 4.0]),
    "flat-tau-32": _harmonic(taus=[32.0, 32.0, 32.0]),
    "flat-tau-128": _harmonic(taus=[128.0, 128.0, 128.0]),
    "raw-signal": _harmonic(signal="raw"),
    "mamba": {"d_model": 128, "blocks": [{"kind": "mamba"} for _ in range(5)]},
    "rotational": {"d_model": 128, "blocks": [{"kind": "rotational", "expansion": 1.8125} for _ in range(6)]},
    "transformer": {"d_model": 128, "blocks": [{"kind": "transformer"} for _ in range(3)]},
}
"""Preset name -> keys of ``QLMConfig``."""
