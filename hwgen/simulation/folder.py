"""Reads what `hwgen.emit.generate` wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwgen.design import AcceleratorDesign
from hwgen.program import Job, ProgramJob
from hwgen.simulation.module import Port, VerilogModule
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.registry import spec_of

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "transcode.manifest"
JOBS_SCHEMA = "transcode.jobs"
PROGRAMS_SCHEMA = "transcode.programs"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class GeneratedUnit:
    """One unit of a generated folder: its Verilog as it lies there, its spec and its jobs."""

    unit: str
    module: VerilogModule
    spec: Any
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class GeneratedAccelerator:
    """The accelerator of a generated folder: its Verilog, its spec and its programs."""

    module: VerilogModule
    spec: AcceleratorSpec
    programs: tuple[ProgramJob, ...]


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read and check the manifest of a generated folder.

    Raises
    ------
    ValueError
        If the folder holds no manifest, or one of another schema or version.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise ValueError(f"{path} holds no {MANIFEST}: it is no folder that generate wrote")
    manifest = _read_json(file)
    _check_schema(file, manifest, MANIFEST_SCHEMA)
    return manifest


def read_folder(path: str | Path) -> list[GeneratedUnit]:
    """Read every unit of a generated folder.

    Raises
    ------
    ValueError
        If a file is missing, no JSON, of another schema, or contradicts the design.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    where = str(folder / MANIFEST)
    try:
        design = AcceleratorDesign.load(manifest["design"])
        if design.sha256 != manifest["design_sha256"]:
            raise ValueError(f"{where}: design_sha256 is not that of the design")
        units = [
            _read_unit(folder, unit, entry, design) for unit, entry in manifest["units"].items()
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where} is damaged ({error!r}): generate the folder again") from None
    if not units:
        raise ValueError(f"{where} names no unit")
    return units


def read_accelerator(path: str | Path) -> GeneratedAccelerator | None:
    """Read the whole accelerator of a generated folder; None where its design has none.

    Raises
    ------
    ValueError
        If a file is missing, no JSON, of another schema, or contradicts the design.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    entry = manifest.get("accelerator", {"absent": "the folder is an earlier version's"})
    if "absent" in entry:
        return None
    try:
        spec = AcceleratorSpec.of(AcceleratorDesign.load(manifest["design"]))
        if f"{spec.number:016x}" != entry["number"]:
            raise ValueError(f"{folder / MANIFEST}: the accelerator is not the design's")
        module = _read_module(folder, entry)
        data = _read_json(folder / entry["jobs"])
        _check_schema(folder / entry["jobs"], data, PROGRAMS_SCHEMA)
        programs = tuple(ProgramJob.from_json(job) for job in data["programs"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / MANIFEST} is damaged ({error!r}): generate the folder again"
        ) from None
    return GeneratedAccelerator(module, spec, programs)


def _read_module(folder: Path, entry: Mapping[str, Any]) -> VerilogModule:
    file = folder / entry["verilog"]
    if not file.is_file():
        raise ValueError(f"{file} is missing: generate the folder again")
    ports = tuple(Port.from_json(port) for port in entry["ports"])
    return VerilogModule(entry["module"], file.read_text(encoding="utf-8"), ports)


def _read_unit(
    folder: Path, unit: str, entry: Mapping[str, Any], design: AcceleratorDesign
) -> GeneratedUnit:
    spec = spec_of(unit, entry["parameters"])
    if spec != design.unit_specs.get(unit):
        raise ValueError(f"{folder / MANIFEST}: the parameters of {unit} are not the design's")
    jobs = _read_jobs(folder / entry["jobs"], unit)
    return GeneratedUnit(unit, _read_module(folder, entry), spec, jobs)


def _read_jobs(file: Path, unit: str) -> tuple[Job, ...]:
    data = _read_json(file)
    _check_schema(file, data, JOBS_SCHEMA)
    jobs = tuple(Job.from_json(job) for job in data["jobs"])
    for job in jobs:
        if job.unit != unit:
            raise ValueError(f"{file}: job {job.name!r} is of unit {job.unit}, not {unit}")
    return jobs


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: generate the folder again") from None
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}): generate the folder again") from None
    if not isinstance(data, dict):
        raise ValueError(f"{file} must hold an object, not {type(data).__name__}")
    return data


def _check_schema(file: Path, data: Mapping[str, Any], schema: str) -> None:
    if data.get("schema") != schema:
        raise ValueError(f"{file}: schema must be {schema}, not {data.get('schema')!r}")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{file}: schema_version must be {SCHEMA_VERSION}, "
            f"not {data.get('schema_version')!r}: generate the folder again"
        )
