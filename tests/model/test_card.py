"""Model cards, of trained models and of models that are just saved."""

import json

import pytest
from huggingface_hub import ModelCard
from tiny import SMALL, tiny_task

from model.card import ARITHMETIC, CARD, model_card, record_arithmetic, write_trained_card
from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification
from model.policy import PruningPolicy
from model.recipe import Recipe
from model.teacher import PRETRAINED

POLICY = PruningPolicy(activation_threshold=0.0375, gradient_threshold=2.5e-6)


def known(teacher=None):
    inputs = {
        "design": SMALL.model_dump(mode="json"),
        "policy": POLICY.model_dump(mode="json"),
        "task": tiny_task().describe(),
        "recipe": vars(Recipe(epochs=3, learning_rate=0.00123)),
        "seed": 17,
        "threads": 1,
        "pretrained": PRETRAINED,
        "torch": "2.x",
        "transformers": "5.x",
    }
    about = {
        "validation_accuracy": 0.87654,
        "validation_n": 36,
        "epochs": 3.0,
        "steps": 63,
        "weights_hash": "0123456789abcdef",
        "teacher": teacher,
    }
    return inputs, about


def test_the_card_of_a_trained_model_says_all_that_is_known(tmp_path):
    teacher = {"key": "teacher-7", "validation_accuracy": 0.9125}
    write_trained_card(tmp_path, *known(teacher))
    text = (tmp_path / CARD).read_text()
    task = tiny_task()
    for said in (
        task.split_hash, "tiny (bad, good), texts cut at 32 tokens", "made up", "CC0-1.0",
        "train 168, validation 36, test 36", "τ of activations | 0.0375",
        "τ of gradients | 2.5e-06", "epochs 3,", "learning_rate 0.00123",
        "3.0, 63, 17, 1", "`teacher-7`, validation accuracy 0.9125", "Apache-2.0",
        "| validation | float | 0.8765 | 36 |", "arithmetic: not measured", SMALL.design_hash,
        json.dumps(SMALL.to_published()), "0123456789abcdef", "torch 2.x, transformers 5.x",
    ):  # fmt: skip
        assert said in text, said
    assert "Not recorded" not in text and "test | float" not in text and "{{" not in text
    data = ModelCard.load(tmp_path / CARD).data
    assert data.pipeline_tag == "text-classification" and data.license == "other"


def measured(**changes):
    return {
        "split": "validation", "n": 36, "design": "edge", "design_sha256": "0f" * 32, "bits": 20,
        "method": "max", "channels": False, "float_accuracy": 0.889, "accuracy": 0.861,
        "agreement": 0.97, **changes,
    }  # fmt: skip


def test_accuracies_that_come_later_are_added(tmp_path):
    test = {"test_accuracy": 0.8333, "baseline_test_accuracy": 0.75, "test_n": 36}
    (tmp_path / "test.json").write_text(json.dumps(test))
    record_arithmetic(tmp_path, *known(), measured())
    text = (tmp_path / CARD).read_text()
    for said in (
        "| validation | 20 bits of edge (`0f0f0f0f`), exponents by max | 0.8610 | 36 |",
        "| test | float | 0.8333 | 36 |",
        "| test | TF-IDF baseline | 0.7500 | 36 |",
        "| teacher | none |",
    ):
        assert said in text, said
    assert "not measured" not in text


def test_accuracies_of_several_settings_stand_beside_each_other(tmp_path):
    changes = [
        {}, {"split": "test"}, {"design_sha256": "1e" * 32}, {"bits": 8}, {"method": "mse"},
        {"channels": True},
    ]  # fmt: skip
    for change in changes:
        record_arithmetic(tmp_path, *known(), measured(**change))
    rows = [measured(**change) for change in changes]
    assert json.loads((tmp_path / ARITHMETIC).read_text()) == rows
    record_arithmetic(tmp_path, *known(), measured(accuracy=0.9123, design="renamed"))
    again = json.loads((tmp_path / ARITHMETIC).read_text())
    assert again == [*rows[1:], measured(accuracy=0.9123, design="renamed")]
    text = (tmp_path / CARD).read_text()
    assert text.count("exponents by") == len(rows) and text.count("0.9123") == 1
    assert "| validation | 20 bits of edge (`0f0f0f0f`), exponents by max, channels |" in text
    assert "| validation | 20 bits of edge (`1e1e1e1e`), exponents by max |" in text


def test_every_saved_model_has_one_and_a_persons_is_kept(tmp_path):
    model = FlexiBertForSequenceClassification(FlexiBertConfig.of(SMALL, POLICY))
    model.save_pretrained(tmp_path / "new")
    text = (tmp_path / "new" / CARD).read_text()
    assert text == model_card(SMALL, POLICY, folder="new")
    assert text.count("Not recorded") == 3 and "τ of activations | 0.0375" in text
    (tmp_path / "new" / CARD).write_text("mine")
    model.save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / CARD).read_text() == "mine"
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other" / CARD).exists()


@pytest.mark.parametrize("heads", [["c_5", "sa_sdp"], ["l_dct", "l_dct"]])
def test_the_card_of_any_design(heads):
    layer = {**SMALL.layers[0].model_dump(mode="json"), "heads": heads}
    design = SMALL.model_copy(
        update={
            "layers": (
                SMALL.layers[0].model_validate(
                    {**layer, "heads": tuple(heads), "feed_forward": tuple(layer["feed_forward"])}
                ),
            )
        }
    )
    model = FlexiBertForSequenceClassification(FlexiBertConfig.of(design))
    assert f"{model.num_parameters():,} parameters" in model_card(design, POLICY)
