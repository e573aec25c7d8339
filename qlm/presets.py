"""Named configurations."""

from typing import Any

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
}
"""Preset name -> keys of ``QLMConfig``."""
