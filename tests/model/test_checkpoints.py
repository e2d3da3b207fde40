"""Incomplete checkpoints are skipped, and a training that was killed ends as if it had not been."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import labelled_examples, make_model
from transformers import Trainer, TrainingArguments

from model.callbacks import DynaPropCallback, MovementPruningCallback
from model.checkpoints import last_complete_checkpoint

torch.set_num_threads(1)

EXAMPLES = labelled_examples(64)
POLICY = {
    "activation_density": 0.5, "gradient_density": 0.2, "refresh_steps": 3, "ramp": {"steps": 4},
    "movement": {"density": 0.4, "start": 1, "steps": 5},
}  # fmt: skip
STEPS, EVERY = 9, 3
NEEDED = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def train(out: Path, resume: bool = False) -> Trainer:
    """A training of 9 steps with everything that changes over one, and 3 checkpoints."""
    arguments = TrainingArguments(
        str(out), per_device_train_batch_size=8, gradient_accumulation_steps=2, max_steps=STEPS,
        save_steps=EVERY, save_total_limit=3, report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(make_model(0.0, **POLICY), arguments, train_dataset=EXAMPLES)
    trainer.add_callback(DynaPropCallback(trainer, EXAMPLES[:16]))
    trainer.add_callback(MovementPruningCallback(trainer))
    trainer.train(resume_from_checkpoint=last_complete_checkpoint(out) if resume else None)
    return trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """The training, never stopped."""
    return train(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(finished: Trainer, tmp_path: Path) -> Path:
    """A copy of its checkpoints."""
    return shutil.copytree(finished.args.output_dir, tmp_path / "out")


def cut(path: Path, left: Callable[[int], int]) -> None:
    os.truncate(path, left(path.stat().st_size))


CUTS = {
    "missing": None,
    "empty": lambda size: 0,
    "half": lambda size: size // 2,
    "all but a byte": lambda size: size - 1,
}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", NEEDED)
def test_a_checkpoint_that_was_cut_off_is_skipped(folder: Path, name: str, how: str) -> None:
    newest = folder / "checkpoint-9"
    assert last_complete_checkpoint(folder) == str(newest)
    if how == "missing":
        (newest / name).unlink()
    else:
        if name.endswith("json"):  # whose last byte is the end of a line
            cut(newest / name, lambda size: size - 1)
            assert last_complete_checkpoint(folder) == str(newest)
        cut(newest / name, CUTS[how])
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-6")
    (folder / "checkpoint-6" / name).unlink()
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-3")
    (folder / "checkpoint-3" / name).unlink()
    assert last_complete_checkpoint(folder) is None


def test_what_is_no_checkpoint_is_not_looked_at(folder: Path, tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    (folder / "checkpoint-9").rename(folder / "checkpoint-best")
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-6")
    # A state that tells of another step is not this checkpoint's.
    (folder / "checkpoint-6").rename(folder / "checkpoint-10")
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-3")


def test_weights_in_several_files_are_all_looked_at(folder: Path, finished: Trainer) -> None:
    newest = folder / "checkpoint-9"
    (newest / "model.safetensors").unlink()
    finished.model.save_pretrained(newest, max_shard_size="20KB")
    shards = sorted(newest.glob("model-*.safetensors"))
    assert len(shards) > 1 and last_complete_checkpoint(folder) == str(newest)
    cut(shards[-1], lambda size: size - 1)
    assert last_complete_checkpoint(folder) == str(folder / "checkpoint-6")


def test_every_process_has_its_random_numbers(folder: Path) -> None:
    for path in folder.iterdir():
        own = path / "rng_state.pth"
        shutil.copy(own, path / "rng_state_1.pth")
        own.rename(path / "rng_state_0.pth")
    assert last_complete_checkpoint(folder, processes=2) == str(folder / "checkpoint-9")
    (folder / "checkpoint-9" / "rng_state_1.pth").unlink()
    assert last_complete_checkpoint(folder, processes=2) == str(folder / "checkpoint-6")
    cut(folder / "checkpoint-6" / "rng_state_0.pth", lambda size: size // 2)
    assert last_complete_checkpoint(folder, processes=2) == str(folder / "checkpoint-3")
    with pytest.raises(ValueError, match=r"checkpoint-9 was .* than 1: it holds rng_state_0\.pth;"):
        last_complete_checkpoint(folder, processes=1)


def test_a_checkpoint_of_one_process_is_not_taken_up_by_two(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"checkpoint-9 was .* than 2: it holds rng_state\.pth"):
        last_complete_checkpoint(folder, processes=2)


def killed_while_writing(out: str, name: str) -> None:
    """Train in a process of its own until half of a file of the second checkpoint is written."""
    path = Path(out) / f"checkpoint-{2 * EVERY}" / name
    save = torch.save

    def cut_off(content: object, file: str, *rest: object, **kwargs: object) -> None:
        save(content, file, *rest, **kwargs)
        if Path(file) == path:
            cut(path, lambda size: size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = cut_off
    train(Path(out))


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth"])
def test_a_killed_training_ends_as_if_it_had_not_been(
    name: str, tmp_path: Path, finished: Trainer
) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=killed_while_writing, args=(str(tmp_path), name))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-3", "checkpoint-6"}
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    # What a kill costs: the steps since the third, the one that was being saved among them.
    trainer = train(tmp_path, resume=True)
    assert trainer.state.global_step == STEPS
    wanted = finished.model.state_dict()
    assert all(torch.equal(wanted[key], value) for key, value in trainer.model.state_dict().items())
    assert trainer.model.dynaprop.table == finished.model.dynaprop.table
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
