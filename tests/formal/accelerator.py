"""The least accelerator with all of its structure, and programs that it gets."""

from amaranth.hdl import Array, Const, Signal

from hwgen.program import FORMAT_VERSION, WORD_BITS, Descriptor, assemble
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.lane.spec import LaneSpec
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.loader.spec import LoaderSpec
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.norm_engine.spec import NormEngineSpec
from hwgen.units.pre_sparsity.spec import PreSparsitySpec
from hwgen.units.residual_add.spec import ResidualAddSpec
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax_engine.spec import SoftmaxEngineSpec


def least(lanes):
    """Return the least spec with some lanes."""
    line = {"bits": 4, "window": 4, "piece": 2}
    return AcceleratorSpec(
        activations=BufferSpec(**line, words=4, lines=8),
        loader=LoaderSpec(
            BufferSpec(**line, words=4, lines=8, biases=4, bias_bits=8, biases_together=2),
            latency=2, rate_numerator=8, rate_denominator=1),
        lane=LaneSpec(PreSparsitySpec(2, 4, 4, 4), MacLaneSpec(2, 4, 9, "relu"), piece=2, tile_b=2,
                      tile_x=2, tile_y=2, segment_lines=2, lanes=lanes),
        softmax=SoftmaxEngineSpec(SoftmaxSpec(2, 4, 8), window=4, piece=2),
        norm=NormEngineSpec(ResidualAddSpec(2, 4), LayerNormSpec(2, 4, 8, 1e-12), window=4,
                            piece=2),
        lanes=lanes, softmax_engines=1)


SPEC = least(4)
"""A level of registers from the root to the lanes."""

HEADER = Descriptor("header", {"version": FORMAT_VERSION, "machine": SPEC.number})
PRODUCT = Descriptor("configure", {
    "unroll_b": 1, "unroll_i": 2, "unroll_j": 2, "lane_i": 2, "lane_j": 1, "limit": 8,
    "groups": SPEC.lanes // SPEC.sums_together})
COMPUTE = {"compute": 1, "windows": 1, "closing": 1, "result_bank": 1,
           **{f"{kind}_{name}": 1 for kind in ("tiles", "last") for name in "bij"}}
READ = {f"{side}_{name}": value for side in ("left", "right") for name, value in (
    ("enable", 1), ("bank", 1), ("b", 2), ("rows", 2), ("lines", 2))}
WRITE = {"write_enable": 1, "write_b": 2, "write_rows": 4, "write_pieces": 2, "write_flush": 1}
COPY = {"copy_enable": 1, "copy_biases": 1, "copy_lines": 3, "copy_values": 1, "copy_slots": 2,
        "copy_address": 5}
DRAIN, FILL = ({f"{way}_enable": 1} for way in ("drain", "fill"))


def steps(fields):
    """Return a program of two equal steps."""
    return (HEADER, PRODUCT, *[Descriptor("step", fields)] * 2, Descriptor("end"))


def give(claims, stream, program):
    """Give a program's words as fast as they are taken, instead of any at any time.

    Returns
    -------
    How many have been taken.
    """
    words = assemble(program)
    given = Signal(range(len(words) + 1), name="given")
    claims.m.d.comb += [
        stream.valid.eq(given != len(words)),
        stream.payload.eq(Array([*(Const(word, WORD_BITS) for word in words), 0])[given]),
    ]
    claims.m.d.sync += given.eq(given + (stream.valid & stream.ready))
    return given
