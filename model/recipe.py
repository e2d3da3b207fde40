"""How a model is trained, as plain data."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self


def check_ranges(
    recipe: Any,
    above_zero: tuple[str, ...] = (),
    at_least_zero: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
) -> None:
    """Refuse a recipe with a field outside its range; shares are 0 to 1."""
    if recipe.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {recipe.batch_size}")
    for name in above_zero:
        if not getattr(recipe, name) > 0:
            raise ValueError(f"{name} must be above 0, not {getattr(recipe, name)}")
    for name in at_least_zero:
        if not getattr(recipe, name) >= 0:
            raise ValueError(f"{name} must be at least 0, not {getattr(recipe, name)}")
    for name in shares:
        if not 0 <= getattr(recipe, name) <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {getattr(recipe, name)}")


FURTHER: dict[str, int | str] = {
    "hidden_distillation": 0, "transfer_texts": 0, "intermediate_task": "",
}  # fmt: skip
"""Fields of a recipe that ask more of the teacher than its answers, and what asks for nothing."""


@dataclass(frozen=True)
class Schedule:
    """Learning rate by step: a rise, a constant trunk, a linear fall to zero.

    Up to `decay_start` the schedules of a short and of a long training are the same, so that the
    long one goes on from where the short one began to fall.

    Attributes
    ----------
    steps
        Optimiser steps in all.
    warmup
        Steps of the linear rise.
    decay_start
        First step of the fall.
    """

    steps: int
    warmup: int
    decay_start: int

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by in a step (from 0)."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        if step < self.decay_start:
            return rise
        return rise * (self.steps - step) / (self.steps - self.decay_start + 1)


@dataclass(frozen=True)
class Recipe:
    """How a small model is trained: steps, rates, distillation.

    The learning rate rises over `warmup_epochs`, stays, and falls to zero over the last `decay`
    share of the training. A rung of successive halving is the same recipe cut to a `fraction` of
    its epochs, with a fall of its own: up to its fall, a short training is bit for bit the
    beginning of a long one, so a longer training starts from the state in which the shorter
    began to fall (its *trunk*), and ends as if it had been alone.

    Attributes
    ----------
    epochs
        Passes over the training split of the whole training.
    fraction
        Share of the epochs to train, above 0, at most 1.
    batch_size
        Texts a step.
    learning_rate, weight_decay, clip
        Of AdamW; ``clip`` bounds the gradient's norm.
    warmup_epochs, decay
        See above.
    distillation, temperature
        The loss is distillation · T² · KL(teacher ‖ model, both at temperature T)
        + (1 − distillation) · cross-entropy with the labels. Without distillation no teacher is
        asked for.
    dropout
        Share of hidden values and of attention probabilities that is dropped in training.
    hidden_distillation
        Weight of a further loss, of hidden states that say little of the teacher's
        (`model.distillation.hidden_loss`). The teacher then runs in every step.
    transfer_texts
        Sentences without labels that an epoch has beside the training split, which the teacher
        answers (`model.distillation.transfer_texts`); they are learned from its answers alone.
    intermediate_task
        Task of the same labels that the teacher learns first (see `TeacherRecipe`); none if empty.
    """

    epochs: float = 4.0
    fraction: float = 1.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup_epochs: float = 0.1
    decay: float = 0.6
    distillation: float = 0.9
    temperature: float = 2.0
    dropout: float = 0.0
    hidden_distillation: float = 0.0
    transfer_texts: int = 0
    intermediate_task: str = ""

    def __post_init__(self) -> None:
        """Refuse what no training can follow."""
        check_ranges(
            self,
            above_zero=("epochs", "learning_rate", "clip", "temperature"),
            at_least_zero=("weight_decay", "warmup_epochs", "hidden_distillation"),
            shares=("decay", "distillation", "dropout"),
        )
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, not {self.fraction}")
        if self.transfer_texts < 0:
            raise ValueError(f"transfer_texts must be at least 0, not {self.transfer_texts}")
        if self.distillation == 0:
            for name, none in FURTHER.items():
                if getattr(self, name) != none:
                    raise ValueError(
                        f"{name} must be {none!r} without distillation, which asks the teacher, not"
                        f" {getattr(self, name)!r}"
                    )

    @classmethod
    def load(cls, mapping: dict[str, Any]) -> Self:
        """A recipe of a mapping of its attributes.

        Raises
        ------
        ValueError
            If a key is unknown or a value outside its range.
        """
        known = {f.name for f in fields(cls)}
        for key in mapping:
            if key not in known:
                raise ValueError(
                    f"recipe: unknown key {key!r}; the keys are {', '.join(sorted(known))}"
                )
        return cls(**mapping)

    def describe(self) -> dict[str, Any]:
        """What a training is known by: all fields but further things to learn that are not asked.

        So that trainings without them keep the name that they had before there were any.
        """
        return {k: v for k, v in asdict(self).items() if v or k not in FURTHER}

    def rung(self, fraction: float) -> "Recipe":
        """The recipe of a rung of successive halving, ``fraction`` of the whole training."""
        return replace(self, fraction=fraction)

    @property
    def trained_epochs(self) -> float:
        """Passes over the training split that this rung makes."""
        return self.epochs * self.fraction

    def schedule(self, steps_per_epoch: int) -> Schedule:
        """Steps and learning rates, for an epoch of so many steps."""
        steps = max(1, round(self.trained_epochs * steps_per_epoch))
        warmup = round(self.warmup_epochs * steps_per_epoch)
        return Schedule(steps, warmup, round((1 - self.decay) * steps))
