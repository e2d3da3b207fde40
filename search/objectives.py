"""What a search minimises, what users limit, and how a front is judged."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OBJECTIVES = (
    "accuracy",
    "latency_cycles_per_sequence",
    "energy_pj_per_sequence",
    "area_um2",
)
"""The objectives; accuracy is maximised, the costs are minimised."""

COSTS = OBJECTIVES[1:]

LIMITS = {
    "accuracy": "at least",
    "latency_cycles_per_sequence": "at most",
    "energy_pj_per_sequence": "at most",
    "area_um2": "at most",
    "power_mw": "at most",
    "latency_cycles": "at most",
    "latency_seconds": "at most",
    "buffer_kib": "at most",
}
"""What constraints may limit, and which way; latency_cycles and latency_seconds are a batch's."""

COST_RESOLUTION = math.log(1.02)
"""ε of a cost's logarithm: costs within 2 % count as equal while searching."""

PUBLISHED_WEIGHTS = {
    "accuracy": 0.5,
    "dynamic_energy": 0.2,
    "area": 0.1,
    "leakage": 0.1,
    "latency": 0.1,
}
PUBLISHED_MAXIMA = {
    "dynamic_energy": 9e10,  # nJ
    "area": 30_000.0,  # mm²
    "leakage": 2e10,  # nJ
    "latency": 4e9,  # cycles
}
"""Weights and maxima of TransCODE's co-design scalar."""


@dataclass(frozen=True)
class Measured:
    """The figures of one pair that objectives and limits are taken from.

    Latency and energy per sequence are the objectives; `latency_cycles`, `latency_seconds` are
    those of a batch. Leakage is part of the energy.
    """

    accuracy: float
    latency_cycles_per_sequence: float
    energy_pj_per_sequence: float
    area_um2: float
    power_mw: float
    latency_cycles: float
    latency_seconds: float
    leakage_pj_per_sequence: float
    buffer_kib: float


def check_constraints(constraints: Mapping[str, float] | None) -> dict[str, float]:
    """Return constraints as a plain mapping.

    Raises
    ------
    ValueError
        If a name is unknown or a limit is not a finite number above 0.
    """
    made: dict[str, float] = {}
    for name, limit in (constraints or {}).items():
        if name not in LIMITS:
            near = difflib.get_close_matches(str(name), LIMITS, 1, 0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"unknown constraint {name!r}; {hint}known: {', '.join(LIMITS)}")
        if isinstance(limit, bool) or not isinstance(limit, int | float):
            raise ValueError(f"constraint {name} must be a number, not {limit!r}")
        if not (math.isfinite(limit) and limit > 0):
            raise ValueError(f"constraint {name} must be finite and above 0, not {limit}")
        if name == "accuracy" and limit > 1:
            raise ValueError(f"constraint accuracy must be at most 1, not {limit}")
        made[name] = float(limit)
    return made


def violations(
    measured: Measured, constraints: Mapping[str, float], accuracy: bool = True
) -> list[float]:
    """How far each limit is exceeded, relative to it; at most 0 where it is kept.

    Parameters
    ----------
    measured : the figures of a pair
    constraints : limits by name
    accuracy : whether a limit on accuracy counts; it does for models of the top rung only, since
        accuracies of different rungs are never compared
    """
    made = []
    for name, limit in constraints.items():
        excess = (getattr(measured, name) - limit) / limit
        if name == "accuracy":
            made.append(-excess if accuracy else 0.0)
        else:
            made.append(excess)
    return made


def minimised(measured: Sequence[Measured]) -> np.ndarray:
    """Objectives to minimise: error, then the logarithms of the costs; shape (pairs, 4)."""
    rows = [[1.0 - m.accuracy, *(math.log(getattr(m, name)) for name in COSTS)] for m in measured]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(OBJECTIVES))


def boxes(objectives: np.ndarray, examples: int) -> np.ndarray:
    """Lower corners of ε-boxes: objectives closer than ε count as equal.

    Parameters
    ----------
    objectives : as `minimised` makes them, shape (pairs, 4)
    examples : number of examples behind each accuracy; its ε is the largest standard error that
        so many can have, 0.5 / √examples
    """
    epsilon = np.array([0.5 / math.sqrt(examples)] + [COST_RESOLUTION] * len(COSTS))
    boxed: np.ndarray = np.floor(objectives / epsilon) * epsilon
    return boxed


def non_dominated(objectives: np.ndarray) -> np.ndarray:
    """Indices, rising, of the rows that no other row dominates; of equal rows the first.

    Parameters
    ----------
    objectives : to minimise, shape (points, objectives)

    Raises
    ------
    ValueError
        If an objective is NaN.
    """
    if np.isnan(objectives).any():
        raise ValueError("an objective is NaN")
    # A row can only be dominated by one with a smaller sum, or be equal to an earlier one.
    left = np.argsort(objectives.sum(axis=1), kind="stable")
    kept = []
    while len(left):
        first = left[0]
        kept.append(int(first))
        rest = left[1:]
        left = rest[(objectives[rest] < objectives[first]).any(axis=1)]
    return np.array(sorted(kept), dtype=np.int64)


def wilson(accuracy: float, examples: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of an accuracy over `examples` examples."""
    centre = accuracy + z * z / (2 * examples)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / examples + z * z / (4 * examples * examples))
    scale = 1 + z * z / examples
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def knee(objectives: np.ndarray) -> int:
    """Index of the row nearest to the ideal point, each objective scaled to [0, 1] over the rows.

    Parameters
    ----------
    objectives : of a front, as `minimised` makes them (costs in log scale), shape (members, 4)
    """
    low, high = objectives.min(axis=0), objectives.max(axis=0)
    scaled = (objectives - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(np.sqrt((scaled**2).sum(axis=1))))


def published_scalar(measured: Measured) -> float:
    """The scalar that TransCODE maximises; energies and latency are a sequence's."""
    dynamic = measured.energy_pj_per_sequence - measured.leakage_pj_per_sequence
    costs = {
        "dynamic_energy": dynamic * 1e-3,
        "area": measured.area_um2 * 1e-6,
        "leakage": measured.leakage_pj_per_sequence * 1e-3,
        "latency": measured.latency_cycles_per_sequence,
    }
    return PUBLISHED_WEIGHTS["accuracy"] * measured.accuracy + sum(
        PUBLISHED_WEIGHTS[name] * (1 - cost / PUBLISHED_MAXIMA[name])
        for name, cost in costs.items()
    )


def ties(measured: Sequence[Measured], examples: Sequence[int]) -> list[int | None]:
    """For each member, the cheapest other whose accuracy it does not separate from, or None.

    "Cheaper" means no dearer in any cost and cheaper in one; intervals are Wilson's 95 %; the
    cheapest is the one with the lowest sum of logarithms.
    """
    objectives = minimised(measured)
    intervals = [wilson(m.accuracy, n) for m, n in zip(measured, examples, strict=True)]
    made: list[int | None] = []
    for index, (low, high) in enumerate(intervals):
        cheaper = [
            other
            for other in range(len(measured))
            if (objectives[other, 1:] <= objectives[index, 1:]).all()
            and (objectives[other, 1:] < objectives[index, 1:]).any()
            and intervals[other][0] <= high
            and low <= intervals[other][1]
        ]
        made.append(min(cheaper, key=lambda o: objectives[o, 1:].sum()) if cheaper else None)
    return made


@dataclass(frozen=True)
class Scale:
    """How objectives are normalised for the hypervolume: ideal to 0, nadir to 1.

    The reference point is 1.1 in each normalised objective.
    """

    ideal: tuple[float, ...]
    nadir: tuple[float, ...]
    reference: float = 1.1

    @classmethod
    def of(cls, objectives: np.ndarray) -> Scale:
        """Take the scale from rows of objectives."""
        return cls(tuple(objectives.min(axis=0).tolist()), tuple(objectives.max(axis=0).tolist()))

    def normalise(self, objectives: np.ndarray) -> np.ndarray:
        """Scale rows of objectives."""
        low, high = np.array(self.ideal), np.array(self.nadir)
        scaled: np.ndarray = (objectives - low) / np.where(high > low, high - low, 1.0)
        return scaled

    def hypervolume(self, objectives: np.ndarray) -> float:
        """Share of the box between ideal and reference point that the rows dominate."""
        from pymoo.indicators.hv import HV

        if len(objectives) == 0:
            return 0.0
        reference = np.full(len(self.ideal), self.reference)
        scaled = np.maximum(self.normalise(objectives), 0.0)
        scaled = scaled[non_dominated(scaled)]
        return float(HV(ref_point=reference)(scaled)) / float(np.prod(reference))

    def contributions(self, objectives: np.ndarray) -> np.ndarray:
        """Hypervolume that is lost without each row."""
        whole = self.hypervolume(objectives)
        return np.array(
            [whole - self.hypervolume(np.delete(objectives, i, 0)) for i in range(len(objectives))]
        )


def spread(groups: Sequence[np.ndarray], count: int) -> list[int]:
    """Choose `count` groups of points, each time the one that adds most hypervolume.

    Parameters
    ----------
    groups : objectives to minimise of each group's points, shape (points, objectives) each
    count : how many to choose

    Returns
    -------
    list of int
        Indices of groups, most valuable first. Groups that add nothing come last, best first by
        their own hypervolume.
    """
    scale = Scale.of(np.concatenate(groups))
    alone = [scale.hypervolume(group) for group in groups]
    chosen: list[int] = []
    union = np.empty((0, groups[0].shape[1]))
    while len(chosen) < min(count, len(groups)):
        left = [i for i in range(len(groups)) if i not in chosen]
        gains = {i: scale.hypervolume(np.concatenate([union, groups[i]])) for i in left}
        best = max(left, key=lambda i: (round(gains[i], 12), alone[i], -i))
        chosen.append(best)
        union = np.concatenate([union, groups[best]])
        union = union[non_dominated(union)]
    return chosen
