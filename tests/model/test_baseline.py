"""The bag-of-words baseline."""

from pathlib import Path

import numpy as np
from tiny import tiny_pairs, tiny_task

from model import baseline
from model.baseline import fit_baseline
from model.data import Split, open_test


def test_the_strength_is_the_best_on_validation(tmp_path: Path) -> None:
    task = tiny_task()
    found = fit_baseline(task)
    assert found.validation_n == 36 and found.validation_accuracy > 0.9
    assert found.accuracy(task.validation) == found.validation_accuracy
    assert found.strength in baseline.STRENGTHS
    test = open_test(task, tmp_path / "openings.json", "a test of the baseline")
    assert found.correct(test).shape == (36,) and found.correct(test).mean() > 0.9


def test_it_learns_another_tasks_texts_when_asked() -> None:
    task = tiny_task()
    texts = tuple(f"a {word} thing" for word in ("sorry", "fine") for _ in range(40))
    found = fit_baseline(task, Split("train", texts, np.repeat([0, 1], 40)))
    unknown = Split("test", ("sorry indeed", "fine indeed"), np.array([0, 1]))
    assert found.correct(unknown).all() and found.accuracy(task.validation) > 0.9
    assert not fit_baseline(task).correct(unknown).all()  # it knows neither word


def test_of_a_pair_both_texts_are_read() -> None:
    found = fit_baseline(tiny_pairs())
    words = found.pipeline[0].get_feature_names_out()
    assert {"the film", "it is", "nothing"} <= {*words}
    assert found.correct(tiny_pairs().validation).shape == (27,)


def test_of_equal_strengths_the_smallest_is_taken() -> None:
    task = tiny_task(600)
    found = fit_baseline(task)
    assert found.validation_accuracy == 1.0
    smaller = [s for s in baseline.STRENGTHS if s < found.strength]
    assert not smaller or np.all([_accuracy(task, s) < 1.0 for s in smaller])


def _accuracy(task: object, strength: float) -> float:
    from unittest.mock import patch

    with patch.object(baseline, "STRENGTHS", (strength,)):
        return fit_baseline(task).validation_accuracy  # type: ignore[arg-type]
