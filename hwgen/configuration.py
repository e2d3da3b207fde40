"""Frozen, validated objects that come from files."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class Frozen(BaseModel):
    """A frozen model that takes lists for tuples; an unknown key names the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _keys_and_tuples(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, 1, 0.4)
                    hint = (
                        f"did you mean {near[0]}?"
                        if near
                        else f"known: {', '.join(cls.model_fields)}"
                    )
                    raise ValueError(f"unknown key {key!r} in {cls.__name__}; {hint}")
            data = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return data


def explain(error: ValidationError) -> str:
    """Put a validation error into one sentence that names key, value and reason."""
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        value = "" if isinstance(item["input"], Mapping) else f", not {item['input']!r}"
        parts.append(f"{key}: {reason}{value}" if key else reason)
    return "; ".join(parts)


def read_named(source: str | Path, folder: str, what: str, package: str) -> Any:
    """Read YAML or JSON from a path, or from package data by name.

    Raises
    ------
    ValueError
        If there is neither such a name nor such a file, or the file is not YAML.
    """
    root = files(package).joinpath(*folder.split("/"))
    named = {
        entry.name.rpartition(".")[0]: entry
        for entry in root.iterdir()
        if entry.name.endswith((".yaml", ".json"))
    }
    path = Path(source)
    if isinstance(source, str) and source in named:
        text = named[source].read_text()
    elif path.is_file():
        text = path.read_text()
    elif path.suffix in {".yaml", ".yml", ".json"}:
        raise FileNotFoundError(f"{what} file {source} does not exist")
    else:
        known = sorted(named)
        near = difflib.get_close_matches(str(source), known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"unknown {what} {str(source)!r}; {hint}known names: {', '.join(known)}, or give a file"
        )
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: not valid YAML: {error}") from None


class Named(Frozen):
    """A frozen model that has named examples: it loads from a name, a file, a mapping or itself."""

    kind: ClassVar[str]
    """What messages call it."""
    examples: ClassVar[tuple[str, str]]
    """The package and the folder in it that hold the named ones."""

    @classmethod
    def load(cls, source: Self | Mapping[str, Any] | str | Path) -> Self:
        """Load from a name, a YAML or JSON file, a mapping of the fields, or the object itself.

        Raises
        ------
        ValueError
            If the name is unknown or the contents are invalid; the message names the key.
        FileNotFoundError
            If a path does not exist.
        """
        if isinstance(source, cls):
            return source
        where, data = cls.kind, source
        if isinstance(source, (str, Path)):
            package, folder = cls.examples
            where = f"{cls.kind} {source}"
            data = read_named(source, folder, cls.kind, package)
        return _checked(cls, data, where)


class Stored(Frozen):
    """A frozen model that is kept as JSON: it loads from a file, a mapping or itself."""

    kind: ClassVar[str]
    """What messages call it."""

    @classmethod
    def load(cls, source: Self | Mapping[str, Any] | str | Path) -> Self:
        """Load from a JSON file, a mapping of the fields, or the object itself.

        Raises
        ------
        ValueError
            If the contents are invalid, or of another version; the message names the key.
        FileNotFoundError
            If there is no such file.
        """
        if isinstance(source, cls):
            return source
        where, data = cls.kind, source
        if isinstance(source, (str, Path)):
            where = f"{cls.kind} {source}"
            try:
                data = json.loads(Path(source).read_text())
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{source}: not a {cls.kind} in JSON: {error}") from None
        return _checked(cls, data, where)


Checked = TypeVar("Checked", bound=Frozen)


def _checked(kind: type[Checked], data: Any, where: str) -> Checked:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: must be a mapping of keys, not {type(data).__name__}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{where}: {explain(error)}") from None
