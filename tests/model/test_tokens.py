"""Token ids and batches."""

import numpy as np

from model.splits import Split
from model.teacher import model_inputs
from model.tokens import (
    Tokens,
    evaluation_batches,
    tokenize,
    trainer_examples,
    training_batches,
)


def test_texts_are_cut_with_the_closing_token_kept() -> None:
    tokens = tokenize(["a good film", "good " * 50], 16)
    assert tokens.lengths.tolist() == [5, 16] and tokens.ids.shape == (2, 16)
    assert tokens.ids[0, :5].tolist() == [101, 1037, 2204, 2143, 102]
    assert not tokens.ids[0, 5:].any()
    assert tokens.ids[1, 0] == 101 and tokens.ids[1, -1] == 102
    assert len(tokens) == 2


def test_of_a_pair_the_longer_text_is_cut_and_the_second_is_of_type_1() -> None:
    tokens = tokenize([("good " * 50, "a film"), ("a", "b")], 12)
    film = [1037, 2143]
    assert tokens.ids[0].tolist() == [101, *([2204] * 7), 102, *film, 102]
    assert tokens.ids[1].tolist() == [101, 1037, 102, 1038, 102, *([0] * 7)]
    assert tokens.types is not None
    assert tokens.types[0].tolist() == [0] * 9 + [1] * 3
    assert tokens.types[1].tolist() == [0, 0, 0, 1, 1, *([0] * 7)]
    assert tokens.lengths.tolist() == [12, 5]
    inputs = model_inputs(tokens, np.array([1]))
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1]]
    single = tokenize(["a"], 12)
    assert single.types is None and set(model_inputs(single, np.array([0]))) == {
        "input_ids", "attention_mask",
    }  # fmt: skip
    again = tokenize(["good " * 50], 16)  # cutting pairs leaves the tokenizer as it was
    assert again.lengths.tolist() == [16]


def test_a_split_as_a_trainers_data_set() -> None:
    made = trainer_examples(Split("train", ("a good film", "film"), np.array([1, 0])), 16)
    assert made == [
        {"input_ids": [101, 1037, 2204, 2143, 102], "attention_mask": [1] * 5, "labels": 1},
        {"input_ids": [101, 2143, 102], "attention_mask": [1] * 3, "labels": 0},
    ]
    (pair,) = trainer_examples(Split("train", (("a", "b"),), np.array([2])), 16)
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1] and pair["labels"] == 2


def test_a_batch_is_as_wide_as_its_longest_text() -> None:
    tokens = Tokens(np.arange(12).reshape(3, 4), np.array([2, 3, 4]))
    rows = np.array([1, 0])
    assert tokens.rows(rows).tolist() == [[4, 5, 6], [0, 1, 2]]
    assert tokens.mask(rows).tolist() == [[1, 1, 1], [1, 1, 0]]


def test_an_epoch_is_every_row_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 1000)
    batches = training_batches(lengths, 32, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert len(batches) == 32 and max(map(len, batches)) == 32
    padded = sum(len(b) * lengths[b].max() for b in batches)
    assert padded < 1.06 * lengths.sum()


def test_epochs_follow_their_generator() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 200)
    one, two, other = (training_batches(lengths, 8, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    longest = [lengths[batch].max() for batch in one]
    assert longest != sorted(longest)  # batches are shuffled, not sorted by length


def test_evaluation_takes_all_rows_from_short_to_long() -> None:
    lengths = np.array([5, 3, 9, 3, 7])
    assert [b.tolist() for b in evaluation_batches(lengths, 2)] == [[1, 3], [0, 4], [2]]
