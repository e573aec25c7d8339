"""Hybrid quantum/classical language models: circuits, blocks, training and entropy views."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import backends
import circuits
from qlm.auto_classes import register_when_imported

if TYPE_CHECKING:
    from qlm.amplification import AmplifiedLogits
    from qlm.config import QLMConfig
    from qlm.entropy import measure_entropy
    from qlm.modeling import QLMForCausalLM, QLMModel
    from qlm.natural_gradient import QuantumNaturalGradient
    from qlm.probabilities import ProbabilityLayer
    from qlm.quantum import QuantumLayer
    from qlm.state import RecurrentState
    from qlm.tokenizer import ByteTokenizer

_HOME = {
    "AmplifiedLogits": "qlm.amplification",
    "ByteTokenizer": "qlm.tokenizer",
    "ProbabilityLayer": "qlm.probabilities",
    "QLMConfig": "qlm.config",
    "QLMForCausalLM": "qlm.modeling",
    "QLMModel": "qlm.modeling",
    "QuantumLayer": "qlm.quantum",
    "QuantumNaturalGradient": "qlm.natural_gradient",
    "RecurrentState": "qlm.state",
    "measure_entropy": "qlm.entropy",
}

__all__ = [
    "AmplifiedLogits",
    "ByteTokenizer",
    "ProbabilityLayer",
    "QLMConfig",
    "QLMForCausalLM",
    "QLMModel",
    "QuantumLayer",
    "QuantumNaturalGradient",
    "RecurrentState",
    "measure_entropy",
]

for _package in (backends, circuits):
    if not getattr(_package, "IS_HYBRIDQLM", False):
        raise ImportError(
            f"qlm expects its own package '{_package.__name__}', got an unrelated one from {_package.__file__}; "
            f"uninstall that one or put hybridqlm first on the path."
        )

register_when_imported()


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'qlm' has no attribute '{name}'")
