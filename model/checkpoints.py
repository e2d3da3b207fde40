"""Which of a Trainer's checkpoints a killed training is taken up at."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SAVED_BY_TORCH = ("optimizer.pt", "scheduler.pt")
STATE = "trainer_state.json"
"""Written last; a process that is not the first may be at its random numbers still."""


def last_complete_checkpoint(folder: str | Path, processes: int = 1) -> str | None:
    """The newest of a Trainer's checkpoints whose files are all there and whole.

    A kill leaves a checkpoint cut off where it was being written, or in part removed where
    `save_total_limit` was clearing it away. The Trainer takes up either without what it lacks:
    with a new optimiser, say.

    Parameters
    ----------
    folder : output_dir of the training; it need not exist
    processes : world size of the training that goes on

    Returns
    -------
    What `Trainer.train(resume_from_checkpoint=…)` takes: a path, or None for a start from the
    beginning.

    Raises
    ------
    ValueError
        If the newest complete checkpoint was written by another number of processes.
    """
    steps = {}
    for path in Path(folder).glob("checkpoint-*"):
        if found := re.fullmatch(r"checkpoint-(\d+)", path.name):
            steps[int(found[1])] = path
    for step in sorted(steps, reverse=True):
        path = steps[step]
        if not _whole(path, step):
            continue
        names = ["rng_state.pth"]
        if processes > 1:
            names = [f"rng_state_{number}.pth" for number in range(processes)]
        if others := sorted({file.name for file in path.glob("rng_state*.pth")} - {*names}):
            raise ValueError(
                f"{path} was written by another number of processes than {processes}: it holds "
                f"{', '.join(others)}; go on with as many, or name another output folder"
            )
        if all(_torch_file(path / name) for name in names):
            return str(path)
    return None


def _whole(path: Path, step: int) -> bool:
    """Whether a checkpoint has all that the first process writes."""
    state = _json(path / STATE)
    if state is None or state.get("global_step") != step:
        return False
    names = [WEIGHTS]
    if (index := _json(path / INDEX)) is not None:
        names = sorted(set(index["weight_map"].values()))
    scaler = ["scaler.pt"] if (path / "scaler.pt").exists() else []
    return all(_tensors(path / name) for name in names) and all(
        _torch_file(path / name) for name in (*SAVED_BY_TORCH, *scaler)
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None


def _tensors(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _torch_file(path: Path) -> bool:
    """Whether a file of torch.save has its directory, which stands at its end."""
    try:
        with zipfile.ZipFile(path):
            return True
    except (OSError, zipfile.BadZipFile):
        return False
