"""The heads of complex amplitudes: Born's rule on a dense matrix, twins of the same parameters, a thousand words.

Axis legend: n tokens, d model width, v vocabulary.
"""

import math
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qlm import QLMConfig, QLMForCausalLM
from qlm.data import load_corpus
from qlm.heads.amplitudes import AmplitudeHead
from qlm.heads.born_low_rank import BornLowRank, BornLowRankConfig
from qlm.heads.born_mps import BornMPSConfig, BornMPSHead

HEADS = {
    "born_low_rank": lambda mode: BornLowRank(8, 23, BornLowRankConfig(rank=3, quantum=mode)),
    "born_mps": lambda mode: BornMPSHead(8, 23, BornMPSConfig(bond=3, n_digits=3, quantum=mode)),
}


def head(kind: str, mode: str = "circuit") -> AmplitudeHead:
    torch.manual_seed(0)
    built = HEADS[kind](mode).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return built


def amplitudes(built: AmplitudeHead, hidden: Tensor) -> Tensor:
    """psi (n, v) by its definition."""
    real, imaginary = built.encode(hidden).chunk(2, -1)
    vector = torch.complex(real, imaginary)
    if isinstance(built, BornLowRank):
        return vector @ torch.complex(*built.weight.chunk(2, -1)).T * built.gain.exp()
    return all_digits(built, vector)[:, :23]


def all_digits(built: AmplitudeHead, vector: Tensor) -> Tensor:
    """psi (n, 27) of a chain of three digits, tokens or not."""
    assert isinstance(built, BornMPSHead)
    first, second, third = (torch.view_as_complex(core) for core in built.cores)
    gains = [gain.exp().to(first.dtype) for gain in built.gains]
    whole = torch.einsum("na,aib,bjc,ck,i,j,k->nijk", vector, first, second, third[..., 0], *gains)
    return whole.flatten(1)


@pytest.mark.parametrize("kind", HEADS)
def test_both_rules_read_the_same_amplitudes(kind: str) -> None:
    hidden = torch.randn(4, 8, dtype=torch.float64)
    born, twin = head(kind), head(kind, "twin")
    twin.load_state_dict(born.state_dict())  # the same parameters, number by number
    psi = amplitudes(born, hidden)
    masses = psi.abs().square()
    expected = (masses / masses.sum(-1, keepdim=True)).log()
    torch.testing.assert_close(born(hidden), expected, atol=1e-11, rtol=0)
    torch.testing.assert_close(twin(hidden), psi.real.log_softmax(-1), atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", HEADS)
def test_a_common_phase_changes_nothing_and_a_relative_one_does(kind: str) -> None:
    hidden, built = torch.randn(4, 8, dtype=torch.float64), head(kind)
    before = built(hidden).detach()
    weight, bias = (tensor.detach().clone() for tensor in (built.encode.weight, built.encode.bias))

    def turned(angles: Tensor) -> Tensor:
        """log p with z_r multiplied by exp(i angle_r)."""
        cos, sin = angles.cos(), angles.sin()
        with torch.no_grad():
            for parameter, old in ((built.encode.weight, weight), (built.encode.bias, bias)):
                real, imaginary = old.reshape(2, 3, -1)
                turn_real = cos[:, None] * real - sin[:, None] * imaginary
                turn_imaginary = sin[:, None] * real + cos[:, None] * imaginary
                parameter.copy_(torch.cat((turn_real, turn_imaginary)).reshape(parameter.shape))
        return built(hidden).detach()

    common = torch.full((3,), 0.9, dtype=torch.float64)
    torch.testing.assert_close(turned(common), before, atol=1e-11, rtol=0)
    relative = torch.tensor([0.9, 0.0, -0.4], dtype=torch.float64)
    assert float((turned(relative) - before).abs().max()) > 0.1


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_of_one_target_are_those_of_all_log_probabilities(kind: str) -> None:
    hidden, built, targets = torch.randn(5, 8, dtype=torch.float64), head(kind), torch.tensor([0, 22, 7, 7, 13])
    parameters = list(built.parameters())
    single = torch.autograd.grad(built.log_prob(hidden, targets).sum(), parameters)
    whole = torch.autograd.grad(built(hidden).gather(-1, targets[:, None]).sum(), parameters)
    for one, other in zip(single, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=0)
    with pytest.raises(IndexError, match="targets expect token ids from 0 to 22, got 23"):
        built.log_prob(hidden, targets + 1)


def test_leak_of_the_digits_is_reported() -> None:
    hidden, built = torch.randn(4, 8, dtype=torch.float64), head("born_mps")
    assert isinstance(built, BornMPSHead)
    assert math.prod(core.shape[1] for core in built.cores) == 27
    built(hidden)
    real, imaginary = built.encode(hidden).chunk(2, -1)
    masses = all_digits(built, torch.complex(real, imaginary)).abs().square()
    leaked = float((masses[:, 23:].sum(-1) / masses.sum(-1)).mean().detach())
    assert built.report is not None
    assert built.report.leaked == pytest.approx(leaked, abs=1e-12)
    assert leaked > 0.01


def test_sizes_of_real_vocabularies() -> None:
    low_rank, chain = BornLowRank(64, 32768, BornLowRankConfig()), BornMPSHead(64, 32768, BornMPSConfig(bond=32))
    assert [core.shape[1] for core in chain.cores] == [32, 32, 32]
    assert sum(parameter.numel() for parameter in low_rank.parameters()) == 2 * 32 * (64 + 1 + 32768) + 32768
    assert sum(parameter.numel() for parameter in chain.parameters()) == 2 * (32 * 65 + 2 * 32**3 + 32**2) + 3 * 32


@cache
def words() -> tuple[Tensor, int]:
    """The manual as ids of its 999 most frequent words and marks, and of all others as one."""
    text = load_corpus("python-docs").train.decode()
    found = re.findall(r"\w+|[^\w\s]", text.lower())
    known = {word: place for place, (word, _) in enumerate(Counter(found).most_common(999))}
    return torch.tensor([known.get(word, 999) for word in found]), 1000


@pytest.mark.parametrize("mode", ["circuit", "twin"])
@pytest.mark.parametrize("head_entry", [{"kind": "born_low_rank", "rank": 16}, {"kind": "born_mps", "bond": 16}])
def test_a_thousand_words_are_learned(head_entry: dict[str, Any], mode: str) -> None:
    """From ln 1000 = 6.9 nats per word to below those of the words' frequencies alone."""
    torch.manual_seed(0)
    ids, vocab_size = words()
    entry = {**head_entry, "quantum": mode}
    model = QLMForCausalLM(QLMConfig(vocab_size=vocab_size, d_model=32, blocks=[{"kind": "harmonic"}], head=entry))
    assert isinstance(model.lm_head, AmplitudeHead)
    before = {name: parameter.detach().clone() for name, parameter in model.lm_head.named_parameters()}
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(120):
        batch = ids[torch.randint(len(ids) - 32, (8, 1)) + torch.arange(32)]
        loss = -model.lm_head.log_prob(model.model(batch).last_hidden_state[:, :-1], batch[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 6.5
    assert sum(losses[-10:]) / 10 < unigram_entropy() - 0.1
    for name, parameter in model.lm_head.named_parameters():
        assert float((parameter.detach() - before[name]).abs().max()) > 0.05, name
    with torch.no_grad():
        batch = ids[:64].reshape(2, 32)
        by_model = float(model(batch, labels=batch).loss)
        hidden = model.model(batch).last_hidden_state[:, :-1]
        by_head = float(-model.lm_head.log_prob(hidden, batch[:, 1:]).mean())
    assert by_head == pytest.approx(by_model, abs=1e-4)


def unigram_entropy() -> float:
    ids, vocab_size = words()
    shares = torch.bincount(ids, minlength=vocab_size) / len(ids)
    return float(-(shares[shares > 0] * shares[shares > 0].log()).sum())
