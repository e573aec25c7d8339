"""Small mixtures of experts for tests, away from their start."""

from typing import Any

import torch
from torch import Tensor, nn

from qlm.blocks.vqc_experts import VQCExperts, VQCExpertsConfig, VQCExpertsReport
from qlm.experts.router import CircuitRouter, renormalise


def block(backend: str = "statevector", d_model: int = 8, seed: int = 0, **changes: Any) -> VQCExperts:
    """A small block whose circuit is away from its start."""
    torch.manual_seed(seed)
    made = VQCExperts(d_model, VQCExpertsConfig(**{"n_experts": 4, "depth": 2, **changes}), backend)
    if isinstance(made.router, CircuitRouter):
        nn.init.normal_(made.router.layer.weights)
    return made


def report_of(made: VQCExperts) -> VQCExpertsReport:
    assert made.report is not None
    return made.report


def routing(made: VQCExperts, hidden: Tensor) -> Tensor:
    """g (n, e) of a stream (b, l, d)."""
    assert made.router is not None
    return renormalise(made.router(made.angles(hidden).flatten(0, 1))).g
