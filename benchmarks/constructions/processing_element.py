"""A processing element, and an accelerator around it, as parts that are synthesised one by one."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constructions.points import Row

from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.stages import MACRO_BITS

FIELDS = ("component", "spec", "area_um2", "logic_um2", "memory_um2", "critical_path_ns",
          "critical_path_start", "critical_path_end", "full_adder_cells", "clock_target_ps",
          "library_sha256", "rtl_sha256", "tools")
CLOCK_PS = 1429

TREES, JOINED, FLAT = "trees", "joined", "flat"
"""The processing element without lanes and engines; its netlists joined; mapped as one."""

AROUND = ("buffer of activations", "buffer of weights", "sequencer", "scan of lines",
          "scan of pieces", "scan of places", "loader", "ports")
"""What an accelerator has beside a processing element; lines are scanned twice."""

Maker = tuple[Any, Callable[[], Any]]
"""What a part is made from, and how it is elaborated."""


def memory_name(depth: int, width: int) -> str:
    """Name of a memory of flip-flops."""
    return f"memory {depth}x{width}"


def flip_flops(memories: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """Memories that are too small for a macro, and how many of each."""
    found: dict[str, int] = {}
    for depth, width in memories.values():
        if depth * width <= MACRO_BITS:
            name = memory_name(depth, width)
            found[name] = found.get(name, 0) + 1
    return found


def blocks(spec: AcceleratorSpec) -> dict[str, int]:
    """What a processing element consists of, and how many of each."""
    return {TREES: 1, "lane": spec.lanes, "softmax_engine": spec.softmax_engines, "norm_engine": 1}


def units(spec: AcceleratorSpec) -> dict[str, dict[str, int]]:
    """Units with data sheets in each block, and how many of each."""
    return {
        "lane": {"mac_lane": 1, "pre_sparsity": 1, "dynatran, lane": 1, "post_sparsity": 1},
        "softmax_engine": {"softmax": 1, "dynatran, engine": 1},
        "norm_engine": {"layer_norm": 1, "residual_add": 1, "dynatran, engine": 1},
    }


def parts(spec: AcceleratorSpec) -> dict[str, dict[str, int]]:
    """Everything in each block, and how many of each."""
    known = units(spec)
    rest = {
        "lane": {"lane control": 1, **flip_flops(spec.lane.memories())},
        "softmax_engine": {"softmax_engine control": 1, "rows, softmax_engine": 1,
                           "results, softmax_engine": 1, **flip_flops(spec.softmax.memories())},
        "norm_engine": {"norm_engine control": 1, "rows, norm_engine": 2,
                        "results, norm_engine": 1, **flip_flops(spec.norm.memories())},
    }
    return {block: {**own, **rest[block]} for block, own in known.items()}


def makers(spec: AcceleratorSpec) -> dict[str, Maker]:
    """How each part is made, and what connects parts, with the parts as black boxes."""
    # Amaranth is needed here alone.
    from hwgen.lib.memory import SynchronousMemory
    from hwgen.lib.row_memory import RowMemory, RowResults
    from hwgen.technology.flow.outline import outline
    from hwgen.technology.flow.synthesis import elaborate
    from hwgen.units.dynatran.rtl import Dynatran
    from hwgen.units.lane.rtl import Lane
    from hwgen.units.layer_norm.rtl import LayerNorm
    from hwgen.units.mac_lane.rtl import MacLane
    from hwgen.units.norm_engine.rtl import NormEngine
    from hwgen.units.norm_engine.spec import ROW_BANKS
    from hwgen.units.post_sparsity.rtl import PostSparsity
    from hwgen.units.pre_sparsity.rtl import PreSparsity
    from hwgen.units.processing_element.rtl import ProcessingElement
    from hwgen.units.residual_add.rtl import ResidualAdd
    from hwgen.units.softmax.rtl import Softmax
    from hwgen.units.softmax_engine.rtl import SoftmaxEngine

    memories = {SynchronousMemory: lambda each: f"memory_{each.depth}x{each.width}"}

    def named(*kinds: type) -> dict[type, Callable[[Any], str]]:
        return {kind: lambda _, kind=kind: kind.__name__ for kind in kinds}

    def flat(kind: type, own: Any, name: str | None = None) -> Maker:
        return own, lambda: elaborate(kind(own), name or kind.__name__)

    def control(kind: type, own: Any, *inside: type) -> Maker:
        return own, lambda: outline(kind(own), kind.__name__, named(*inside) | memories)

    lane, softmax, norm = spec.lane, spec.softmax, spec.norm
    found = {
        TREES: (f"{spec.places} places", lambda: outline(
            ProcessingElement(spec), "ProcessingElement",
            named(Lane, SoftmaxEngine, NormEngine))),
        "lane": flat(Lane, lane),
        "softmax_engine": flat(SoftmaxEngine, softmax),
        "norm_engine": flat(NormEngine, norm),
        "lane control": control(Lane, lane, PreSparsity, MacLane, Dynatran, PostSparsity),
        "softmax_engine control": control(
            SoftmaxEngine, softmax, RowMemory, RowResults, Softmax, Dynatran),
        "norm_engine control": control(
            NormEngine, norm, RowMemory, RowResults, ResidualAdd, LayerNorm, Dynatran),
        "mac_lane": flat(MacLane, lane.mac_lane),
        "pre_sparsity": flat(PreSparsity, lane.pre_sparsity),
        "dynatran, lane": flat(Dynatran, lane.dynatran),
        "post_sparsity": flat(PostSparsity, lane.post_sparsity),
        "softmax": flat(Softmax, softmax.softmax),
        "layer_norm": flat(LayerNorm, norm.layer_norm),
        "residual_add": flat(ResidualAdd, norm.residual_add),
        "dynatran, engine": flat(Dynatran, norm.dynatran),
    }
    for name, form, banks in (("softmax_engine", softmax.rows, 2),
                              ("norm_engine", norm.rows, ROW_BANKS)):
        found[f"rows, {name}"] = form, lambda form=form, banks=banks: outline(
            RowMemory(form, banks), "RowMemory", memories)
        found[f"results, {name}"] = form, lambda form=form: outline(
            RowResults(form), "RowResults", memories)
    for block in (lane, softmax, norm):
        for depth, width in block.memories().values():
            if depth * width <= MACRO_BITS:
                found[memory_name(depth, width)] = f"{depth} × {width}", (
                    lambda depth=depth, width=width: elaborate(
                        SynchronousMemory(width, depth), "memory"))
    return found


def accelerator_makers(spec: AcceleratorSpec) -> dict[str, Maker]:
    """How what is around the processing element is made; memories of buffers are black boxes."""
    from hwgen.lib.memory import SynchronousMemory
    from hwgen.technology.flow.outline import outline, parts_of
    from hwgen.units.accelerator.rtl import Accelerator
    from hwgen.units.accelerator.scan import LineScan, PieceScan, PlaceScan
    from hwgen.units.accelerator.sequencer import Sequencer
    from hwgen.units.buffer.rtl import Buffer
    from hwgen.units.loader.rtl import Loader
    from hwgen.units.processing_element.rtl import ProcessingElement

    kinds: dict[type, Callable[[Any], str]] = {
        ProcessingElement: lambda _: "ProcessingElement",
        Buffer: lambda each: "WeightBuffer" if each.spec == spec.weights else "ActivationBuffer",
        Sequencer: lambda _: "Sequencer", LineScan: lambda _: "LineScan",
        PieceScan: lambda _: "PieceScan", PlaceScan: lambda _: "PlaceScan",
        Loader: lambda _: "Loader"}
    memories = {SynchronousMemory: lambda each: f"memory_{each.depth}x{each.width}"}

    def part(name: str) -> Any:
        return outline(parts_of(Accelerator(spec), kinds)[name], name, memories)

    names = ("ActivationBuffer", "WeightBuffer", "Sequencer", "LineScan", "PieceScan", "PlaceScan",
             "Loader")
    owns = (spec.activations, spec.weights, None, None, None, None, spec.loader)
    found: dict[str, Maker] = {
        row: (own, lambda name=name: part(name))
        for row, name, own in zip(AROUND, names, owns, strict=False)}
    return {**found, AROUND[-1]: (
        None, lambda: outline(Accelerator(spec), "Accelerator", kinds))}


@dataclass(frozen=True)
class Joined:
    """Netlists of blocks within the netlist that connects them.

    Parameters
    ----------
    whole : what connects them
    blocks : by the name of their black box
    """

    whole: Any
    blocks: tuple[Any, ...]

    @property
    def sha256(self) -> str:
        """Hash of the RTL of all."""
        together = " ".join(each.sha256 for each in (self.whole, *self.blocks))
        return hashlib.sha256(together.encode()).hexdigest()


def components(name: str, spec: AcceleratorSpec, *, whole: bool, around: bool
               ) -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """All rows of a design: name, spec, clock (ps), how it is elaborated.

    Parameters
    ----------
    name : the design
    spec : its blocks
    whole : whether the processing element is mapped as one, too
    around : whether what is around it is synthesised
    """
    from hwgen.technology.flow.synthesis import elaborate
    from hwgen.units.processing_element.rtl import ProcessingElement

    made = makers(spec) | (accelerator_makers(spec) if around else {})
    # What is fast comes first, so that a run that is stopped has shown the most.
    first = [part for part in made if part not in blocks(spec)]
    for part in (*first, *blocks(spec)):
        own, make = made[part]
        yield f"{name}: {part}", own, CLOCK_PS, make
    yield f"{name}: {JOINED}", blocks(spec), CLOCK_PS, lambda: Joined(
        made[TREES][1](), tuple(made[block][1]() for block in blocks(spec) if block != TREES))
    if whole:
        yield (f"{name}: {FLAT}", blocks(spec), CLOCK_PS,
               lambda: elaborate(ProcessingElement(spec), "ProcessingElement"))


def measure(made: Any, clock_ps: int) -> Row:
    """Area and path of a part; of joined netlists the longest path through all of them."""
    from hwgen.technology.flow.isolation import isolated
    from hwgen.technology.flow.timing import critical_path

    folder = _folder(made)
    if isinstance(made, Joined):
        whole, *found = (_netlist(each, clock_ps)[0] for each in (made.whole, *made.blocks))
        found = [isolated(each) for each in found]
        path = critical_path(whole, folder, clock_ps, parts=found)
        counts = {part.name: sum(cell.kind == part.name for cell in whole.cells) for part in found}
        netlists = [(whole, 1), *((part, counts[part.name]) for part in found)]
        full_adders = any(each.count("FA_X1") for each, _ in netlists)
    else:
        netlist, path, full_adders = _netlist(made, clock_ps)
        netlists = [(netlist, 1)]
    return {
        "area_um2": f"{sum(each.area_um2 * count for each, count in netlists):.6g}",
        "logic_um2": f"{sum(each.logic_um2 * count for each, count in netlists):.6g}",
        "memory_um2": f"{sum(_memories(each) * count for each, count in netlists):.6g}",
        "critical_path_ns": f"{path.delay_ns:.4f}",
        "critical_path_start": path.start, "critical_path_end": path.end,
        "full_adder_cells": "yes" if full_adders else "no"}


def _memories(netlist: Any) -> float:
    from hwgen.technology.sram import memory

    return sum(memory(macro.depth, macro.width).area_um2
               for _, macro in netlist.macro_instances)


def _folder(made: Any) -> Path:
    from hwgen.simulation.build import cache_folder

    return cache_folder() / "pe_area" / str(made.sha256)[:16]


def _netlist(made: Any, clock_ps: int) -> tuple[Any, Any, bool]:
    """Synthesise, or take what an earlier run has left."""
    from hwgen.technology.flow.timing import synthesise_for_clock

    kept = _folder(made) / "netlist.pickle"
    if not kept.is_file():
        found = synthesise_for_clock(made, kept.parent, clock_ps)
        for file in kept.parent.glob("*.json"):
            file.unlink()
        kept.write_bytes(pickle.dumps(found))
    loaded: tuple[Any, Any, bool] = pickle.loads(kept.read_bytes())
    return loaded
