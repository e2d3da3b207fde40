"""What benchmarks/sparsity.py makes of its points, without synthesis."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import sparsity  # noqa: E402
from constructions.points import read  # noqa: E402

from hwgen.design import AcceleratorDesign  # noqa: E402
from hwgen.technology.flow.points import points  # noqa: E402
from hwgen.technology.flow.ppa import ppa_table  # noqa: E402
from hwgen.units.pre_sparsity.spec import PreSparsitySpec  # noqa: E402

EDGE = AcceleratorDesign.load("edge")


def test_committed_points_are_complete_and_print(capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(sparsity.POINTS)
    assert list(rows) == [name for name, *_ in sparsity.components(EDGE)]
    areas = {name: float(row["area_um2"]) for name, row in rows.items()}
    sparsity.windows(EDGE, areas)
    sparsity.constructions(EDGE, areas, {
        name: float(row["critical_path_ns"]) for name, row in rows.items()})
    text = capsys.readouterr().out
    assert "| 0.5 × 0.5 | 4×M |" in text
    assert "| shared decompressor | 4×M |" in text


def test_units_are_as_large_as_in_their_own_tables() -> None:
    rows = read(sparsity.POINTS)
    named = {unit: (unit, points(unit)[0]) for unit in ("mac_lane", "dynatran", "post_sparsity")}
    for spec in (PreSparsitySpec(16, 20, 64, 16), PreSparsitySpec(16, 20, 32, 32)):
        named[sparsity.named("pre_sparsity", spec)] = "pre_sparsity", spec
    for name, (unit, spec) in named.items():
        own = ppa_table(unit).find(spec)
        assert own is not None
        # Cells are mapped in an order that hangs on the name of the whole.
        assert float(rows[name]["area_um2"]) == pytest.approx(float(own["area_um2"]), rel=0.01)


def test_sparsity_adds_its_modules_and_a_share_of_what_lanes_share() -> None:
    spec = PreSparsitySpec(16, 20, 64, 32)
    areas = {"dynatran": 100.0, "post_sparsity": 30.0, "pre_sparsity 64 32": 5000.0,
             "dense_gather 64 32": 4000.0, "decompressor 64": 800.0}
    assert sparsity.sparsity_area(areas, spec, 16, "pre_sparsity") == 5130
    assert sparsity.sparsity_area(areas, spec, 16, "dense_gather") == 4130 + 2 * 800 / 16


def test_a_dense_product_gains_nothing() -> None:
    spec = PreSparsitySpec(16, 20, 64, 16)
    assert sparsity.Product(64, (1.0, 1.0)).speed_up(spec) == pytest.approx(1)
    # Without pairs each window of four beats takes the one cycle of its empty beat.
    assert sparsity.Product(64, (1e-9, 1e-9)).speed_up(spec) == pytest.approx(4)
