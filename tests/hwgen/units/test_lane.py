"""A lane in Amaranth's simulator against its units' golden models, and against its cycles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator
from lane_bench import Bench, Product, expected_cycles, expected_values, lane_spec, random_tile

from hwgen.lib.memory import SynchronousMemory
from hwgen.units.lane import rtl
from hwgen.units.lane.cost import cycles
from hwgen.units.lane.golden import tile_seed
from hwgen.units.lane.rtl import Lane
from hwgen.units.mac_lane.golden import RELU

Check = Callable[[Product], None]


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> list[SynchronousMemory]:
    """The memories of the lane that is elaborated, in the order of `LaneSpec.memories`."""
    made: list[SynchronousMemory] = []

    def make(*arguments: Any) -> SynchronousMemory:
        made.append(SynchronousMemory(*arguments))
        return made[-1]

    monkeypatch.setattr(rtl, "SynchronousMemory", make)
    return made


@pytest.fixture
def check(memories: list[SynchronousMemory]) -> Callable[[Product], None]:
    """Run a product on a lane: its results bit for bit, and its cycles exactly."""

    def check(product: Product) -> None:
        memories.clear()
        wanted = [expected_cycles(product, *step) for step in product.segments]
        assert Bench(product, memories).run() == wanted

    return check


@pytest.mark.parametrize("fifo", [2, 4])
@pytest.mark.parametrize(("window", "density"), [(4, 0.6), (8, 0.9), (8, 0.2)])
def test_segments_of_several_windows(check: Check, fifo: int, window: int, density: float) -> None:
    # With a window of 8 and 2 multipliers, a window holds up to four beats.
    spec = lane_spec(window=window, fifo=fifo)
    rng = np.random.default_rng(window + fifo)
    lengths = (2 * window, window + 3, 5)
    check(Product(spec, (random_tile(rng, spec, (1, 4, 4), lengths, density=density, biased=True),
                         random_tile(rng, spec, (1, 4, 4), (window,), density=density))))


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("extents", [(1, 4, 3), (1, 1, 4), (1, 3, 1), (1, 1, 1), (1, 2, 3)])
def test_partial_tiles(check: Check, extents: tuple[int, int, int], transposed: int) -> None:
    spec = lane_spec()
    rng = np.random.default_rng(sum(extents))
    tiles = tuple(random_tile(rng, spec, extents, lengths, biased=True)
                  for lengths in ((8, 6), (4, 4), (3,)))
    check(Product(spec, tiles, constants={"transposed": transposed}))


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("right_has_b", "b"), [(0, 2), (1, 2), (1, 1), (1, 3)])
def test_several_matrices(check: Check, right_has_b: int, b: int, transposed: int) -> None:
    spec = lane_spec(tile=(3, 2, 4), piece=2)
    rng = np.random.default_rng(b)
    tiles = tuple(random_tile(rng, spec, (b, 2, 3), lengths, right_has_b=bool(right_has_b))
                  for lengths in ((8, 3), (4,)))
    check(Product(spec, tiles, constants={"transposed": transposed, "right_has_b": right_has_b}))


@pytest.mark.parametrize(("tile", "piece"), [((1, 2, 4), 1), ((2, 4, 2), 2), ((1, 4, 8), 4),
                                             ((1, 1, 1), 1)])
@pytest.mark.parametrize("transposed", [0, 1])
def test_shapes_of_tiles_and_pieces(check: Check, tile: tuple[int, int, int], piece: int,
                                    transposed: int) -> None:
    spec = lane_spec(tile=tile, piece=piece, lines=1, lanes=1, fifo=2)
    rng = np.random.default_rng(piece)
    tiles = tuple(random_tile(rng, spec, tile, (4, 2)) for _ in range(2))
    check(Product(spec, tiles, constants={"transposed": transposed}))


@pytest.mark.parametrize("fifo", [2, 4, 8])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full_masks(check: Check, density: float, fifo: int) -> None:
    spec = lane_spec(fifo=fifo, window=8)
    rng = np.random.default_rng(fifo)
    check(Product(spec, tuple(random_tile(rng, spec, (1, 4, 4), lengths, density=density)
                              for lengths in ((16, 8), (8,)))))


@pytest.mark.parametrize(("place", "block"), [((0, 1, 2), (1, 2, 4)), ((2, 0, 3), (3, 1, 4)),
                                              ((0, 0, 0), (2, 2, 2))])
def test_a_tile_among_others(check: Check, place: tuple[int, int, int],
                             block: tuple[int, int, int]) -> None:
    # A dimension in which the tile is the block's last may be cut, the others are full.
    spec = lane_spec(tile=(2, 4, 4))
    rng = np.random.default_rng(sum(place))
    full = (2, 4, 4)
    extents = tuple(extent - 1 if one == tiles - 1 and tiles > 1 else extent
                    for extent, one, tiles in zip(full, place, block, strict=True))
    check(Product(spec, (random_tile(rng, spec, extents, (8, 5), right_has_b=True),), place, block,
                  {"right_has_b": 1}))


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("valid", [(42, 99), (40, 23), (99, 20), (99, 0), (41, 22), (44, 24),
                                   (48, 28)])
def test_what_is_beyond_the_real_rows_and_columns_is_zero(
        check: Check, valid: tuple[int, int], transposed: int) -> None:
    spec = lane_spec()
    rng = np.random.default_rng(sum(valid))
    tile = random_tile(rng, spec, (1, 4, 4), (8,), origin=(36, 12), density=1.0)
    product = Product(spec, (tile,), (0, 1, 2), (1, 2, 3), {
        "transposed": transposed, "valid_i": valid[0], "valid_j": valid[1], "shift": 0})
    assert (expected_values(product, 0) == 0).any() == (valid[0] < 44 or valid[1] < 24)
    check(product)


@pytest.mark.parametrize(("nonlinearity", "constants"), [
    ("relu", {"shift": 0}), ("relu", {"shift": 3, "activate": 1, "threshold": 4}),
    ("relu", {"shift": 17}), ("gelu", {"shift": 5, "activate": 1}),
    ("gelu", {"shift": 5, "activate": RELU, "threshold": 3})])
def test_constants_of_an_operation(check: Check, nonlinearity: str,
                                   constants: dict[str, int]) -> None:
    spec = lane_spec(nonlinearity=nonlinearity)
    rng = np.random.default_rng(len(constants))
    tiles = tuple(random_tile(rng, spec, (1, 4, 4), lengths, biased=True, density=0.9)
                  for lengths in ((8,), (8, 8)))
    product = Product(spec, tiles, constants=constants)
    if constants == {"shift": 0}:
        values = expected_values(product, 1)
        assert (values == 31).any() and (values == -32).any()
    check(product)


@pytest.mark.parametrize("transposed", [0, 1])
def test_stochastic_rounding(check: Check, transposed: int) -> None:
    spec = lane_spec(noise=8, tile=(2, 4, 4))
    rng = np.random.default_rng(8)
    tiles = tuple(random_tile(rng, spec, (2, 4, 3), (8, 4), seed=seed) for seed in (0, 77))
    for stochastic in (0, 1):
        check(Product(spec, tiles, constants={"transposed": transposed, "shift": 7,
                                              "stochastic": stochastic}))


@pytest.mark.parametrize(("used", "block"), [(0, (2, 2, 2)), (1, (1, 2, 2)), (1, (2, 1, 2)),
                                             (1, (2, 2, 1)), (1, (2, 2, 2))])
def test_a_lane_without_a_tile_in_the_block_stays_idle(used: int, block: tuple[int, int, int]
                                                       ) -> None:
    dut = Lane(lane_spec())
    works = bool(used) and block == (2, 2, 2)

    async def testbench(ctx: Any) -> None:
        ctx.set(dut.place, {"enable": 1, "used": used, "b": 1, "i": 1, "j": 1})
        await ctx.tick()
        ctx.set(dut.place.enable, 0)
        ctx.set(dut.step, {"start": 1, "windows": 1, "last_b": 1, "last_i": 4, "last_j": 4,
                           **{f"tiles_{name}": tiles
                              for name, tiles in zip("bij", block, strict=True)}})
        for _ in range(20):
            assert ctx.get(dut.busy) == works
            await ctx.tick()
            ctx.set(dut.step.start, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize(("lengths", "transposed", "right_has_b", "left_reads", "right_reads"), [
    ((4,), 0, 0, 8, 24), ((4,), 1, 0, 24, 6), ((4,), 1, 1, 24, 6), ((8,), 0, 0, 48, 48)])
def test_memories_are_read_and_written_only_where_it_is_needed(
        memories: list[SynchronousMemory], lengths: tuple[int, ...], transposed: int,
        right_has_b: int, left_reads: int, right_reads: int) -> None:
    spec = lane_spec(tile=(2, 4, 4))
    tile = random_tile(np.random.default_rng(4), spec, (2, 4, 3), lengths,
                       right_has_b=bool(right_has_b))
    bench = Bench(Product(spec, (tile,), constants={
        "transposed": transposed, "right_has_b": right_has_b}), memories)
    send, reads, writes = bench.send, np.zeros(8, int), np.zeros(8, int)

    async def counting(ctx: Any, buses: dict[str, list[dict]]) -> None:
        reads[:] += [ctx.get(memory.read_enable) for memory in memories]
        writes[:] += [ctx.get(memory.write_enable) for memory in memories]
        await send(ctx, buses)

    bench.send = counting
    bench.run()
    # A line of one window that the memory's output holds already is not read again; nobody needs
    # biases, nor partial sums.
    assert reads[:7].tolist() == [left_reads] * 2 + [right_reads] * 2 + [0, 0, 0]
    assert writes[4:].tolist() == [0, 0, 0, 16 if not transposed else 12]


def test_cycles_of_arrays() -> None:
    fields = SimpleNamespace(
        pre_sparsity=SimpleNamespace(macs=np.array([2, 2])),
        mac_lane=SimpleNamespace(macs=np.array([2, 2]), bits=np.array([6, 6]),
                                 noise_bits=np.array([0, 8]),
                                 nonlinearity=np.array(["relu", "gelu"])))
    wanted = [int(cycles(lane_spec(nonlinearity=nonlinearity, noise=noise), periods, closing))
              for nonlinearity, noise, periods, closing in (("relu", 0, 40, 0),
                                                            ("gelu", 8, 70, 1))]
    assert cycles(fields, np.array([40, 70]), np.array([False, True])).tolist() == wanted


def test_specs_that_do_not_fit_together_are_refused() -> None:
    spec = lane_spec()
    wide, many = replace(spec.mac_lane, bits=7), replace(spec.mac_lane, macs=4)
    for change, message in (
            ({"mac_lane": wide}, "bits of pre_sparsity and of mac_lane must be equal, not 6 and 7"),
            ({"mac_lane": many}, "macs of pre_sparsity and of mac_lane must be equal, not 2 and 4"),
            ({"tile_x": 3}, "tile_x must be a power of two"),
            ({"tile_y": 12}, "tile_y must be a power of two"),
            ({"piece": 8}, "piece must be a power of two from 1 to 4|whole number from 1 to 4"),
            ({"tile_b": 0}, "tile_b must be a whole number"),
            ({"segment_lines": 0}, "segment_lines must be a whole number"),
            ({"lanes": 0}, "lanes must be a whole number")):
        with pytest.raises(ValueError, match=message):
            replace(spec, **change)


def test_what_a_spec_is_made_of() -> None:
    spec = lane_spec(tile=(3, 2, 4))
    assert (spec.line.pieces, spec.dynatran.parallel, spec.dots) == (2, 1, 24)
    assert (spec.post_sparsity.word, spec.post_sparsity.mask_word) == (2, 2)
    assert spec.memories() == {
        "left_masks": (32, 4), "left_values": (32, 24), "right_masks": (64, 4),
        "right_values": (64, 24), "biases": (8, 18),
        "sums_0": (24, 18), "sums_1": (24, 18), "results": (24, 14)}


def test_a_seed_for_each_tile() -> None:
    # Golden and RTL take the places from one table: here they stand as numbers.
    assert tile_seed(777, 3, 2, 5, 16) == 777 + 3 * 4096 + 2 * 64 + 5
    assert tile_seed(65530, 0, 0, 9, 16) == 3
    tiles = tile_seed(0, *np.indices((4, 64, 64)), noise_bits=16)
    assert len(np.unique(tiles)) == tiles.size == 16384
