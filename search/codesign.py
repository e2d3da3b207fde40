"""Searching pairs of a transformer and an accelerator for a task."""

from __future__ import annotations

import errno
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwgen.design import main_memory_types
from model.operations import MODELLED_HEADS
from search.archive import Archive, ArchiveError, DiskFullError
from search.evaluator import ElectorEvaluator
from search.halving import MIN_PROMOTED, Clock, SuccessiveHalving
from search.nsga2 import EvolutionPlan
from search.objectives import check_constraints
from search.problem import Evaluator, PairEvaluator
from search.run import ARCHIVE, Run
from search.space import Codec, CoDesignSpace
from search.trainer import DynaPropTrainer
from search.training import Trainer, WorkerPool

Progress = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and what was done last."""

LOCK = "run.lock"

PREPARATION = 0.15
"""Share of a search's progress that preparing the task counts."""

SWEEP = 20_000
"""Designs that are costed for each model of the top rung, about."""


@dataclass(frozen=True)
class CoDesign:
    """A search over pairs, for a task.

    Parameters
    ----------
    task : name of the task
    space : a space of pairs, by name ("demo", "published"), file, mapping or object
    seed : of everything random; the same seed gives the same result
    technology : what area and energy are taken from
    sequence_length : length that every sequence is costed at, padded positions taking the
        densities of real ones; by default the task's
    mode : "inference"
    constraints : limits by name (see `search.objectives.LIMITS`): "accuracy" at least, costs,
        power_mw, buffer_kib, and latency_cycles or latency_seconds of a batch at most
    sweep : designs that are costed for each model of the top rung, about
    trainer, evaluator : what trains and what costs; DynaProp and ELECTOR where None

    Raises
    ------
    ValueError
        If a name is unknown or a value outside its range; the message names both.

    Examples
    --------
    >>> run = CoDesign(task="movie-sentences", space="demo", seed=1).run("runs/first")
    >>> print(run.front)
    >>> pair = run.pick("knee")
    """

    task: str
    space: CoDesignSpace | Mapping[str, Any] | str | Path = "demo"
    seed: int = 0
    technology: str = "acceltran-14nm"
    sequence_length: int | None = None
    mode: str = "inference"
    constraints: Mapping[str, float] | None = None
    sweep: int = SWEEP
    trainer: Trainer | None = None
    evaluator: Evaluator | None = None

    def __post_init__(self) -> None:
        """Check everything that can be checked without data."""
        object.__setattr__(self, "space", CoDesignSpace.load(self.space))
        object.__setattr__(self, "constraints", check_constraints(self.constraints))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, not {self.seed!r}")
        if self.mode != "inference":
            raise ValueError(f"mode must be inference; {self.mode!r} is not modelled yet")
        if self.sweep < 1:
            raise ValueError(f"sweep must be at least 1, not {self.sweep}")
        other = [o for o in self._space.transformer.operations if o not in MODELLED_HEADS]
        if other:
            raise ValueError(
                f"operations of the transformer space must be {', '.join(MODELLED_HEADS)}; not "
                f"modelled yet: {', '.join(other)}"
            )
        if self.evaluator is None:
            ElectorEvaluator(self.technology, 1, self.mode).check(self._space.accelerator)

    @property
    def _space(self) -> CoDesignSpace:
        assert isinstance(self.space, CoDesignSpace)
        return self.space

    def run(
        self,
        path: str | Path,
        evaluations: int = 60,
        workers: int | None = None,
        time_budget: float | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Search, or go on with a search that was interrupted.

        Parameters
        ----------
        path : folder of the run; a new one, or that of this same search
        evaluations : pairs to evaluate at the lowest rung, at least
        workers : processes that train, one thread each; the number of cores where None
        time_budget : seconds that the search should take, about; it may lower the number of
            models and of epochs, nothing else. Which, is decided once and kept with the run
        progress : called whenever something is done

        Raises
        ------
        ValueError
            If the folder holds something else or another search, or nothing could be evaluated.
        DiskFullError
            If there is no space left; the same call goes on when there is.
        """
        if isinstance(evaluations, bool) or not isinstance(evaluations, int) or evaluations < 1:
            raise ValueError(f"evaluations must be an integer of at least 1, not {evaluations!r}")
        if time_budget is not None and not time_budget > 0:
            raise ValueError(f"time_budget must be above 0 seconds, not {time_budget}")
        folder = Path(path)
        trainer = self.trainer or DynaPropTrainer()
        facts = trainer.facts(self.task, self.sequence_length)
        evaluator = self.evaluator or ElectorEvaluator(
            self.technology, facts.sequence_length, self.mode
        )
        config = {
            "task": self.task,
            "split_hash": facts.split_hash,
            "labels": facts.labels,
            "space": self._space.model_dump(mode="json"),
            "seed": self.seed,
            "technology": self.technology,
            "sequence_length": facts.sequence_length,
            "mode": self.mode,
            "constraints": dict(self.constraints or {}),
            "sweep": self.sweep,
            "trainer": trainer.name,
            "evaluator": evaluator.name,
            "evaluations": evaluations,
            "time_budget": time_budget,
        }
        _prepare_folder(folder)
        with _locked(folder), _reporting_full_disk(folder):
            archive = Archive.open(folder / ARCHIVE, create=True)
            try:
                _agree(archive, config)
                if archive.fact("finished") is None:
                    with WorkerPool(trainer, workers) as pool:
                        _Session(folder, archive, config, pool, evaluator, progress).search()
            finally:
                archive.close()
        return Run.load(folder)


class _Session:
    """One process's part of a search."""

    def __init__(
        self,
        folder: Path,
        archive: Archive,
        config: dict[str, Any],
        pool: WorkerPool,
        evaluator: Evaluator,
        progress: Progress | None,
    ) -> None:
        self.folder, self.archive, self.config, self.pool = folder, archive, config, pool
        self.space = CoDesignSpace.load(config["space"])
        self.plan = EvolutionPlan.of(config["evaluations"])
        self._callback = progress
        earlier = [v for k, v in archive.facts().items() if k.startswith("session/")]
        self._name = f"session/{len(earlier)}"
        self.clock = Clock(config["time_budget"], sum(earlier), time.monotonic())
        rungs = self.space.rung_epochs
        self._expected = self.plan.models * rungs[0] + MIN_PROMOTED * sum(rungs[1:])
        self._done = sum(t.epochs for t in archive.trainings())
        self.pairs = PairEvaluator(
            folder,
            archive,
            pool,
            evaluator,
            task=config["task"],
            seed=config["seed"],
            sequence_length=config["sequence_length"],
            total_epochs=rungs[-1],
            progress=self._progress,
        )

    def _progress(self, epochs: float, message: str) -> None:
        self._done += epochs
        self.archive.set_fact(self._name, self.clock.elapsed() - self.clock.before)
        rest = 0.99 - PREPARATION
        self._tell(PREPARATION + rest * min(1.0, self._done / self._expected), message)

    def _tell(self, share: float, message: str) -> None:
        if self._callback is not None:
            self._callback(share, message)

    def search(self) -> None:
        """Search to the end."""
        self._tell(0.0, "preparing the task")
        self.pool.trainer.prepare(
            self.config["task"],
            self.config["sequence_length"],
            lambda share, message: self._tell(PREPARATION * share, message),
        )
        halving = SuccessiveHalving(
            Codec(self.space, self.config["labels"]),
            self.pairs,
            self.config["constraints"],
            self.plan,
            self.clock,
            self.config["sweep"],
        )
        notes = [*halving.run(), *_unpriced(self.space)]
        for folder in sorted((self.folder / "models").iterdir()):
            self.pool.trainer.tidy(folder)
        self.archive.set_fact("finished", {"notes": notes})
        self._progress(0.0, "done")
        self._tell(1.0, "done")


def _unpriced(space: CoDesignSpace) -> list[str]:
    """Say which memories' background power counts as 0 in energies, since it is not known."""
    facts = main_memory_types()
    unknown = {
        option["type"]
        for option in space.accelerator.memory
        if option.get("background_power_mw", facts[option["type"]]["background_power_mw"]) is None
    }
    return [
        f"the background power of {kind} is not known and no part of any energy, so energies do "
        "not compare with those of other memories"
        for kind in sorted(unknown)
    ]


def _prepare_folder(folder: Path) -> None:
    """Make the folder, or see that it is a search's."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the run")
    if folder.is_dir() and not (folder / ARCHIVE).exists():
        strange = sorted(p.name for p in folder.iterdir() if p.name != LOCK)
        if strange:
            raise ValueError(
                f"{folder} exists and holds no search (it has {strange[0]}); name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)


def _agree(archive: Archive, config: dict[str, Any]) -> None:
    """Keep the settings with a new archive; refuse those of another search."""
    wanted = json.loads(json.dumps(config))
    found = archive.fact("config")
    if found is None:
        archive.set_fact("config", wanted)
        return
    for key in {**wanted, **found}:
        if found.get(key) != wanted.get(key):
            raise ValueError(
                f"{archive.path.parent} holds a search with another {key}: "
                f"{_brief(found.get(key))}, not {_brief(wanted.get(key))}; name another folder, "
                "or ask for the same search to go on with it"
            )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against another process, for as long as this one lives."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveError(f"{folder} is being searched by another process") from None
        yield


@contextmanager
def _reporting_full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(folder) from error
