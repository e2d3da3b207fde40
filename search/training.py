"""Training jobs in worker processes."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

from search.archive import DiskFullError
from search.space import ModelPoint


@dataclass(frozen=True)
class TaskFacts:
    """What a search must know of a task.

    Parameters
    ----------
    labels : number of classes
    sequence_length : length that texts are cut at, the task's own or the one that was asked for
    validation_examples : size of the validation split
    split_hash : which examples stand in which split
    """

    labels: int
    sequence_length: int
    validation_examples: int
    split_hash: str


@dataclass(frozen=True)
class TrainingJob:
    """One model to train at one rung.

    Parameters
    ----------
    task : name of the task
    model : what to train
    rung : rung of successive halving
    epochs : epochs in all, those of lower rungs included
    total_epochs : epochs of the top rung as the space has them, which a recipe may plan for
    seed : of everything random in this training
    sequence_length : length at which the trace is recorded
    out : folder to write; it may hold an unfinished attempt of the same job
    start : folder of the same model at the rung below, if there is one
    """

    task: str
    model: ModelPoint
    rung: int
    epochs: float
    total_epochs: float
    seed: int
    sequence_length: int
    out: Path
    start: Path | None


@dataclass(frozen=True)
class TrainingResult:
    """What a training found on the validation split.

    Parameters
    ----------
    accuracy : share of right answers on the validation split
    examples : number of examples behind it
    densities : by role, of the trace
    trace_hash : of the trace that was recorded
    """

    accuracy: float
    examples: int
    densities: dict[str, float]
    trace_hash: str


class Trainer(Protocol):
    """Something that trains models; it is sent to worker processes by pickle."""

    @property
    def name(self) -> str:
        """Name and settings, kept with the run: another trainer is another search."""
        ...

    def facts(self, task: str, sequence_length: int | None = None) -> TaskFacts:
        """Return the facts of a task; an unknown one is a ValueError."""
        ...

    def prepare(
        self, task: str, sequence_length: int, progress: Callable[[float, str], None]
    ) -> None:
        """Make what all trainings of a task share (data, teacher), once, before the first."""
        ...

    def train(self, job: TrainingJob) -> TrainingResult:
        """Train a model and write it, with its trace, to the job's folder."""
        ...

    def test(self, job: TrainingJob) -> tuple[float, int]:
        """Train as `train` does, then open the test split; returns accuracy and n on it."""
        ...

    def tidy(self, folder: Path) -> None:
        """Remove from a model's folder what only further training needs."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a job ended: a result, or what went wrong."""

    result: Any
    error: str | None
    seconds: float


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Seed of a part of a search, from the search's seed and what it is for.

    A training's is derived from its model's key and not from the rung, since a higher rung goes on
    where the lower one stopped.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def file_hash(path: Path) -> str:
    """Sixteen hexadecimal digits of a file's contents."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_training(trainer: Trainer, job: TrainingJob) -> TrainingResult:
    """Train a model; refuse an accuracy that is none."""
    result = trainer.train(job)
    if not (math.isfinite(result.accuracy) and 0 <= result.accuracy <= 1):
        raise ValueError(f"the validation accuracy is {result.accuracy}")
    if result.examples < 1:
        raise ValueError("there are no validation examples")
    return result


def run_test(trainer: Trainer, job: TrainingJob) -> tuple[float, int]:
    """Retrain with another seed and look at the test split."""
    return trainer.test(job)


def _attempt(work: Callable[[Trainer, TrainingJob], Any], trainer: Trainer,
             job: TrainingJob) -> Outcome:  # fmt: skip
    started = time.monotonic()
    try:
        result, error = work(trainer, job), None
    except Exception as reason:  # whatever a training raises is recorded, and the search goes on
        if _disk_is_full(reason):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from reason
        result, error = None, f"{type(reason).__name__}: {reason}"
    return Outcome(result, error, time.monotonic() - started)


def _disk_is_full(reason: BaseException) -> bool:
    """Whether there was no space left; safetensors and PyTorch say so in words alone."""
    return getattr(reason, "errno", None) == errno.ENOSPC or (
        os.strerror(errno.ENOSPC).lower() in str(reason).lower()
    )


class WorkerPool:
    """Worker processes that train, one thread each; a context manager.

    Parameters
    ----------
    trainer : what trains
    workers : processes; 0 trains in this one
    """

    def __init__(self, trainer: Trainer, workers: int | None = None) -> None:
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be at least 0, not {workers}")
        self.trainer = trainer
        self.workers = available_cores() if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> WorkerPool:
        """Return the pool; processes start with the first job."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the processes; after an error without waiting for what they do."""
        self._stop(at_once=kind is not None)

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=get_context("spawn"), initializer=_begin_worker
            )
        return self._pool

    def _stop(self, at_once: bool = True) -> None:
        if self._pool is None:
            return
        if at_once:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def run(
        self,
        jobs: Sequence[TrainingJob],
        work: Callable[[Trainer, TrainingJob], Any] = run_training,
    ) -> Iterator[tuple[TrainingJob, Outcome]]:
        """Do jobs and give each with its outcome as soon as it is done.

        A worker that dies takes no other job with it: what it did is tried once more, alone.

        Raises
        ------
        DiskFullError
            If a job finds no space left.
        """
        waiting = list(jobs)
        try:
            if self.workers == 0:
                for job in waiting:
                    yield job, _attempt(work, self.trainer, job)
                return
            left = list(waiting)
            try:
                for job, outcome in self._together(waiting, work):
                    left.remove(job)
                    yield job, outcome
            except BrokenProcessPool:
                self._stop()
                for job in left:
                    yield job, self._alone(job, work)
        except OSError as error:
            if error.errno == errno.ENOSPC and not isinstance(error, DiskFullError):
                raise DiskFullError(waiting[0].out.parent) from error
            raise

    def _together(
        self, jobs: Sequence[TrainingJob], work: Callable[[Trainer, TrainingJob], Any]
    ) -> Iterator[tuple[TrainingJob, Outcome]]:
        pool = self._start()
        futures: dict[Future[Outcome], TrainingJob] = {
            pool.submit(_attempt, work, self.trainer, job): job for job in jobs
        }
        while futures:
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            # What finished is given before a broken pool is reported.
            for future in sorted(done, key=lambda f: isinstance(f.exception(), BrokenProcessPool)):
                outcome = future.result()
                yield futures.pop(future), outcome

    def _alone(self, job: TrainingJob, work: Callable[[Trainer, TrainingJob], Any]) -> Outcome:
        started = time.monotonic()
        try:
            return self._start().submit(_attempt, work, self.trainer, job).result()
        except BrokenProcessPool:
            self._stop()
            error = "the worker process died (killed, or out of memory)"
            return Outcome(None, error, time.monotonic() - started)


def _begin_worker() -> None:
    """Use one thread, leave Ctrl-C to the parent, and end when the parent does."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # bars of several processes in one terminal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
