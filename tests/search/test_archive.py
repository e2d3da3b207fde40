"""The archive: what is written is read, and what is no archive is named."""

import sqlite3
from dataclasses import replace

import pytest

from search.archive import Archive, ArchiveError, Evaluation, Training
from search.objectives import Measured

TRAINING = Training(
    model="0123456789abcdef", rung=0, design={"layers": []}, activation_threshold=0.02,
    gradient_threshold=1e-6, epochs=0.5, seed=7, version="1", status="ok", seconds=1.5,
    accuracy=0.75, examples=1278, trace_hash="f" * 16, densities={"INPUT": 0.7}, folder="models/x",
)  # fmt: skip
EVALUATION = Evaluation(
    model="0123456789abcdef", rung=0, accelerator="fedcba9876543210", source="evolution",
    genome=[1, 2, 3], design={"pes": 64}, seed=7, version="1", trace_hash="f" * 16, status="ok",
    measured=Measured(0.75, 1e5, 1e9, 5e7, 1e3, 4e5, 1e-3, 4e8, 13312), position=0,
)  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "archive.sqlite"
    archive = Archive.open(path, create=True)
    archive.add_training(TRAINING)
    failed = replace(EVALUATION, accelerator="1" * 16, status="failed", error="NaN", measured=None,
                     position=1, genome=None)  # fmt: skip
    archive.add_evaluations([EVALUATION, failed])
    archive.set_fact("config", {"seed": 1, "space": [1.5, None]})
    archive.set_fact("config", {"seed": 2})
    archive.close()
    with sqlite3.connect(path) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    read = Archive.open(path)
    assert read.trainings() == [TRAINING] == read.trainings(0) and read.trainings(1) == []
    assert read.training(TRAINING.model, 0) == TRAINING and read.training("x", 0) is None
    assert read.evaluations() == [EVALUATION, failed] == read.evaluations(0)
    assert read.fact("config") == {"seed": 2} and read.fact("other") is None
    assert EVALUATION.id == "012345-fedcba"
    assert "seconds" not in read.contents()["trainings"][0]


def test_evaluations_are_all_or_none(tmp_path):
    archive = Archive.open(tmp_path / "archive.sqlite", create=True)
    archive.add_evaluations([EVALUATION])
    with pytest.raises(ArchiveError):
        archive.add_evaluations([replace(EVALUATION, accelerator="2" * 16), EVALUATION])
    assert archive.evaluations() == [EVALUATION]


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "archive.sqlite"
    with pytest.raises(FileNotFoundError, match="holds no search"):
        Archive.open(path)
    path.write_text("not a database, but long enough to have a header" * 50)
    with pytest.raises(ArchiveError, match="not an archive of a search, or is damaged"):
        Archive.open(path)
    path.write_bytes(b"")
    with pytest.raises(ArchiveError, match="is empty"):
        Archive.open(path)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="of something else"):
        Archive.open(path, create=True)
    assert path.read_bytes() == before
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


def test_an_archive_whose_making_was_killed_is_made(tmp_path):
    path = tmp_path / "archive.sqlite"
    with sqlite3.connect(path) as killed:
        killed.execute("PRAGMA journal_mode=WAL")
    assert path.stat().st_size > 0
    with pytest.raises(ArchiveError, match="is empty"):
        Archive.open(path)
    archive = Archive.open(path, create=True)
    archive.set_fact("config", {"seed": 1})
    # Killed with everything still in the write-ahead log.
    copy = tmp_path / "copy.sqlite"
    for end in ("", "-wal"):
        copy.with_name(copy.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
    assert Archive.open(copy).fact("config") == {"seed": 1}


def test_archives_of_another_version(tmp_path):
    path = tmp_path / "archive.sqlite"
    Archive.open(path, create=True).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(ArchiveError, match="has version 99; this version of transcode reads 1"):
        Archive.open(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_archives(tmp_path, share):
    path = tmp_path / "archive.sqlite"
    archive = Archive.open(path, create=True)
    archive.add_evaluations(
        [replace(EVALUATION, accelerator=f"{i:016x}", position=i) for i in range(200)]
    )
    archive.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match="damaged"):
        Archive.open(path)
    assert path.read_bytes() == before


def test_a_second_reader_sees_what_is_committed(tmp_path):
    path = tmp_path / "archive.sqlite"
    writer = Archive.open(path, create=True)
    reader = Archive.open(path)
    writer.add_training(TRAINING)
    assert reader.trainings() == [TRAINING]
