"""Files written whole or not at all, and a cache that several processes share."""

import errno
import json
import multiprocessing
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from model.cache import atomic_path, cache_folder, cached_folder, content_hash, locked, write_json


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRANSCODE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TRANSCODE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/transcode")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "transcode"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "transcode"


def test_a_hash_sees_values_and_not_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    with pytest.raises(OSError, match="No space left"), atomic_path(path) as temporary:
        temporary.write_text("half of the new")
        raise OSError(28, "No space left on device")
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_os_error_whoever_writes(tmp_path: Path) -> None:
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="No space left") as raised, atomic_path(tmp_path / "x"):
        raise SafetensorError(said)
    assert raised.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())
    with pytest.raises(SafetensorError, match="invalid header"), atomic_path(tmp_path / "x"):
        raise SafetensorError("invalid header")


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"accuracy": float("nan")})


def test_a_cached_folder_is_built_once_and_names_its_inputs(cache: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "value").write_text("7")

    first = cached_folder("thing", {"seed": 1}, build)
    assert cached_folder("thing", {"seed": 1}, build) == first
    assert len(built) == 1 and (first / "value").read_text() == "7"
    assert json.loads((first / "inputs.json").read_text()) == {"seed": 1}
    assert cached_folder("thing", {"seed": 2}, build) != first


def test_a_build_that_fails_is_taken_up_in_its_folder(cache: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "checkpoint").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder("thing", {}, fails)
    found = []

    def goes_on(folder: Path) -> None:
        found.append((folder / "checkpoint").read_text())

    cached_folder("thing", {}, goes_on)
    assert found == ["half"]


def _slow_build(folder: Path) -> None:
    with (folder / "builds").open("a") as file:
        file.write("x")
    time.sleep(0.3)


def _ask(queue: "multiprocessing.Queue[str]") -> None:
    queue.put((cached_folder("shared", {}, _slow_build) / "builds").read_text())


def test_of_processes_that_ask_at_once_one_builds(cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_ask, args=(queue,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=20) for _ in workers] == ["x", "x", "x"]
    for worker in workers:
        worker.join()


def test_a_lock_is_exclusive(tmp_path: Path) -> None:
    import fcntl

    with locked(tmp_path / "lock"), (tmp_path / "lock").open() as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
