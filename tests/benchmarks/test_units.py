"""What benchmarks/units.py makes of areas and paths, without synthesis."""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from hwgen.units.pre_sparsity.cost import periods
from hwgen.units.registry import RTL_UNITS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
# By a name of its own: the proofs have a module `units`, too.
_found = spec_from_file_location("benchmark_of_units", BENCHMARKS / "units.py")
assert _found is not None and _found.loader is not None
units = sys.modules[_found.name] = module_from_spec(_found)
_found.loader.exec_module(units)
constructions = sys.modules[units.read.__module__]
Figures = units.Figures


def row(area: float, delay: float, **further: float | str) -> dict[str, str]:
    return {"area_um2": str(area), "critical_path_ns": str(delay),
            **{name: str(value) for name, value in further.items()}}


def test_throughput_is_that_of_the_clock_or_of_a_slower_path() -> None:
    # 16 operations in 1.429 ns on 0.02 mm².
    assert Figures(20_000, 1.0).throughput(16) == pytest.approx(16 / 1.429e-9 / 0.02)
    assert Figures(20_000, 1.429).throughput(16) == Figures(20_000, 0.1).throughput(16)
    assert Figures(20_000, 2.0).throughput(16) == pytest.approx(16 / 2e-9 / 0.02)


def test_parts_add_up_and_the_slowest_counts() -> None:
    assert units.together([row(10, 1.2), row(5.5, 1.3), row(2, 0.4)]) == Figures(17.5, 1.3)


def test_layer_norm_scales_as_many_elements_as_come_at_once() -> None:
    parts = units.PARTS["layer_norm"]
    assert parts.count("layer_norm scale of an element") == 16 == len(parts) - 2


def test_nothing_is_added_to_what_is_not_known() -> None:
    assert units.added(1.5, 2.0) == 3.5
    assert units.added(1.5, None) is None


@pytest.mark.parametrize(("relation", "met"), [("≤", (True, True, False)),
                                               ("<", (True, False, False)),
                                               (">", (False, False, True))])
def test_target(relation: str, met: tuple[bool, bool, bool]) -> None:
    for value, expected in zip((1.0, 1.15, 1.2), met, strict=True):
        assert units.target("ratio", value, relation, 1.15)["met"] is expected
    assert units.target("ratio", None, relation, 1.15)["met"] is None


def unit(area: float | None, delay: float | None = 1.0, bound: float | None = None
         ) -> dict[str, float | None]:
    return {"area_um2": area, "critical_path_ns": delay,
            "area_over_bound": area / bound if area and bound else None}


def test_lane_targets() -> None:
    found = units.lane_targets({
        "mac_lane": unit(46_000, 1.35, 40_000), "dynatran": unit(5_000),
        "post_sparsity": unit(6_270)}, Figures(48_000, 0.7), Figures(42_000, 1.4))
    assert [(each["value"], each["limit"], each["met"]) for each in found] == [
        (1.15, 1.15, True),
        (1.35, 1.429, True),
        (pytest.approx(48 / 42), 1.15, True),
        (0.7, 1.429, True),
        (48_000, 76_800, True),
        # 1 / (1.429 ns · 48,000 µm²) over 1 / (2.33 ns · 47,102 µm²)
        (pytest.approx(2.33 * 47_102 / (1.429 * 48_000)), 1, True),
        (0.245, 0.25, True),
    ]


def test_lane_targets_that_are_missed() -> None:
    found = list(units.lane_targets({
        "mac_lane": unit(75_000, 1.43, 60_000), "dynatran": unit(10_000),
        "post_sparsity": unit(8_750)}, Figures(77_000, 2.4), Figures(60_000, 1.4)))
    assert [each["met"] for each in found] == [False] * 7
    assert found[5]["value"] == pytest.approx(2.33 * 47_102 / (2.4 * 77_000))
    assert found[6]["value"] == 0.25


def test_the_largest_lane_that_is_allowed_is_level_with_the_published_one() -> None:
    ratio = Figures(units.LANE_LIMIT_UM2, 1.0).throughput(1) / (
        Figures(units.PUBLISHED_LANE_UM2, units.PUBLISHED_LANE_NS).throughput(1))
    assert ratio == pytest.approx(1, abs=5e-4)


def test_targets_of_units_without_figures_are_not_known() -> None:
    nothing = unit(None, None)
    found = units.lane_targets(dict.fromkeys(
        ("mac_lane", "dynatran", "post_sparsity"), nothing), None, Figures(1, 1))
    assert [each["met"] for each in found] == [None] * 7


def test_dividers_are_counted_without_their_register() -> None:
    measured = {units.divider(kind, clock): row(9e9, delay, logic_um2=area)
                for kind, clock, area, delay in (
                    ("ripple", 100_000, 5_000, 60), ("ripple", 1_429, 6_250, 58),
                    ("operator", 100_000, 6_500, 16), ("operator", 1_429, 10_000, 1.4))}
    found = list(units.divider_targets({"area_um2": 100_000}, measured))
    assert [(each["limit"], each["met"]) for each in found] == [
        (80_000, False), (100_000, False), (104_000, True), (160_000, True)]
    assert "36/20-bit" in found[0]["what"]
    assert "no clock: 60.0 ns" in found[0]["what"]
    assert "aimed at 1,429 ps, missed: 58.0 ns" in found[1]["what"]
    assert "aimed at 1,429 ps: 1.4 ns" in found[3]["what"]


def test_steps_from_the_bound_to_the_lane() -> None:
    measured = {name: row(area, 1) for name, area in zip(
        units.LANE_STEPS.values(), (40_000, 40_300, 43_000), strict=True)}
    found = units.lane_steps({"area_um2": 45_000}, measured)
    assert [each["added_um2"] for each in found] == [40_000, 300, 2_700, 2_000]
    assert found[-1]["area_um2"] == 45_000
    assert len(units.lane_steps({"area_um2": None}, measured)) == 3


@pytest.mark.parametrize("name", [name for name in RTL_UNITS if name != "pre_sparsity"])
def test_a_beat_a_cycle(name: str) -> None:
    assert units.initiation_interval(name, units.points(name)[0]) == 1


def test_mean_interval_of_pre_sparsity() -> None:
    spec = units.points("pre_sparsity")[0]
    counts = np.random.default_rng(0).binomial(spec.window, 0.25, (20_000, 4))
    drawn = periods(spec, counts) / 4
    error = drawn.std() / len(drawn) ** 0.5
    interval = units.initiation_interval("pre_sparsity", spec)
    assert abs(interval - drawn.mean()) < 3 * error
    assert error < 0.003


@pytest.mark.parametrize(("name", "operations"), [
    ("mac_lane", 16), ("pre_sparsity", 64), ("softmax", 16), ("dynatran", 16), ("fifo", 1),
    ("post_sparsity", 1)])
def test_operations_of_a_beat(name: str, operations: int) -> None:
    assert units.operations_per_beat(units.points(name)[0]) == operations


def test_a_row_is_found_by_all_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "unit_folder", lambda name: tmp_path / name)
    spec = units.points("fifo")[0]
    assert units.unit_row("fifo", spec) is None
    (tmp_path / "fifo").mkdir()
    (tmp_path / "fifo" / "ppa.csv").write_text(
        f"bits,depth,area_um2\n{spec.bits},4,1\n8,{spec.depth},2\n{spec.bits},{spec.depth},3\n")
    assert units.unit_row("fifo", spec) == {
        "bits": str(spec.bits), "depth": str(spec.depth), "area_um2": "3"}
    (tmp_path / "fifo" / "ppa.csv").write_text("bits,depth,area_um2\n8,4,1\n")
    assert units.unit_row("fifo", spec) is None


def test_committed_points_are_complete_and_print(capsys: pytest.CaptureFixture[str]) -> None:
    measured = units.read(units.POINTS)
    assert list(measured) == [name for name, *_ in units.components()]
    assert set(measured) == set(units.needed())
    for name, _, clock_ps, _ in units.components():
        assert measured[name]["clock_target_ps"] == str(clock_ps)
        # Bounds are at the clock of the units; no divider is.
        assert (float(measured[name]["critical_path_ns"]) <= 1.429) != name.startswith("divider")
    found = units.report(measured)
    assert [each["unit"] for each in found["units"]] == list(RTL_UNITS)
    assert found["published_lane"]["results_per_s_mm2"] == pytest.approx(9.112e9, rel=1e-4)
    units.show(found)
    text = capsys.readouterr().out
    assert "| mac_lane |" in text
    assert json.loads(json.dumps(found)) == found


def test_only_what_has_changed_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                 ) -> None:
    from hwgen.technology.flow import ppa, synthesis

    made = []
    path = tmp_path / "units.csv"
    versions = {"a": "1", "b": "1"}

    def measure(name: str, clock_ps: int) -> dict[str, str]:
        made.append((name, clock_ps))
        return {"area_um2": "1", "logic_um2": "1", "critical_path_ns": "1",
                "full_adder_cells": "yes"}

    def origin(name: str, clock_ps: int) -> dict[str, str]:
        return {"clock_target_ps": str(clock_ps), "library": "not kept", "library_sha256": "x",
                "rtl_sha256": versions[name], "tools": "y"}

    monkeypatch.setattr(synthesis, "elaborate", lambda component, name: component)
    monkeypatch.setattr(ppa, "origin", origin)
    monkeypatch.setattr(constructions, "_measure", measure)

    def refresh() -> None:
        constructions.refresh(path, [
            (name, "spec", 1429, lambda name=name: name) for name in versions])

    refresh()
    assert made == [("a", 1429), ("b", 1429)]
    versions["b"] = "2"
    refresh()
    assert made[2:] == [("b", 1429)]
    # What is new comes to its place, what is gone goes.
    versions["c"] = versions.pop("b")
    versions["b"] = "2"
    versions.pop("a")
    refresh()
    assert made[3:] == [("c", 1429)]
    assert [(name, row["rtl_sha256"]) for name, row in units.read(path).items()] == [
        ("c", "2"), ("b", "2")]
