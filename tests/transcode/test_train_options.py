"""What the options of `transcode train` make of the default policy."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import transcode.training
from model.job import DEFAULT_POLICY
from model.policy import PruningPolicy
from model.recipe import Recipe
from transcode.models import app


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], {}),
        (["--tau-activation", "0.05"], {"activation_threshold": 0.05}),
        (
            ["--density-activation", "0.5"],
            {"activation_threshold": 0.0, "activation_density": 0.5},
        ),
        (
            ["--density-gradient", "0.1", "--tau-activation", "0.02", "--ramp-steps", "200"],
            {
                "activation_threshold": 0.02, "gradient_threshold": 0.0, "gradient_density": 0.1,
                "ramp": {"steps": 200},
            },
        ),
    ],
)  # fmt: skip
def test_options_become_a_policy(
    options: list[str], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PruningPolicy] = []

    def train_one(*given: Any) -> dict[str, Any]:
        seen.append(given[4])
        return {"densities": {}}

    monkeypatch.setattr(transcode.training, "train_one", train_one)
    done = CliRunner().invoke(app, ["train", "bert-tiny", "--json", "--quiet", *options])
    assert done.exit_code == 0, done.output
    assert seen == [PruningPolicy.load({**DEFAULT_POLICY.model_dump(), **changes})]


def test_options_become_a_recipe_and_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def train_one(*given: Any) -> dict[str, Any]:
        seen.append(given)
        return {"densities": {}}

    monkeypatch.setattr(transcode.training, "train_one", train_one)
    options = ["--epochs", "2", "--learning-rate", "3e-4", "--dropout", "0.3",
               "--transfer-texts", "500", "--hidden-distillation", "0.5",
               "--intermediate-task", "imdb",
               "--encoder", "minilm", "--device", "cuda:1",
               "--trace-at", "0", "--trace-at", "0.5"]  # fmt: skip
    done = CliRunner().invoke(app, ["train", "bert-tiny", "--json", "--quiet", *options])
    assert done.exit_code == 0, done.output
    (given,) = seen
    assert given[5] == Recipe(
        epochs=2, learning_rate=3e-4, dropout=0.3, transfer_texts=500, hidden_distillation=0.5,
        intermediate_task="imdb",
    )  # fmt: skip
    assert given[9:] == ("minilm", "cuda:1", (0.0, 0.5))


def test_a_threshold_and_a_density_are_too_much(tmp_path: Path) -> None:
    options = ["--tau-gradient", "1e-5", "--density-gradient", "0.1", "--out", str(tmp_path / "x")]
    done = CliRunner().invoke(app, ["train", "bert-tiny", *options])
    assert isinstance(done.exception, ValueError)
    assert "either gradient_threshold or gradient_density" in str(done.exception)
