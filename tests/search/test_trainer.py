"""The real trainer and ELECTOR on a small task, end to end."""

import json
import warnings
from pathlib import Path

import datasets
import numpy as np
import pytest

from hwgen.design import DesignBatch
from model import distillation, teacher
from model.calibration import Calibration
from model.recipe import Recipe
from model.trace import SparsityTrace
from model.trained import TrainedModel
from search import CoDesign
from search.evaluator import ElectorEvaluator
from search.report import write_report
from search.space import CoDesignSpace
from search.trainer import DynaPropTrainer
from sim import Workload, evaluate

SPACE = {
    "accelerator": "demo",
    "transformer": {
        "depth": [1],
        "hidden": [16, 32],
        "heads": [2],
        "operations": ["sa_sdp"],
        "feed_forward_stacks": [1],
        "feed_forward_widths": [32, 64],
    },
    "activation_threshold": [0.02],
    "gradient_threshold": [1e-6],
    "rung_epochs": [1, 2],
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Texts in which one word decides."""
    rng = np.random.default_rng(0)
    words = np.array(["film", "plot", "actor", "scene", "story", "light", "music", "end"])
    rows = []
    for number in range(240):
        label = number % 2
        text = [*rng.choice(words, 6), ("good", "bad")[label], f"{number}"]
        rows.append({"text": " ".join(rng.permutation(text)), "label": label})
    folder = tmp_path_factory.mktemp("task")
    datasets.Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def run(task, tmp_path_factory):
    trainer = DynaPropTrainer(Recipe(distillation=0, batch_size=8))
    problem = CoDesign(task, SPACE, seed=3, sequence_length=16, sweep=64, trainer=trainer)
    return problem.run(tmp_path_factory.mktemp("run") / "run", 8, workers=0)


def test_the_front_is_trained_measured_and_costed(run):
    assert run.finished and len(run.front) > 0 and run.counts["failures"] == 0
    for pair in run.front:
        trained = TrainedModel.load(pair.path)
        assert trained.design == pair.model and trained.seed == pair.training.seed
        assert trained.validation_accuracy == pair.accuracy and trained.epochs == 2
        assert trained.policy.activation_threshold == pair.activation_threshold > 0
        assert trained.policy.gradient_threshold == pair.gradient_threshold > 0
        assert 0 < pair.densities["INPUT"] < 1 and 0 < pair.densities["GRAD_OUTPUT"] < 1
        Calibration.load(pair.path)
        assert not (pair.path / "trunk.safetensors").exists()


def test_costs_are_electors_for_the_measured_trace(run):
    pair = run.front[0]
    trace = SparsityTrace.load(pair.path / "trace.json")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the trace is of the length that is costed
        report = evaluate([pair.accelerator], Workload(pair.model, 16, trace))
    m = pair.measured
    assert m.latency_cycles_per_sequence == report.latency_cycles_per_sequence[0]
    assert m.energy_pj_per_sequence == report.energy_pj_per_sequence[0]
    assert m.area_um2 == report.area_um2[0] and m.power_mw == report.power_mw[0]
    assert m.latency_cycles == report.latency_cycles[0]
    assert m.latency_seconds == report.latency_seconds[0]
    leakage = [v[0] for k, v in report.breakdown("energy").items() if k.endswith("_leakage")]
    assert m.leakage_pj_per_sequence == pytest.approx(sum(leakage) / report.batch_size[0])
    a = pair.accelerator
    kib = a.activation_buffer_kib + a.weight_buffer_kib + a.mask_buffer_kib
    assert m.buffer_kib == kib
    dense = evaluate([pair.accelerator], Workload(pair.model, 16, 1.0))
    assert dense.energy_pj[0] > report.energy_pj[0]


def test_a_higher_rung_goes_on_from_the_lower(run):
    for training in run.archive.trainings(1):
        about = json.loads((run.path / training.folder / "training.json").read_text())
        assert about["epochs"] == 2
        assert run.archive.training(training.model, 0).seed == training.seed


def test_the_report_breaks_down_what_elector_says(run):
    page = write_report(run, run.path / "page.html").read_text()
    assert "0.attention softmax" in page and "main memory" in page


def test_the_test_split_is_opened_for_the_final_report_alone(run):
    assert not list(Path(run.path).rglob("test_openings.json"))
    trainer = DynaPropTrainer(Recipe(distillation=0, batch_size=8))
    page = write_report(run, final=True, seeds=0, workers=0, trainer=trainer).read_text()
    assert "Test split" in page
    openings = list(Path(run.path).rglob("test_openings.json"))
    assert len(openings) == len(run.archive.fact("final/opening")["models"])


def test_spaces_that_the_technology_does_not_price_are_refused():
    space = CoDesignSpace.load("demo").accelerator
    ElectorEvaluator("acceltran-14nm", 64).check(space)
    odd = space.model_copy(update={"macs_per_lane": (16, 4)})
    with pytest.raises(ValueError, match="macs_per_lane"):
        ElectorEvaluator("acceltran-14nm", 64).check(odd)
    with pytest.raises(ValueError, match="macs_per_lane"):
        CoDesign("movie-sentences", {**SPACE, "accelerator": odd})


def test_check_looks_at_every_option():
    space = CoDesignSpace.load("demo").accelerator
    seen: dict[str, set] = {}

    def noted(batch, technology):
        assert isinstance(batch, DesignBatch)
        for name in ("pes", "tile_x", "loop_order", "batch_size"):
            seen[name] = set(getattr(batch, name).tolist())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("search.evaluator.area", noted)
        ElectorEvaluator("acceltran-14nm", 64).check(space)
    assert seen["pes"] == set(space.pes) and seen["tile_x"] == set(space.tile)
    assert seen["loop_order"] == set(space.loop_order)


def test_the_name_tells_recipes_apart():
    assert DynaPropTrainer().name == "dynaprop"
    assert DynaPropTrainer(Recipe(distillation=0)).name == "dynaprop distillation=0"


def test_the_teacher_of_a_search_is_prepared_as_its_recipe_asks(task, monkeypatch):
    asked = []

    class Teacher:
        def logits(self, loaded, progress, further):
            asked.append((loaded.train.name, len(further)))

    def fine_tuned(loaded, recipe, progress):
        asked.append(recipe.intermediate_task)
        return Teacher()

    monkeypatch.setattr(teacher, "fine_tuned_teacher", fine_tuned)
    monkeypatch.setattr(distillation, "transfer_texts", lambda loaded, count: ("text",) * count)
    recipe = Recipe(transfer_texts=3, intermediate_task="imdb")
    DynaPropTrainer(recipe).prepare(task, 16, lambda fraction, phase: None)
    assert asked == ["imdb", ("train", 3)]
