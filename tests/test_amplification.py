"""Constrained generation by amplification: the oracle, the processor in both methods, and the table of costs.

Axis legend: b rows, v vocabulary, s kept tokens.
"""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList

from circuits.library import fixed_point_success, optimal_iterations, success_probability
from qlm import ByteTokenizer, QLMConfig, QLMForCausalLM
from qlm.amplification import AmplifiedLogits
from qlm.amplification_cost import FixedPoint, KnownShare, cost_table
from qlm.token_oracle import TokenOracle

PROMPT = torch.zeros(2, 5, dtype=torch.long)
EXACT = ("statevector", "aer", "pennylane:default.qubit", "quimb:exact")


def some_scores(rows: int = 2, vocabulary: int = 258, dtype: torch.dtype = torch.float32) -> Tensor:
    return 1.5 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)).to(dtype)


def conditional(scores: Tensor, accepted: set[int], kept: int) -> Tensor:
    """The model's distribution, given that the token is among the ``kept`` likeliest and accepted."""
    wanted = torch.zeros_like(scores, dtype=torch.bool)
    for row, scored in enumerate(scores):
        wanted[row, [token for token in scored.topk(kept).indices.tolist() if token in accepted]] = True
    chances = torch.where(wanted, torch.softmax(scores.double(), -1), 0.0)
    return chances / chances.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_wires", [3, 4, 6])
def test_mask_is_the_exact_conditional_distribution(n_wires: int, dtype: torch.dtype) -> None:
    scores = some_scores(dtype=dtype)
    accepted = set(range(0, 258, 2))
    processor = AmplifiedLogits(accepted, n_wires)
    found = processor(PROMPT, scores)
    assert found.dtype == dtype
    expected = conditional(scores, accepted, 2**n_wires)
    torch.testing.assert_close(found.exp().double(), expected, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)
    assert bool((found[expected == 0] == -torch.inf).all())
    for row, step in enumerate(processor.steps):
        chances = torch.softmax(scores[row].double(), -1)
        kept = chances.topk(2**n_wires)
        p_good = float(kept.values[kept.indices % 2 == 0].sum() / kept.values.sum())
        assert (step.row, step.position, step.oracle_calls, step.executions) == (row, 5, 0, 0)
        assert step.dropped_mass == pytest.approx(1 - float(kept.values.sum()), abs=1e-9)
        assert step.p_good == pytest.approx(p_good, abs=1e-9)
        assert step.rejection_attempts == pytest.approx(1 / p_good)
        assert step.success_probability == pytest.approx(1, abs=1e-12) == step.expected_attempts


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("search", [KnownShare(), KnownShare(0), FixedPoint(), FixedPoint(0.5, 0.6)])
def test_circuit_hands_on_the_same_distribution_and_counts_its_work(
    backend: str, search: KnownShare | FixedPoint
) -> None:
    scores, accepted = some_scores(), set(range(0, 258, 3))
    twin = AmplifiedLogits(accepted, 3)
    processor = AmplifiedLogits(accepted, 3, method="circuit", backend=backend, search=search)
    torch.testing.assert_close(processor(PROMPT, scores).exp(), twin(PROMPT, scores).exp(), atol=2e-6, rtol=0)
    for masked, step in zip(twin.steps, processor.steps, strict=True):
        assert 0.05 < step.p_good < 0.9
        assert (step.p_good, step.dropped_mass) == (masked.p_good, masked.dropped_mass)
        assert step.executions == 1
        assert step.oracle_calls == len(search.phases(step.p_good))
        assert step.success_probability == pytest.approx(search.success(step.p_good), abs=1e-5)
        assert step.expected_attempts == pytest.approx(1 / step.success_probability)


def test_searches_choose_what_they_say() -> None:
    for p_good in (0.01, 0.1, 0.3, 0.9):
        calls = len(KnownShare().phases(p_good))
        assert calls == optimal_iterations(p_good)
        assert KnownShare().success(p_good) == success_probability(p_good, calls)
        assert len(FixedPoint(0.1, 0.2).phases(p_good)) == FixedPoint(0.1, 0.2).iterations
        assert FixedPoint(0.1, 0.2).success(p_good) == fixed_point_success(p_good, FixedPoint(0.1, 0.2).iterations, 0.2)
        assert (FixedPoint(0.1, 0.2).success(p_good) >= 1 - 0.2**2) is (p_good >= 0.1)
    assert len(KnownShare(3).phases(1e-6)) == 3


def test_shots_are_frequencies_of_accepted_tokens_and_repeat_with_torchs_seed() -> None:
    scores, accepted = some_scores(), set(range(0, 258, 3))
    processor = AmplifiedLogits(accepted, 3, method="circuit", backend="aer?shots=3000")
    torch.manual_seed(4)
    found = processor(PROMPT, scores).exp()
    exact = AmplifiedLogits(accepted, 3)(PROMPT, scores).exp()
    error = 5 * (exact * (1 - exact) / (3000 * 0.5)).sqrt() + 1e-9
    assert bool(((found - exact).abs() <= error).all())
    assert not torch.equal(found, exact)
    assert [step.executions for step in processor.steps] == [3000, 3000]
    for step in processor.steps:
        assert step.success_probability == pytest.approx(KnownShare().success(step.p_good), abs=0.05)
    torch.manual_seed(4)
    assert torch.equal(processor(PROMPT, scores).exp(), found)


def test_a_noisy_device_lets_some_through_and_the_retries_are_counted() -> None:
    torch.manual_seed(0)
    scores = torch.full((1, 258), -torch.inf).index_fill(1, torch.tensor([65, 66, 67, 97]), 1.0)
    ruled_out = set(range(258)) - {65, 66, 67, 97}  # accepted, but of probability 0: the device does measure some
    processor = AmplifiedLogits({97} | ruled_out, 3, method="circuit", backend="ibm:fake_manila?shots=1000")
    found = processor(PROMPT[:1], scores).exp()
    assert float(found[0, 97]) == pytest.approx(1.0)
    assert int((found > 0).sum()) == 1
    (step,) = processor.steps
    assert step.p_good == pytest.approx(0.25, abs=1e-6)
    assert step.oracle_calls == 1
    assert 0.4 < step.success_probability < 0.95  # 1 without noise
    assert step.expected_attempts > 1.05


@pytest.mark.parametrize("method", ["mask", "circuit"])
def test_generate_writes_accepted_tokens_only(method: str) -> None:
    torch.manual_seed(0)
    model: Any = QLMForCausalLM(QLMConfig(d_model=16, blocks=[{"kind": "harmonic"}])).eval()
    tokenizer = ByteTokenizer()
    processor = AmplifiedLogits(r"[ -~]", n_wires=4, method=method, search=FixedPoint())
    ids = tokenizer(["the", "one"], return_tensors="pt").input_ids
    with torch.no_grad():
        free = model.generate(ids, max_new_tokens=12, do_sample=True, top_k=0)
        made = model.generate(
            ids, max_new_tokens=12, do_sample=True, top_k=0, logits_processor=LogitsProcessorList([processor])
        )
    texts = tokenizer.batch_decode(made[:, 3:])
    assert all(re.fullmatch(r"[ -~]{12}", text) for text in texts)
    assert not re.fullmatch(r"[ -~]{12}", tokenizer.batch_decode(free[:, 3:])[0])
    assert len(processor.steps) == 24
    assert [step.position for step in processor.steps[::2]] == list(range(3, 15))
    processor.clear()
    assert processor.steps == []


def test_argmax_is_the_likeliest_accepted_token() -> None:
    scores = some_scores()
    wanted = [max(range(0, 258, 2), key=lambda token, row=row: float(row[token])) for row in scores]
    for method in ("mask", "circuit"):
        found = AmplifiedLogits(set(range(0, 258, 2)), 5, method=method)(PROMPT, scores)
        assert found.argmax(-1).tolist() == wanted


def test_small_vocabularies_are_padded_and_what_was_excluded_before_stays_out() -> None:
    scores = torch.tensor([[2.0, -torch.inf, 1.0, 0.0, 0.5]])
    for method in ("mask", "circuit"):
        processor = AmplifiedLogits({1, 2, 3}, 3, method=method)
        found = processor(PROMPT[:1], scores).exp()
        expected = torch.softmax(torch.tensor([1.0, 0.0]), 0)
        torch.testing.assert_close(found[0, 2:4], expected, atol=1e-6, rtol=0)
        assert float(found[0, [0, 1, 4]].abs().max()) == 0
        assert processor.steps[0].dropped_mass < 1e-9


@pytest.mark.parametrize("search", [KnownShare(), FixedPoint()])
@pytest.mark.parametrize("vocabulary", [4, 3])
def test_an_oracle_that_accepts_every_kept_token_changes_nothing(
    search: KnownShare | FixedPoint, vocabulary: int
) -> None:
    scores = some_scores(1, vocabulary)
    for method in ("mask", "circuit"):
        processor = AmplifiedLogits(lambda token, text: True, 2, method=method, search=search)
        torch.testing.assert_close(processor(PROMPT[:1], scores).exp(), scores.softmax(-1), atol=1e-6, rtol=0)
        assert processor.steps[0].success_probability == pytest.approx(1.0, abs=1e-6)


def test_nothing_accepted_is_an_error_that_names_the_remedy() -> None:
    scores = some_scores()
    least = int(scores[1].argmin())
    accepted = {int(scores[0].argmax()), least}
    for method in ("mask", "circuit"):
        processor = AmplifiedLogits(accepted, 3, method=method)
        with pytest.raises(ValueError, match=r"among the 8 likeliest, got none in row 1 at position 5; raise n_wires"):
            processor(PROMPT, scores)
    found = AmplifiedLogits(accepted, 9)(PROMPT, scores).exp()  # the remedy: 512 states hold the whole vocabulary
    assert float(found[1, least]) > 0.0


def test_shots_that_are_all_rejected_are_an_error() -> None:
    scores = torch.tensor([[10.0, 0.0, 0.0, 0.0]])
    processor = AmplifiedLogits({3}, 2, method="circuit", backend="aer?shots=1", search=KnownShare(0))
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="an accepted shot, got none of 1 in row 0 at position 5; raise shots"):
        processor(PROMPT[:1], scores)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "masks"}, ValueError, "unknown method 'masks': did you mean 'mask'"),
        ({"n_wires": 13}, ValueError, "at most 12 wires, got 13"),
        ({"n_wires": 0}, ValueError, "n_wires of at least 1"),
        ({"accept": "[a-z"}, ValueError, r"a regular expression, got '\[a-z': unterminated"),
        ({"accept": 3}, TypeError, "a regular expression, a predicate of"),
        ({"decode": 3}, TypeError, "a tokenizer or a function of an id, got int"),
        ({"backend": "statevektor"}, ValueError, "statevector"),
        ({"accept": ["a"]}, TypeError, r"accepted ids as integers, got \['a'\]; list token ids"),
        ({"accept": torch.tensor([1.5])}, TypeError, "accepted ids as integers"),
        ({"accept": torch.tensor([True, False])}, TypeError, "accepted ids as integers"),
        ({"accept": torch.tensor(3)}, TypeError, "accepted ids as integers"),
        ({"search": "fixed"}, TypeError, r"such as KnownShare\(\) or FixedPoint\(\), got 'fixed'"),
        ({"search": FixedPoint}, TypeError, "pass one of the two"),
    ],
)
def test_bad_processors_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AmplifiedLogits(**{"accept": "[a-z]", **arguments})


@pytest.mark.parametrize("ids", [torch.tensor([98, 97]), np.array([97, 98]), [np.int64(97), 98]])
def test_ids_of_every_integer_type_are_found(ids: Any) -> None:
    assert TokenOracle(ids)([96, 97, 98, 99]) == [False, True, True, False]


def test_one_infinite_score_is_refused() -> None:
    scores = some_scores()
    scores[1, 97] = torch.inf
    with pytest.raises(ValueError, match=r"scores below \+inf with a finite entry in each row, got NaN, \+inf or"):
        AmplifiedLogits("[a-z]")(PROMPT, scores)


@pytest.mark.parametrize("bad", [float("nan"), -torch.inf])
def test_bad_scores_are_refused(bad: float) -> None:
    scores = some_scores()
    scores[1] = bad
    with pytest.raises(ValueError, match="a finite entry in each row"):
        AmplifiedLogits("[a-z]")(PROMPT, scores)
    with pytest.raises(ValueError, match="0 < delta < 1"):
        FixedPoint(0.1, 1.0)
    with pytest.raises(ValueError, match="p_least above 0"):
        FixedPoint(0.0)
    with pytest.raises(ValueError, match="max_iterations of at least 0"):
        KnownShare(-1)


def test_oracles_of_all_kinds() -> None:
    asked: list[tuple[int, str]] = []

    def is_vowel(token: int, text: str) -> bool:
        asked.append((token, text))
        return text in "aeiou"

    oracle = TokenOracle(is_vowel)
    assert oracle([97, 98, 97, 101]) == [True, False, True, True]
    assert asked == [(97, "a"), (98, "b"), (101, "e")]  # each token once
    assert oracle.n_evaluations == 3
    assert TokenOracle(re.compile("[A-C]", re.IGNORECASE))([65, 98, 100]) == [True, True, False]
    assert TokenOracle("a")([97]) == TokenOracle({97})([97]) == TokenOracle(range(97, 98))([97]) == [True]
    words = ("cat", "concatenate", "dog")
    assert TokenOracle("cat", words.__getitem__)([0, 1, 2]) == [True, False, False]  # the whole text
    assert TokenOracle(".*cat.*", words.__getitem__)([0, 1, 2]) == [True, True, False]
    assert TokenOracle(r"<\|endoftext\|>", ByteTokenizer())([256, 257, 60]) == [True, False, False]
    assert TokenOracle("\ufffd")([200, 97]) == [True, False]


def test_cost_table_is_consistent_with_the_formulas() -> None:
    shares = (0.001, 0.05, 0.25, 0.6)
    rows = {(row.p_good, row.method): row for row in cost_table(shares, 3, KnownShare(1000), FixedPoint(0.05, 0.3))}
    assert len(rows) == 16
    for share in shares:
        grover, fixed, rejection, mask = (
            rows[share, method] for method in ("grover", "fixed point", "rejection", "mask")
        )
        assert grover.oracle_calls == optimal_iterations(share)
        assert grover.success_probability == success_probability(share, grover.oracle_calls)
        assert fixed.oracle_calls == FixedPoint(0.05, 0.3).iterations
        assert fixed.success_probability == fixed_point_success(share, fixed.oracle_calls, 0.3)
        assert (rejection.oracle_calls, rejection.expected_calls) == (0, pytest.approx(1 / share))
        assert (mask.oracle_calls, mask.success_probability, mask.expected_calls, mask.gates) == (0, 1.0, 0.0, 0)
        for row in (grover, fixed):
            assert row.expected_calls == pytest.approx((row.oracle_calls + 1) / row.success_probability)
    assert rows[0.001, "grover"].expected_calls < 0.03 * rows[0.001, "rejection"].expected_calls
    assert rows[0.001, "fixed point"].success_probability < 0.1  # below its p_least
    one, two = (cost_table((share,), 3)[0] for share in (0.25, 0.1))
    assert (one.oracle_calls, two.oracle_calls) == (1, 2)
    assert one.gates == 13 + (two.gates - one.gates)  # 13 gates load; each iteration costs the same
    with pytest.raises(ValueError, match="p_good above 0"):
        cost_table((0.0,))
