"""Recipes and their learning rates."""

import pytest

from model.recipe import Recipe


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    schedule = Recipe(epochs=2, warmup_epochs=0.1, decay=0.25).schedule(100)
    factors = [schedule.factor(step) for step in range(schedule.steps)]
    assert schedule.steps == 200
    assert factors[0] == pytest.approx(0.1) and factors[4] == pytest.approx(0.5)
    assert factors[9:150] == [1.0] * 141
    assert factors[150] == pytest.approx(50 / 51) and factors[-1] == pytest.approx(1 / 51)
    assert all(
        later < earlier for earlier, later in zip(factors[149:-1], factors[150:], strict=True)
    )


def test_a_rung_is_the_beginning_of_the_whole_training_up_to_its_fall() -> None:
    whole = Recipe(epochs=4)
    for fraction in (0.125, 0.5):
        short, long = whole.rung(fraction).schedule(187), whole.schedule(187)
        assert short.steps == round(4 * fraction * 187)
        assert short.decay_start <= long.decay_start
        assert all(short.factor(s) == long.factor(s) for s in range(short.decay_start))


def test_what_no_training_can_follow_is_refused() -> None:
    for values, message in (
        ({"epochs": 0}, "epochs must be above 0, not 0"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1, not 1.5"),
        ({"distillation": -0.1}, "distillation must be between 0 and 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, not nan"),
        ({"hidden_distillation": -1}, "hidden_distillation must be at least 0, not -1"),
        ({"transfer_texts": -1}, "transfer_texts must be at least 0, not -1"),
        (
            {"distillation": 0, "hidden_distillation": 1.0},
            "hidden_distillation must be 0 without distillation, which asks the teacher, not 1.0",
        ),
        ({"distillation": 0, "transfer_texts": 9}, "transfer_texts must be 0 without distillation"),
        (
            {"distillation": 0, "intermediate_task": "imdb"},
            "intermediate_task must be '' without distillation, which asks the teacher, not 'imdb'",
        ),
        ({"learning_rat": 1e-3}, "unknown key 'learning_rat'"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe.load(values)
    assert Recipe.load({"epochs": 3.0}) == Recipe(epochs=3.0)


def test_a_training_is_known_by_what_is_asked_of_it() -> None:
    plain = Recipe(epochs=3.0).describe()
    further = {"hidden_distillation", "transfer_texts", "intermediate_task"}
    assert not further & set(plain) and len(plain) == 11
    assert Recipe.load(plain) == Recipe(epochs=3.0)
    more = Recipe(hidden_distillation=0.5, transfer_texts=9, intermediate_task="imdb")
    assert Recipe.load(more.describe()) == more
