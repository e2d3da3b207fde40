"""Cutting products into tiles, blocks and trips, for whole populations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen.design import LOOP_ORDERS, DesignBatch
from hwgen.units.accelerator import cost as accelerator

Ints = NDArray[np.int64]

DIM_B, DIM_I, DIM_J, DIM_K = range(4)
"""Indices of a product's dimensions."""

_DIMENSIONS = np.array([["bijk".index(letter) for letter in order] for order in LOOP_ORDERS]).T
_SORTED_ORDERS = np.array(sorted(LOOP_ORDERS))
_RANK = np.array([LOOP_ORDERS.index(order) for order in _SORTED_ORDERS])


@dataclass(frozen=True)
class Tiling:
    """How each design cuts a product; arrays of shape (4, designs), by dimension b, i, j, k.

    Parameters
    ----------
    extents : elements
    tile : elements of a tile; along k, of a segment
    block : elements of a wave's block that is not the last
    last : elements of the last block
    trips : blocks
    order : dimension of each loop, outermost first
    position : loop of each dimension
    waves_inside : waves between a block's segment and its next, shape (designs,)
    """

    extents: Ints
    tile: Ints
    block: Ints
    last: Ints
    trips: Ints
    order: Ints
    position: Ints
    waves_inside: Ints

    @property
    def waves(self) -> Ints:
        """Waves of the product, shape (designs,)."""
        return np.asarray(np.prod(self.trips, axis=0))

    @property
    def spills(self) -> NDArray[np.bool_]:
        """Whether partial sums leave the lanes, shape (designs,)."""
        return np.asarray((self.waves_inside >= 3) & (self.trips[DIM_K] > 1))

    @property
    def lanes(self) -> Ints:
        """Lanes that a full block takes, shape (designs,)."""
        return np.asarray(np.prod(self.block[:DIM_K] // self.tile[:DIM_K], axis=0))

    def sum_words(self, designs: DesignBatch) -> Ints:
        """Words, one of each bank, that hold a full block's partial sums, shape (designs,)."""
        together = accelerator.sums_per_cycle(
            designs.lanes_per_pe, designs.window, designs.bits, designs.accumulator_bits
        )
        groups = -(-np.minimum(self.lanes, designs.lanes_per_pe) // together)
        pes = -(-self.lanes // designs.lanes_per_pe)
        return np.asarray(pes * groups * np.prod(self.tile[:DIM_K], axis=0))

    def sum_bits(self, designs: DesignBatch) -> Ints:
        """Bits that open partial sums take where they spill, shape (designs,)."""
        words = self.waves_inside * self.sum_words(designs) * self.spills
        return np.asarray(words * designs.window * designs.bits)


def loop_dimensions(designs: DesignBatch) -> Ints:
    """Dimension of each loop, outermost first, shape (4, designs)."""
    rank = _RANK[np.searchsorted(_SORTED_ORDERS, designs.loop_order)]
    return _DIMENSIONS[:, rank]


def tile_product(designs: DesignBatch, order: Ints, extents: tuple[Ints | int, ...]) -> Tiling:
    """Cut a product of extents (B, I, J, K), each a number or shape (designs,)."""
    count = len(designs)
    shape = np.stack(
        [np.broadcast_to(np.asarray(extent, dtype=np.int64), count) for extent in extents]
    )
    tile = np.stack([designs.tile_b, designs.tile_x, designs.tile_y, designs.k_segment])
    tiles = -(-shape // tile)
    unroll = np.ones_like(tiles)
    column = np.arange(count)
    budget = designs.lanes.copy()
    for loop in (3, 2, 1, 0):
        dimension = order[loop]
        taken = np.where(dimension == DIM_K, 1, np.minimum(tiles[dimension, column], budget))
        unroll[dimension, column] = taken
        budget //= taken
    block = unroll * tile
    trips = -(-tiles // unroll)
    position = np.argsort(order, axis=0)
    inside = np.prod(np.where(position > position[DIM_K], trips, 1), axis=0)
    return Tiling(shape, tile, block, shape - (trips - 1) * block, trips, order, position, inside)
