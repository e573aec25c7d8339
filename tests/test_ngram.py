"""Witten-Bell n-grams against a dictionary oracle and hand-computed values; xz against its own definition."""

import itertools
import lzma
from collections import Counter, defaultdict
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlm.compression import xz_bits_per_byte
from qlm.ngram import MAX_ORDER, WittenBell

ENGLISH = "\n\n".join(topics[name] for name in sorted(topics)).encode()
FEW_LETTERS = st.lists(st.sampled_from(b"abc\x00\xff"), max_size=60).map(bytes)


def oracle_probability(train: bytes, order: int, history: bytes, byte: int) -> float:
    """The defining recursion, from dictionaries."""
    followers: dict[bytes, Counter[int]] = defaultdict(Counter)
    for length in range(order):
        for i in range(length, len(train)):
            followers[train[i - length : i]][train[i]] += 1
    probability = 1 / 256
    for length in range(min(order, len(history) + 1)):
        counts = followers[history[len(history) - length :]]
        if counts:
            probability = (counts[byte] + len(counts) * probability) / (counts.total() + len(counts))
    return probability


@given(train=FEW_LETTERS, history=FEW_LETTERS, order=st.integers(0, MAX_ORDER))
def test_probabilities_equal_the_dictionary_oracle(train: bytes, history: bytes, order: int) -> None:
    probabilities = WittenBell(order).fit(train).probabilities(history)
    for byte in b"abcz\x00\xff":
        assert probabilities[byte] == pytest.approx(oracle_probability(train, order, history, byte), rel=1e-12)


@given(train=FEW_LETTERS, data=FEW_LETTERS, order=st.integers(0, MAX_ORDER))
def test_byte_bits_equal_the_dictionary_oracle(train: bytes, data: bytes, order: int) -> None:
    expected = [-np.log2(oracle_probability(train, order, data[:i], byte)) for i, byte in enumerate(data)]
    np.testing.assert_allclose(WittenBell(order).fit(train).byte_bits(data), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 3, 6, 8])
def test_every_distribution_sums_to_one(order: int) -> None:
    model = WittenBell(order).fit(ENGLISH[:50_000])
    generator = np.random.default_rng(0)
    starts = generator.integers(0, 40_000, 20)
    histories = [ENGLISH[start : start + 7] for start in starts] + [generator.bytes(7) for _ in range(20)]
    for history in [b"", b"t", *histories]:
        probabilities = model.probabilities(history)
        assert probabilities.shape == (256,)
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)


def test_order_zero_is_uniform() -> None:
    assert WittenBell(0).fit(b"aaaa").bits_per_byte(b"abc") == 8.0


def test_orders_one_and_two_by_hand() -> None:
    # "aab": c(a) = 2, c(b) = 1, T = 2, so p(a) = (2 + 2/256) / 5, p(b) = (1 + 2/256) / 5 and p(z) = (2/256) / 5.
    unigram = WittenBell(1).fit(b"aab")
    p_a, p_b, p_z = (2 + 2 / 256) / 5, (1 + 2 / 256) / 5, (2 / 256) / 5
    assert unigram.probabilities(b"x")[ord("a")] == p_a
    assert unigram.bits_per_byte(b"abz") == pytest.approx(-np.log2([p_a, p_b, p_z]).mean(), rel=1e-15)
    # After "a" come one "a" and one "b": c = 2, T = 2. Nothing follows "b", so it leaves the unigram.
    bigram = WittenBell(2).fit(b"aab")
    assert bigram.probabilities(b"a")[ord("a")] == (1 + 2 * p_a) / 4
    assert bigram.probabilities(b"a")[ord("z")] == (2 * p_z) / 4
    assert bigram.probabilities(b"b")[ord("a")] == p_a


def test_longer_histories_predict_english_better() -> None:
    train, valid = ENGLISH[:300_000], ENGLISH[300_000:320_000]
    bits = [WittenBell(order).fit(train).bits_per_byte(valid) for order in range(6)]
    assert all(longer < shorter - 0.1 for shorter, longer in itertools.pairwise(bits))


def test_an_order_out_of_range_is_refused() -> None:
    for order in (-1, MAX_ORDER + 1):
        with pytest.raises(ValueError, match=rf"order in 0\.\.8, got {order}"):
            WittenBell(order)


def test_a_model_without_counts_and_an_empty_text_are_refused() -> None:
    with pytest.raises(ValueError, match="call fit first"):
        WittenBell(3).bits_per_byte(b"abc")
    with pytest.raises(ValueError, match="call fit first"):
        WittenBell(3).probabilities(b"abc")
    with pytest.raises(ValueError, match="got no bytes"):
        WittenBell(3).fit(b"abc").bits_per_byte(b"")


def test_xz_alone_is_the_size_of_the_file() -> None:
    text = ENGLISH[:20_000]
    file = lzma.compress(text, check=lzma.CHECK_NONE, preset=9 | lzma.PRESET_EXTREME)
    assert xz_bits_per_byte(text) == pytest.approx(8 * len(file) / len(text), rel=1e-2)


def test_xz_given_the_text_itself_costs_next_to_nothing() -> None:
    noise = np.random.default_rng(1).bytes(200_000)
    assert 8.0 <= xz_bits_per_byte(noise) < 8.02
    # The repeat begins 200 kB back: only a dictionary that holds both finds it.
    assert 0 < xz_bits_per_byte(noise, given=noise) < 0.02
    assert 7.9 < xz_bits_per_byte(noise[:100_000], given=noise[100_000:]) < 8.02


def test_xz_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got no bytes"):
        xz_bits_per_byte(b"", given=b"abc")
