"""The accuracy benchmark: validation chooses a recipe; the test split is opened for it alone."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.policy import PruningPolicy
from model.recipe import Recipe
from model.space import TransformerDesign
from model.trained import FinalTest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import accuracy as benchmark  # noqa: E402

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


def test_every_model_has_a_design_and_minilm_its_own_recipe() -> None:
    given = benchmark.parser().parse_args(["--recipes", "hidden"])
    for model, design in benchmark.MODELS.items():
        TransformerDesign.load(design)
        wanted = ["fine-tuning"] if model == "minilm" else ["hidden"]
        assert benchmark.recipes_of(given, model) == wanted
    made = benchmark.training_of(given, "bert-mini", "transfer-from-minilm", 3)
    assert (made.encoder, made.seed, made.recipe.transfer_texts) == ("minilm", 3, 60_000)
    assert made.folder.name == "transfer-from-minilm-3"


def test_a_spread_is_mean_deviation_and_each() -> None:
    assert benchmark.spread([0.76, 0.78]) == "77.00% ± 1.41% (76.0, 78.0)"
    assert benchmark.spread([0.5]) == "50.00% (50.0)"
