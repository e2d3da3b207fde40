"""A search that is killed, or meets bad folders, failures and full disks, loses nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEvaluator, FakeTrainer, search

from search import Run, halving
from search.archive import ArchiveError, DiskFullError
from search.operators import random_genome
from search.space import Codec, CoDesignSpace
from search.training import TrainingJob, WorkerPool


def test_a_killed_search_goes_on_to_the_same_end(run, tmp_path):
    folder = tmp_path / "run"
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fakes import FakeEvaluator, FakeTrainer
from search import CoDesign
trainer = FakeTrainer(log={str(tmp_path / "log")!r}, kill_at=int(sys.argv[1]))
CoDesign("fake", "demo", seed=1, sweep=1000, trainer=trainer,
         evaluator=FakeEvaluator()).run({str(folder)!r}, 60, workers=0)
"""
    for kill_at in (9, 17):
        done = subprocess.run([sys.executable, "-c", script, str(kill_at)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not Run.load(folder).finished
    subprocess.run([sys.executable, "-c", script, "0"], check=True)
    resumed = Run.load(folder)
    assert resumed.finished
    assert resumed.archive.contents() == run.archive.contents()
    # Only the trainings in which it was killed were done again.
    assert len((tmp_path / "log").read_text().splitlines()) == 2 + len(run.archive.trainings())


@pytest.mark.parametrize("stop", [2, 9, 37, 40, 44, 52, 57])
def test_interrupted_between_any_two_writes(run, tmp_path, monkeypatch, stop):
    from search.archive import Archive

    writes = 0
    for name in ("add_training", "add_evaluations", "set_fact"):
        original = getattr(Archive, name)

        def counted(self, *args, original=original):
            nonlocal writes
            writes += 1
            if writes == stop:
                raise KeyboardInterrupt
            return original(self, *args)

        monkeypatch.setattr(Archive, name, counted)
    try:
        search(tmp_path / "run")
    except KeyboardInterrupt:
        assert not Run.load(tmp_path / "run").finished
    else:
        pytest.fail(f"there are only {writes} writes")
    monkeypatch.undo()
    assert search(tmp_path / "run").archive.contents() == run.archive.contents()


def test_a_finished_run_is_loaded_and_another_search_refused(run, tmp_path):
    log = tmp_path / "log"
    again = search(run.path)
    assert again.finished and not log.exists()
    with pytest.raises(ValueError, match="another seed: 1, not 7"):
        search(run.path, seed=7)
    with pytest.raises(ValueError, match="another evaluations: 60, not 61"):
        search(run.path, evaluations=61)
    with pytest.raises(ValueError, match="another constraints"):
        search(run.path, constraints={"area_um2": 1e9})
    assert Run.load(run.path).archive.contents() == run.archive.contents()


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds no search \(it has thesis.tex\)"):
        search(tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        search(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="no run to load"):
        Run.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no search"):
        Run.load(tmp_path / "mine")


def test_a_folder_that_is_being_searched_is_locked(tmp_path):
    import fcntl

    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "run.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ArchiveError, match="another process"):
            search(tmp_path / "run")


def test_failures_are_recorded_and_not_fatal(tmp_path):
    run = search(tmp_path / "run", trainer=FakeTrainer(fail_every=3))
    failed = [t for t in run.archive.trainings() if not t.ok]
    assert failed and all(t.error == "RuntimeError: diverged" for t in failed)
    assert not {t.model for t in failed} & set(run.front.models)
    assert run.counts["failures"] > 0 and len(run.front.models) >= 1


def test_nothing_trained_says_why(tmp_path):
    with pytest.raises(ValueError, match="first of .* failures: RuntimeError: diverged"):
        search(tmp_path / "run", trainer=FakeTrainer(fail_every=1))
    with pytest.raises(ValueError, match="the validation accuracy is nan"):
        search(tmp_path / "nan", trainer=FakeTrainer(accuracy=float("nan")))


def test_nan_costs_are_failures(tmp_path):
    run = search(tmp_path / "run", evaluator=FakeEvaluator(poison=512))
    failed = [e for e in run.archive.evaluations() if not e.ok]
    assert failed and all("energy_pj_per_sequence is not a finite" in e.error for e in failed)
    assert all(pair.accelerator.pes != 512 for pair in run.front)


def test_a_worker_that_dies_is_recorded(tmp_path):
    codec = Codec(CoDesignSpace.load("demo"))
    rng = np.random.default_rng(0)
    points = [codec.decode_model(random_genome(codec, rng)) for _ in range(4)]
    trainer = FakeTrainer(die_for=points[1].key)
    jobs = [
        TrainingJob("fake", point, 0, 0.5, 2.0, 1, 64, tmp_path / point.key, None)
        for point in points
    ]
    with WorkerPool(trainer, 2) as pool:
        outcomes = {job.model.key: outcome for job, outcome in pool.run(jobs)}
    assert len(outcomes) == 4
    for key, outcome in outcomes.items():
        if key == points[1].key:
            assert "the worker process died" in outcome.error and outcome.result is None
        else:
            assert outcome.error is None and outcome.result.examples == 1600


def test_a_full_disk_loses_nothing(run, tmp_path, monkeypatch):
    from search import archive

    pragmas = archive._set_pragmas

    def small(connection, record):
        pragmas(connection, record)
        connection.execute("PRAGMA max_page_count = 60")

    monkeypatch.setattr(archive, "_set_pragmas", small)
    with pytest.raises(DiskFullError, match="nothing archived is lost"):
        search(tmp_path / "run")
    monkeypatch.undo()
    kept = Run.load(tmp_path / "run")
    assert kept.archive.trainings() and not kept.finished
    assert search(tmp_path / "run").archive.contents() == run.archive.contents()


def test_a_disk_that_is_full_for_a_worker(tmp_path, monkeypatch):
    def full(self, job):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FakeTrainer, "train", full)
    with pytest.raises(DiskFullError, match="no space left"):
        search(tmp_path / "run")


def test_models_are_added_the_same_way_after_an_interrupt(tmp_path, monkeypatch):
    monkeypatch.setattr(halving, "MIN_FRONT_MODELS", 99)
    whole = search(tmp_path / "whole")
    stopped = halving.SuccessiveHalving._cheaper
    calls = []

    def interrupted(self, number):
        calls.append(number)
        if calls == [0, 1, 2]:
            raise KeyboardInterrupt
        return stopped(self, number)

    monkeypatch.setattr(halving.SuccessiveHalving, "_cheaper", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "again")
    again = search(tmp_path / "again")
    found = [[{**row, "path": ""} for row in run.front.rows()] for run in (again, whole)]
    assert found[0] == found[1]
    assert again.counts == whole.counts
