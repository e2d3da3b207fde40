"""A tiny task and designs for tests of training."""

import numpy as np
import torch

from model.data import SHARES, Task, carve
from model.space import TransformerDesign

SMALL = TransformerDesign.load(
    {"layers": [{"hidden": 16, "heads": ["sa_sdp", "sa_sdp"], "feed_forward": [32]}]}
)
"""A transformer that trains at once."""


def tiny_task(count: int = 240) -> Task:
    """Sentences whose adjective is their label."""
    rng = np.random.default_rng(0)
    nouns = ["film", "plot", "cast", "score", "ending", "scene", "script", "hero"]
    words = (["awful", "dull", "boring"], ["great", "lovely", "funny"])
    examples = []
    for number in range(count):
        label = number % 2
        noun, other = rng.choice(nouns, 2)
        adjective = words[label][int(rng.integers(3))]
        extra = " ".join(["indeed"] * int(rng.integers(4)))
        examples.append((f"the {noun} number {number} is {adjective} {extra} {other}", label))
    splits = carve(examples, SHARES)
    return Task(
        "tiny", ("bad", "good"), 32, "made up", "CC0-1.0",
        splits["train"], splits["validation"], splits["test"],
    )  # fmt: skip


def tiny_pairs(count: int = 180) -> Task:
    """Pairs of nouns in three classes: the same noun, another, or none in the second text."""
    rng = np.random.default_rng(0)
    nouns = ["film", "plot", "cast", "score"]
    examples = []
    for number in range(count):
        label = number % 3
        noun, other = rng.choice(nouns, 2, replace=False)
        second = (noun, other, "nothing")[label]
        examples.append(((f"the {noun} number {number}", f"it is {second}"), label))
    splits = carve(examples, SHARES)
    return Task(
        "pairs", ("same", "other", "none"), 24, "made up", "CC0-1.0",
        splits["train"], splits["validation"], splits["test"],
    )  # fmt: skip


class FakeTeacher:
    """Knows every answer."""

    key = "fake"
    validation_accuracy = 1.0

    def logits(
        self,
        task: Task,
        progress: object = None,
        further: tuple[str, ...] = (),
        device: str = "cpu",
    ) -> np.ndarray:
        """Confident logits of the right label, and of the first for further texts."""
        labels = np.append(task.train.labels, np.zeros(len(further), np.int64))
        return np.eye(task.labels, dtype=np.float32)[labels] * 4


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    """Whether two models have the same parameters, bit for bit."""
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
