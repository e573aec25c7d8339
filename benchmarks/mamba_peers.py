"""A training step of our Mamba blocks against Hugging Face's without its CUDA kernels, and against mambapy's.

    python -m benchmarks.mamba_peers --rounds 5
    python -m benchmarks.mamba_peers --sizes 1.5M --lengths 256 512 1024

float32, one thread, batch 1, blocks alone (no embedding, no head), 16 states, 4 taps, twice the width inside. A step is
forward, backward and a fused AdamW. Candidates start from the same weights, and nothing is timed before their outputs
and the gradients of every weight agree with ours to 1e-4 of each one's norm. They take turns in one process, and what
counts is the process's own time on the core. mambapy is no dependency: `pip install --no-deps mambapy`.

Hugging Face's slow path is a loop in Python over the tokens, and the gradient of each of its slices has the size of all
states: its time grows with the square of the length. The parts of our own step are told below each size, with what the
ratios would be if all but the matrix products, which everybody needs, were free.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MambaConfig as PeerConfig
from transformers.models.mamba.modeling_mamba import MambaBlock

from benchmarks.statevector.timing import Figure, interleaved
from qlm.blocks.base import Context
from qlm.blocks.mamba import Mamba, MambaConfig

SIZES = {"1.5M": (192, 6), "29M": (512, 17)}
"""Width and number of blocks, by the parameters that come of them."""
LENGTHS = {"1.5M": (256, 512), "29M": (128, 256)}
GOALS = {"Hugging Face": 40.0, "mambapy": 6.0}
OUT = Path(__file__).resolve().parent / "results" / "mamba_peers.json"
EPSILON = 1e-6
"""Of the norms, as our blocks have it."""
NAMES = {
    "norm.weight": "norm.weight", "mixer.in_proj.weight": "value_gate.weight",
    "mixer.conv1d.weight": "convolution.weight", "mixer.conv1d.bias": "convolution.bias",
    "mixer.x_proj.weight": "selection.weight", "mixer.dt_proj.weight": "delta.weight",
    "mixer.dt_proj.bias": "delta.bias", "mixer.A_log": "log_decay", "mixer.D": "skip",
    "mixer.out_proj.weight": "out.weight",
}  # fmt: skip
"""Parameters of a peer's block, by ours."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the candidates take turns")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES), help="parameters of the stacks")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens of a step, for all sizes")
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    figures = []
    for size in arguments.sizes:
        for length in arguments.lengths or LENGTHS[size]:
            figures += compare(size, length, arguments.rounds)
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    arguments.out.parent.mkdir(exist_ok=True)
    record = {**machine, "figures": [figure.record() for figure in figures]}
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


class Ours(nn.Module):
    """A stack of our blocks."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mamba(width, MambaConfig()) for _ in range(depth))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, Context()).hidden
        return hidden


class HuggingFace(nn.Module):
    """A stack of Hugging Face's blocks."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        config = PeerConfig(hidden_size=width, num_hidden_layers=depth, state_size=16, layer_norm_epsilon=EPSILON)
        self.layers = nn.ModuleList(MambaBlock(config, layer_idx=k) for k in range(depth))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


def mambapy(width: int, depth: int) -> nn.Module | None:
    """A stack of mambapy's blocks with its parallel scan; None where it is not installed."""
    try:
        from mambapy import mamba  # pyright: ignore[reportMissingImports] (no dependency of ours)
    except ModuleNotFoundError:
        return None
    return mamba.Mamba(mamba.MambaConfig(width, depth, rms_norm_eps=EPSILON))


def compare(size: str, length: int, rounds: int) -> list[Figure]:
    """The peers' steps over ours, and the parts of ours."""
    width, depth = SIZES[size]
    ours = Ours(width, depth)
    found = {"Hugging Face": HuggingFace(width, depth), "mambapy": mambapy(width, depth)}
    peers = {name: peer for name, peer in found.items() if peer is not None}
    hidden, target = (torch.randn(1, length, width) for _ in range(2))
    for name, peer in peers.items():
        give_weights(ours, peer)
        check(ours, peer, hidden, target, name)
    products, n_operations = matrix_products(ours, hidden)
    steps: dict[str, Callable[[], object]] = {"ours": step_of(ours, hidden, target), "matrix products": products}
    steps |= {name: step_of(peer, hidden, target) for name, peer in peers.items()}
    _, times = interleaved(steps, rounds, time.process_time)
    medians = {name: 1e3 * median(taken) for name, taken in times.items()}
    n_parameters = sum(p.numel() for p in ours.parameters())
    print(f"{n_parameters / 1e6:.2f} million parameters, {depth} blocks of width {width}, 1 x {length} tokens")
    figures = []
    for name, goal in GOALS.items():
        if name not in medians:
            figures.append(Figure("training", f"{size} 1x{length}", name, None, goal, note="not installed"))
        else:
            bound = f"{(medians[name]) / medians['matrix products']:.1f} with all but our matrix products free"
            both = {one: medians[one] for one in ("ours", name)}
            ratio = medians[name] / medians["ours"]
            figures.append(
                Figure("training", f"{size} 1x{length}", name, ratio, goal, False, both, len(times[name]), bound)
            )
        print(figures[-1].line(), flush=True)
    share = medians["matrix products"] / medians["ours"]
    note = f"{n_operations / medians['matrix products'] / 1e6:.0f} GFLOP/s"
    both = {one: medians[one] for one in ("ours", "matrix products")}
    figures.append(Figure("share", f"{size} 1x{length}", "matrix products", share, times=both, note=note))
    print(figures[-1].line(), flush=True)
    return figures


def give_weights(ours: nn.Module, peer: nn.Module) -> None:
    """Our weights, in a peer of another layout."""
    with torch.no_grad():
        for theirs, mine in pairs(peer, ours):
            theirs.copy_(mine.view_as(theirs))


def pairs(peer: nn.Module, ours: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Each parameter of a peer beside ours."""
    mine = dict(ours.named_parameters())
    assert len(mine) == len(dict(peer.named_parameters()))
    found = []
    for name, theirs in peer.named_parameters():
        _, layer, inner = name.split(".", 2)
        found.append((theirs, mine[f"layers.{layer}.{NAMES[inner]}"]))
    return found


def check(ours: nn.Module, peer: nn.Module, hidden: Tensor, target: Tensor, name: str) -> None:
    """The same outputs and gradients, or AssertionError."""
    outputs = [model(hidden) for model in (peer, ours)]
    for output in outputs:
        functional.mse_loss(output, target).backward()
    compared = [(outputs[0], outputs[1]), *((theirs.grad, mine.grad) for theirs, mine in pairs(peer, ours))]
    for theirs, mine in compared:
        assert theirs is not None
        assert mine is not None
        error = (theirs - mine.view_as(theirs)).norm() / theirs.norm()
        assert error <= 1e-4, f"{name} and ours differ by {error:.1e} of {tuple(theirs.shape)}"
    for model in (ours, peer):
        model.zero_grad()


def step_of(model: nn.Module, hidden: Tensor, target: Tensor) -> Callable[[], float]:
    """A training step, which returns its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> float:
        loss = functional.mse_loss(model(hidden), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def matrix_products(ours: nn.Module, hidden: Tensor) -> tuple[Callable[[], object], int]:
    """The products of all matrices of a step with activations, forward and for both gradients; and their operations."""
    weights = [one.weight for one in ours.modules() if isinstance(one, nn.Linear)]
    length = hidden.shape[1]
    sides = {size: torch.randn(length, size) for weight in weights for size in weight.shape}

    def run() -> None:
        with torch.no_grad():
            for weight in weights:
                x, grad = sides[weight.shape[1]], sides[weight.shape[0]]
                functional.linear(x, weight)
                _ = grad @ weight, grad.mT @ x

    return run, 6 * length * sum(weight.numel() for weight in weights)


if __name__ == "__main__":
    main()
