"""The archive of a search: every training and every evaluation, in SQLite."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError

from search.objectives import Measured

APPLICATION_ID = 0x7C0DE516
"""What SQLite's `application_id` says of our archives."""

SCHEMA_VERSION = 1

METADATA = MetaData()
FACTS = Table(
    "facts",
    METADATA,
    Column("name", String, primary_key=True),
    Column("value", JSON, nullable=False),
)
TRAININGS = Table(
    "trainings",
    METADATA,
    Column("model", String, primary_key=True),
    Column("rung", Integer, primary_key=True),
    Column("design", JSON, nullable=False),
    Column("activation_threshold", Float, nullable=False),
    Column("gradient_threshold", Float, nullable=False),
    Column("epochs", Float, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("version", String, nullable=False),
    Column("status", String, nullable=False),
    Column("error", String),
    Column("accuracy", Float),
    Column("examples", Integer),
    Column("trace_hash", String),
    Column("densities", JSON),
    Column("folder", String),
    Column("seconds", Float, nullable=False),
    Column("finished", String, nullable=False),
)
EVALUATIONS = Table(
    "evaluations",
    METADATA,
    Column("model", String, primary_key=True),
    Column("rung", Integer, primary_key=True),
    Column("accelerator", String, primary_key=True),
    Column("position", Integer, nullable=False, unique=True),
    Column("source", String, nullable=False),
    Column("genome", JSON),
    Column("design", JSON, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("version", String, nullable=False),
    Column("trace_hash", String),
    Column("status", String, nullable=False),
    Column("error", String),
    *(Column(f.name, Float) for f in fields(Measured)),
    Column("finished", String, nullable=False),
)
TIMES = {"seconds", "finished"}
"""Columns that differ between two runs of the same search."""


class ArchiveError(ValueError):
    """An archive that cannot be read, written or used for this search."""


class DiskFullError(OSError):
    """No space is left; what was archived before is safe."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            errno.ENOSPC,
            f"no space left for {path}; nothing archived is lost: free space and run the same "
            "command again to go on",
        )

    def __str__(self) -> str:
        """Return the sentence without the error number."""
        return str(self.strerror)


@dataclass(frozen=True)
class Training:
    """One model trained at one rung, or the failure to do so.

    `folder` is relative to the run's folder; `densities` are those of the trace, by role.
    """

    model: str
    rung: int
    design: dict[str, Any]
    activation_threshold: float
    gradient_threshold: float
    epochs: float
    seed: int
    version: str
    status: str
    seconds: float
    error: str | None = None
    accuracy: float | None = None
    examples: int | None = None
    trace_hash: str | None = None
    densities: dict[str, float] | None = None
    folder: str | None = None
    finished: str = field(default_factory=lambda: _now())

    @property
    def ok(self) -> bool:
        """Whether the model was trained."""
        return self.status == "ok"


@dataclass(frozen=True)
class Evaluation:
    """One pair of a trained model and an accelerator with its figures, or the failure."""

    model: str
    rung: int
    accelerator: str
    source: str
    genome: list[int] | None
    design: dict[str, Any]
    seed: int
    version: str
    trace_hash: str | None
    status: str
    error: str | None = None
    measured: Measured | None = None
    position: int = -1
    finished: str = field(default_factory=lambda: _now())

    @property
    def ok(self) -> bool:
        """Whether the pair has figures."""
        return self.status == "ok"

    @property
    def id(self) -> str:
        """Name of the pair within a run."""
        return f"{self.model[:6]}-{self.accelerator[:6]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Archive:
    """An archive file; each write is a transaction in a write-ahead log.

    Whatever a call has written when it returns survives a `kill -9` of the process. Use `open`.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._engine = engine

    @classmethod
    def open(cls, path: str | Path, create: bool = False) -> Self:
        """Open an archive.

        Raises
        ------
        ArchiveError
            If the file is not an archive of this version, or is damaged.
        FileNotFoundError
            If there is none and `create` is false.
        """
        path = Path(path)
        if not path.exists() and not create:
            raise FileNotFoundError(f"{path} does not exist: this folder holds no search")
        fresh = not path.exists() or _unmade(path)
        if fresh and not create:
            raise ArchiveError(f"{path} is empty: not an archive of a search")
        engine = create_engine(f"sqlite:///{path}")
        event.listen(engine, "connect", _set_pragmas)
        archive = cls(path, engine)
        try:
            with archive._transaction() as connection:
                if fresh:
                    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    METADATA.create_all(connection)
                archive._check(connection)
        except BaseException:
            archive.close()
            raise
        return archive

    def _check(self, connection: Connection) -> None:
        def pragma(name: str) -> Any:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        if pragma("user_version") != SCHEMA_VERSION:
            raise ArchiveError(
                f"{self.path} has version {pragma('user_version')}; this version of transcode "
                f"reads {SCHEMA_VERSION}"
            )
        if (state := pragma("integrity_check")) != "ok":
            raise ArchiveError(f"{self.path} is damaged ({str(state).splitlines()[0]})")
        connection.execute(select(func.count()).select_from(EVALUATIONS))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            if "full" in str(error.orig) or "disk I/O error" in str(error.orig):
                raise DiskFullError(self.path) from error
            raise ArchiveError(f"{self.path}: {error.orig}") from error
        except DatabaseError as error:
            raise ArchiveError(
                f"{self.path} is not an archive of a search, or is damaged: {error.orig}"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def fact(self, name: str) -> Any:
        """Return what `set_fact` stored, or None."""
        with self._transaction() as connection:
            return connection.execute(select(FACTS.c.value).where(FACTS.c.name == name)).scalar()

    def set_fact(self, name: str, value: Any) -> None:
        """Store a value that JSON can hold, replacing an earlier one."""
        with self._transaction() as connection:
            connection.execute(FACTS.delete().where(FACTS.c.name == name))
            connection.execute(FACTS.insert().values(name=name, value=value))

    def facts(self) -> dict[str, Any]:
        """Return all facts."""
        with self._transaction() as connection:
            rows = connection.execute(select(FACTS.c.name, FACTS.c.value).order_by(FACTS.c.name))
            return {name: value for name, value in rows}

    def add_training(self, training: Training) -> None:
        """Store one training."""
        with self._transaction() as connection:
            connection.execute(TRAININGS.insert().values(**asdict(training)))

    def trainings(self, rung: int | None = None) -> list[Training]:
        """Return trainings, of one rung or all, by rung and key."""
        query = select(TRAININGS).order_by(TRAININGS.c.rung, TRAININGS.c.model)
        if rung is not None:
            query = query.where(TRAININGS.c.rung == rung)
        with self._transaction() as connection:
            return [Training(**row) for row in connection.execute(query).mappings()]

    def training(self, model: str, rung: int) -> Training | None:
        """Return one training, if it was done."""
        query = select(TRAININGS).where(TRAININGS.c.model == model, TRAININGS.c.rung == rung)
        with self._transaction() as connection:
            row = connection.execute(query).mappings().first()
        return Training(**row) if row else None

    def add_evaluations(self, evaluations: Sequence[Evaluation]) -> None:
        """Store evaluations, all or none, at the end of the order."""
        with self._transaction() as connection:
            count = connection.execute(select(func.count()).select_from(EVALUATIONS)).scalar_one()
            rows = [_row(evaluation, count + index) for index, evaluation in enumerate(evaluations)]
            if rows:
                connection.execute(EVALUATIONS.insert(), rows)

    def evaluations(self, rung: int | None = None) -> list[Evaluation]:
        """Return evaluations, of one rung or all, in the order in which they were made."""
        query = select(EVALUATIONS).order_by(EVALUATIONS.c.position)
        if rung is not None:
            query = query.where(EVALUATIONS.c.rung == rung)
        with self._transaction() as connection:
            return [_evaluation(row) for row in connection.execute(query).mappings()]

    def contents(self) -> dict[str, Any]:
        """Return all contents without times: equal for equal searches."""
        return {
            "trainings": [_without_times(asdict(t)) for t in self.trainings()],
            "evaluations": [_without_times(asdict(e)) for e in self.evaluations()],
            "facts": {k: v for k, v in self.facts().items() if not k.startswith("session")},
        }


def _unmade(path: Path) -> bool:
    """Whether an archive was begun and killed before it had contents.

    A file of something else is refused here, where it is only read: SQLite would change its header
    when it sets the write-ahead log.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise ArchiveError(
            f"{path} is not an archive of a search, or is damaged: {error}"
        ) from error
    if application == 0 and tables == 0:
        return True
    if application != APPLICATION_ID:
        raise ArchiveError(
            f"{path} is an SQLite file of something else, not an archive of a search"
        )
    return False


def _set_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA busy_timeout=10000")
    finally:
        cursor.close()


def _row(evaluation: Evaluation, position: int) -> dict[str, Any]:
    row = asdict(evaluation)
    measured = row.pop("measured") or {f.name: None for f in fields(Measured)}
    return {**row, **measured, "position": position}


def _evaluation(row: Mapping[Any, Any]) -> Evaluation:
    values = dict(row)
    figures = {f.name: values.pop(f.name) for f in fields(Measured)}
    measured = Measured(**figures) if values["status"] == "ok" else None
    return Evaluation(**values, measured=measured)


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({k: v for k, v in row.items() if k not in TIMES}))
