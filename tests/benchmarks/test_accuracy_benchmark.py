"""The accuracy benchmark: validation chooses a recipe; the test split is opened for it alone."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.baseline import fit_baseline
from model.data import openings
from model.policy import PruningPolicy
from model.recipe import Recipe
from model.space import TransformerDesign
from model.trained import FinalTest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[1] / "model"))
import accuracy as benchmark  # noqa: E402
from tiny import tiny_task  # noqa: E402
from training import trainings  # noqa: E402

ACCURACIES = {"default-0": 0.80, "default-1": 0.70, "transfer-0": 0.76, "transfer-1": 0.78}


def test_the_best_mean_on_validation_alone_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def load(folder: Path) -> Any:
        return SimpleNamespace(
            name=folder.name, validation_accuracy=ACCURACIES[folder.name], validation_n=50,
            seconds=1.0, recipe=Recipe(), policy=PruningPolicy(), densities={},
        )  # fmt: skip

    def final_test(made: Any) -> FinalTest:
        opened.append(made.name)
        return FinalTest(0.75, 0.5, 4, (True, True, True, False), (True, False, True, False))

    monkeypatch.setattr(benchmark.TrainedModel, "load", load)
    monkeypatch.setattr(benchmark, "final_test", final_test)
    given = benchmark.parser().parse_args(["--models", "bert-tiny", "--seeds", "2"])
    trainings = [
        benchmark.training_of(given, "bert-tiny", recipe, seed)
        for seed in range(2)
        for recipe in benchmark.recipes_of(given, "bert-tiny")
    ]
    row = benchmark.of_model(trainings)
    assert row["recipe"] == "transfer" and opened == ["transfer-0", "transfer-1"]
    assert row["validation"] == {"default": [0.80, 0.70], "transfer": [0.76, 0.78]}
    assert (row["test"], row["test_n"], row["baseline_test"]) == ([0.75, 0.75], 4, 0.5)
    assert row["difference"]["mean"] == 0.25 and row["difference"]["seeds"] == 2


def test_what_a_teacher_of_another_task_gives_stands_beside_a_baseline_that_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task, further = tiny_task(), tiny_task(480)
    monkeypatch.setattr(benchmark, "load_task", {"other": further}.get)
    right, wrong = [True] * 36, [False] * 36
    plain = {"recipe_fields": {"intermediate_task": ""}}
    taught = {"recipe_fields": {"intermediate_task": "other"}, "correct": [wrong, right]}
    models = {"plain": plain, "taught": taught}
    benchmark.add_wider_baselines(task, models, tmp_path)
    assert "wider_baseline" not in plain
    found = taught["wider_baseline"]
    baseline = fit_baseline(task, further.train)
    assert found["task"] == "other"
    assert found["validation_accuracy"] == baseline.validation_accuracy
    assert found["test"] == 1.0 and found["difference"]["mean"] == -0.5
    (opening,) = openings(tmp_path / "test_openings.json")
    assert opening["why"] == "TF-IDF that learns other, too"
    row = {
        "validation": {"a": [0.5]}, "recipe": "a", "validation_n": 36, "test": [0.5], "test_n": 36,
        "baseline_test": 0.5, "difference": {"mean": 0.0, "low": -0.125, "high": 0.125}, **taught,
    }  # fmt: skip
    benchmark.print_result({"baseline": {"validation_accuracy": 0.5}, "models": {"taught": row}})
    shown = capsys.readouterr().out.splitlines()
    assert "difference +0.00 points, 95 % interval -12.50 to +12.50" in shown[2]
    assert "taught: TF-IDF that learns other, too, validation 100.00%, test 100.00%" in shown[3]


def test_every_model_has_a_design_and_minilm_its_own_recipe() -> None:
    given = benchmark.parser().parse_args(["--recipes", "hidden"])
    for model, design in benchmark.MODELS.items():
        TransformerDesign.load(design)
        wanted = ["fine-tuning"] if model == "minilm" else ["hidden"]
        assert benchmark.recipes_of(given, model) == wanted
    made = benchmark.training_of(given, "bert-mini", "transfer-from-minilm", 3)
    assert (made.encoder, made.seed, made.recipe.transfer_texts) == ("minilm", 3, 60_000)
    assert made.folder.name == "transfer-from-minilm-3"
    slower = {"corpus-from-minilm": "corpus", "intermediate-from-minilm": "intermediate"}
    for name, other in slower.items():
        recipe, encoder = benchmark.RECIPES[name]
        assert encoder == "minilm" and recipe.learning_rate == 5e-4
        assert replace(recipe, learning_rate=1.5e-3) == benchmark.RECIPES[other][0]


def test_each_teacher_is_at_hand_before_processes_ask_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def teacher(task: Any, recipe: Any, device: str) -> Any:
        def logits(task: Any, further: tuple[str, ...], device: str) -> None:
            asked.append((recipe.intermediate_task, len(further)))

        return SimpleNamespace(logits=logits)

    monkeypatch.setattr(trainings, "fine_tuned_teacher", teacher)
    texts = ("text",) * 1000
    monkeypatch.setattr(trainings, "transfer_texts", lambda task, count: texts[: count // 1000])
    monkeypatch.setattr(trainings.torch, "set_num_threads", lambda count: None)
    given = benchmark.parser().parse_args([])
    names = ("intermediate", "corpus-from-minilm", "corpus", "default", "fine-tuning")
    made = [benchmark.training_of(given, "bert-tiny", name, 0) for name in names]
    trainings.prepare_teacher(tiny_task(), made, "cuda:1")
    assert asked == [("", 0), ("", 186), ("imdb", 186)]
    assert "the teacher, who learns imdb first: its answers for 168" in capsys.readouterr().err

def test_a_spread_is_mean_deviation_and_each() -> None:
    assert benchmark.spread([0.76, 0.78]) == "77.00% ± 1.41% (76.0, 78.0)"
    assert benchmark.spread([0.5]) == "50.00% (50.0)"
