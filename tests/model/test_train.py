"""Training: resumable bit for bit, in rungs, with measured densities and a guarded test split."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny import SMALL, FakeTeacher, same, tiny_pairs, tiny_task

from model import data, initial, loop, train, trained
from model.cache import write_json
from model.job import calibrated
from model.loop import Progress
from model.policy import PruningPolicy
from model.recipe import Recipe
from model.trained import TrainedModel, final_test, summary

POLICY = PruningPolicy(activation_threshold=0.02, gradient_threshold=1e-4)
RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=5e-3, dropout=0.1)
STEPS = 84  # 4 epochs of 21 batches of 168 examples
TASK = tiny_task()


TABLES = initial.projected_embeddings(16, np.ones(30522))


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Leave out what is slow and has tests of its own."""
    patch.setattr(train, "fine_tuned_teacher", lambda *_, **__: FakeTeacher())
    patch.setattr(initial, "projected_embeddings", lambda *_: TABLES)
    patch.setattr(train, "GRADIENT_STEPS", 8)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def trained_small(
    out: Path, recipe: Recipe = RECIPE, seed: int = 1, **other: object
) -> TrainedModel:
    return train.train(SMALL, TASK, POLICY, recipe, seed, out, **other)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return trained_small(tmp_path_factory.mktemp("reference") / "model")


def stopping(at: int) -> object:
    def progress(now: Progress) -> None:
        if now.phase == "training the model" and now.step == at:
            raise KeyboardInterrupt

    return progress


def test_it_learns_and_saves_what_it_measured(reference: TrainedModel) -> None:
    assert reference.validation_accuracy > 0.9 and reference.validation_n == 36
    assert (reference.epochs, reference.steps) == (4.0, STEPS)
    assert reference.trace.design_hash == SMALL.design_hash
    assert reference.trace.stage == "inference" and reference.trace.split == "validation"
    assert reference.gradients.stage == "training" and reference.gradients.split == "train"
    assert reference.trace.sequence_length == reference.gradients.sequence_length == 32
    assert reference.trace.batch == 36 and reference.gradients.batch == 8 * 8
    assert reference.trace.weights_hash == reference.model.weights_hash()
    assert (reference.path / "calibration.json").is_file()
    assert not list(reference.path.glob("*.tmp")) and not list(reference.path.glob("check*"))
    correct = reference.correct(TASK.validation)
    assert correct.mean() == reference.validation_accuracy


def test_activations_and_gradients_are_pruned_and_weights_are_not(reference: TrainedModel) -> None:
    densities = reference.densities
    assert set(densities) == {"INPUT", "WEIGHT", "LEFT", "RIGHT", "OUTPUT", "GRAD_OUTPUT"}
    for role in ("INPUT", "LEFT", "RIGHT", "OUTPUT", "GRAD_OUTPUT"):
        assert 0 < densities[role] < 1
    assert densities["WEIGHT"] == 1.0


def test_the_same_seed_gives_the_same_model_and_another_one_another(
    reference: TrainedModel, tmp_path: Path
) -> None:
    torch.manual_seed(5)  # global random numbers neither matter nor move
    before = torch.get_rng_state()
    again = trained_small(tmp_path / "again")
    assert torch.equal(before, torch.get_rng_state())
    assert same(again.model, reference.model)
    assert again.trace == reference.trace and again.gradients == reference.gradients
    assert not same(trained_small(tmp_path / "other", seed=2).model, reference.model)


@pytest.mark.parametrize("at", [1, 40, 60, STEPS - 3])  # rising, steady, falling, being measured
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    at: int, reference: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained_small(tmp_path / "model", progress=stopping(at))
    with pytest.raises(ValueError, match="holds no trained model"):
        TrainedModel.load(tmp_path / "model")
    steps: list[int] = []
    resumed = trained_small(tmp_path / "model", progress=lambda now: steps.append(now.step))
    assert steps[0] == min(at, STEPS - 9) + 1 and steps[-1] == STEPS
    assert same(resumed.model, reference.model)
    assert resumed.trace == reference.trace and resumed.gradients == reference.gradients


def test_without_resume_a_half_training_starts_over(
    reference: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained_small(tmp_path / "model", progress=stopping(30))
    steps: list[int] = []
    fresh = trained_small(
        tmp_path / "model", resume=False, progress=lambda now: steps.append(now.step)
    )
    assert steps[0] == 1 and same(fresh.model, reference.model)


def test_a_full_disk_loses_nothing(
    reference: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    saved = loop.save_file
    count = iter(range(1000))

    def full(*arguments: object, **keywords: object) -> None:
        if next(count) == 20:
            raise OSError(28, "No space left on device")
        saved(*arguments, **keywords)

    monkeypatch.setattr(loop, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        trained_small(tmp_path / "model")
    steps: list[int] = []
    resumed = trained_small(tmp_path / "model", progress=lambda now: steps.append(now.step))
    assert steps[0] == 21
    assert same(resumed.model, reference.model)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import pytest
from model import loop
import test_train
loop.CHECKPOINT_SECONDS = 0.0
test_train.shorten(pytest.MonkeyPatch())
def progress(now):
    if now.step == 50:
        print("there", flush=True)
        import time
        time.sleep(60)
test_train.trained_small(Path({out!r}), progress=progress)
"""


def test_a_killed_training_ends_as_if_it_had_not_been(
    reference: TrainedModel, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"there\n"
        process.send_signal(signal.SIGKILL)
    steps: list[int] = []
    resumed = trained_small(out, progress=lambda now: steps.append(now.step))
    assert steps[0] == 51
    assert same(resumed.model, reference.model)


def test_a_higher_rung_goes_on_from_a_lower_one_and_ends_as_if_alone(
    reference: TrainedModel, tmp_path: Path
) -> None:
    lower = trained_small(tmp_path / "low", RECIPE.rung(0.5))
    assert lower.epochs == 2.0 and (lower.path / "trunk.safetensors").is_file()
    steps: list[int] = []
    higher = trained_small(
        tmp_path / "high", RECIPE, start=lower, progress=lambda now: steps.append(now.step)
    )
    assert steps[0] == RECIPE.rung(0.5).schedule(21).decay_start + 1
    assert same(higher.model, reference.model) and not same(lower.model, reference.model)
    assert not (higher.path / "trunk.safetensors").exists()
    assert not (lower.path / "calibration.json").exists()


def test_another_training_is_not_continued(tmp_path: Path) -> None:
    lower = trained_small(tmp_path / "low", RECIPE.rung(0.1), seed=3)
    with pytest.raises(ValueError, match="cannot be continued: its seed is 3, not 4"):
        trained_small(tmp_path / "high", RECIPE, seed=4, start=lower.path)


def test_a_finished_model_is_loaded_and_another_training_refused(
    reference: TrainedModel, tmp_path: Path
) -> None:
    def progress(now: Progress) -> None:
        raise AssertionError("there is nothing to train")

    assert same(trained_small(reference.path, progress=progress).model, reference.model)
    with pytest.raises(ValueError, match="holds a training of another seed: 1, not 7"):
        trained_small(reference.path, seed=7)
    with pytest.raises(ValueError, match="another recipe"):
        trained_small(reference.path, replace(RECIPE, epochs=5))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no model of this program"):
        trained_small(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_designs_that_do_not_fit_the_task_are_refused(tmp_path: Path) -> None:
    for change, message in (
        ({"vocabulary": 100}, "vocabulary must be 30522, the tokenizer's, not 100"),
        ({"max_positions": 16}, "max_positions must be at least the task's sequence_length, 32"),
        ({"labels": 3}, "labels must be 2, the task's, not 3; change the design with model_copy"),
    ):
        with pytest.raises(ValueError, match=message):
            train.train(SMALL.model_copy(update=change), TASK, POLICY, RECIPE, 0, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_classifier_of_a_named_design_is_the_tasks(tmp_path: Path) -> None:
    pairs = tiny_pairs()
    named = SMALL.model_dump(mode="json")
    SMALL.save(tmp_path / "small.json")
    assert named["labels"] == 2
    made = train.train(named, pairs, POLICY, RECIPE.rung(0.1), 1, tmp_path / "mapping")
    from_file = train.train(
        str(tmp_path / "small.json"), pairs, POLICY, RECIPE.rung(0.1), 1, tmp_path / "file"
    )
    assert made.design.labels == made.model.config.num_labels == 3
    assert same(made.model, from_file.model) and made.design == from_file.design
    assert made.trace.design_hash == SMALL.model_copy(update={"labels": 3}).design_hash
    assert made.model.classifier.weight.shape == (3, 16)


def test_pairs_of_three_classes_are_learned(tmp_path: Path) -> None:
    """Which needs both texts: the noun of the one against the noun of the other."""
    recipe = Recipe(epochs=12, batch_size=8, learning_rate=1e-2)
    made = train.train(SMALL.model_dump(), tiny_pairs(), POLICY, recipe, 1, tmp_path / "model")
    assert made.validation_accuracy > 0.6 and made.validation_n == 27  # a third by chance
    moved = made.model.encoder.embeddings.token_type.weight - TABLES["type"]
    assert moved.abs().max() > 1e-3  # the second text's row is read


def test_progress_says_what_is_done_and_left(tmp_path: Path) -> None:
    seen: list[Progress] = []
    threads = torch.get_num_threads()
    trained_small(tmp_path / "model", RECIPE.rung(0.1), progress=seen.append)
    assert torch.get_num_threads() == threads
    assert [now.step for now in seen] == list(range(1, 9)) and seen[-1].steps == 8
    assert seen[-1].fraction == 1.0 and seen[-1].seconds_left == 0.0
    assert seen[0].seconds_left is not None and seen[0].seconds_left > 0
    assert np.isfinite(seen[-1].loss)


def test_weights_are_safetensors_only(reference: TrainedModel) -> None:
    assert load_file(reference.path / "model.safetensors")
    suffixes = {path.suffix for path in reference.path.iterdir()}
    assert suffixes <= {".safetensors", ".json", ".md"}


def test_the_folder_is_a_hugging_face_model_with_its_card(reference: TrainedModel) -> None:
    classify = transformers.pipeline("text-classification", str(reference.path), device="cpu")
    texts, labels = TASK.validation.texts[:8], TASK.validation.labels[:8]
    expected = reference.correct(TASK.validation)[:8]
    for text, label, correct in zip(texts, labels, expected, strict=True):
        assert (classify(text)[0]["label"] == TASK.label_names[label]) == correct
    card = (reference.path / "README.md").read_text()
    assert TASK.split_hash in card and f"{reference.validation_accuracy:.4f} | 36" in card
    assert "`fake`, validation accuracy 1.0000" in card and "activations | 0.02" in card


def test_heads_of_every_operation_train(tmp_path: Path) -> None:
    heads = ("c_5", "sa_wma", "l_dft", "sa_sdp")
    layer = SMALL.layers[0].model_copy(update={"heads": heads})
    design = SMALL.model_copy(update={"layers": (layer,)})
    model = train.train(design, TASK, POLICY, RECIPE, 1, tmp_path / "model")
    assert model.validation_accuracy > 0.9
    assert not (model.path / "calibration.json").exists()
    assert {record.head for record in model.trace.records} == {None, 0, 1, 2, 3}
    assert {p.operation for p in model.gradients.products} >= {"kernel_logits", "transform"}
    fresh = initial.initial_model(design, POLICY, TASK, 0.1, seed=1).encoder.layers[0].heads
    assert torch.equal(fresh["sa_wma"].query_weighted.weight, torch.eye(4)[None])
    assert 0.1 < fresh["c_5"].key_convolution.weight.std() < 0.6  # 0.6 / √4 = 0.3
    with pytest.raises(ValueError, match="c_5 in layer 0 is not modelled yet; use sa_sdp"):
        calibrated(model.model, TASK)


def test_embeddings_of_absent_tokens_keep_their_projection(reference: TrainedModel) -> None:
    fresh = initial.initial_model(SMALL, POLICY, TASK, 0.1, seed=1)
    before = fresh.get_input_embeddings().weight
    after = reference.model.get_input_embeddings().weight
    moved = (before != after).any(1).nonzero()[:, 0].numpy()
    used = np.unique(train.tokenize(TASK.train.texts, 32).ids)
    assert set(moved) < set(used) and len(moved) > 0.9 * len(used)


def test_the_test_split_is_opened_once_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained_small(tmp_path / "model")
    nothing = summary(model)
    assert nothing["test_accuracy"] is nothing["baseline_test_accuracy"] is None
    assert nothing["test_n"] is nothing["baseline_test_n"] is None
    record = model.path / "test_openings.json"
    assert not record.exists()
    result = final_test(model, TASK)
    assert result.test_n == 36 and result.test_accuracy == np.mean(result.test_correct) > 0.9
    assert result.baseline_test_accuracy == np.mean(result.baseline_correct) > 0.9
    assert final_test(model, TASK) == result
    (opening,) = json.loads(record.read_text())
    assert opening["n"] == 36 and opening["split_hash"] == TASK.split_hash
    assert f"| test | float | {result.test_accuracy:.4f} | 36 |" in (
        (model.path / "README.md").read_text()
    )
    final = summary(model, result)
    assert final["test_accuracy"] == result.test_accuracy and final["baseline_test_n"] == 36
    assert final["validation_accuracy"] == model.validation_accuracy
    assert final["model"] == str(model.path) and json.dumps(final)


def test_the_test_of_another_task_is_refused(reference: TrainedModel) -> None:
    with pytest.raises(ValueError, match="was trained on tiny with splits"):
        final_test(reference, tiny_task(300))


def test_nothing_but_the_final_test_reads_the_test_split(
    reference: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test split of nonsense changes nothing in what is trained."""
    empty = data.Split("test", TASK._test.texts, TASK._test.labels)
    spoiled = replace(TASK, _test=empty)
    object.__setattr__(empty, "texts", None)
    monkeypatch.setattr(data.Task, "split_hash", TASK.split_hash)
    monkeypatch.setattr(data.Task, "sizes", TASK.sizes)
    model = train.train(SMALL, spoiled, POLICY, RECIPE, 1, tmp_path / "model")
    assert same(model.model, reference.model)


def test_a_rate_that_blows_up_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "distillation_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        trained_small(tmp_path / "model")


def test_a_loaded_model_is_the_saved_one(reference: TrainedModel) -> None:
    loaded = TrainedModel.load(str(reference.path))
    assert loaded.design == SMALL and loaded.policy == POLICY and loaded.recipe == RECIPE
    assert loaded.seed == 1 and same(loaded.model, reference.model)
    assert loaded.trace == reference.trace
    assert not loaded.model.training


def test_a_foreign_recipe_in_a_folder_is_named(reference: TrainedModel, tmp_path: Path) -> None:
    for name in ("training.json", "trace.json", "gradients.json"):
        (tmp_path / name).write_text((reference.path / name).read_text())
    inputs = dict(reference.inputs)
    write_json(tmp_path / "inputs.json", {**inputs, "recipe": {"epoch": 3}})
    with pytest.raises(ValueError, match="unknown key 'epoch'"):
        trained.TrainedModel.load(tmp_path)


@pytest.mark.slow
def test_bert_tiny_beats_bag_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds on the real task; some five minutes with a cached teacher."""
    monkeypatch.undo()
    ours, theirs = [], []
    for seed in range(3):
        model = train.train("bert-tiny", "movie-sentences", None, None, seed, tmp_path / str(seed))
        assert model.densities["GRAD_OUTPUT"] < 1 and model.densities["INPUT"] < 1
        result = final_test(model)
        ours.append(result.test_accuracy)
        theirs.append(result.baseline_test_accuracy)
    assert np.mean(ours) > np.mean(theirs)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("inputs.json", "{", "inputs.json is damaged"),
        ("inputs.json", "{}", "inputs.json is damaged: it has no design"),
        ("training.json", "[1]", "training.json is damaged: it has no validation_accuracy"),
    ],
)
def test_a_damaged_folder_is_named(
    name: str, contents: str, message: str, reference: TrainedModel, tmp_path: Path
) -> None:
    for file in ("inputs.json", "training.json", "trace.json", "gradients.json"):
        (tmp_path / file).write_bytes((reference.path / file).read_bytes())
    (tmp_path / name).write_text(contents)
    with pytest.raises(ValueError, match=message):
        TrainedModel.load(tmp_path)
