"""Trainings in processes of one thread each, on the devices that there are."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.data import Task, load_task
from model.distillation import transfer_texts
from model.recipe import Recipe
from model.teacher import TeacherRecipe, fine_tuned_teacher
from model.train import train
from model.trained import final_test

MINILM = {"layers": [{"hidden": 384, "heads": ["sa_sdp"] * 12, "feed_forward": [1536]}] * 6}
"""The design of the packaged MiniLM."""

CORRECT = "validation_correct.npy"
"""In a model's folder: whether each example of the validation split is answered correctly."""


@dataclass(frozen=True, eq=False)
class Training:
    """One training, as a process is given it; a final one has its test split opened, too."""

    model: str
    design: Any
    encoder: str | None
    variant: str
    seed: int
    task: str
    sequence_length: int | None
    recipe: Recipe
    policy: dict[str, Any] | None
    folder: Path
    trace_at: tuple[float, ...] = ()
    final: bool = False


@functools.cache
def task_of(name: str, sequence_length: int | None) -> Task:
    """The task, read once in a process."""
    return load_task(name, sequence_length)


def prepare_teacher(task: Task, trainings: Sequence[Training], device: str) -> None:
    """Have the teacher at hand, which processes would otherwise wait for each other to train."""
    device = device.partition(":")[0]
    torch.set_num_threads(os.cpu_count() or 1)
    recipes = [t.recipe for t in trainings if t.recipe.distillation > 0]
    for first, count in sorted({(r.intermediate_task, r.transfer_texts) for r in recipes}):
        say(
            f"the teacher{f', who learns {first} first' if first else ''}: its answers for"
            f" {len(task.train):,} texts and {count:,} more"
        )
        teacher = fine_tuned_teacher(task, TeacherRecipe(intermediate_task=first), device=device)
        teacher.logits(task, further=transfer_texts(task, count), device=device)


def run(
    trainings: list[Training],
    workers: int = 1,
    devices: Sequence[str] = ("cpu",),
    minutes: float | None = None,
) -> list[Training]:
    """Train in processes; those that came to their end, in the order in which they were asked.

    Parameters
    ----------
    workers : trainings at once, of one thread each
    devices : "cpu", or "cuda:0" and the like, which the processes take in turn
    minutes : after which none is started
    """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    for number in range(workers):
        queue.put(devices[number % len(devices)])
    begun, waiting, done = time.monotonic(), list(reversed(trainings)), set()
    under_way: dict[Future[float], Training] = {}
    with ProcessPoolExecutor(workers, context, prepare, (queue,)) as pool:
        while waiting or under_way:
            late = minutes is not None and time.monotonic() - begun > 60 * minutes
            if late:
                waiting.clear()
            while waiting and len(under_way) < workers:
                training = waiting.pop()
                under_way[pool.submit(train_one, training)] = training
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                training = under_way.pop(future)
                accuracy = future.result()
                done.add(training)
                say(
                    f"{time.monotonic() - begun:5.0f} s  {len(done)} of {len(trainings)}"
                    f"  {training.folder}  {accuracy:.2%}"
                )
    return [training for training in trainings if training in done]


DEVICE = "cpu"


def prepare(devices: Any) -> None:
    """Take a device for this process, alone among those that are seen."""
    global DEVICE
    torch.set_num_threads(1)
    kind, _, number = devices.get().partition(":")
    if number:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[int(number)] if seen else number
    DEVICE = kind


def train_one(training: Training) -> float:
    """Train, and keep which examples of the validation split are answered correctly."""
    task = task_of(training.task, training.sequence_length)
    on_device = {} if DEVICE == "cpu" else {"device": DEVICE}
    made = train(
        training.design, task, training.policy, training.recipe, training.seed, training.folder,
        trace_at=training.trace_at, encoder=training.encoder, **on_device,
    )  # fmt: skip
    kept = training.folder / CORRECT
    if not kept.exists():
        np.save(kept, made.correct(task.validation))
    if training.final:
        final_test(made, task)
    return float(np.load(kept).mean())


def setting(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    return key, int(value) if key in ("batch_size", "transfer_texts") else float(value)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
