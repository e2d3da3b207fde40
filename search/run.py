"""A search's folder: its front, and picking pairs from it."""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.program import Job
from model.space import TransformerDesign
from search.archive import Archive, ArchiveError, Evaluation, Training
from search.objectives import Measured, knee, minimised, published_scalar, ties, wilson
from search.problem import feasible, front
from search.space import CoDesignSpace

ARCHIVE = "archive.sqlite"

PICKS = {
    "knee": "nearest to the ideal point, costs in log scale, objectives scaled over the front",
    "scalar": "highest by TransCODE's published weights",
    "accuracy": "most accurate",
    "latency": "fewest cycles a sequence",
    "energy": "least energy a sequence",
    "area": "smallest",
}
"""Ways to pick a pair by name."""


@dataclass(frozen=True)
class Pair:
    """A transformer that was trained, and an accelerator to run it.

    Attributes
    ----------
    id : name within the run
    model, accelerator : the two designs
    path : folder of the trained model
    sequence_length : positions of each sequence, as costed
    activation_threshold, gradient_threshold : τ_I and τ_T that it was trained with
    accuracy, examples, interval : on the validation split, of how many, and Wilson's 95 %
    measured : accuracy and costs
    densities : as measured, by role
    tied_with : id of a cheaper member whose accuracy does not separate from this one's, or None
    training, evaluation : the rows of the archive
    """

    id: str
    model: TransformerDesign
    accelerator: AcceleratorDesign
    path: Path
    sequence_length: int
    activation_threshold: float
    gradient_threshold: float
    accuracy: float
    examples: int
    interval: tuple[float, float]
    measured: Measured
    densities: dict[str, float]
    tied_with: str | None
    training: Training
    evaluation: Evaluation

    @property
    def model_summary(self) -> str:
        """The transformer in a few words: width × heads / feed-forward widths of each layer."""
        layers = [
            f"{layer.hidden}×{len(layer.heads)}/{'+'.join(map(str, layer.feed_forward))}"
            for layer in self.model.layers
        ]
        return f"{len(layers)} layers: {', '.join(layers)}"

    @property
    def accelerator_summary(self) -> str:
        """The accelerator in a few words."""
        a = self.accelerator
        return (
            f"{a.pes} PEs × {a.lanes_per_pe} lanes × {a.macs_per_lane}, "
            f"tile {a.tile_b}×{a.tile_x}×{a.tile_y}, {a.nonlinearity}, {a.loop_order}, "
            f"batch {a.batch_size}, {a.memory.type}"
        )

    def jobs(self) -> list[Job]:
        """First, interior and edge job of each unit, recorded from the trained model.

        Their cycles are those that ELECTOR's reference predicts in mask mode.
        """
        from search.replay import recorded_jobs  # loads PyTorch

        return recorded_jobs(self)

    def hardware_accuracy(self) -> float:
        """Accuracy on the validation split in the accelerator's integer arithmetic."""
        from search.replay import hardware_accuracy  # loads PyTorch

        return hardware_accuracy(self)

    def short(self) -> tuple[str, str]:
        """Model and accelerator in one line of a table."""
        widths = "-".join(str(layer.hidden) for layer in self.model.layers)
        a = self.accelerator
        units = f"{a.pes}×{a.lanes_per_pe}×{a.macs_per_lane}"
        return (
            f"{len(self.model.layers)}L {widths}",
            f"{units} {a.nonlinearity} {a.loop_order} b{a.batch_size} {a.memory.type}",
        )

    def row(self) -> dict[str, Any]:
        """Plain figures, units in the names."""
        return {
            "id": self.id,
            "accuracy": self.accuracy,
            "accuracy_low": self.interval[0],
            "accuracy_high": self.interval[1],
            "examples": self.examples,
            "tied_with": self.tied_with,
            "latency_cycles_per_sequence": self.measured.latency_cycles_per_sequence,
            "energy_pj_per_sequence": self.measured.energy_pj_per_sequence,
            "area_um2": self.measured.area_um2,
            "power_mw": self.measured.power_mw,
            "latency_seconds": self.measured.latency_seconds,
            "batch_size": self.accelerator.batch_size,
            "model_key": self.training.model,
            "model": self.model_summary,
            "accelerator": self.accelerator_summary,
            "activation_threshold": self.activation_threshold,
            "gradient_threshold": self.gradient_threshold,
            "path": str(self.path),
        }


class Front(Sequence[Pair]):
    """The pairs that no other beats, the most accurate first; prints as a table."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = list(pairs)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...

    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        """Return a member."""
        return self._pairs[index]

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._pairs)

    def __iter__(self) -> Iterator[Pair]:
        """Go through the members."""
        return iter(self._pairs)

    @property
    def models(self) -> list[str]:
        """Keys of the different models."""
        return sorted({pair.training.model for pair in self})

    @cached_property
    def objectives(self) -> np.ndarray:
        """Objectives to minimise (error, log costs), shape (members, 4)."""
        return minimised([pair.measured for pair in self])

    def rows(self) -> list[dict[str, Any]]:
        """Plain figures of each member."""
        return [pair.row() for pair in self]

    def index(self, what: Any, *args: Any) -> int:
        """Position of the pair that a name of PICKS, an id or its beginning stands for.

        Raises
        ------
        ValueError
            If there is none, or the beginning fits several; the message lists what there is.
        """
        if not isinstance(what, str):
            return self._pairs.index(what, *args)
        if not self._pairs:
            raise ValueError("the front is empty: the search has trained no model to the end yet")
        columns = {"latency": 1, "energy": 2, "area": 3, "accuracy": 0}
        if what in columns:
            column = self.objectives[:, columns[what]]
            best = np.flatnonzero(column == column.min())
            return int(best[knee(self.objectives[best])])
        if what == "knee":
            return knee(self.objectives)
        if what == "scalar":
            return int(np.argmax([published_scalar(pair.measured) for pair in self]))
        found = [i for i, pair in enumerate(self) if what and pair.id.startswith(what)]
        if len(found) == 1:
            return found[0]
        ids = [pair.id for pair in self]
        if found:
            raise ValueError(f"{what!r} fits {', '.join(ids[i] for i in found)}; give more of it")
        near = difflib.get_close_matches(what, [*PICKS, *ids], 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"no pair {what!r} on the front; {hint}pick {', '.join(PICKS)}, or an id: "
            f"{', '.join(ids)}"
        )

    def table(self) -> Any:
        """The front as a Rich table, a line a member."""
        from rich.box import SIMPLE
        from rich.table import Table

        made = Table(
            title="Pareto front, accuracies on the validation split",
            title_justify="left",
            caption="≈ does not separate from the accuracy of a cheaper member. Accelerator: PEs × "
            "lanes × multipliers,\nnon-linearity, loop order, batch, main memory.",
            caption_justify="left",
            box=SIMPLE,
        )
        right = ("accuracy", "95 %", "cycles/seq", "µJ/seq", "mm²")
        for name in ("id", *right, "model", "accelerator", "pick"):
            made.add_column(name, justify="right" if name in right else "left", no_wrap=True)
        picks = self.picks()
        for pair in self:
            m = pair.measured
            made.add_row(
                pair.id,
                f"{pair.accuracy:.2%} {'≈' if pair.tied_with else ' '}",
                f"{pair.interval[0]:.1%}–{pair.interval[1]:.1%}",
                f"{m.latency_cycles_per_sequence:,.0f}",
                f"{m.energy_pj_per_sequence * 1e-6:,.4g}",
                f"{m.area_um2 * 1e-6:,.4g}",
                *pair.short(),
                ", ".join(picks.get(pair.id, [])),
            )
        return made

    def picks(self) -> dict[str, list[str]]:
        """Names of PICKS by the id of the pair that they stand for."""
        made: dict[str, list[str]] = {}
        for name in PICKS if self._pairs else ():
            made.setdefault(self._pairs[self.index(name)].id, []).append(name)
        return made

    def __str__(self) -> str:
        """Return the table as text."""
        from rich.console import Console

        file = io.StringIO()
        Console(file=file, width=140, color_system=None).print(self.table())
        return file.getvalue()

    __repr__ = __str__


class Run:
    """A search's folder, finished or not.

    Attributes
    ----------
    path : the folder
    config : what was searched, and how
    notes : what a user should know, in sentences
    finished : whether the search came to its end
    """

    def __init__(self, path: Path, archive: Archive) -> None:
        self.path = path
        self.archive = archive
        config = archive.fact("config")
        if config is None:
            raise ArchiveError(f"{archive.path} holds no search yet")
        self.config: dict[str, Any] = config
        ended = archive.fact("finished")
        self.finished = ended is not None
        self.notes: list[str] = ended["notes"] if ended else []

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a run from its folder, while it is searched or after.

        Raises
        ------
        FileNotFoundError
            If there is no search in the folder.
        ArchiveError
            If its archive is damaged or something else.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist: no run to load")
        return cls(folder, Archive.open(folder / ARCHIVE))

    @property
    def space(self) -> CoDesignSpace:
        """The space that was searched."""
        return CoDesignSpace.load(self.config["space"])

    @property
    def top_rung(self) -> int:
        """The rung that the front's models were trained to."""
        return len(self.config["space"]["rung_epochs"]) - 1

    @cached_property
    def front(self) -> Front:
        """Pairs of the top rung that keep the constraints and that no other pair beats."""
        found = self.archive.evaluations(self.top_rung)
        members = front(feasible(found, self.config["constraints"], accuracy=True))
        trainings = {t.model: t for t in self.archive.trainings(self.top_rung)}
        measured = [e.measured for e in members if e.measured is not None]
        tied = ties(measured, [trainings[e.model].examples or 1 for e in members])
        pairs = [
            self._pair(e, trainings[e.model], None if t is None else members[t].id)
            for e, t in zip(members, tied, strict=True)
        ]
        return Front(
            sorted(pairs, key=lambda p: (-p.accuracy, p.measured.latency_cycles_per_sequence))
        )

    def _pair(self, evaluation: Evaluation, training: Training, tied: str | None) -> Pair:
        measured = evaluation.measured
        assert measured is not None and training.folder is not None
        examples = training.examples or 1
        return Pair(
            id=evaluation.id,
            model=TransformerDesign.load(training.design),
            accelerator=AcceleratorDesign.load(evaluation.design),
            path=self.path / training.folder,
            sequence_length=self.config["sequence_length"],
            activation_threshold=training.activation_threshold,
            gradient_threshold=training.gradient_threshold,
            accuracy=measured.accuracy,
            examples=examples,
            interval=wilson(measured.accuracy, examples),
            measured=measured,
            densities=training.densities or {},
            tied_with=tied,
            training=training,
            evaluation=evaluation,
        )

    def pick(self, what: str = "knee") -> Pair:
        """Pick a pair of the front, by a name of PICKS, by its id, or by the id's beginning.

        Raises
        ------
        ValueError
            If there is no such pair; the message lists what there is.
        """
        return self.front[self.front.index(what)]

    @property
    def counts(self) -> dict[str, int]:
        """How much was done: pairs evaluated and models trained, by rung, and failures."""
        evaluations, trainings = self.archive.evaluations(), self.archive.trainings()
        return {
            "evaluated_pairs": sum(e.ok for e in evaluations),
            "trained_models": len({t.model for t in trainings if t.ok}),
            "top_rung_models": sum(t.ok and t.rung == self.top_rung for t in trainings),
            "swept_accelerators": sum(
                fact["costed"] for name, fact in self.archive.facts().items()
                if name.startswith("sweep/")
            ),
            "front_pairs": len(self.front),
            "front_models": len(self.front.models),
            "front_accelerators": len({p.evaluation.accelerator for p in self.front}),
            "failures": sum(not e.ok for e in evaluations) + sum(not t.ok for t in trainings),
        }  # fmt: skip

    def __str__(self) -> str:
        """Return a summary and the front."""
        state = "finished" if self.finished else "unfinished"
        counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in self.counts.items())
        notes = "".join(f"Note: {note}.\n" for note in self.notes)
        return f"{self.path} ({state}): {counts}.\n{notes}{self.front}"
