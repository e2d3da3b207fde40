"""A bench for a lane: tiles of products, what a lane must make of them, and a driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from hwgen.lib.memory import SynchronousMemory
from hwgen.units.dynatran.golden import prune
from hwgen.units.lane.cost import cycles
from hwgen.units.lane.golden import tile_seed
from hwgen.units.lane.layout import BIAS, SUM, ZERO
from hwgen.units.lane.rtl import Lane
from hwgen.units.lane.spec import LaneSpec
from hwgen.units.mac_lane.golden import finish
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.pre_sparsity.cost import periods
from hwgen.units.pre_sparsity.golden import pairs_per_window
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

WHOLE = (1 << 24) - 1
"""A valid_i or valid_j beyond every result of these tests."""


def lane_spec(*, bits: int = 6, macs: int = 2, window: int = 4, fifo: int = 4, piece: int = 2,
              tile: tuple[int, int, int] = (1, 4, 4), lines: int = 2, lanes: int = 4,
              nonlinearity: str = "relu", noise: int = 0) -> LaneSpec:
    return LaneSpec(PreSparsitySpec(macs, bits, window, fifo),
                    MacLaneSpec(macs, bits, 2 * bits + 6, nonlinearity, noise),
                    piece, *tile, lines, lanes)


FIRST_TILE = (3, 70, 5)
"""Which tile of the whole result the block's first one is."""


@dataclass(frozen=True)
class Tile:
    """One tile of a product: left (b, i, k), right (b, j, k) or (j, k), biases (j,) or none.

    `lengths` are the elements of each segment; `origin` and `seed` are the step's.
    """

    left: np.ndarray
    right: np.ndarray
    lengths: tuple[int, ...]
    bias: np.ndarray | None = None
    origin: tuple[int, int] = (0, 0)
    seed: int = 0


@dataclass(frozen=True)
class Product:
    """Tiles that a lane computes one after another, and the constants of their operation."""

    spec: LaneSpec
    tiles: tuple[Tile, ...]
    place: tuple[int, int, int] = (0, 0, 0)
    block: tuple[int, int, int] = (1, 1, 1)
    constants: dict[str, int] = field(default_factory=dict)

    @property
    def operation(self) -> dict[str, int]:
        """Every constant; what is not given is neutral."""
        stochastic = {"stochastic": 0} if self.spec.mac_lane.noise_bits else {}
        return {"shift": 4, "activate": 0, "i_exponent": -4, "o_exponent": -4, "threshold": 0,
                "transposed": 0, "right_has_b": 0, "valid_i": WHOLE, "valid_j": WHOLE,
                **stochastic, **self.constants}

    @property
    def segments(self) -> list[tuple[int, int]]:
        """Tile and segment of each step."""
        return [(number, segment) for number, tile in enumerate(self.tiles)
                for segment in range(len(tile.lengths))]


def random_tile(rng: np.random.Generator, spec: LaneSpec, extents: tuple[int, int, int],
                lengths: tuple[int, ...], *, density: float = 0.6, right_has_b: bool = False,
                biased: bool = False, **more: Any) -> Tile:
    b, i, j = extents

    def operand(*shape: int) -> np.ndarray:
        limit = 1 << (spec.bits - 1)
        value = rng.integers(-limit, limit, shape)
        value[value == 0] = 1
        return value * (rng.random(shape) < density)

    length = sum(lengths)
    limit = 1 << (spec.mac_lane.accumulator_bits - 4)
    bias = rng.integers(-limit, limit, j) if biased else None
    return Tile(operand(b, i, length), operand(*((b,) if right_has_b else ()), j, length),
                lengths, bias, **more)


def part(tile: Tile, segment: int) -> slice:
    """Elements of a segment."""
    start = sum(tile.lengths[:segment])
    return slice(start, start + tile.lengths[segment])


def expected_cycles(product: Product, number: int, segment: int) -> int:
    tile, spec = product.tiles[number], product.spec
    left = tile.left[..., part(tile, segment)]
    right = np.broadcast_to(tile.right, (*left.shape[:1], *tile.right.shape[-2:]))
    right = right[..., part(tile, segment)]
    counts = pairs_per_window(left[:, :, None], right[:, None], spec.window)
    closing = segment == len(tile.lengths) - 1
    return int(cycles(spec, periods(spec.pre_sparsity, counts).sum(), closing))


def expected_values(product: Product, number: int) -> np.ndarray:
    """Pruned results of a tile, shape (b, rows, elements of a row)."""
    tile, spec, constants = product.tiles[number], product.spec, product.operation
    right = np.broadcast_to(tile.right, (tile.left.shape[0], *tile.right.shape[-2:]))
    sums = tile.left @ right.swapaxes(1, 2) + (0 if tile.bias is None else tile.bias)
    if constants["transposed"]:
        sums = sums.swapaxes(1, 2)
    chosen = {name: constants[name] for name in ("activate", "i_exponent", "o_exponent")}
    at = [first + place for first, place in zip(FIRST_TILE, product.place, strict=True)]
    seed = (tile_seed(tile.seed, *at, spec.mac_lane.noise_bits)
            if constants.get("stochastic") else None)
    value = finish(sums.reshape(-1), constants["shift"], spec.mac_lane, seed=seed,
                   **chosen).reshape(sums.shape)
    rows, columns = tile.left.shape[1], tile.right.shape[-2]
    origin = [first + place * extent for first, place, extent in zip(
        tile.origin, product.place[1:], (spec.tile_x, spec.tile_y), strict=True)]
    real = ((np.arange(rows) + origin[0] < constants["valid_i"])[:, None]
            & (np.arange(columns) + origin[1] < constants["valid_j"]))
    return prune(value, constants["threshold"], real.T if constants["transposed"] else real)[0]


def line(value: np.ndarray, window: int) -> dict[str, Any]:
    """A line's mask and zero-free values of up to `window` elements, garbage behind them."""
    kept = [int(one) for one in value if one]
    return {"zero_mask": sum(1 << k for k, one in enumerate(value) if one),
            "value": kept + [-1] * (window - len(kept))}


def lines(product: Product, number: int, segment: int, bank: int, side: str) -> list[dict]:
    """What a bus carries for a segment of a tile, and for another lane's tile."""
    tile, spec, has_b = product.tiles[number], product.spec, product.operation["right_has_b"]
    place = dict(zip("bij", product.place, strict=True))
    row, operand = ("i", tile.left) if side == "left" else ("j", tile.right)
    operand = operand.reshape(-1, *operand.shape[-2:])
    found = []
    for b, k in np.ndindex(operand.shape[:2]):
        elements = operand[b, k, part(tile, segment)]
        for start in range(0, len(elements), spec.window):
            beat = {"valid": 1, "bank": bank, "b": place["b"], "tile": place[row],
                    "row": {"b": b, row: k}, "line": start // spec.window,
                    **line(elements[start:start + spec.window], spec.window)}
            if side == "right":
                biased = tile.bias is not None and start == 0 and segment == 0
                beat |= {"bias_valid": biased, "bias": int(tile.bias[k]) if biased else 5}
                if not has_b:
                    beat["b"] = (place["b"] + 1) % spec.lanes   # does not count
            found.append(beat)
            if spec.lanes > 1:
                foreign = [{"tile": (beat["tile"] + 1) % spec.lanes}, {"valid": 0}]
                if side == "left" or has_b:
                    foreign.append({"b": (place["b"] + 1) % spec.lanes})
                found += [beat | {"zero_mask": 1, "value": [1] * spec.window} | one
                          for one in foreign]
    return found


def step_fields(product: Product, step: int, banks: dict[str, int]) -> dict[str, int]:
    number, segment = product.segments[step]
    tile, spec = product.tiles[number], product.spec
    fields = {"start": 1, "windows": -(-tile.lengths[segment] // spec.window),
              "closing": int(segment == len(tile.lengths) - 1),
              "initial": SUM if segment else ZERO if tile.bias is None else BIAS,
              "origin_i": tile.origin[0], "origin_j": tile.origin[1], **banks}
    full = dict(zip("bij", (spec.tile_b, spec.tile_x, spec.tile_y), strict=True))
    extents = dict(zip("bij", (*tile.left.shape[:2], tile.right.shape[-2]), strict=True))
    for name, place, tiles in zip("bij", product.place, product.block, strict=True):
        # Only the block's last tile may be partial.
        ends = place == tiles - 1
        assert ends or extents[name] == full[name]
        fields |= {f"tiles_{name}": tiles, f"last_{name}": extents[name] if ends else 1}
    noise = {"seed": tile.seed} | {
        f"first_tile_{name}": first for name, first in zip("bij", FIRST_TILE, strict=True)}
    return fields | (noise if spec.mac_lane.noise_bits else {})


async def read_results(ctx: Any, dut: Lane, product: Product, number: int, bank: int) -> np.ndarray:
    """A tile's results, decompressed."""
    wanted, spec = expected_values(product, number), product.spec
    found = np.full(wanted.shape, -99)
    for b, row in np.ndindex(wanted.shape[:2]):
        for piece in range(-(-wanted.shape[2] // spec.piece)):
            ctx.set(dut.result, {"enable": 1, "bank": bank, "b": b, "row": row, "piece": piece})
            await ctx.tick()
            ctx.set(dut.result.enable, 0)
            mask, values = ctx.get(dut.piece.zero_mask), list(ctx.get(dut.piece.value))
            elements = found[b, row, piece * spec.piece:(piece + 1) * spec.piece]
            bits = [mask >> k & 1 for k in range(spec.piece)]
            assert not any(bits[len(elements):])
            assert not any(values[sum(bits):])
            kept = iter(values)
            elements[:] = [next(kept) if bit else 0 for bit in bits[:len(elements)]]
    return found


class Bench:
    """Drives a lane: dispatches the next segment, and reads the last tile, while it computes."""

    def __init__(self, product: Product, memories: list[SynchronousMemory]) -> None:
        self.product = product
        self.dut = Lane(product.spec)
        self.memories = memories
        self.lengths: list[int] = []
        self.unread: list[int] = []

    def run(self) -> list[int]:
        """Cycles that the lane is busy in each step."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self._compute)
        simulator.add_testbench(self._read, background=True)
        simulator.run()
        return self.lengths

    async def _compute(self, ctx: Any) -> None:
        product, dut = self.product, self.dut
        steps = product.segments
        place = dict(zip("bij", product.place, strict=True))
        ctx.set(dut.place, {"enable": 1, "used": 1, **place})
        await ctx.tick()
        ctx.set(dut.place, {"enable": 0, "used": 0, "b": 0, "i": 0, "j": 0})
        ctx.set(dut.operation, product.operation)
        buses = self._dispatch(0)
        while any(buses.values()):
            await self.send(ctx, buses)
        for step, (number, segment) in enumerate(steps):
            buses = self._dispatch(step + 1) if step + 1 < len(steps) else {}
            ctx.set(dut.step, step_fields(product, step, {
                "left_bank": step % 2, "right_bank": step % 2, "sums_bank": number % 2,
                "result_bank": number % 2}))
            busy = 0
            while ctx.get(dut.busy):
                busy += 1
                assert busy < 10_000, "the lane does not end"
                await self.send(ctx, buses)
                ctx.set(dut.step.start, 0)
            self.lengths.append(busy)
            while self.unread or any(buses.values()):
                await self.send(ctx, buses)
                assert not ctx.get(dut.busy)
            if segment == len(product.tiles[number].lengths) - 1:
                self.unread.append(number)
        while self.unread:
            await ctx.tick()

    def _dispatch(self, step: int) -> dict[str, list[dict]]:
        number, segment = self.product.segments[step]
        return {side: lines(self.product, number, segment, step % 2, side)
                for side in ("left", "right")}

    async def send(self, ctx: Any, buses: dict[str, list[dict]]) -> None:
        """Let a cycle pass, with the next line on each bus."""
        for side in ("left", "right"):
            beats = buses.get(side)
            ctx.set(getattr(self.dut, side), beats.pop(0) if beats else {"valid": 0})
        for memory in self.memories:
            if ctx.get(memory.write_enable & memory.read_enable):
                assert ctx.get(memory.write_address) != ctx.get(memory.read_address)
        await ctx.tick()

    async def _read(self, ctx: Any) -> None:
        while True:
            await ctx.tick()
            if self.unread:
                number = self.unread[0]
                found = await read_results(ctx, self.dut, self.product, number, number % 2)
                np.testing.assert_array_equal(found, expected_values(self.product, number))
                del self.unread[0]
