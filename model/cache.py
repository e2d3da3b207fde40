"""A cache of what is costly to make, and files that are written whole or not at all."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


def cache_folder() -> Path:
    """The user's cache: ``TRANSCODE_CACHE`` where set, else the platform's."""
    if named := os.environ.get("TRANSCODE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "transcode"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transcode"


def content_hash(content: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of plain data, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what safetensors cannot write as the OSError that it is, which it is not by itself."""
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place when the block ends well.

    The file is on the disk before it gets its name. Where the block raises (a full disk, say),
    what stood at ``path`` stays, and nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with disk_errors():
            yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON, whole or not at all."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes for the block; it falls with the process, even a killed one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def cached_folder(kind: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The cached folder for some inputs, built on first use.

    Parameters
    ----------
    kind
        What it is, the first part of its name.
    inputs
        All that the content depends on, plain data; stored beside it as ``inputs.json``.
    build
        Fills a working folder. The folder outlives a build that was killed and is handed to the
        next one, so that a build may go on from its own checkpoints.

    Returns
    -------
    Path
        The complete folder. Of several processes that ask at once, one builds; the others wait.
    """
    folder = cache_folder() / f"{kind}-{content_hash(inputs)}"
    if folder.is_dir():
        return folder
    with locked(folder.with_name(folder.name + ".lock")):
        if folder.is_dir():
            return folder
        working = folder.with_name(folder.name + ".partial")
        working.mkdir(parents=True, exist_ok=True)
        with disk_errors():
            build(working)
        write_json(working / "inputs.json", inputs)
        working.replace(folder)
    return folder


def remove_folder(path: Path) -> None:
    """Remove a folder and what it holds, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
