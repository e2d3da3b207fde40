"""What benchmarks/pe.py counts, on a few products and designs, and that its tables say so."""

import copy
import io
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import pe  # noqa: E402
from constructions.points import read  # noqa: E402
from processing_element import areas, products, tables  # noqa: E402
from rich.console import Console  # noqa: E402

from hwgen.technology.sram import memory  # noqa: E402
from hwgen.units.accelerator import cost as accelerator  # noqa: E402
from hwgen.units.accelerator.spec import AcceleratorSpec  # noqa: E402
from hwgen.units.lane import cost as lane  # noqa: E402

POINTS = {**read(pe.OTHER_POINTS), **read(pe.POINTS)}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return pe.report(pe.QUICK, POINTS)


@pytest.fixture(scope="module")
def listed() -> list[products.Product]:
    return products.products(pe.QUICK.models, pe.QUICK.sequence_length)


def printed(found: dict[str, Any], module: ModuleType = tables) -> str:
    buffer = io.StringIO()
    module.show(found, module.Printer(Console(file=buffer, width=module.WIDTH)))
    return buffer.getvalue()


def test_the_products_are_those_of_the_layers(listed: list[products.Product]) -> None:
    assert {one.extents: one.times("bert-tiny") for one in listed} == {
        (1, 128, 128, 128): 8, (2, 128, 128, 64): 2, (2, 128, 64, 128): 2,
        (1, 128, 512, 128): 2, (1, 128, 128, 512): 2}
    both = products.products(("bert-tiny", "bert-mini"), 128)
    assert sum(one.times("bert-mini") for one in both) == 4 * 8


def test_the_designs_can_be_built() -> None:
    for design in pe.designs(pe.Scope()):
        assert AcceleratorSpec.of(design).lane == areas.lane_spec(design)


def test_pairs_are_those_of_the_masks(listed: list[products.Product]) -> None:
    runs = products.Runs(seed=3, recordings=2)
    design = products.processing_element(window=32, k_segment=64)
    for product in listed[:3]:
        for densities in pe.SPARSE.values():
            counted = 0
            for recording in range(2):
                left, right = products.masks(product, densities, 3, recording)
                right = np.broadcast_to(right, (len(left), *right.shape[-2:]))
                # A pair is a position k at which an element of each operand is not zero.
                counted += int((left.sum(axis=1) * right.sum(axis=2)).sum())
            assert runs.run(design, product, densities).pairs == counted / 2


def test_a_dense_product_takes_what_its_waves_take(listed: list[products.Product]) -> None:
    runs = products.Runs(seed=1, recordings=1)
    design = products.processing_element()
    constant = accelerator.step_constant(1, 16, design.softmax_per_pe)
    for product in listed:
        b, i, j, k = product.extents
        waves, segments = b * i * j // 256 // 16 * k // 64, k // 64
        fixed = (segments - 1) * lane.cycles(design, 0, 0) + lane.cycles(design, 0, 1)
        run = runs.run(design, product, products.DENSE)
        # Each of a tile's 256 dot products takes a beat for 16 elements.
        assert run.lane_cycles == waves * 256 * 64 // 16 + waves // segments * fixed
        assert run.pairs == math.prod(product.extents)
        assert run.expected_cycles == run.cycles
        assert run.losses["step constant"] == (waves + 3) * constant
        assert run.losses["too few pairs"] == run.losses["slowest lane"] == 0


def test_no_more_is_done_than_multipliers_can(found: dict[str, Any]) -> None:
    for design in found["designs"]:
        for one in design["products"]:
            for densities, value in one["densities"].items():
                assert 0 < value["share"] < value["lane_share"] <= 1
                assert math.fsum(value["losses"].values()) == pytest.approx(value["cycles"])
                assert min(value["losses"].values()) >= 0
                assert value["cycles"] == pytest.approx(value["expected_cycles"], rel=0.1)
                left, right = pe.DENSITIES[densities]
                # A dense PE that never waits does all pairs in share / densities of the time.
                assert value["speed_up_over_never_waiting"] == pytest.approx(
                    value["share"] / (left * right), rel=0.02)
                if densities == "1.0 × 1.0":
                    assert value["speed_up"] == 1


def test_a_segment_longer_than_the_dot_product_is_as_long(listed: list[products.Product]) -> None:
    runs = products.Runs(seed=1, recordings=1)
    longer, own = (products.processing_element(window=64, k_segment=k, fifo_depth=32)
                   for k in (1024, 128))
    for product in listed:
        if product.length <= 128:
            fresh = products.Runs(seed=1, recordings=1).run(longer, product, (0.5, 0.5))
            assert runs.run(own, product, (0.5, 0.5)) == fresh


def test_targets_name_the_worst_product(found: dict[str, Any]) -> None:
    for target in found["targets"]:
        design = found["picked"][target["design"]]
        key = "share" if target["what"] == "dense share" else "speed_up"
        densities = "1.0 × 1.0" if key == "share" else target["what"].removeprefix("speed-up at ")
        values = [one["densities"][densities][key] for one in design["products"]
                  if one["length"] >= pe.LONG]
        assert target["value"] == min(values)
        assert target["met"] == (target["value"] >= target["limit"])
    assert pe.meets({"share": 0.9, "speed_up": {"0.5 × 0.5": 2.3, "0.5 × 1.0": 1.6}})
    assert not pe.meets({"share": 0.9, "speed_up": {"0.5 × 0.5": 2.3, "0.5 × 1.0": 1.59}})


def test_areas_are_those_of_the_points_and_macros() -> None:
    design = products.processing_element(window=128, k_segment=256)
    area = areas.lane_area(design, POINTS)
    assert area.pre_sparsity == float(POINTS["pre_sparsity 128 32"]["area_um2"])
    values, masks = memory(64, 128 * 20).area_um2, memory(64, 128).area_um2
    assert area.operand_memories == pytest.approx(2 * (values + masks))
    assert area.total == pytest.approx(area.pre_sparsity + area.other_logic
                                       + area.operand_memories + area.other_memories)
    unknown = areas.lane_area(products.processing_element(window=256, k_segment=256), POINTS)
    assert unknown.pre_sparsity is None and unknown.total is None


def test_committed_points_are_complete() -> None:
    names = [name for name, *_ in areas.components(products.processing_element())]
    assert list(read(pe.POINTS)) == names


def test_tables_print_what_was_found(found: dict[str, Any]) -> None:
    text = printed(found)
    default = found["picked"]["default"]
    assert f"| 4×M    | {default['k_segment']} " in text
    for design in found["designs"]:
        if not design["fifo_doubled"]:
            assert f"{design['lane_um2']:,.0f}" in text
            for name in pe.SPARSE:
                assert f"| {design['least']['speed_up'][name]:.2f} " in text
    for remedy in found["remedies"]:
        assert remedy["what"] in text
    changed = copy.deepcopy(found)
    changed["targets"][0]["value"] = 0.1234
    changed["simulators"] = [
        {"simulator": "verilator", "version": "5.0", "first_run_seconds": 1.5,
         "simulated_cycles": 4321, "seconds": 2.0, "cycles_per_second": 2160.5},
        {"simulator": "icarus", "missing": "install it"}]
    again = printed(changed)
    assert "0.123" in again and "0.123 " not in text
    assert "4,321" in again and "2,160" in again and "install it" in again


def test_the_picture_is_an_svg_of_both_densities(found: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    from processing_element.picture import speed_up_picture

    svg = speed_up_picture(found)
    assert svg.startswith("<?xml") and all(f"densities {name}" in svg for name in pe.SPARSE)
    assert speed_up_picture(found) == svg


@pytest.mark.rtl
@pytest.mark.slow
def test_a_simulator_runs_the_small_accelerator(simulator: str) -> None:
    from processing_element.simulation import simulated_speeds

    (row,) = simulated_speeds([simulator], seed=1, repeats=1)
    # Results and cycles are checked there.
    assert row["simulated_cycles"] > row["program_cycles"] > 0
    assert row["cycles_per_second"] == pytest.approx(row["simulated_cycles"] / row["seconds"])
