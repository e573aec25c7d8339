"""Cheap sizes of blocks for tests; a block that is not named here is built with its defaults."""

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "grover_memory": {"n_wires": 2},
    "harmonic_qubits": {"taus": [4.0], "n_channels": 2},
    "kernel_attention": {"n_wires": 2, "depth": 1, "d_value": 8},
    "mamba": {"n_states": 3},
    "quantum_router": {"n_wires": 2, "depth": 1},
    "rotational": {"expansion": 2.0, "n_heads": 2, "n_states": 2},
    "time_crystal": {"n_wires": 2, "periods": 3},
    "transformer": {"n_heads": 2},
    "tt_feed_forward": {"ranks": [1, 2, 3, 4]},
    "vqc_experts": {"n_experts": 3, "depth": 1},
}
