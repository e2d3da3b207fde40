"""Accelerator designs: files, defaults, errors, populations and spaces."""

import itertools
import json
import pickle
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hwgen.design import LOOP_ORDERS, AcceleratorDesign, DesignBatch
from hwgen.design_space import DesignSpace

PUBLISHED = Path(__file__).parent / "published_accelerators.json"


@pytest.fixture
def edge() -> AcceleratorDesign:
    return AcceleratorDesign.load("edge")


def changed(**values: Any) -> dict[str, Any]:
    published = {
        name: value
        for name, value in AcceleratorDesign.load("edge").model_dump().items()
        if name not in {"k_segment", "window", "fifo_depth"}
    }
    published["memory"] = {"type": "dram", "banks": 32, "ranks": 2, "channels": 1}
    return {**published, **values}


def test_edge_derives_its_units(edge: AcceleratorDesign) -> None:
    assert (edge.bits, edge.accumulator_bits, edge.lanes) == (20, 52, 1024)
    assert (edge.k_segment, edge.window, edge.fifo_depth) == (64, 64, 16)
    assert edge.memory_bits_per_cycle == Fraction(2048, 7)
    assert edge.buffer_bits_per_cycle == Fraction(29600, 7)
    assert edge.memory.latency_cycles == 36  # 51 ns at 700 MHz
    assert (edge.mac_lane.macs, edge.mac_lane.accumulator_bits) == (16, 52)
    assert (edge.softmax.parallel, edge.softmax.max_row) == (16, 512)
    assert (edge.post_sparsity.word, edge.post_sparsity.mask_word) == (16, 16)
    assert (edge.pre_sparsity.window, edge.pre_sparsity.fifo_depth) == (64, 16)
    assert (edge.dynatran.parallel, edge.layer_norm.parallel, edge.residual_add.parallel) == (
        16,
    ) * 3


def test_the_units_of_a_design(edge: AcceleratorDesign) -> None:
    specs = edge.unit_specs
    assert all(getattr(edge, name) == spec for name, spec in specs.items())
    assert (edge.fifo.bits, edge.fifo.depth) == (40, 16)
    trained = AcceleratorDesign.load(changed(stochastic_rounding=True))
    rounding = trained.unit_specs["stochastic_rounding"]
    assert (rounding.accumulator_bits, rounding.bits, rounding.noise_bits) == (52, 20, 16)
    lane = replace(specs["mac_lane"], noise_bits=16)
    assert {**specs, "mac_lane": lane, "stochastic_rounding": rounding} == trained.unit_specs
    tiny = AcceleratorDesign.load(changed(macs_per_lane=1, window=1, fifo_depth=2, k_segment=16))
    assert tiny.fifo.depth == 4
    narrow = AcceleratorDesign.load(changed(tile_x=4, tile_y=8))
    assert (narrow.piece, narrow.dynatran.parallel) == (4, 8)
    assert (narrow.post_sparsity.word, narrow.post_sparsity.mask_word) == (4, 4)
    designs = DesignBatch.of([edge, tiny, narrow])
    assert designs.piece.tolist() == [16, 1, 4] == designs.post_sparsity.word.tolist()


@pytest.mark.parametrize(
    ("kind", "rate", "latency_cycles", "background_power_mw"),
    [
        ("dram", Fraction(2048, 7), 36, 177.6),
        ("rram", Fraction(20480, 7), 18, None),
        ("hbm", Fraction(20480, 7), 30, 1056),
    ],
)
def test_main_memories_are_those_of_the_page(
    kind: str, rate: Fraction, latency_cycles: int, background_power_mw: float | None
) -> None:
    memory = {"type": kind, "banks": 32, "ranks": 2, "channels": 1}
    design = AcceleratorDesign.load(changed(memory=memory))
    assert design.memory_bits_per_cycle == rate
    assert design.memory.latency_cycles == latency_cycles
    assert design.memory.background_power_mw == background_power_mw


def test_defaults_follow_the_fields_that_are_given() -> None:
    design = AcceleratorDesign.load(changed(macs_per_lane=1, tile_y=32, clock_mhz=350.0))
    assert (design.k_segment, design.window, design.fifo_depth) == (32, 4, 2)
    assert design.memory.latency_cycles == 18
    assert design.memory_bits_per_cycle == Fraction(4096, 7)
    assert AcceleratorDesign.load(changed(k_max=4097)).accumulator_bits == 53


def test_a_design_survives_its_file(edge: AcceleratorDesign, tmp_path: Path) -> None:
    edge.save(tmp_path / "mine.yaml")
    assert AcceleratorDesign.load(tmp_path / "mine.yaml") == edge
    (tmp_path / "mine.json").write_text(json.dumps(changed()))
    assert AcceleratorDesign.load(str(tmp_path / "mine.json")) == edge
    assert AcceleratorDesign.load(edge) is edge


def test_published_accelerators_load_as_they_stand() -> None:
    for pair in json.loads(PUBLISHED.read_text())["accelerators"]:
        design = AcceleratorDesign.load(pair["accelerator"])
        assert design.pes == pair["accelerator"]["pes"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile_c": 1}, "unknown key 'tile_c' in AcceleratorDesign; did you mean tile_"),
        ({"pes": 0}, "pes: Input should be greater than or equal to 1, not 0"),
        ({"pes": "64"}, "pes: Input should be a valid integer, not '64'"),
        ({"loop_order": "bikk"}, "loop_order must be a permutation of b, i, j and k, not 'bikk'"),
        ({"tile_y": 12}, "tile_y must be a power of two, not 12"),
        ({"macs_per_lane": 12}, "macs must be a power of two from 1 to 64, not 12"),
        ({"k_segment": 40}, "k_segment must be a multiple of macs_per_lane = 16, not 40"),
        ({"integer_bits": 20}, "bits must be a whole number from 4 to 24, not 36"),
        ({"memory": {"type": "ddr4", "banks": 1, "ranks": 1, "channels": 1}}, "memory.type"),
        ({"window": 8}, "window must be at least macs = 16, not 8"),
    ],
)
def test_errors_name_key_value_and_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        AcceleratorDesign.load(changed(**values))
    assert message in str(error.value)


def test_unknown_names_and_files() -> None:
    with pytest.raises(ValueError, match="did you mean edge"):
        AcceleratorDesign.load("egde")
    with pytest.raises(FileNotFoundError, match="nowhere.yaml does not exist"):
        AcceleratorDesign.load("nowhere.yaml")


def test_yaml_is_loaded_safely(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match="not valid YAML"):
        AcceleratorDesign.load(tmp_path / "evil.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="a mapping of keys, not list"):
        AcceleratorDesign.load(tmp_path / "list.yaml")


def test_published_spaces_have_their_published_size() -> None:
    space = DesignSpace.load("published")
    assert len(space) == 356_400_000
    assert LOOP_ORDERS == tuple("".join(order) for order in itertools.permutations("bijk"))
    one = DesignSpace.load(
        {**space.model_dump(), "loop_order": ("bijk",), "nonlinearity": ("gelu",)}
    )
    assert len(one) == 7_425_000


def test_a_batch_holds_what_its_designs_hold(edge: AcceleratorDesign) -> None:
    designs = [edge, AcceleratorDesign.load("server"), AcceleratorDesign.load(changed(k_max=1000))]
    batch = DesignBatch.of(designs)
    assert [batch.design(index) for index in range(3)] == designs
    for index, design in enumerate(designs):
        for unit, spec in design.unit_specs.items():
            arrays = getattr(batch, unit)
            for name in type(spec).__dataclass_fields__:
                assert np.broadcast_to(getattr(arrays, name), 3)[index] == getattr(spec, name)
        rate = design.memory_bits_per_cycle
        assert batch.memory_rate_numerator[index] == rate.numerator
        assert batch.memory_rate_denominator[index] == rate.denominator
        assert batch.buffer_rate_numerator[index] == design.buffer_bits_per_cycle.numerator
    assert pickle.loads(pickle.dumps(batch)).pes.tolist() == batch.pes.tolist()
    assert len(batch.take(np.asarray([2, 0]))) == 2


@pytest.mark.parametrize(("designs", "message"), [([], "at least one"), ("edge", "put one design")])
def test_a_batch_refuses(designs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DesignBatch.of(designs)


@pytest.mark.parametrize("name", ["published", "simulable"])
def test_a_sample_equals_its_designs_one_by_one(name: str) -> None:
    space = DesignSpace.load(name)
    batch = space.sample(50, np.random.default_rng(7))
    again = DesignBatch.of([batch.design(index) for index in range(50)])
    for field, values in again.fields.items():
        assert np.array_equal(values, batch.fields[field], equal_nan=values.dtype.kind == "f"), (
            field
        )
    same = space.sample(50, np.random.default_rng(7))
    assert np.array_equal(same.pes, batch.pes)


def test_enumeration_meets_every_design_once() -> None:
    options = DesignSpace.load("simulable").model_dump()
    small = {
        **{name: values[:1] for name, values in options.items()},
        "pes": (1, 2, 4),
        "loop_order": ("bijk", "kbij"),
    }
    space = DesignSpace.load(small)
    met = [(int(b.pes[i]), str(b.loop_order[i])) for b in space.enumerate(4) for i in range(len(b))]
    assert met == list(itertools.product((1, 2, 4), ("bijk", "kbij")))


def test_space_errors(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"pess": [1]}))
    with pytest.raises(ValueError, match="did you mean pes"):
        DesignSpace.load(tmp_path / "space.yaml")
    with pytest.raises(
        ValueError, match="unknown accelerator space 'publishd'; did you mean published"
    ):
        DesignSpace.load("publishd")
