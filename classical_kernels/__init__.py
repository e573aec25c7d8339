"""Recurrences for language models: compiled where they run often, with the plain loop beside them as the oracle."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classical_kernels.convolution.dispatch import causal_convolution, causal_convolution_step
    from classical_kernels.convolution.reference import causal_convolution_reference
    from classical_kernels.duality.chunked import prefers_ssd, ssd, ssd_step
    from classical_kernels.duality.reference import ssd_reference
    from classical_kernels.linear_attention.chunked import causal_linear_attention
    from classical_kernels.linear_attention.quadratic import causal_attention
    from classical_kernels.linear_attention.reference import causal_linear_attention_reference
    from classical_kernels.linear_scan.dispatch import scan, scan_step
    from classical_kernels.linear_scan.reference import scan_reference
    from classical_kernels.selective.dispatch import selective_scan, selective_step
    from classical_kernels.selective.reference import selective_scan_reference

__all__ = [
    "causal_attention",
    "causal_convolution",
    "causal_convolution_reference",
    "causal_convolution_step",
    "causal_linear_attention",
    "causal_linear_attention_reference",
    "prefers_ssd",
    "scan",
    "scan_reference",
    "scan_step",
    "selective_scan",
    "selective_scan_reference",
    "selective_step",
    "ssd",
    "ssd_reference",
    "ssd_step",
]

# No submodule may bear a name of this table: importing it would replace the function by the module.
_MODULES = {
    "causal_attention": "classical_kernels.linear_attention.quadratic",
    "causal_convolution": "classical_kernels.convolution.dispatch",
    "causal_convolution_reference": "classical_kernels.convolution.reference",
    "causal_convolution_step": "classical_kernels.convolution.dispatch",
    "causal_linear_attention": "classical_kernels.linear_attention.chunked",
    "causal_linear_attention_reference": "classical_kernels.linear_attention.reference",
    "prefers_ssd": "classical_kernels.duality.chunked",
    "scan": "classical_kernels.linear_scan.dispatch",
    "scan_reference": "classical_kernels.linear_scan.reference",
    "scan_step": "classical_kernels.linear_scan.dispatch",
    "selective_scan": "classical_kernels.selective.dispatch",
    "selective_scan_reference": "classical_kernels.selective.reference",
    "selective_step": "classical_kernels.selective.dispatch",
    "ssd": "classical_kernels.duality.chunked",
    "ssd_reference": "classical_kernels.duality.reference",
    "ssd_step": "classical_kernels.duality.chunked",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
