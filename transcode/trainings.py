"""Finished trainings grouped by how they were pruned, with means and deviations over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from model.operations import GemmRole
from model.policy import PruningPolicy
from model.space import TransformerDesign
from model.trained import TrainedModel

PANELS = 8
"""Designs and recipes, at most, that fit on a page."""

METHODS = {
    "threshold": "DynaProp",
    "top_k_row": "top-k of rows",
    "top_k_tensor": "top-k of tensors",
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n − 1) over seeds; 0 with one seed."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Over some values, at least one."""
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Group:
    """Trainings that differ in their seed alone.

    Attributes
    ----------
    pruned
        ``"nothing"``, ``"activations"``, ``"gradients"`` or ``"activations and gradients"``.
    models
        In the order of their seeds.
    """

    policy: PruningPolicy
    pruned: str
    models: tuple[TrainedModel, ...]

    @property
    def method(self) -> str:
        """How a target density is met."""
        return METHODS[self.policy.selection]

    @property
    def name(self) -> str:
        """What is pruned, how, and how much."""
        if self.pruned == "nothing":
            return "dense"
        parts = []
        for kind, symbol in (("activation", "τ_I"), ("gradient", "τ_T")):
            density = getattr(self.policy, f"{kind}_density")
            threshold = getattr(self.policy, f"{kind}_threshold")
            if density is not None and density < 1:
                parts.append(f"{kind}s {1 - density:.0%} zero")
            elif threshold > 0:
                parts.append(f"{symbol} = {threshold:g}")
        if self.policy.overrides:
            parts.append(f"{len(self.policy.overrides)} overrides")
        return f"{self.method}: {', '.join(parts)}"

    @property
    def accuracy(self) -> Spread:
        """Share of correct answers on the validation split."""
        return Spread.of([model.validation_accuracy for model in self.models])

    def sparsity(self, role: GemmRole) -> Spread:
        """Zeros over all real entries: OUTPUT of inference, GRAD_OUTPUT of the last steps."""
        return Spread.of([sparsity(model, role) for model in self.models])


@dataclass(frozen=True)
class Panel:
    """Trainings of one design, recipe and start."""

    name: str
    groups: list[Group] = field(default_factory=list)

    @property
    def dense(self) -> Group | None:
        """The group without pruning, if it is there."""
        return next((group for group in self.groups if group.pruned == "nothing"), None)

    @property
    def least_pruned(self) -> Group:
        """The group to prune after training: dense if there is one, else the least sparse."""
        return self.dense or min(self.groups, key=lambda g: g.sparsity(GemmRole.OUTPUT).mean)


def sparsity(model: TrainedModel, role: GemmRole) -> float:
    """Measured share of zeros over all real entries that have a role."""
    trace = model.gradients if role is GemmRole.GRAD_OUTPUT else model.trace
    return 1 - trace.by_role()[role.value]


def find(paths: Iterable[Path]) -> list[TrainedModel]:
    """Finished trainings in some folders, themselves or below.

    Raises
    ------
    ValueError
        A folder holds none.
    """
    found: dict[Path, TrainedModel] = {}
    for path in paths:
        files = sorted(path.rglob("training.json")) if path.is_dir() else []
        if not files:
            raise ValueError(
                f"{path} holds no trained model, nor does a folder below; make one with transcode"
                f" train bert-tiny --out {path}"
            )
        found |= {file.parent.resolve(): TrainedModel.load(file.parent) for file in files}
    return list(found.values())


def panels(models: Sequence[TrainedModel]) -> list[Panel]:
    """Trainings by design and recipe, then by policy; those without pruning first.

    Raises
    ------
    ValueError
        They are of different tasks, two of them differ in nothing, or there are too many designs.
    """
    first = models[0]
    for model in models:
        for key in ("name", "split_hash", "sequence_length"):
            if model.inputs["task"][key] != first.inputs["task"][key]:
                raise ValueError(
                    f"{model.path} is of the task's {key} {model.inputs['task'][key]}, and"
                    f" {first.path} of {first.inputs['task'][key]}; give trainings of one task"
                )
    by_recipe: dict[str, list[TrainedModel]] = {}
    for model in models:
        by_recipe.setdefault(str(_start(model)), []).append(model)
    if len(by_recipe) > PANELS:
        raise ValueError(f"{len(by_recipe)} designs and recipes are more than {PANELS}; give fewer")
    names = [design_name(members[0].design) for members in by_recipe.values()]
    made = []
    for number, (name, members) in enumerate(zip(names, by_recipe.values(), strict=True)):
        if names.count(name) > 1:
            name = f"{name}, recipe {names[: number + 1].count(name)}"
        made.append(Panel(name, _groups(members)))
    return made


def _start(model: TrainedModel) -> list[Any]:
    """What trainings of a panel share; an encoder's hash may differ, for seeds fill parts of it."""
    return [model.design.design_hash, model.inputs["recipe"], "encoder" in model.inputs]


def _groups(models: Sequence[TrainedModel]) -> list[Group]:
    by_policy: dict[str, list[TrainedModel]] = {}
    for model in models:
        pruned = pruned_by(model.policy)
        key = pruned if pruned == "nothing" else model.policy.model_dump_json()
        by_policy.setdefault(key, []).append(model)
    groups = []
    for members in by_policy.values():
        members.sort(key=lambda model: model.seed)
        for one, other in zip(members, members[1:], strict=False):
            if one.seed == other.seed:
                raise ValueError(
                    f"{one.path} and {other.path} have the same design, recipe, policy and seed,"
                    f" {one.seed}; give one of them"
                )
        policy = members[0].policy
        groups.append(Group(policy, pruned_by(policy), tuple(members)))
    return sorted(groups, key=lambda group: (group.pruned != "nothing", group.name))


def pruned_by(policy: PruningPolicy) -> str:
    """What a policy prunes in training: see `Group`."""
    kinds = {GemmRole.OUTPUT: "activation", GemmRole.GRAD_OUTPUT: "gradient"}
    found = []
    for role, kind in kinds.items():
        targets = [(getattr(policy, f"{kind}_threshold"), getattr(policy, f"{kind}_density"))]
        targets += [item.target for item in policy.overrides if item.role is role]
        if any(density < 1 if density is not None else tau > 0 for tau, density in targets):
            found.append(f"{kind}s")
    return " and ".join(found) or "nothing"


def design_name(design: TransformerDesign) -> str:
    """Name of a design that ships with the package, else its layers and widths."""
    packaged = (Path(entry.name).stem for entry in files("model").joinpath("designs").iterdir())
    for name in sorted(stem for stem in packaged if stem != "spaces"):
        named = TransformerDesign.load(name)
        if named.model_copy(update={"labels": design.labels}) == design:
            return name
    widths = dict.fromkeys(layer.hidden for layer in design.layers)
    layers = "1 layer" if len(design.layers) == 1 else f"{len(design.layers)} layers"
    return f"{layers} of {', '.join(map(str, widths))}"
