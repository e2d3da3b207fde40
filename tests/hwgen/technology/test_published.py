"""Published constants: areas equal to the published ones, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from hwgen.design import AcceleratorDesign, DesignBatch
from hwgen.technology.constants import Technology
from hwgen.technology.published import PRICED_BLOCKS

PUBLISHED = Path(__file__).parents[1] / "published_accelerators.json"
CONSTANTS = Path(__file__).parents[4] / "shared" / "data" / "acceltran_constants_14nm.yaml"


@pytest.fixture
def technology() -> Technology:
    return Technology.load("acceltran-14nm")


def edge(**changes: object) -> AcceleratorDesign:
    return AcceleratorDesign.load("edge").model_copy(update=changes)


def area_mm2(technology: Technology, *designs: AcceleratorDesign) -> np.ndarray:
    return sum(technology.area_um2(DesignBatch.of(designs)).values()) * 1e-6


@pytest.mark.golden
def test_areas_of_the_named_designs(technology: Technology) -> None:
    server = AcceleratorDesign.load("server")
    found = area_mm2(technology, edge(), edge(stochastic_rounding=True), server)
    assert found == pytest.approx([54.0643, 54.1452, 1829.6963], rel=2e-6)


@pytest.mark.golden
def test_areas_of_all_published_pairs(technology: Technology) -> None:
    pairs = json.loads(PUBLISHED.read_text())["accelerators"]
    designs = DesignBatch.of([pair["accelerator"] for pair in pairs])
    found = sum(technology.area_um2(designs).values()) * 1e-6
    assert sum(pair["pairs"] for pair in pairs) == 64
    assert found == pytest.approx([pair["area_mm2"] for pair in pairs], rel=1e-6)


def test_every_figure_is_a_number(technology: Technology) -> None:
    designs = DesignBatch.of(
        [
            edge(nonlinearity=name, tile_x=tile, tile_y=tile, **lane)
            for name in ("relu", "gelu")
            for tile in (8, 16, 32)
            for lane in ({"macs_per_lane": 1}, {"macs_per_lane": 16})
        ]
    )
    for block in PRICED_BLOCKS:
        figures = technology.figures(block, designs)
        for values in (figures.area_um2, figures.dynamic_pj, figures.leakage_mw):
            assert np.all(values > 0)


def test_a_cycle_costs_its_power_at_the_published_clock(technology: Technology) -> None:
    one = DesignBatch.of([edge(), edge(clock_mhz=350.0)])
    assert technology.figures("dataflow", one).dynamic_pj == pytest.approx(11.3711 / 0.7)
    assert technology.figures("lane", one).dynamic_pj == pytest.approx(5.1955 / 0.7)
    assert technology.buffer_block_pj("weight", one) == pytest.approx(85.6588 * 8**0.5)
    assert technology.main_memory_block_pj(one) == pytest.approx(13437.77522)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fraction_bits": 12}, "integer_bits \\+ fraction_bits = 20 only, not 16"),
        ({"macs_per_lane": 4}, "macs_per_lane = 1, 16 only, not 4"),
        ({"tile_y": 4}, "tile_y = 8, 16, 32 only, not 4"),
        ({"tile_x": 8}, "tile_x = tile_y only, not 8 x 16"),
        (
            {"memory": {"type": "hbm", "banks": 32, "ranks": 2, "channels": 4}},
            "hbm of banks/ranks/channels 32/2/4 .design 1.; it has 32/1/4",
        ),
    ],
)
def test_refuses_what_it_has_no_figures_for(
    technology: Technology, changes: dict[str, object], message: str
) -> None:
    plain = edge().model_dump(exclude={"window", "fifo_depth", "k_segment"})
    with pytest.raises(ValueError, match=message):
        technology.area_um2(DesignBatch.of([edge(), plain | changes]))


def test_unknown_technology_names_the_known() -> None:
    with pytest.raises(ValueError, match="did you mean acceltran-14nm"):
        Technology.load("acceltran-15nm")


def test_source_and_extrapolation_are_named(technology: Technology) -> None:
    assert "jha-lab/acceltran" in technology.source and "BSD-3-Clause" in technology.source
    assert any("tile 32" in note and "extrapolated" in note for note in technology.notes)


def numbers(tree: object) -> list[float]:
    if isinstance(tree, dict):
        return [number for branch in tree.values() for number in numbers(branch)]
    return [float(tree)] if isinstance(tree, int | float) else []


@pytest.mark.golden
def test_no_figure_was_changed(technology: Technology) -> None:
    # Small figures hardly change a sum, large ones hardly change that of inverse squares.
    figures = numbers({key: value for key, value in technology.table.items() if key != "notes"})
    assert len(figures) == 71
    assert sum(figures) == pytest.approx(1886020.0187868173, rel=1e-12)
    assert sum(figure**-2 for figure in figures) == pytest.approx(99120.73823251684, rel=1e-9)


@pytest.mark.golden
@pytest.mark.skipif(not CONSTANTS.exists(), reason="published constants are not here")
def test_figures_are_the_published_ones(technology: Technology) -> None:
    published = yaml.safe_load(CONSTANTS.read_text())
    table = technology.table

    def same(mine: dict[str, float], theirs: dict[str, float]) -> None:
        assert list(mine.values()) == [theirs["area"], theirs["dynamic"], theirs["leakage"]]

    for macs, by_name in table["lane"].items():
        for name, figures in by_name.items():
            same(figures, published["lane"][f"mac_per_lane_{macs}"][name])
    for block, figures in table["block"].items():
        same(figures, published[block])
    for module, by_tile in table["tile_module"].items():
        for tile, figures in by_tile.items():
            same(figures, published[module][f"tile_{tile}"])
    for buffer, figures in table["buffer"].items():
        theirs = published[f"{buffer}_buffer"]
        assert list(figures.values()) == [theirs["area"], theirs["energy"], theirs["leakage"]]
    mine = {
        f"{kind}_{organisation.replace('/', '_')}": energy
        for kind, organisations in table["main_memory_block_nj"].items()
        for organisation, energy in organisations.items()
    }
    assert mine == published["main_memory"]["energy"]
