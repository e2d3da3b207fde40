"""Technologies from the synthesised units: what they add up, what they refuse, projections."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign, DesignBatch
from hwgen.technology.constants import Technology
from hwgen.technology.scaling import Scaling
from hwgen.technology.sram import memory
from hwgen.technology.synthesised import NODES, UNITS, SynthesisedTechnology
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.layer_norm.workload import ROW_BEATS, ROWS
from hwgen.units.ppa import Points, Ppa
from hwgen.units.softmax import cost as softmax

pytestmark = pytest.mark.usefixtures("points_of_every_unit")


def edge(**changes: Any) -> AcceleratorDesign:
    fields = AcceleratorDesign.load("edge").model_dump()
    derived = ("k_segment", "window", "fifo_depth")
    kept = {name: value for name, value in fields.items() if name not in derived}
    return AcceleratorDesign.load({**kept, **changes})


def narrow(**changes: Any) -> AcceleratorDesign:
    return edge(integer_bits=4, fraction_bits=8, macs_per_lane=8, tile_x=8, tile_y=8, **changes)


@pytest.fixture
def technology() -> Technology:
    return Technology.load("nangate45")


def test_area_is_that_of_the_units_and_memories(technology: Technology) -> None:
    design = edge(stochastic_rounding=True, softmax_per_pe=2)
    found = technology.area_um2(DesignBatch.of([design]))
    specs, lanes = design.unit_specs, design.pes * design.lanes_per_pe
    count = {"lane": lanes, "pre_sparsity": lanes, "dynatran": lanes, "post_sparsity": lanes,
             "softmax": 2 * design.pes, "layer_norm": design.pes, "row_dynatran": 3 * design.pes,
             "residual_add": design.pes}
    assert set(count) == set(UNITS)
    for block, (unit, cost) in UNITS.items():
        spec = DynatranSpec(1, design.bits) if block == "dynatran" else specs[unit]
        assert found[block][0] == pytest.approx(count[block] * cost.PPA.area_um2(spec))
    for unit, cost in (("softmax", softmax), ("layer_norm", layer_norm)):
        made = sum(memory(*size).area_um2 for size in cost.macros(specs[unit]).values())
        assert found[f"{unit}_row_memory"][0] == pytest.approx(count[unit] * made)
    # Buffers in banks of 2048 entries of 512 bits: 128 KiB.
    banks = design.activation_buffer_kib / 128
    assert banks == int(banks)
    wanted = banks * memory(2048, 512).area_um2
    assert found["activation_buffer"][0] == pytest.approx(wanted)


def test_a_population_is_its_designs(technology: Technology) -> None:
    designs = [edge(), narrow(stochastic_rounding=True), edge(nonlinearity="relu"),
               narrow(activation_buffer_kib=8, clock_mhz=350), edge(), narrow(pes=3)]
    whole = DesignBatch.of(designs)
    tables = [technology.area_um2, technology.leakage_mw, technology.access_pj]
    for table in tables:
        for index, design in enumerate(designs):
            one = table(DesignBatch.of([design]))
            assert {name: values[index] for name, values in table(whole).items()} == (
                pytest.approx({name: values[0] for name, values in one.items()}))
    prices = technology.dynamic_pj(whole)
    for index, design in enumerate(designs):
        for block, price in technology.dynamic_pj(DesignBatch.of([design])).items():
            for work, values in price.items():
                assert prices[block][work][index] == pytest.approx(values[0])


def test_every_figure_is_a_positive_number(technology: Technology) -> None:
    designs = DesignBatch.of([edge(stochastic_rounding=True), narrow(stochastic_rounding=True)])
    tables = [technology.area_um2(designs), technology.leakage_mw(designs),
              technology.access_pj(designs), *technology.dynamic_pj(designs).values()]
    for table in tables:
        for name, values in table.items():
            assert (values > 0).all(), name


@pytest.mark.parametrize("name", sorted(set(NODES) - {"nangate45"}))
def test_projections_are_scaled(name: str, technology: Technology) -> None:
    projected = Technology.load(name)
    scaling = Scaling.between("45nm", NODES[name])
    designs = DesignBatch.of([edge(), narrow()])
    for block, area in technology.area_um2(designs).items():
        assert projected.area_um2(designs)[block] == pytest.approx(scaling.area * area)
    prices = projected.dynamic_pj(designs)
    for block, price in technology.dynamic_pj(designs).items():
        for work, values in price.items():
            assert prices[block][work] == pytest.approx(scaling.energy * values)
    access, now = technology.access_pj(designs), projected.access_pj(designs)
    assert now["weight_buffer"] == pytest.approx(scaling.energy * access["weight_buffer"])
    assert now["main_memory"] == pytest.approx(access["main_memory"])
    assert "projected" in projected.source
    assert any("leakage" in note for note in projected.notes)
    # A gate is faster there, and so is the clock that is allowed.
    assert scaling.delay < 1
    projected.check(DesignBatch.of([edge(clock_mhz=900)]))


def test_work_is_charged_beyond_idle(technology: Technology) -> None:
    assert isinstance(technology, SynthesisedTechnology)
    design = edge()
    designs, spec = DesignBatch.of([design]), design.mac_lane
    cost = UNITS["lane"][1].PPA
    idle = cost.idle_mw(spec) / 0.7 / spec.macs
    price = technology.dynamic_pj(designs)
    assert price["lane"]["pairs"][0] == pytest.approx(cost.energy_pj(spec) - idle)
    assert technology.leakage_mw(designs)["lane"][0] == pytest.approx(
        design.pes * design.lanes_per_pe * (cost.leakage_mw(spec) + cost.idle_mw(spec)))
    half_clock = technology.leakage_mw(DesignBatch.of([edge(clock_mhz=350)]))
    assert half_clock["lane"][0] == pytest.approx(
        design.pes * design.lanes_per_pe * (cost.leakage_mw(spec) + cost.idle_mw(spec) / 2))
    gather = UNITS["pre_sparsity"][1].PPA
    idle = gather.idle_mw(design.pre_sparsity) / 0.7 / design.window
    for density in (1.0, 0.5):
        both = price["pre_sparsity"]
        found = both["positions"] + density**2 * both["pairs"]
        assert found[0] == pytest.approx(gather.energy_pj(design.pre_sparsity, density) - idle)


@pytest.mark.parametrize(("changes", "message"), [
    ({"integer_bits": 2, "fraction_bits": 4}, r"bits = 8 to .*, not 6"),
    ({"macs_per_lane": 1}, r"macs = 4 to .*, not 1"),
    ({"clock_mhz": 2000}, r"clock_mhz must be at most \d+, which is what \w+ of 20 bits reaches"),
])
def test_what_was_not_synthesised_is_refused(
    changes: dict[str, Any], message: str, technology: Technology
) -> None:
    with pytest.raises(ValueError, match=message + r".*\(design 1\)"):
        technology.area_um2(DesignBatch.of([edge(), edge(**changes)]))


@pytest.mark.rtl
@pytest.mark.parametrize(("unit", "cost", "fields"), [
    (unit, cost, fields)
    for unit, cost, more in (("softmax", softmax, {}), ("layer_norm", layer_norm,
                                                       {"epsilon": 1e-12}))
    for fields in ({"parallel": 4, "bits": 12, "max_row": 700, **more},
                   {"parallel": 8, "bits": 8, "max_row": 4096, **more},
                   {"parallel": 16, "bits": 20, "max_row": 512, **more},
                   {"parallel": 2, "bits": 5, "max_row": 129, **more})
])
def test_macros_are_those_that_the_rtl_asks_for(unit: str, cost: Any, fields: dict[str, Any]
                                                ) -> None:
    pytest.importorskip("amaranth")
    from hwgen.technology.flow.synthesis import elaborate
    from hwgen.units.registry import component_of, spec_of

    spec = spec_of(unit, fields)
    asked = elaborate(component_of(unit)(spec), unit).macros
    assert {(each.depth, each.width) for each in asked} == set(cost.macros(spec).values())


def test_energy_of_row_memories() -> None:
    # Each beat of 16 elements and each row of 4,096 is written and read; γ and β are read.
    rows = SimpleNamespace(parallel=16, bits=20, max_row=4096)
    beat, row = 2 / 16, 2 / 4096
    per_element = {"rows": beat, "terms": beat, "maxima": row, "inverses": row, "sums": row,
                   "roots": row, "gamma": 1 / 16, "beta": 1 / 16, "results": beat}
    for cost in (softmax, layer_norm):
        sizes = cost.macros(rows)
        wanted = sum(per_element[name] * memory(*size).read_pj for name, size in sizes.items())
        assert cost.memory_pj(rows) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("unit", "cost", "longest"), [
    ("softmax", softmax, softmax.LONGEST_RECORDED), ("layer_norm", layer_norm, ROW_BEATS)])
def test_macros_are_those_of_the_netlists(unit: str, cost: Any, longest: int) -> None:
    for point in Points.read(unit).specs():
        sizes = cost.macros(point).values()
        assert sum(depth * width for depth, width in sizes) == point.memory_bits
        area = sum(memory(*size).area_um2 for size in sizes)
        assert area == pytest.approx(point.memory_um2, rel=1e-5)
        # Recorded rows are shorter than the longest, and γ and β are loaded once for a few of them;
        # the recording's ends are a few accesses in a thousand.
        length = min(longest, point.max_row // point.parallel)
        expected = 0.0
        for name, size in cost.macros(point).items():
            made = memory(*size)
            if name in ("gamma", "beta"):
                expected += (made.read_pj + made.write_pj / ROWS) / point.parallel
            else:
                beats = 1 if name in ("rows", "terms", "results") else length
                expected += (made.read_pj + made.write_pj) / (beats * point.parallel)
        assert expected == pytest.approx(point.memory_energy_density_1_pj, rel=3e-3)


def test_sources_and_names() -> None:
    technology = Technology.load("nangate45")
    assert technology.source_of("lane_dynamic") == "hwgen/units/mac_lane/ppa.csv"
    assert technology.source_of("softmax_row_memory_leakage") == "hwgen/technology/sram.yaml"
    assert technology.source_of("main_memory_access").startswith("acceltran-14nm: ")
    assert "accumulator_memory" in technology.not_priced
    with pytest.raises(ValueError, match="did you mean nangate45-to-14nm"):
        Technology.load("nangate45-to-14mn")
    assert np.isfinite(technology.block_bits)


def test_a_unit_without_points_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ppa, "complete", lambda self: self.unit not in ("softmax", "mac_lane"))
    with pytest.raises(ValueError, match="needs more synthesised points of mac_lane, softmax; "
                                         "make them with: transcode characterize mac_lane softmax"):
        SynthesisedTechnology.named("nangate45")
