"""A whole search with a trainer that takes no time."""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from fakes import FakeEvaluator, FakeTrainer, search

from hwgen.design import DesignBatch
from model.space import TransformerDesign
from search import CoDesign, Run, halving
from search.objectives import Scale, boxes, minimised
from search.run import ARCHIVE, PICKS


def test_counts_that_are_promised(run):
    counts = run.counts
    assert counts["evaluated_pairs"] >= 60
    assert counts["trained_models"] == 14 >= 12
    assert counts["front_models"] >= 4
    assert counts["front_accelerators"] >= 4
    assert counts["failures"] == 0
    evolved = [e for e in run.archive.evaluations() if e.source == "evolution"]
    assert len(evolved) == 60
    assert len({(e.model, e.accelerator) for e in evolved}) == 60
    per_model = Counter(e.model for e in evolved)
    assert max(per_model.values()) >= 3  # several accelerators for a model
    assert len({e.accelerator for e in evolved}) >= 40


def test_each_model_is_trained_once_a_rung(tmp_path):
    log = tmp_path / "log"
    run = search(tmp_path / "run", trainer=FakeTrainer(log=str(log)))
    lines = [tuple(line.split()[:2]) for line in log.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == len(run.archive.trainings())
    seeds = {line.split()[0]: line.split()[3] for line in log.read_text().splitlines()}
    assert all(line.split()[3] == seeds[line.split()[0]] for line in log.read_text().splitlines())


def test_front_holds_only_models_of_the_top_rung_that_no_other_beats(run):
    top = {t.model for t in run.archive.trainings(1)}
    assert top < {t.model for t in run.archive.trainings(0)}
    assert all(pair.training.rung == 1 and pair.training.epochs == 3 for pair in run.front)
    found = [e for e in run.archive.evaluations(1) if e.ok]
    assert {e.model for e in found} == top
    objectives = minimised([e.measured for e in found])
    members = run.front.objectives
    for row in members:
        assert not ((objectives <= row).all(axis=1) & (objectives < row).any(axis=1)).any()
    for row in objectives:
        assert (members <= row + 1e-12).all(axis=1).any()


def test_promoted_models_cover_more_than_others_would(run):
    groups = {}
    for e in run.archive.evaluations(0):
        groups.setdefault(e.model, []).append(e.measured)
    points = {model: boxes(minimised(found), 1600) for model, found in groups.items()}
    scale = Scale.of(np.concatenate(list(points.values())))

    def covered(models):
        return scale.hypervolume(np.concatenate([points[m] for m in models]))

    promoted = [t.model for t in run.archive.trainings(1)]
    rng = np.random.default_rng(0)
    others = [covered(rng.choice(sorted(points), len(promoted), False)) for _ in range(200)]
    assert covered(promoted) >= max(others) - 0.002


def test_models_of_a_rung_meet_the_same_accelerators(run):
    def common(model):
        found = [e for e in run.archive.evaluations(0) if e.model == model]
        return {json.dumps({**e.design, "nonlinearity": ""}) for e in found}

    shared = set.intersection(*(common(t.model) for t in run.archive.trainings(0)))
    assert len(shared) >= 8


def test_front_accuracies_are_those_of_their_own_training(run):
    for pair in run.front:
        training = run.archive.training(pair.training.model, 1)
        assert pair.accuracy == training.accuracy == pair.measured.accuracy
        assert pair.path.is_dir() and pair.path.name.endswith("-r1")
        assert not (pair.path / "trunk").exists()
        assert pair.activation_threshold > 0 and pair.gradient_threshold > 0
        assert pair.model.activation == pair.accelerator.nonlinearity
        low, high = pair.interval
        assert low < pair.accuracy < high and pair.examples == 1600


def test_costs_come_from_the_trace_of_the_model(run):
    pair = run.front[0]
    costs = FakeEvaluator().costs(DesignBatch.of([pair.accelerator]), pair.model, pair.path)
    assert costs.energy_pj_per_sequence[0] == pair.measured.energy_pj_per_sequence
    before = json.loads((pair.path / "trace.json").read_text())
    assert before["density"] == pair.densities["INPUT"] < 1


def test_swept_accelerators_beat_those_of_the_evolution(run):
    for pair in run.front:
        assert pair.evaluation.source == "sweep"


def test_picks(run):
    for name in PICKS:
        assert run.pick(name).id in {p.id for p in run.front}
    best = run.pick("accuracy")
    assert best.accuracy == max(p.accuracy for p in run.front)
    cheap = run.pick("energy").measured.energy_pj_per_sequence
    assert cheap == min(p.measured.energy_pj_per_sequence for p in run.front)
    quick = run.pick("latency").measured.latency_cycles_per_sequence
    assert quick == min(p.measured.latency_cycles_per_sequence for p in run.front)
    assert run.pick("area").measured.area_um2 == min(p.measured.area_um2 for p in run.front)
    assert run.pick(best.id).id == run.pick(best.id[:9]).id == best.id
    with pytest.raises(ValueError, match="did you mean knee"):
        run.pick("kne")
    with pytest.raises(ValueError, match="fits"):
        run.pick(best.id[:6]) if len(run.front) > 1 else run.pick("")


def test_the_run_prints_and_gives_rows(run):
    text = str(run)
    assert "finished" in text and "knee" in text and run.front[0].id in text
    rows = run.front.rows()
    assert json.loads(json.dumps(rows)) == rows and len(rows) == len(run.front)


def test_same_seed_same_archive_other_seed_another(run, tmp_path):
    same = search(tmp_path / "same")
    assert same.archive.contents() == run.archive.contents()
    other = search(tmp_path / "other", seed=2)
    assert other.archive.contents()["trainings"] != run.archive.contents()["trainings"]


def test_worker_processes_give_the_same(run, tmp_path):
    made = CoDesign("fake", "demo", trainer=FakeTrainer(), evaluator=FakeEvaluator(), sweep=1000,
                    seed=1).run(tmp_path / "run", 60, workers=2)  # fmt: skip
    assert made.archive.contents() == run.archive.contents()


def test_constraints_are_kept(run, tmp_path):
    area = np.median([p.measured.area_um2 for p in run.front])
    limited = search(tmp_path / "run", constraints={"area_um2": area, "accuracy": 0.69})
    assert limited.front
    # A limit that no pair of the evolution keeps is met by sweeping.
    evolved = [e.measured.area_um2 for e in run.archive.evaluations(0)]
    tight = search(tmp_path / "tight", constraints={"area_um2": 0.99 * min(evolved)})
    assert tight.front and max(p.measured.area_um2 for p in tight.front) < min(evolved)
    for pair in limited.front:
        assert pair.measured.area_um2 <= area and pair.accuracy >= 0.69


def test_constraints_that_nothing_keeps_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"area_um2 at most 1 \(nearest: .*\)"):
        search(tmp_path / "run", constraints={"area_um2": 1})
    # Nothing was trained above rung 0 in vain.
    assert Run.load(tmp_path / "run").archive.trainings(1) == []
    with pytest.raises(ValueError, match="accuracy at least 0.99"):
        search(tmp_path / "accuracy", constraints={"accuracy": 0.99})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "fakee"}, "unknown task"),
        ({"space": "demoo"}, "did you mean demo"),
        ({"constraints": {"aera_um2": 1}}, "did you mean area_um2"),
        ({"constraints": {"area_um2": -1}}, "finite and above 0"),
        ({"constraints": {"accuracy": 70}}, "at most 1"),
        ({"seed": -1}, "seed must be"),
        ({"mode": "training"}, "not modelled yet"),
        ({"technology": "nangate"}, "technology"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    made = {"task": "fake", "trainer": FakeTrainer(), "evaluator": FakeEvaluator(), **settings}
    if "technology" in settings:
        del made["evaluator"]
    with pytest.raises(ValueError, match=message):
        CoDesign(**made).run(tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [{"evaluations": 0}, {"run": {"time_budget": 0}}])
def test_bad_amounts_are_named(tmp_path, bad):
    with pytest.raises(ValueError, match="must be"):
        search(tmp_path / "run", **bad)


def tiny_space(**changes):
    from hwgen.design_space import DesignSpace

    options = DesignSpace.load("demo").options
    accelerator = {name: list(values[:1]) for name, values in options.items()}
    return {
        "accelerator": {**accelerator, "pes": [64, 128, 256]},
        "transformer": {
            "depth": [2],
            "hidden": [128],
            "heads": [2],
            "operations": ["sa_sdp"],
            "feed_forward_stacks": [1],
            "feed_forward_widths": [256, 512],
        },
        "activation_threshold": [0.05],
        "gradient_threshold": [1e-6],
        **changes,
    }


def test_a_space_smaller_than_the_population_says_so(tmp_path):
    run = CoDesign("fake", tiny_space(), seed=1, trainer=FakeTrainer(), evaluator=FakeEvaluator()
                   ).run(tmp_path / "run", 60, workers=0)  # fmt: skip
    evolved = [e for e in run.archive.evaluations() if e.source == "evolution"]
    assert len(evolved) == 12 and run.counts["trained_models"] == 4
    assert any("the space holds 12 pairs" in note for note in run.notes)
    assert {run.archive.fact(f"sweep/1/{m}")["exact"] for m in run.front.models} == {True}


def test_unmodelled_operations_are_refused():
    space = tiny_space()
    space["transformer"]["operations"] = ["sa_sdp", "l_dft"]
    with pytest.raises(ValueError, match="not modelled yet: l_dft"):
        CoDesign("fake", space)


def test_more_rungs_promote_step_by_step(tmp_path):
    space = {**tiny_space(), "rung_epochs": [0.5, 1, 2]}
    space["transformer"] |= {"depth": [1, 2, 3], "feed_forward_widths": [256, 512, 1024]}
    run = CoDesign("fake", space, seed=1, sweep=100, trainer=FakeTrainer(),
                   evaluator=FakeEvaluator()).run(tmp_path / "run", 90, workers=0)  # fmt: skip
    counts = [len(run.archive.trainings(rung)) for rung in range(3)]
    assert counts[0] > counts[1] > counts[2] >= 4
    assert all(pair.training.rung == 2 for pair in run.front)


def test_more_models_are_promoted_and_made_until_the_front_holds_enough(tmp_path, monkeypatch):
    assert halving.MIN_FRONT_MODELS == 4
    monkeypatch.setattr(halving, "MIN_FRONT_MODELS", 99)
    run = search(tmp_path / "all")
    promoted = halving.MIN_PROMOTED + halving.MAX_LIFTED
    assert run.counts["top_rung_models"] == promoted + halving.MAX_ADDED
    assert run.counts["trained_models"] == 14 + halving.MAX_ADDED
    assert any("the front holds" in note and "not 99" in note for note in run.notes)
    first = {training.model for training in run.archive.trainings(0)}
    added = [t for t in run.archive.trainings(1) if t.model not in first]
    assert len(added) == halving.MAX_ADDED
    assert all((run.path / t.folder / "trace.json").exists() for t in added)


def test_a_model_that_cannot_be_swept_is_noted(tmp_path):
    class Refusing(FakeEvaluator):
        def costs(self, designs, model, folder):
            if len(designs) > 400:
                raise ValueError("too many")
            return super().costs(designs, model, folder)

    with pytest.raises(ValueError, match="no model of the top rung.*too many"):
        search(tmp_path / "run", evaluator=Refusing())


def test_a_time_budget_lowers_fidelity_and_keeps_what_it_decided(tmp_path):
    trainer = FakeTrainer(seconds=0.05)
    run = search(tmp_path / "run", trainer=trainer, run={"time_budget": 1.3})
    assert any("time budget" in note for note in run.notes)
    fidelity = run.archive.fact("budget/fidelity")
    assert run.archive.trainings(0)[0].epochs == 0.5 < fidelity["epochs"][1] < 3
    assert {t.epochs for t in run.archive.trainings(1)} == {fidelity["epochs"][1]}
    assert run.counts["trained_models"] >= 12 and run.counts["top_rung_models"] >= 4
    generous = search(tmp_path / "generous", trainer=trainer, run={"time_budget": 1e4})
    assert generous.notes == []


def test_progress_rises_to_one(tmp_path):
    seen = []
    search(tmp_path / "run", run={"progress": lambda share, message: seen.append((share, message))})
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert any("trained" in message for _, message in seen)


def test_importing_search_loads_no_torch():
    code = "import search, sys; assert not {'torch', 'amaranth'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_real_designs_load(run):
    pair = run.pick("knee")
    assert isinstance(pair.model, TransformerDesign)
    assert (run.path / ARCHIVE).exists()
