"""What an accelerator of one processing element is built of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator.cost import (
    bias_words,
    buffer_lines,
    buffer_words,
    levels,
    lines_per_cycle,
    sums_per_cycle,
)
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.lane.spec import LaneSpec
from hwgen.units.loader.cost import biases_together, rate
from hwgen.units.loader.spec import LoaderSpec
from hwgen.units.norm_engine.spec import NormEngineSpec
from hwgen.units.softmax_engine.spec import SoftmaxEngineSpec


@dataclass(frozen=True, slots=True)
class AcceleratorSpec:
    """Blocks of an accelerator, and how many.

    Parameters
    ----------
    activations : the buffer of activations
    loader : what fills the buffer of weights, `loader.buffer`
    lane, softmax, norm : a lane and the engines that work on rows
    lanes, softmax_engines : how many of each; there is one norm engine
    """

    activations: BufferSpec
    loader: LoaderSpec
    lane: LaneSpec
    softmax: SoftmaxEngineSpec
    norm: NormEngineSpec
    lanes: int
    softmax_engines: int

    @property
    def weights(self) -> BufferSpec:
        """The buffer of weights."""
        return self.loader.buffer

    @property
    def number(self) -> int:
        """64 bits that stand for all of the above, which a program must name."""
        return int(hashlib.sha256(repr(self).encode()).hexdigest()[:16], 16)

    @property
    def places(self) -> int:
        """Leaves of the processing element's trees: a lane and a softmax engine share one."""
        return max(self.lanes, self.softmax_engines)

    @property
    def levels(self) -> int:
        """Registers from the root of the processing element to a lane."""
        return int(levels(self.lanes, self.softmax_engines))

    @property
    def sums_together(self) -> int:
        """Lanes that move a partial sum each in a cycle."""
        lane = self.lane
        return int(sums_per_cycle(
            self.lanes, lane.window, lane.bits, lane.mac_lane.accumulator_bits))

    @classmethod
    def of(cls, design: AcceleratorDesign) -> AcceleratorSpec:
        """Derive the spec from a design.

        Raises
        ------
        ValueError
            If the design is one that no RTL can be made of yet, with the field to change.
        """
        _check(design)
        window, piece, bits = design.window, design.piece, design.bits
        lines = int(buffer_lines(design.mask_buffer_kib, window))
        line = {"bits": bits, "window": window, "piece": piece}

        def words(kib: int) -> int:
            return int(buffer_words(kib, window, bits))

        together = int(biases_together(window, bits, design.accumulator_bits))
        weights = BufferSpec(
            **line, words=words(design.weight_buffer_kib), lines=lines,
            biases=int(bias_words(lines, together)) * together,
            bias_bits=design.accumulator_bits - 1, biases_together=together)
        port, memory = design.buffer_bits_per_cycle, design.memory_bits_per_cycle
        at_once = lines_per_cycle(design.pes, port.numerator, port.denominator, window, bits)
        numerator, denominator = rate(
            memory.numerator, memory.denominator, at_once, window, bits)
        return cls(
            BufferSpec(**line, words=words(design.activation_buffer_kib), lines=lines,
                       biases=0, bias_bits=0),
            LoaderSpec(weights, design.memory.latency_cycles, numerator, denominator),
            LaneSpec(
                pre_sparsity=design.pre_sparsity,
                mac_lane=design.mac_lane,
                piece=piece,
                tile_b=design.tile_b,
                tile_x=design.tile_x,
                tile_y=design.tile_y,
                segment_lines=design.k_segment // window,
                lanes=design.lanes_per_pe,
            ),
            SoftmaxEngineSpec(softmax=design.softmax, window=window, piece=piece),
            NormEngineSpec(residual_add=design.residual_add, layer_norm=design.layer_norm,
                           window=window, piece=piece),
            design.lanes_per_pe,
            design.softmax_per_pe,
        )


def _check(design: AcceleratorDesign) -> None:
    if design.pes != 1:
        raise ValueError(f"pes must be 1 for an accelerator's RTL, not {design.pes}")
    if design.tile_x & (design.tile_x - 1):
        raise ValueError(f"tile_x must be a power of two for an accelerator's RTL, "
                         f"not {design.tile_x}")
    if design.k_segment % design.window:
        raise ValueError(f"k_segment must be a multiple of window = {design.window} for an "
                         f"accelerator's RTL, not {design.k_segment}")
    if design.window * design.bits < design.accumulator_bits:
        raise ValueError(f"window must be at least {-(-design.accumulator_bits // design.bits)} "
                         f"for a partial sum to fit a line of an accelerator's RTL, "
                         f"not {design.window}")
