"""What benchmarks/pe_area.py makes of areas and paths, without synthesis."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import pe_area  # noqa: E402
from constructions import processing_element as element  # noqa: E402

from hwgen.technology.sram import memory  # noqa: E402
from hwgen.units.stages import MACRO_BITS  # noqa: E402

SPECS = pe_area.specs()


def rows(spec, **areas):
    """Rows in which everything takes 1 µm², half of it registers, but what is named."""
    names = [*element.blocks(spec), element.JOINED, *element.AROUND,
             *(part for inside in element.parts(spec).values() for part in inside)]
    return {name: {"area_um2": str(areas.get(name, 1)), "logic_um2": str(areas.get(name, 1) / 2),
                   "memory_um2": "7", "critical_path_ns": "1.25", "critical_path_start": "a",
                   "critical_path_end": "b"} for name in names}


def test_units_are_those_of_edge_itself():
    design = pe_area.design()
    spec = SPECS["edge"]
    assert design.pes == 1
    assert spec.lane.mac_lane == design.mac_lane
    assert (spec.lane.window, spec.lane.segment_lines) == (64, 1)
    assert element.blocks(spec) == {
        "trees": 1, "lane": 16, "softmax_engine": 4, "norm_engine": 1}


@pytest.mark.parametrize("name", SPECS)
def test_every_part_can_be_made(name):
    spec = SPECS[name]
    made = element.makers(spec)
    wanted = {part for inside in element.parts(spec).values() for part in inside}
    assert wanted | set(element.blocks(spec)) == set(made)
    for block, inside in element.units(spec).items():
        assert inside.items() <= element.parts(spec)[block].items()


def test_what_connects_blocks_has_all_of_them():
    spec = SPECS["small"]
    _, make = element.makers(spec)[element.TREES]
    trees = make()
    assert [box.name for box in trees.boxes] == ["Lane", "SoftmaxEngine", "NormEngine"]
    assert [trees.text.count(f"cell \\{box.name} ") for box in trees.boxes] == [4, 2, 1]
    assert trees.macros == ()


def test_control_of_a_lane_has_its_units_and_memories_outside():
    spec = SPECS["small"]
    _, make = element.makers(spec)["lane control"]
    control = make()
    memories = {f"memory_{depth}x{width}" for depth, width in spec.lane.memories().values()}
    assert {box.name for box in control.boxes} == memories | {
        "PreSparsity", "MacLane", "Dynatran", "PostSparsity"}


def test_memories_up_to_the_limit_are_flip_flops():
    assert element.flip_flops({
        "a": (32, 64), "b": (32, 64), "c": (32, 65), "d": (8, 8)}) == {
            "memory 32x64": 2, "memory 8x8": 1}


def test_an_element_against_its_units_and_parts():
    spec = SPECS["edge"]
    found = pe_area.of_element(spec, rows(
        spec, lane=100, mac_lane=40, pre_sparsity=30, softmax_engine=50, norm_engine=60,
        trees=200, **{"memory 32x64": 5, "memory 16x64": 4, "lane control": 9}))
    assert found["area_um2"] == 16 * 100 + 4 * 50 + 60 + 200
    # Two memories of masks and one of biases in a lane, one of masks in a softmax engine.
    assert found["memory_um2"] == 16 * (2 * 5 + 1) + 4 * 4
    assert found["units_um2"] == 16 * (40 + 30 + 2) + 4 * 2 + 3
    assert found["parts_um2"] == 16 * (72 + 11 + 9) + 4 * (2 + 3 + 4) + (3 + 4) + 200
    assert found["over_units"] == pytest.approx((2060 - 192) / 1163 - 1)
    assert found["beyond_units_um2"] == {
        "trees": 200, "control": 16 * 9 + 4 + 1, "rows, expanded": 4 + 2,
        "results, compacted": 4 + 1, "blocks mapped as one": 2060 - 1715}
    assert sum(found["beyond_units_um2"].values()) == 2060 - 192 - 1163
    assert found["over_units_with_memories"] == pytest.approx(2060 / 1163 - 1)
    assert found["over_parts"] == pytest.approx(2060 / 1715 - 1)
    assert found["macros_um2"] == 7
    assert found["flat"] is found["over_flat"] is None


def test_an_element_against_itself_as_one():
    spec = SPECS["small"]
    measured = rows(spec)
    measured[element.FLAT] = {**measured[element.JOINED], "area_um2": "10"}
    found = pe_area.of_element(spec, measured)
    assert found["area_um2"] == 1 + 4 + 2 + 1
    assert found["over_flat"] == pytest.approx(-0.2)


def test_blocks_against_their_parts():
    spec = SPECS["edge"]
    found = {each["block"]: each for each in pe_area.of_blocks(spec, rows(spec, lane=16))}
    assert found["trees"]["over_parts"] == 0
    lane = found["lane"]
    names = ("count", "parts_um2", "units_um2", "memory_um2")
    assert [lane[name] for name in names] == [16, 8, 4, 3]
    assert lane["over_parts"] == 1
    assert lane["register_um2"] == 8


def test_every_memory_is_listed():
    found = pe_area.memories(SPECS["edge"])
    lane = {each["memory"]: each for each in found if each["block"] == "lane"}
    assert set(lane) == set(SPECS["edge"].lane.memories())
    assert lane["left_values"]["count"] == 16
    assert lane["left_values"]["macro_um2"] == memory(32, 1280).area_um2
    assert all(each["macro"] == (each["depth"] * each["width"] > MACRO_BITS) for each in found)
    assert any(each["memory"].startswith("layer_norm's") for each in found)


def test_joined_netlists_change_with_each_of_them():
    class Made:
        def __init__(self, sha256):
            self.sha256 = sha256

    first, second = Made("a"), Made("b")
    found = {element.Joined(whole, blocks).sha256 for whole, blocks in (
        (first, (second,)), (second, (first,)), (first, (second, second)))}
    assert len(found) == 3


def test_committed_points_are_complete_and_print(capsys):
    measured = pe_area.read(pe_area.POINTS)
    assert list(measured) == [name for name, *_ in pe_area.all_components()]
    found = {name: pe_area.report(measured, name, spec) for name, spec in SPECS.items()}
    small, edge = (found[name]["element"] for name in ("small", "edge"))
    assert abs(small["over_flat"]) < 0.05
    # The macros of the joined netlists are the memories of the specs.
    for name in SPECS:
        listed = sum(each["count"] * each["macro_um2"] for each in found[name]["memories"]
                     if each["macro"])
        assert found[name]["element"]["macros_um2"] == pytest.approx(listed, rel=1e-4)
    # Buffers that isolate blocks are in the joined netlists only.
    assert 0 <= edge["joined"]["area_um2"] / edge["area_um2"] - 1 < 0.005
    for name, each in found.items():
        pe_area.show(name, each)
    text = capsys.readouterr().out
    assert "Processing element of edge" in text
    assert json.loads(json.dumps(found)) == found


def test_figure_shows_parts_and_memories():
    measured = pe_area.read(pe_area.POINTS)
    svg = pe_area.figure(pe_area.report(measured, "edge", SPECS["edge"]))
    assert svg == pe_area.FIGURE.read_text(encoding="utf-8")
    for name in ("mac_lane", "trees", "left values", "memories of flip-flops", "norm engine"):
        assert f">{name}<" in svg
