"""The report: self-contained, escaped, complete; the test split is opened once and on record."""

import json
import re

import numpy as np
import pytest
from fakes import FakeEvaluator, FakeTrainer

from search import CoDesign, Run
from search.final import chosen_members
from search.objectives import Scale
from search.report import hypervolume_curve, write_report

SETTINGS = {"trainer": FakeTrainer(), "evaluator": FakeEvaluator()}


def search(folder, **settings):
    return CoDesign("fake", "demo", seed=1, sweep=500, **{**SETTINGS, **settings}).run(
        folder, 30, workers=0
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return search(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run):
    return write_report(run, evaluator=FakeEvaluator()).read_text()


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_nothing_comes_from_a_network(page):
    ours = page.replace(max(re.findall(r"<script>.*?</script>", page, re.DOTALL), key=len), "")
    assert "http" not in ours and "src=" not in ours and "@import" not in ours
    assert "Plotly.react" in ours and len(page) > 1e6


def test_every_member_is_there_with_interval_n_and_breakdowns(run, page):
    for pair in run.front:
        section = page.split(f'id="pair-{pair.id}"')[1].split("</details>")[0]
        assert f"{pair.accuracy:.2%}, n = {pair.examples:,}" in section
        assert f"{pair.interval[0]:.1%} to {pair.interval[1]:.1%}" in section
        assert f"{pair.activation_threshold:g}, {pair.gradient_threshold:g}" in section
        for title in ("Latency of a batch by operation, cycles", "Energy of a batch by component",
                      "Area by component, mm²"):  # fmt: skip
            assert title in section
        assert "0.attention norm *" in section and "75.0%" in section
        assert "loop order" in section and str(pair.accelerator.activation_buffer_kib) in section
    points = data_of(page)["members"]
    assert [p["id"] for p in points] == [pair.id for pair in run.front]
    assert sum(p["knee"] for p in points) == 1
    assert points[0]["energy"] == run.front[0].measured.energy_pj_per_sequence * 1e-6


def test_what_comes_from_files_is_escaped(page):
    assert "nothing &lt;b&gt;" in page and "nothing <b>" not in page
    assert "<b>" not in re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]


def test_a_hostile_task_name_is_escaped(tmp_path, monkeypatch):
    hostile = "<script>alert(1)</script>"
    facts = FakeTrainer.facts
    monkeypatch.setattr(FakeTrainer, "facts", lambda self, task, length=None: facts(self, "fake"))
    made = CoDesign(hostile, "demo", seed=1, sweep=50, **SETTINGS).run(
        tmp_path / "run", 8, workers=0
    )
    text = write_report(made, evaluator=FakeEvaluator()).read_text()
    assert hostile not in text and "&lt;script&gt;alert(1)" in text


def test_validation_only_unless_asked(run, page):
    assert "Test split" not in page
    assert run.archive.fact("final/opening") is None


def test_hypervolume_rises_to_that_of_all(run, page):
    curves = data_of(page)["hypervolume"]
    assert len(curves) == 2 and "top" in curves[1]["name"]
    for curve in curves:
        assert curve["y"] == sorted(curve["y"]) and curve["x"] == sorted(curve["x"])
    scale = Scale(**run.archive.fact("hypervolume_scales")["1"])
    assert curves[1]["y"][-1] == pytest.approx(scale.hypervolume(run.front.objectives))
    points = np.array([[0.5, 1, 1, 1], [0.2, 2, 2, 2], [0.6, 3, 3, 3], [0.1, 0.5, 0.5, 0.5]])
    made = Scale.of(points)
    x, y = hypervolume_curve([3, 5, 6, 9], points, made)
    assert x == [3, 5, 9] and y[-1] == pytest.approx(1.0)
    assert y[1] == pytest.approx(made.hypervolume(points[:2]))


def test_final_opens_once_on_record(tmp_path):
    log = tmp_path / "log"
    trainer = FakeTrainer(log=str(log))
    run = search(tmp_path / "run", trainer=trainer)
    log.unlink()
    members = chosen_members(run)
    assert 0 < len(members) <= 12
    models = {pair.training.model for pair in members}
    made = {"trainer": trainer, "evaluator": FakeEvaluator(), "workers": 0}
    page = write_report(run, final=True, **made).read_text()
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == 3 * len(models)
    assert len({(model, seed) for model, _, _, seed in lines}) == 3 * len(models)
    searched = {t.model: t.seed for t in run.archive.trainings(1)}
    assert all(int(seed) != searched[model] for model, _, _, seed in lines)
    assert "Test split" in page and "n = 1,601" in page
    opening = run.archive.fact("final/opening")
    assert opening["seeds"] == 3 and opening["members"] == [pair.id for pair in members]
    # Again: what was found is shown, and nothing is trained; another opening is refused.
    again = Run.load(run.path)
    assert "Test split" in write_report(again, evaluator=FakeEvaluator()).read_text()
    write_report(again, final=True, **made)
    assert len(log.read_text().splitlines()) == len(lines)
    with pytest.raises(ValueError, match="opened on .* with seeds = 3; it is opened once"):
        write_report(again, final=True, seeds=5, **made)


def test_final_takes_models_as_they_are(tmp_path):
    run = search(tmp_path / "run")
    write_report(run, final=True, seeds=0, workers=0, **SETTINGS)
    assert not (run.path / "final").exists()
    with pytest.raises(ValueError, match="trainer must be the search's, fake"):
        write_report(run, final=True, seeds=0, evaluator=FakeEvaluator())


def test_an_unfinished_search_has_no_final_report(tmp_path):
    run = search(tmp_path / "run")
    run.finished = False
    with pytest.raises(ValueError, match="not finished"):
        write_report(run, final=True, **SETTINGS)
    assert run.archive.fact("final/opening") is None
    assert "The search is not finished" in write_report(run, evaluator=FakeEvaluator()).read_text()


def test_an_empty_front_is_an_error(tmp_path, run):
    from search.run import Front

    empty = Run.load(run.path)
    empty.front = Front([])
    with pytest.raises(ValueError, match="the front is empty"):
        write_report(empty, tmp_path / "x.html", evaluator=FakeEvaluator())
    with pytest.raises(ValueError, match="the front is empty"):
        empty.pick("knee")
