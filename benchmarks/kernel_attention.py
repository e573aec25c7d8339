"""Kernel attention: the linear form against the blocked quadratic one, crossover and memory.

    python -m benchmarks.kernel_attention            # all of it, two minutes
    python -m benchmarks.kernel_attention --only forms

Random states of n qubits as queries and keys, 64 numbers read of each token, float32, one thread, batch 1. Both forms
are the package's own, checked against each other first. The two take turns, round after round, and each ratio is the
median over the rounds of the ratio within a round, so that a neighbour's load falls on both sides; times are of the
processor, not of the wall.

Goal: at 2048 tokens and 4 qubits the linear form is at least 3 times faster, forward, and forward and backward.
Measured on a loaded Zen 5: 3.2 forward and backward, 2.2 forward alone. The quadratic form takes 3.4 times the
operations, 281 thousand a token against 83 thousand, in matrix products that run faster than the linear form's.

The crossover is the last length measured at which the quadratic form is the faster one, forward and backward:
`CROSSOVER` of `qlm.blocks.kernel_forms`. Memory is what autograd keeps between forward and backward.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from classical_kernels import causal_attention, causal_linear_attention, causal_linear_attention_reference
from classical_kernels.linear_attention.features import Fidelity

VALUES = 64
ROUNDS = 9
Sums = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("forms", "crossover", "memory"))
    only = parser.parse_args().only
    torch.set_num_threads(1)
    check()
    for name, measure in (("forms", forms), ("crossover", crossover), ("memory", memory)):
        if only in (None, name):
            measure()


def check() -> None:
    """Assert that both forms are the plain loop, with its gradients, in double precision."""
    for n_wires in (1, 3, 4):
        operands = draw(300, n_wires, torch.float64)
        shift = torch.full((1, 300), 1e-3, dtype=torch.float64)
        loop = causal_linear_attention_reference(*operands, bias=shift, feature_map=Fidelity())[:2]
        expected = (*loop, *slopes(loop, operands))
        for form in (linear, quadratic):
            found = form(*operands)
            for one, other in zip((*found, *slopes(found, operands)), expected, strict=True):
                assert float((one - other).detach().abs().max()) < 1e-10, (n_wires, form.__name__)


def draw(length: int, n_wires: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Random states as rows, and values, all wanting gradients."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 1, length, 2 * 2**n_wires, generator=generator, dtype=dtype)
    q, k = (rows / rows.norm(dim=-1, keepdim=True)).unbind()
    v = torch.randn(1, length, VALUES, generator=generator, dtype=dtype)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def linear(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return causal_linear_attention(q, k, v, bias=q.new_full(q.shape[:2], 1e-3), feature_map=Fidelity())[:2]


def quadratic(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return causal_attention(q, k, v, bias=q.new_full(q.shape[:2], 1e-3), similarity=Fidelity())


def slopes(sums: tuple[Tensor, Tensor], operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradients of a fixed combination of the sums."""
    weights = [torch.linspace(-1, 1, part.numel(), dtype=part.dtype).reshape(part.shape) for part in sums]
    return torch.autograd.grad(sums, operands, weights)


def forward(form: Sums, operands: tuple[Tensor, Tensor, Tensor]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return form(*operands)

    return run


def both(form: Sums, operands: tuple[Tensor, Tensor, Tensor]) -> Callable[[], object]:
    return lambda: slopes(form(*operands), operands)


def forms() -> None:
    """The goal: 2048 tokens, 4 qubits."""
    operands = draw(2048, 4)
    print(f"2048 tokens, 4 qubits, {VALUES} values, float32, one thread, torch {torch.__version__}")
    for name, way in (("forward", forward), ("forward and backward", both)):
        ratio, slow, fast = compare(way(quadratic, operands), way(linear, operands))
        print(
            f"  {name:22} quadratic / linear {ratio:5.2f}   ({slow * 1e3:6.1f} ms / {fast * 1e3:6.1f} ms)", flush=True
        )


def crossover() -> None:
    """By qubits and length, quadratic over linear, forward and backward."""
    lengths = [64, 128, 256, 512, 1024, 2048, 4096]
    print("quadratic / linear, forward and backward, by tokens")
    print("qubits" + "".join(f"{length:8}" for length in lengths) + "   crossover")
    for n_wires in (1, 2, 3, 4, 5):
        ratios = []
        for length in lengths:
            operands = draw(length, n_wires)
            ratios.append(compare(both(quadratic, operands), both(linear, operands), 5)[0])
        slower = [length for length, ratio in zip(lengths, ratios, strict=True) if ratio < 1]
        last = str(max(slower)) if slower else f"below {lengths[0]}"
        print(f"{n_wires:6}" + "".join(f"{ratio:8.2f}" for ratio in ratios) + f"   {last:>9}", flush=True)


def memory() -> None:
    """Bytes kept for the backward pass, each storage once."""
    print("MiB kept for the backward pass, 4 qubits")
    for length in (512, 1024, 2048, 4096):
        kept = [saved_bytes(form, draw(length, 4)) / 2**20 for form in (linear, quadratic)]
        dense = 4 * length * 256 * VALUES / 2**20
        print(f"  {length:5} tokens: linear {kept[0]:6.1f}, quadratic {kept[1]:6.1f}; all states would be {dense:7.1f}")


def saved_bytes(form: Sums, operands: tuple[Tensor, Tensor, Tensor]) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sums = form(*operands)
    assert sums[0].requires_grad
    return sum(kept.values())


def compare(one: Callable[[], object], other: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Median ratio, and median seconds of both, over rounds in which the two take turns."""
    one()
    other()
    times = [(seconds(one), seconds(other)) for _ in range(rounds)]
    ratio = statistics.median(mine / theirs for mine, theirs in times)
    return ratio, statistics.median(mine for mine, _ in times), statistics.median(theirs for _, theirs in times)


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
