"""Compiled kernels on several threads: the same bits, from any thread, in forked children and loader workers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scan_cases import draw, gradients
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from classical_kernels import scan
from classical_kernels.threads import run_blocks, thread_count


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 700, 200), (3, 300, 130), (2, 1000, 65)])
def test_threads_change_no_bit(set_threads: Callable[[int], None], shape: tuple[int, int, int]) -> None:
    operands = draw(*shape, dtype=torch.float32)
    set_threads(1)
    alone, gradients_alone = scan(*operands), gradients(scan, operands)
    for n_threads in (2, 3):
        set_threads(n_threads)
        assert thread_count(operands[0].numel()) > 1
        assert all(map(torch.equal, scan(*operands), alone))
        assert all(map(torch.equal, gradients(scan, operands), gradients_alone))


def test_calls_from_several_threads_at_once(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    jobs = [draw(2, 600, 128, dtype=torch.float32, seed=seed) for seed in range(8)]
    expected = [(scan(*job)[0], *gradients(scan, job)) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda job: (scan(*job)[0], *gradients(scan, job)), jobs * 3, timeout=60))
    for k, result in enumerate(results):
        assert all(map(torch.equal, result, expected[k % len(jobs)]))


# In a process of its own: PyTorch's parallel operations, unlike our kernels, hang in a forked child once the parent ran
# some on two threads, so that neither side may run any here.
_FORK = """
import multiprocessing
import torch
from scan_cases import draw, weights_like
from classical_kernels import scan
from classical_kernels.threads import thread_count

torch.set_num_threads(1)
leaves = [operand.requires_grad_() for operand in draw(2, 600, 128, dtype=torch.float32)]
weights = weights_like(scan(*leaves))
torch.set_num_threads(2)
assert thread_count(leaves[0].numel()) == 2

def run():
    outputs = scan(*leaves)
    return [t.detach().numpy().tobytes() for t in (*outputs, *torch.autograd.grad(outputs, leaves, weights))]

def child(sender):
    sender.send(run())

expected = run()
context = multiprocessing.get_context("fork")
receiver, sender = context.Pipe(duplex=False)
process = context.Process(target=child, args=(sender,), daemon=True)
process.start()
assert receiver.poll(60), "the forked child did not answer"
assert receiver.recv() == expected
process.join(60)
assert process.exitcode == 0
assert run() == expected, "the parent no longer works"
"""


def test_after_fork() -> None:
    path = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parent.parent)))
    done = subprocess.run(
        [sys.executable, "-c", _FORK],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr


class _Scans(Dataset[Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return scan(*draw(2, 600, 128, dtype=torch.float32, seed=index))[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of any fork beside threads
def test_inside_a_data_loader_worker(set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    expected = [_Scans()[index] for index in range(4)]
    loader = DataLoader(_Scans(), batch_size=None, num_workers=2, timeout=60, multiprocessing_context="fork")
    for ours, theirs in zip(loader, expected, strict=True):
        assert torch.equal(ours, theirs)


@given(n_blocks=st.integers(0, 40), n_threads=st.integers(1, 9))
def test_blocks_are_covered_once(n_blocks: int, n_threads: int) -> None:
    counts = np.zeros(n_blocks, dtype=int)

    def count(first: int, last: int) -> None:
        counts[first:last] += 1

    run_blocks(count, n_blocks, n_threads)
    assert (counts == 1).all()


def test_nested_blocks_do_not_wait_in_a_circle() -> None:
    counts = np.zeros((40, 40), dtype=int)

    def inner(row: int) -> None:
        def count(first: int, last: int) -> None:
            counts[row, first:last] += 1

        run_blocks(count, 40, 4)

    run_blocks(lambda first, last: [inner(row) for row in range(first, last)], 40, 40)
    assert (counts == 1).all()


@pytest.mark.parametrize("guilty", [0, 3])
def test_an_error_in_a_block_reaches_the_caller(guilty: int) -> None:
    def fail(first: int, last: int) -> None:
        if first <= guilty < last:
            raise ZeroDivisionError(f"block {guilty}")

    with pytest.raises(ZeroDivisionError, match=f"block {guilty}"):
        run_blocks(fail, 4, 4)
