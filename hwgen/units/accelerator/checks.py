"""What a descriptor may not ask for: whatever would never end, or spoil what others have stored."""

from functools import reduce
from operator import or_

from amaranth.hdl import Const, Mux, Signal

from hwgen.program import INITIAL, KINDS

MOST_ACTIVATE = 2


def _any(conditions):
    """OR of conditions."""
    return reduce(or_, conditions, Const(0, 1))


def _low_bits(value, unit):
    """Whether a value is no multiple of a power of two."""
    return value[:unit.bit_length() - 1].any()


def _last_begins(count, size):
    """Where the last of `count` parts of `size` elements begins; `size` is a power of two."""
    return (count - 1)[:len(count)] << size.bit_length() - 1


class Checks:
    """Refuses descriptors; all limits that need more than a comparison are in registers.

    Parameters
    ----------
    m : the module that gets the registers
    spec : AcceleratorSpec
    configuration : the one that steps belong to; its limits hold two cycles after it came
    """

    def __init__(self, m, spec, configuration):
        self._spec, self._configuration = spec, configuration
        lane = spec.lane
        # Elements that a full block has along each dimension.
        self._block = {}
        for name, tile in (("b", lane.tile_b), ("i", lane.tile_x), ("j", lane.tile_y)):
            size = configuration[f"unroll_{name}"] * tile
            self._block[name] = Signal(len(size), name=f"block_{name}", reset_less=True)
            m.d.sync += self._block[name].eq(size)
        self._is = {name: configuration.kind == number for number, name in enumerate(KINDS)}
        self._engines = Mux(self._is["softmax"], spec.softmax_engines, 1)

    def configuration_is_bad(self, c):
        """Whether a configuration asks for what no unit can do, or names what is not there."""
        spec = self._spec
        unrolls = [c[f"unroll_{name}"] for name in "bij"]
        softmax, norm = (c.kind == KINDS.index(name) for name in ("softmax", "norm"))
        longest = Mux(softmax, spec.softmax.softmax.max_row, spec.norm.layer_norm.max_row)
        line = spec.activations
        stochastic = Const(0, 1) if spec.lane.mac_lane.noise_bits else c.stochastic
        return _any([
            c.kind >= len(KINDS),
            c.activate > MOST_ACTIVATE,
            c.shift >= spec.lane.mac_lane.accumulator_bits,
            stochastic,
            c.threshold[line.bits:].any(),
            (c.kind == KINDS.index("product"))
            & _any((unroll == 0) | (unroll > spec.lanes) for unroll in unrolls),
            c.groups > -(-spec.lanes // spec.sums_together),
            (softmax | norm) & ((c.length == 0) | (c.length > longest)),
            softmax & (c.valid_j > c.length),
            norm & ((c.weights_lines == 0) | (c.weights_absent >= line.pieces)
                    | (_last_begins(c.weights_lines, line.window) >= c.length)),
            c.start >= line.positions,
            c.limit > line.positions,
            _low_bits(c.start, line.piece),
            _low_bits(c.limit, line.piece),
            self._image_is_bad(c, "prefetch"),
        ])

    def step_is_bad(self, s, loaded):
        """Whether a step goes beyond a block, a tile or a row, or reads a bank that it writes.

        Parameters
        ----------
        s : the step
        loaded : whether the norm engine has its scale and offset
        """
        return _any([
            s.compute & self._is["product"] & self._tiles_are_bad(s),
            s.compute & ~self._is["product"]
            & ((s.tiles_i == 0) | (s.tiles_i > self._engines)),
            s.compute & self._is["norm"] & ~s.load & ~loaded,
            s.left_enable & self._read_is_bad(s, "left", self._block["i"]),
            s.right_enable & self._read_is_bad(s, "right", self._block["j"]),
            # Softmax has one operand; those of a norm come through one port, one after the other.
            s.right_enable & self._is["softmax"],
            s.right_weights & ~self._is["product"],
            s.bias_enable & ~(s.right_enable & s.right_weights),
            self._banks_are_bad(s),
            self._sums_are_bad(s),
            s.write_enable & self._write_is_bad(s),
            s.write_flush & ~s.write_enable,
            s.copy_enable & ((s.copy_lines == 0) | self._image_is_bad(s, "copy")),
        ])

    def _image_is_bad(self, descriptor, name):
        """Whether an image is larger than the buffer, or its slots do not hold a group's words."""
        image = {field: descriptor[f"{name}_{field}"]
                 for field in ("lines", "biases", "values", "slots")}
        weights = self._spec.weights
        return (image["lines"] > weights.lines) | (image["biases"] > weights.bias_words) \
            | (image["lines"].any() & (image["slots"] <= image["values"]))

    def only_copies(self, s):
        """Whether a step does nothing but copy, for which it needs no configuration."""
        return ~_any([s.compute, s.left_enable, s.right_enable, s.drain_enable, s.fill_enable,
                      s.write_enable])

    def _tiles_are_bad(self, s):
        """Whether lanes would get a tile that they do not have, or an extent that no tile has."""
        lane, c = self._spec.lane, self._configuration
        extents = {"b": lane.tile_b, "i": lane.tile_x, "j": lane.tile_y}
        return _any([
            (s.windows == 0) | (s.windows > lane.segment_lines),
            s.initial >= len(INITIAL),
            *((s[f"tiles_{name}"] == 0) | (s[f"tiles_{name}"] > c[f"unroll_{name}"])
              for name in extents),
            *((s[f"last_{name}"] == 0) | (s[f"last_{name}"] > extent)
              for name, extent in extents.items()),
        ])

    def _read_is_bad(self, s, side, rows):
        """Whether lines are read that no lane or engine has room for."""
        spec = self._spec
        read = {name: s[f"{side}_{name}"] for name in ("b", "rows", "lines", "absent")}
        product = (read["b"] > self._block["b"]) | (read["rows"] > rows) \
            | (read["lines"] > spec.lane.segment_lines)
        begins = _last_begins(read["lines"], spec.activations.window)
        other = (read["b"] != 1) | (read["rows"] > self._engines) \
            | (begins >= self._configuration.length)
        empty = _any(read[name] == 0 for name in ("b", "rows", "lines"))
        return empty | (read["absent"] >= spec.activations.pieces) \
            | Mux(self._is["product"], product, other)

    def _write_is_bad(self, s):
        """Whether pieces are written that no lane or engine has."""
        spec, block, c = self._spec, self._block, self._configuration
        begins = _last_begins(s.write_pieces, spec.lane.piece)
        rows, elements = (Mux(c.transposed, block[turned], block[plain])
                          for turned, plain in (("j", "i"), ("i", "j")))
        product = (s.write_b > block["b"]) | (s.write_rows > rows) | (begins >= elements)
        other = (s.write_b != 1) | (s.write_rows > self._engines) | (begins >= c.length)
        return (s.write_b == 0) | (s.write_rows == 0) | (s.write_pieces == 0) \
            | Mux(self._is["product"], product, other)

    def _sums_are_bad(self, s):
        """Whether sums move that no lane has, in the computed bank, or together with results."""
        moves = s.drain_enable | s.fill_enable
        computed = _any(s[f"{way}_enable"] & (s[f"{way}_bank"] == s.sums_bank)
                        for way in ("drain", "fill"))
        return _any([
            moves & ~self._is["product"],
            moves & (self._configuration.groups == 0),
            s.compute & computed,
            s.drain_enable & s.write_enable,
        ])

    def _banks_are_bad(self, s):
        """Whether a bank is written while it is computed from, or read while results come."""
        product = self._is["product"]
        left, right = s.left_bank == s.compute_left, s.right_bank == s.compute_right
        operands = Mux(
            product, (s.left_enable & left) | (s.right_enable & right),
            ~s.load & ((s.left_enable & left)
                       | (s.right_enable & (s.right_bank == s.compute_left))))
        makes = Mux(product, s.closing, ~s.load)
        return s.compute & (
            operands | (makes & s.write_enable & (s.write_bank == s.result_bank)))
