"""Splitting text: lossless units and groups, repeats dropped, a fixed split, and the measure of leaks itself."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from qlm.text_split import Unit, cut_units, drop_repeats, group_units, hash_windows, shared_windows, split_groups

PANGRAM = "the quick brown fox jumps over a lazy dog while seven wizards mix strange potions in deep old cellars"


@given(st.text(alphabet="ab \n\r\té\u2028", max_size=200), st.integers(1, 30))
def test_units_join_to_the_text_and_keep_the_limit(text: str, limit: int) -> None:
    units = cut_units(text, limit)
    assert "".join(units) == text
    assert all(0 < len(unit) <= limit for unit in units)


@given(st.lists(st.text(alphabet="xyz \n", min_size=1, max_size=30), min_size=1, max_size=40), st.integers(1, 60))
def test_groups_hold_each_unit_once(texts: list[str], size: int) -> None:
    units = [Unit(number // 7, text) for number, text in enumerate(texts)]
    groups = group_units(units, size)
    for document in range(1 + len(texts) // 7):
        assert "".join(unit.text for unit in units if unit.document == document) == "".join(
            group.text for group in groups if group.document == document
        )


def test_the_split_partitions_the_groups_in_order_and_by_text_alone() -> None:
    groups = [Unit(0, f"Paragraph number {i:03d}.\n\n") for i in range(100)]
    splits = split_groups(groups)
    assert [len(split) for split in splits] == [80 * 23, 10 * 23, 10 * 23]
    lines = [split.decode().split("\n\n")[:-1] for split in splits]
    assert sorted(itertools.chain(*lines)) == [group.text.strip() for group in groups]
    assert all(part == sorted(part) for part in lines)
    backwards = split_groups(groups[::-1])
    assert [set(split.split(b"\n\n")) for split in backwards] == [set(split.split(b"\n\n")) for split in splits]


def test_a_blank_line_parts_groups_that_do_not_follow_on() -> None:
    train, valid, test = split_groups([Unit(0, f"word{i:02d} ") for i in range(50)])
    assert (b"".join((train, valid, test))).count(b"word") == 50
    for part in b"\n\n".join((train, valid, test)).split(b"\n\n"):
        numbers = [int(word[4:]) for word in part.split()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_near_copies_are_dropped_and_short_repeats_in_a_document_stay() -> None:
    page = PANGRAM + "."
    near = "A new beginning, then " + page[:-1] + "!"
    units = [
        Unit(0, page),
        Unit(0, "Yes."),
        Unit(0, near),
        Unit(0, "Yes."),
        Unit(1, "Yes."),
        Unit(1, page.replace(" ", "\n")),
    ]
    assert drop_repeats(units) == [units[0], units[1], units[3]]


@given(st.binary(max_size=120), st.binary(max_size=120), st.integers(1, 6))
def test_shared_windows_equal_python_sets(data: bytes, other: bytes, length: int) -> None:
    data, other = bytes(byte % 3 for byte in data), bytes(byte % 3 for byte in other)
    windows = [data[i : i + length] for i in range(len(data) - length + 1)]
    expected = sum(window in other for window in windows) / len(windows) if windows else 0.0
    assert shared_windows(data, other, length) == expected


def test_window_hashes_are_the_polynomial() -> None:
    data, base = bytes(range(200, 256)), 0x9E3779B97F4A7C15
    for length in (1, 2, 7, 50, 56):
        expected = [
            sum((data[i + j] + 1) * base ** (length - 1 - j) for j in range(length)) % 2**64
            for i in range(len(data) - length + 1)
        ]
        assert hash_windows(data, length).tolist() == expected
    assert hash_windows(data, 57).tolist() == []
