"""transcode evaluate: what it reports, which exponents it takes, the test split, fine-tuning."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "model"))

from tiny import SMALL, FakeTeacher, tiny_task

import model.train
from hwgen.design import AcceleratorDesign
from model.calibration import Calibration
from model.card import ARITHMETIC, CARD
from model.job import calibrated
from model.recipe import Recipe
from model.train import train
from model.trained import TrainedModel
from transcode.evaluation import evaluate_one, print_evaluation
from transcode.output import console


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model trained on a tiny task that loads by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSCODE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(model.train, "fine_tuned_teacher", lambda *a, **k: FakeTeacher())
        patch.setattr("model.trained.load_task", lambda name: tiny_task())
        recipe = Recipe(epochs=6, learning_rate=3e-3, batch_size=16)
        path = tmp_path_factory.mktemp("model") / "m"
        train(SMALL, tiny_task(), recipe=recipe, out=path)
        yield path


def found(folder, **changes):
    options = {
        "arithmetic": "edge", "bits": None, "calibration": None, "channels": False,
        "split": "validation", "final": False, "fine_tune_epochs": None, "out": None, "seed": 0,
    }  # fmt: skip
    return evaluate_one(folder, **{**options, **changes}, progress=lambda share, what: None)


def test_reports_a_whole_split_in_both_arithmetics(folder):
    made = found(folder)
    n = len(tiny_task().validation)
    assert (made["n"], made["bits"], made["split"], made["task"]) == (n, 20, "validation", "tiny")
    assert made["float_accuracy"] == made["accuracy"] > 0.9 and made["agreement"] == 1.0
    assert [layer["layer"] for layer in made["layers"]] == ["embedding", "0", "classifier"]
    assert json.loads(json.dumps(made)) and made["runs_in_rtl"]
    assert found(folder, split="train")["n"] == len(tiny_task().train)
    assert not (folder / "test_openings.json").exists()


def test_accuracies_are_kept_with_the_model_and_on_its_card(folder, tmp_path):
    AcceleratorDesign.load("edge").with_bits(12).save(tmp_path / "mine.yaml")
    made = [found(folder, bits=6, calibration="max"), found(folder, bits=6, calibration="mse")]
    made += [found(folder, arithmetic=str(tmp_path / "mine.yaml"), split="train")]
    rows = json.loads((folder / ARITHMETIC).read_text())[-3:]
    kept = ("split", "n", "bits", "method", "channels", "float_accuracy", "accuracy", "agreement")
    for row, evaluation in zip(rows, made, strict=True):
        assert all(row[key] == evaluation[key] for key in kept)
    assert [row["design"] for row in rows] == ["edge", "edge", "mine"]
    designs = [AcceleratorDesign.load("edge").with_bits(bits) for bits in (6, 6, 12)]
    assert [row["design_sha256"] for row in rows] == [design.sha256 for design in designs]
    text = (folder / CARD).read_text()
    for row in rows:
        accuracy = f"{row['accuracy']:.4f} | {row['n']} |"
        said = f"{row['bits']} bits of {row['design']} (`{row['design_sha256'][:8]}`)"
        assert f"| {row['split']} | {said}, exponents by {row['method']} | {accuracy}" in text


def test_takes_saved_exponents_only_where_they_are_of_the_width(folder):
    saved = Calibration.load(folder)
    shifted = {name: exponent + 6 for name, exponent in saved.exponents.items()}
    softmax = ("0.attention_softmax", "pooler_tanh")
    shifted |= {name: saved.exponents[name] for name in softmax}
    changed = saved.model_copy(update={"exponents": shifted})
    try:
        changed.save(folder)
        exponents = {item["tensor"]: item["exponent"] for item in found(folder)["tensors"]}
        assert exponents["embedding"] == shifted["embedding"]
        made = found(folder, calibration="max")
        exponents = {item["tensor"]: item["exponent"] for item in made["tensors"]}
        assert exponents["embedding"] == saved.exponents["embedding"]
        made = found(folder, bits=5)
        exponents = {item["tensor"]: item["exponent"] for item in made["tensors"]}
        wide = calibrated(TrainedModel.load(folder).model, tiny_task(), 5)
        least = calibrated(TrainedModel.load(folder).model, tiny_task(), 5, "mse")
        names = [name for name in exponents if least.exponents[name] != wide.exponents[name]]
        assert names and all(exponents[name] == least.exponents[name] for name in names)
    finally:
        saved.save(folder)


def test_options_reach_the_arithmetic(folder):
    made = found(folder, bits=4, calibration="mse", channels=True)
    assert (made["bits"], made["method"], made["channels"]) == (4, "mse", True)
    assert made["accumulator_bits"] == 8 + 12 and not made["runs_in_rtl"]
    assert made["agreement"] <= 1 and found(folder, bits=4, calibration="99")["method"] == "99.0"
    with console.capture() as capture:
        print_evaluation(made)
    text = " ".join(capture.get().split())
    assert "one shift for a whole product" in text and "mse, channels" in text
    assert "accuracy in edge, 4 bits" in text and "what rounding did, by layer" in text


def test_the_test_split_is_opened_on_record(folder):
    made = found(folder, final=True, bits=8)
    openings = json.loads((folder / "test_openings.json").read_text())
    assert made["split"] == "test" and made["n"] == openings[0]["n"] == tiny_task().sizes["test"]
    assert len(openings) == 1 and openings[0]["why"].endswith("in the arithmetic of edge, 8 bits")


def test_fine_tunes_into_another_folder(folder, tmp_path):
    made = found(folder, bits=4, fine_tune_epochs=1.0, out=tmp_path / "tuned", calibration="mse")
    tuned = made["fine_tuned"]
    assert tuned["model"] == str(tmp_path / "tuned") and tuned["bits"] == 4
    saved = Calibration.load(tmp_path / "tuned")
    (row,) = json.loads((tmp_path / "tuned" / ARITHMETIC).read_text())
    assert (row["bits"], row["accuracy"], row["method"]) == (4, tuned["accuracy"], "mse")
    text = (tmp_path / "tuned" / CARD).read_text()
    assert f"exponents by mse | {row['accuracy']:.4f} | {row['n']} |" in text
    start = TrainedModel.load(folder).about["weights_hash"]
    assert f"| fine-tuned | from weights `{start}`, in an arithmetic of 4 bits, exp" in text
    assert "fine-tuned |" not in (folder / CARD).read_text()
    assert {item["tensor"]: item["exponent"] for item in tuned["tensors"]} == {
        name: saved.exponents[name] for name in (item["tensor"] for item in made["tensors"])
    }
    assert saved.method == tuned["method"] == "mse"
    again = found(tmp_path / "tuned", bits=4)
    assert again["accuracy"] == tuned["accuracy"]
    with console.capture() as capture:
        print_evaluation(made)
    assert capture.get().count("what rounding did") == 2


def test_refuses(folder):
    with pytest.raises(ValueError, match="split must be train or validation, not 'test'.*--final"):
        found(folder, split="test")
    with pytest.raises(ValueError, match="--out x is for a fine-tuned model; add --fine-tune"):
        found(folder, out=Path("x"))
    with pytest.raises(ValueError, match="bits"):
        found(folder, bits=30)
    with pytest.raises(ValueError, match="calibration must be max, mse or a percentage"):
        found(folder, calibration="best")
