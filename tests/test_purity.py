"""The global purity from counted shots: its design of bases, its bias, the coverage of its errors."""

from itertools import combinations

import numpy as np
import pytest
import torch
from counted_states import basis_states, measure, random_states

from backends import purity


@pytest.mark.parametrize(("n_wires", "wires"), [(2, (1,)), (3, (2, 0)), (4, (0, 3)), (4, (1, 3, 0)), (5, (4, 1))])
def test_design_reads_the_subsystem_fully(n_wires: int, wires: tuple[int, ...]) -> None:
    bases = purity.design(n_wires, wires, seed=3)
    assert len(bases.letters) == 3 ** min(n_wires, max(len(wires) + 1, 3))
    assert len({tuple(word[wire] for wire in wires) for word in bases.letters}) == 3 ** len(wires)
    for a in range(n_wires):  # every letter on every wire equally often
        assert sorted(word[a] for word in bases.letters) == sorted("XYZ" * (len(bases.letters) // 3))


def test_two_of_four_wires_read_every_three() -> None:
    bases = purity.design(4, (2, 0), seed=1)
    for chosen in combinations(range(4), 3):
        assert len({tuple(word[wire] for wire in chosen) for word in bases.letters}) == 27


@pytest.mark.parametrize(("n_wires", "least"), [(2, 0.92), (3, 0.92), (4, 0.88)])
@pytest.mark.parametrize("in_basis", [False, True])
@pytest.mark.parametrize("mixed", [0.0, 0.1, 0.5])
def test_global_purity(n_wires: int, least: float, mixed: float, in_basis: bool) -> None:
    """Covered, product states too; unbiased within its error over designs."""
    size = 2**n_wires
    spectrum = (1 - mixed) * np.eye(size)[0] + mixed / size
    truth = float((spectrum**2).sum())
    found, errors = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        bases = purity.design(n_wires, (0, 1), seed)
        states = basis_states(spectrum, 30) if in_basis else random_states(spectrum, 30, rng)
        bits = measure(states, bases, 9 * 512 // len(bases.letters), rng)
        value, stderr = purity.global_purity(bits, bases, seed)
        found.append(value)
        errors.append(stderr)
    values, stderrs = torch.cat(found), torch.cat(errors)
    covered = ((values - truth).abs() <= 1.96 * stderrs).double().mean()
    print(f"{n_wires} {mixed} {'in' if in_basis else 'out'}: covered {covered:.3f}, stderr {stderrs.mean():.4f}")
    assert covered >= least
    if mixed >= 0.1 and not in_basis:  # else cut off at 1, or all samples share the design's error
        assert abs(values.mean() - truth) < 4.9 * values.std() / 300**0.5 + 0.01
    assert (stderrs > 0).all()
    assert ((values >= 1 / size) & (values <= 1)).all()
