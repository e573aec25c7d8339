"""Sums of Pauli words against their matrices, and their grouping."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import observable_matrix

from circuits import I, PauliSum, X, Y, Z, commuting_groups, pauli_word
from circuits.gates import PAULI, pauli_matrix
from circuits.observables import Word

N_WIRES = 3
letters = st.text("IXYZ", min_size=N_WIRES, max_size=N_WIRES)
coefficients = st.floats(-4, 4).map(lambda value: round(value, 2))
LooseSum: Any = PauliSum
loose_z: Any = Z(0)


@st.composite
def sums(draw: st.DrawFn) -> PauliSum:
    total = 0 * I()
    for word in draw(st.lists(letters, max_size=4)):
        total = total + draw(coefficients) * pauli_word(word, range(N_WIRES))
    return total


def dense(observable: PauliSum) -> np.ndarray:
    return observable_matrix(observable, N_WIRES)


@given(letters)
def test_a_word_is_the_tensor_product_of_its_letters(word: str) -> None:
    np.testing.assert_array_equal(dense(pauli_word(word, range(N_WIRES))), pauli_matrix(word))
    build = {"I": lambda _: I(), "X": X, "Y": Y, "Z": Z}
    product = I()
    for wire, letter in enumerate(word):
        product = product @ build[letter](wire)
    assert product == pauli_word(word, range(N_WIRES))


@given(sums(), sums(), coefficients)
def test_algebra_is_that_of_matrices(a: PauliSum, b: PauliSum, factor: float) -> None:
    for ours, expected in (
        (a + b, dense(a) + dense(b)),
        (a - b, dense(a) - dense(b)),
        (-a, -dense(a)),
        (factor * a, factor * dense(a)),
        (a * factor, factor * dense(a)),
        (a / 4, dense(a) / 4),
        (a + factor, dense(a) + factor * np.eye(8)),
        (factor - a, factor * np.eye(8) - dense(a)),
    ):
        np.testing.assert_allclose(dense(ours), expected, atol=1e-12)


@given(sums(), sums())
def test_a_product_is_the_matrix_product_or_refused_where_that_is_not_hermitian(a: PauliSum, b: PauliSum) -> None:
    expected = dense(a) @ dense(b)
    if np.abs(expected - expected.conj().T).max() > 1e-9:
        with pytest.raises(
            ValueError, match=r"expects finite real coefficients, got .*; a product of different Paulis"
        ):
            _ = a @ b
    else:
        np.testing.assert_allclose(dense(a @ b), expected, atol=1e-12)


@given(sums())
def test_powers_are_hermitian_whatever_the_rounding(a: PauliSum) -> None:
    np.testing.assert_allclose(dense(a @ a), np.linalg.matrix_power(dense(a), 2), atol=1e-11)
    np.testing.assert_allclose(dense(a @ a @ a), np.linalg.matrix_power(dense(a), 3), atol=1e-9)


@given(sums())
def test_terms_are_canonical_and_repr_is_valid_python(a: PauliSum) -> None:
    words = [word for word, _ in a.terms]
    assert words == sorted(set(words))
    assert all(coefficient != 0 and isinstance(coefficient, float) for _, coefficient in a.terms)
    assert eval(repr(a), {"I": I, "X": X, "Y": Y, "Z": Z}) == a  # noqa: S307 -- the promise under test
    assert hash(PauliSum(tuple(reversed(a.terms)))) == hash(a)
    assert PauliSum(tuple(reversed(a.terms))) == a


@given(sums())
def test_one_norm_bounds_the_spectrum_and_is_diagonal_agrees(a: PauliSum) -> None:
    matrix = dense(a)
    assert np.abs(np.linalg.eigvalsh(matrix)).max() <= a.one_norm + 1e-12
    assert a.one_norm == pytest.approx(sum(abs(coefficient) for _, coefficient in a.terms))
    assert a.is_diagonal == (np.abs(matrix - np.diag(np.diagonal(matrix))).max() == 0)
    assert a.wires == tuple(sorted({wire for word, _ in a.terms for wire, _ in word}))


def test_facts() -> None:
    assert X(1) @ X(1) == I()
    assert (X(0) @ Z(2)).terms == ((((0, "X"), (2, "Z")), 1.0),)
    assert Z(0) - Z(0) == 0 * I() == PauliSum(())
    assert (Z(2) @ X(0)) == (X(0) @ Z(2))
    assert repr(0.5 * Z(0) - X(1)) == "0.5 * Z(0) + -1.0 * X(1)"
    assert (Y(0) @ X(1)) @ (X(0) @ Y(1)) == Z(0) @ Z(1)  # (-i)(i)
    np.testing.assert_array_equal(dense(Y(1)), np.kron(np.eye(2), np.kron(PAULI["Y"], np.eye(2))))


@pytest.mark.parametrize("factor", [np.float64(2), np.float32(2), np.int64(2), 2, True + 1, 2 + 0j])
def test_numbers_of_any_kind_scale(factor: Any) -> None:
    assert factor * Z(0) == Z(0) * factor == Z(0) + Z(0)
    assert isinstance((factor * Z(0)).terms[0][1], float)


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: X(0) @ Y(0), ValueError, r"expects finite real coefficients, got 1j for Z\(0\); a product of diff"),
        (lambda: 1j * loose_z, ValueError, r"expects finite real coefficients, got 1j for Z\(0\)"),
        (lambda: float("nan") * Z(0), ValueError, r"expects finite real coefficients, got \(?nan.* for Z\(0\)"),
        (lambda: float("inf") * Z(0), ValueError, "expects finite real coefficients, got "),
        (lambda: Z(0) / 0, ValueError, "'/' expects a divisor other than 0, got 0; divide"),
        (lambda: loose_z * Z(1), TypeError, r"'\*' expects a real number, got an observable; multiply .* '@'"),
        (lambda: loose_z * "a", TypeError, "unsupported operand|can't multiply"),
        (lambda: loose_z @ 2, TypeError, "unsupported operand"),
        (lambda: X(-1), ValueError, "X expects a wire numbered from 0, got -1; use"),
        (lambda: Z(True), ValueError, "Z expects a wire numbered from 0, got True; use"),
        (lambda: pauli_word("XA", (0, 1)), ValueError, "a Pauli word expects the letters I, X, Y and Z, got 'A'"),
        (lambda: pauli_word("XY", (1, 1)), ValueError, "a Pauli word expects distinct wires, got wire 1 twice; mult"),
        (lambda: pauli_word("XY", (1,)), ValueError, "expects one wire per letter, got 1 for 'XY'; match"),
        (lambda: LooseSum(((((0, "Q"),), 1.0),)), ValueError, "expects the letters I, X, Y and Z, got 'Q'"),
    ],
)
def test_observables_refuse(build: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        build()


# --- Grouping -----------------------------------------------------------------------------------------------------


def commute_wire_by_wire(a: Word, b: Word) -> bool:
    left, right = dict(a), dict(b)
    return all(left[wire] == right[wire] for wire in left.keys() & right.keys())


@given(st.lists(sums(), max_size=5))
def test_groups_cover_each_word_once_and_are_measured_in_their_basis(observables: list[PauliSum]) -> None:
    groups = commuting_groups(observables)
    covered = [word for _, words in groups for word in words]
    assert sorted(covered) == sorted({word for observable in observables for word, _ in observable.terms})
    for basis, words in groups:
        assert all(commute_wire_by_wire(a, b) for a, b in combinations(words, 2))
        assert all(basis[wire] == letter for word in words for wire, letter in word)
        assert set(basis) == {wire for word in words for wire, _ in word}
    for (a, _), (b, _) in combinations(groups, 2):  # first fit: no two groups could have been one
        assert not commute_wire_by_wire(tuple(a.items()), tuple(b.items()))


def test_all_z_words_are_one_group_and_the_full_pauli_set_on_two_wires_is_nine() -> None:
    ising = [Z(k) for k in range(4)] + [Z(k) @ Z(k + 1) for k in range(3)]
    assert len(commuting_groups(ising)) == 1
    every = [pauli_word(a + b, (0, 1)) for a in "IXYZ" for b in "IXYZ"]
    groups = commuting_groups(every)
    assert len(groups) == 9
    assert sum(len(words) for _, words in groups) == 16
    assert commuting_groups(()) == ()
    assert commuting_groups((I(),)) == (({}, ((),)),)
