"""Attention layers of pretrained models replaced by recurrent blocks: see ``qlm.conversion.run``."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qlm.conversion.config import ConvertedConfig
    from qlm.conversion.gate import Causality, LeakError, measure_causality
    from qlm.conversion.modeling import ConvertedForCausalLM, replace_attention
    from qlm.conversion.run import Conversion, convert

_HOME = {
    "Causality": "qlm.conversion.gate",
    "Conversion": "qlm.conversion.run",
    "ConvertedConfig": "qlm.conversion.config",
    "ConvertedForCausalLM": "qlm.conversion.modeling",
    "LeakError": "qlm.conversion.gate",
    "convert": "qlm.conversion.run",
    "measure_causality": "qlm.conversion.gate",
    "replace_attention": "qlm.conversion.modeling",
}

__all__ = [
    "Causality",
    "Conversion",
    "ConvertedConfig",
    "ConvertedForCausalLM",
    "LeakError",
    "convert",
    "measure_causality",
    "replace_attention",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'qlm.conversion' has no attribute '{name}'")
