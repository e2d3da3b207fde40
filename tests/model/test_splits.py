"""Splits: no text twice, each label alike, near duplicates found."""

import itertools

import numpy as np

from model import splits
from model.splits import SHARES, beside, carve, deduplicated, near_duplicates, normalised


def test_carving_does_not_depend_on_the_order_of_the_file() -> None:
    examples = [(f"a sentence of number {i}", i % 3) for i in range(300)]
    one, two = carve(examples, SHARES), carve(examples[::-1], SHARES)
    for name in SHARES:
        assert one[name].texts == two[name].texts
        np.testing.assert_array_equal(one[name].labels, two[name].labels)
        assert set(np.bincount(one[name].labels)) <= {70, 15}


def test_carving_mixes_the_labels() -> None:
    train = carve([(f"text {i}", i % 2) for i in range(400)], SHARES)["train"]
    changes = np.count_nonzero(np.diff(train.labels))
    assert changes > len(train) / 4


def test_equal_texts_count_once_and_contradictions_not_at_all() -> None:
    examples = [("Good film!", 1), ("good  film", 1), ("so so .", 0), ("So, so", 1), ("--", 0)]
    assert deduplicated(examples) == [("Good film!", 1)]


def test_pairs_are_equal_where_both_texts_are() -> None:
    one, same, swapped = ("A b", "c"), ("a  B!", "C"), ("c", "a b")
    assert normalised(one) == normalised(same) != normalised(swapped)
    assert normalised(("a", "b c")) != normalised(("a b", "c")) != normalised("a b c")
    assert deduplicated([(one, 0), (same, 0), (swapped, 1), (("!", "?"), 1)]) == [
        (one, 0), (swapped, 1),
    ]  # fmt: skip


def numbered(*numbers: int) -> list[tuple[str, int]]:
    return [(f"text number {n}", n % 2) for n in numbers]


def test_a_given_test_split_keeps_its_texts_and_the_others_lose_them() -> None:
    made = beside(numbered(*range(20)), numbered(*range(220)))
    assert {name: len(split) for name, split in made.items()} == {
        "train": 170, "validation": 30, "test": 20,
    }  # fmt: skip
    assert made["test"].texts == tuple(text for text, _ in numbered(*range(20)))
    assert np.bincount(made["validation"].labels).tolist() == [15, 15]
    given = beside(numbered(0, 1), numbered(*range(10)), numbered(1, 2, 3, 3))
    assert given["validation"].texts == ("text number 2", "text number 3")
    assert given["train"].texts == tuple(text for text, _ in numbered(*range(4, 10)))


def brute(texts: list[str], others: list[str]) -> list[bool]:
    """Whether a text nearly repeats another, by sets of strings and without candidates."""

    def pieces(text: str) -> set[str]:
        return {text[i : i + 5] for i in range(max(1, len(text) - 4))}

    def near(one: set[str], other: set[str]) -> bool:
        return 5 * len(one & other) >= 4 * len(one | other)

    sets = [pieces(normalised(other)) for other in others]
    return [any(near(pieces(normalised(text)), other) for other in sets) for text in texts]


def test_near_duplicates_are_those_of_a_plain_comparison() -> None:
    rng = np.random.default_rng(0)
    words = ["win", "a", "prize", "call", "now", "tomorrow", "reply", "free", "ü"]

    def message(number: int) -> str:
        start = " ".join(rng.choice(words, rng.integers(1, 12)))
        return f"{start} {number}"

    others = [message(n) for n in range(150)]
    changed = [f"{other[:-1]}{rng.integers(10)}{'!' * int(rng.integers(2))}" for other in others]
    texts = [*changed, *(message(n) for n in range(150)), "a", "", "win a"]
    found = near_duplicates(texts, others)
    assert found.tolist() == brute(texts, others)
    assert 20 < found.sum() < 250


def test_the_bound_of_near_is_inclusive() -> None:
    base = "".join(chr(ord("a") + n) for n in range(19))  # 15 pieces, all different
    for dropped, near in ((3, True), (4, False)):  # 12 and 11 of 15 are shared
        assert near_duplicates([base[:-dropped]], [base]).tolist() == [near]
        assert near_duplicates([base], [base[:-dropped]]).tolist() == [near]


def test_pieces_that_differ_in_their_order_are_others() -> None:
    for one, two in itertools.permutations(["abcde", "edcba", "abced"], 2):
        assert not near_duplicates([one], [two]).any()
    assert splits.near_duplicates(["ab"], ["AB"]).all()
