"""Walks over the lines that a port reads, and over the pieces that results are written as."""

from types import SimpleNamespace

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.units.accelerator.layout import descriptor_layout


def bits_of(prefix, names):
    """Return a layout of the fields `prefix`_name of a step or a configuration."""
    fields = {name: field for opcode in ("step", "configure")
              for name, field in descriptor_layout(opcode)}
    return data.StructLayout({name: fields[f"{prefix}_{name}"].shape for name in names})


STRIDES = bits_of("left", ("row_stride", "b_stride", "wrap_stride", "wrap"))
READ = bits_of("left", ("enable", "line", "b", "rows", "lines", "absent", "phase"))
WRITE = bits_of("write", ("enable", "line", "piece", "b", "rows", "pieces", "phase"))
PLACES = bits_of("lane", ("b", "i", "j"))


class Tiled:
    """A counter, and which tile it is in.

    Parameters
    ----------
    m : the module that gets the registers
    name : prefix of their names
    count : how far it counts, steady while it does
    tile : elements of a tile: a number, or a value less one that is steady while it counts
    bits : width of the count
    """

    def __init__(self, m, name, count, tile, bits):
        self._m = m
        self._end = Const(tile - 1) if isinstance(tile, int) else tile
        self.index = Signal(bits, name=f"{name}_index", reset_less=True)
        self.tile = Signal(bits, name=f"{name}_tile", reset_less=True)
        self.inside = Signal(len(self._end), name=f"{name}_inside", reset_less=True)
        self.last = Signal(name=f"{name}_last")
        self.closes = Signal(name=f"{name}_closes")
        m.d.comb += [self.last.eq(self.index + 1 == count),
                     self.closes.eq(self.inside == self._end)]

    def restart(self):
        """Go to the first element."""
        self._m.d.sync += [self.index.eq(0), self.tile.eq(0), self.inside.eq(0)]

    def step(self):
        """Go to the next element."""
        self._m.d.sync += [self.index.eq(self.index + 1), self.tile.eq(self.tile + self.closes),
                           self.inside.eq(Mux(self.closes, 0, self.inside + 1))]


class _Rows:
    """Addresses of rows: b outermost, whose last in `wrap` is followed by another stride."""

    def __init__(self, m, strides, line, phase):
        self._m, self._strides = m, strides
        self._base = Signal(20, name="b_base", reset_less=True)
        self.row = Signal(20, name="row_base", reset_less=True)
        self._phase = Signal(8, name="b_phase", reset_less=True)
        self._line, self._first = line, phase
        self._wraps = Signal(name="b_wraps")
        self.next_b, self.next_row = Signal(20, name="next_b"), Signal(20, name="next_row")
        m.d.comb += [
            self._wraps.eq(self._phase + 1 == strides.wrap),
            self.next_b.eq(
                self._base + Mux(self._wraps, strides.wrap_stride, strides.b_stride)),
            self.next_row.eq(self.row + strides.row_stride),
        ]

    def restart(self):
        self._m.d.sync += [self._base.eq(self._line), self.row.eq(self._line),
                           self._phase.eq(self._first)]

    def step_b(self):
        self._m.d.sync += [self._base.eq(self.next_b), self.row.eq(self.next_b),
                           self._phase.eq(Mux(self._wraps, 0, self._phase + 1))]

    def step_row(self):
        self._m.d.sync += self.row.eq(self.next_row)


class LineScan(wiring.Component):
    """Addresses of the lines of a block, one a cycle from the cycle after `load` on.

    b, then rows, then the lines of a row; tiles are counted along.

    Parameters
    ----------
    tile_b, tile_rows : elements of a tile

    Ports
    -----
    load : takes `read`, which must be steady from then on, as must `strides`
    advance : whether the line at the output is used in this cycle
    active : whether there is a line; `line` its address; `absent`: pieces of it that are behind the
        row's end; b_tile, b, tile, row, index, part: tile and element along b and along the rows,
        row of the block, line of the row
    """

    def __init__(self, tile_b, tile_rows):
        self._tiles = tile_b, tile_rows
        super().__init__({
            "load": In(1), "read": In(READ), "strides": In(STRIDES), "advance": In(1),
            "active": Out(1), "line": Out(20), "absent": Out(8),
            "b_tile": Out(12), "b": Out(range(tile_b)),
            "tile": Out(14), "row": Out(range(tile_rows)), "index": Out(14), "part": Out(10),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        read = self.read
        rows = _Rows(m, self.strides, read.line, read.phase)
        b = Tiled(m, "b", read.b, self._tiles[0], 12)
        row = Tiled(m, "row", read.rows, self._tiles[1], 14)
        last = Signal()
        m.d.comb += [
            last.eq(self.part + 1 == read.lines),
            self.absent.eq(Mux(last, read.absent, 0)),
            self.b_tile.eq(b.tile), self.b.eq(b.inside),
            self.tile.eq(row.tile), self.row.eq(row.inside), self.index.eq(row.index),
        ]
        with m.If(self.load):
            m.d.sync += [self.active.eq(read.enable), self.line.eq(read.line), self.part.eq(0)]
            rows.restart()
            b.restart()
            row.restart()
        with m.Elif(self.active & self.advance):
            m.d.sync += [self.part.eq(self.part + 1), self.line.eq(self.line + 1)]
            with m.If(last):
                m.d.sync += [self.part.eq(0), self.line.eq(rows.next_row)]
                rows.step_row()
                row.step()
                with m.If(row.last):
                    m.d.sync += self.line.eq(rows.next_b)
                    rows.step_b()
                    row.restart()
                    b.step()
                    with m.If(b.last):
                        m.d.sync += self.active.eq(0)
        return m


class PieceScan(wiring.Component):
    """Pieces of a block of results, one a cycle from the cycle after `load` on.

    b, then rows, then the pieces of a row, whatever lanes they lie in.

    Parameters
    ----------
    tile_b, tile_i, tile_j : elements of a tile
    piece, pieces : elements of a piece, and pieces of a line

    Ports
    -----
    load : takes `write`, which must be steady from then on, as must the others
    transposed : whether rows are j and their elements i
    places : lanes from a tile to the next along b, i and j
    active : whether there is a piece; `line` and `bank` where it goes, `place` its lane, b, row and
        part: where it is in its tile; `index` its row, `whole` its place in the row
    """

    def __init__(self, tile_b, tile_i, tile_j, piece, pieces):
        self._tile_b, self._tile, self._pieces = tile_b, (tile_i, tile_j), pieces
        self._piece = piece
        longest = max(tile_i, tile_j)
        super().__init__({
            "load": In(1), "write": In(WRITE), "strides": In(STRIDES), "transposed": In(1),
            "places": In(PLACES), "active": Out(1), "line": Out(20), "bank": Out(range(pieces)),
            "place": Out(12), "b": Out(range(tile_b)), "row": Out(range(longest)),
            "part": Out(range(longest // piece)), "index": Out(14), "whole": Out(14),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        write, places = self.write, self.places
        i, j = self._tile
        row_end = Signal(range(max(i, j)))
        part_end = Signal(range(max(i, j) // self._piece))
        stride = SimpleNamespace(row=Signal(10), part=Signal(10))
        m.d.comb += [
            row_end.eq(Mux(self.transposed, j - 1, i - 1)),
            part_end.eq(Mux(self.transposed, i // self._piece - 1, j // self._piece - 1)),
            stride.row.eq(Mux(self.transposed, places.j, places.i)),
            stride.part.eq(Mux(self.transposed, places.i, places.j)),
        ]
        rows = _Rows(m, self.strides, write.line, write.phase)
        b = Tiled(m, "b", write.b, self._tile_b, 12)
        row = Tiled(m, "row", write.rows, row_end, 14)
        part = Tiled(m, "part", write.pieces, part_end, 14)
        column = Signal(15)
        place_b, place_row = Signal(12, reset_less=True), Signal(12, reset_less=True)
        place_part = Signal(12, reset_less=True)
        shift = (self._pieces - 1).bit_length()
        m.d.comb += [
            column.eq(part.index + write.piece),
            self.line.eq(rows.row + (column >> shift)),
            self.bank.eq(column[:shift]),
            self.place.eq(place_b + place_row + place_part),
            self.b.eq(b.inside), self.row.eq(row.inside), self.part.eq(part.inside),
            self.index.eq(row.index), self.whole.eq(part.index),
        ]
        with m.If(self.load):
            m.d.sync += [self.active.eq(write.enable), place_b.eq(0), place_row.eq(0),
                         place_part.eq(0)]
            rows.restart()
            for counter in (b, row, part):
                counter.restart()
        with m.Elif(self.active):
            part.step()
            m.d.sync += place_part.eq(place_part + Mux(part.closes, stride.part, 0))
            with m.If(part.last):
                part.restart()
                rows.step_row()
                row.step()
                m.d.sync += [place_part.eq(0),
                             place_row.eq(place_row + Mux(row.closes, stride.row, 0))]
                with m.If(row.last):
                    row.restart()
                    rows.step_b()
                    b.step()
                    m.d.sync += [place_row.eq(0),
                                 place_b.eq(place_b + Mux(b.closes, places.b, 0))]
                    with m.If(b.last):
                        m.d.sync += self.active.eq(0)
        return m


class PlaceScan(wiring.Component):
    """Tells lanes which tile of a full block they get, a lane a cycle from the one after `load` on.

    It ends at the first tile for which there is no lane.

    Parameters
    ----------
    lanes : how many there are

    Ports
    -----
    load : takes the others, which must be steady from then on
    places, unroll : lanes from a tile to the next, and tiles of a full block, along b, i and j
    active : whether there is a lane; `place` which, b, i and j: its tile
    bad : there is no such lane, or there are more tiles than lanes
    """

    def __init__(self, lanes):
        self._lanes = lanes
        super().__init__({
            "load": In(1), "places": In(PLACES), "unroll": In(bits_of("unroll", ("b", "i", "j"))),
            "active": Out(1), "place": Out(12), "b": Out(11), "i": Out(11), "j": Out(11),
            "bad": Out(1),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        at_b, at_i, at_j = (Signal(12, name=f"at_{name}", reset_less=True) for name in "bij")
        told = Signal(range(self._lanes + 1), reset_less=True)
        m.d.comb += [
            self.place.eq(at_b + at_i + at_j),
            self.bad.eq(self.active & ((self.place >= self._lanes) | (told == self._lanes))),
        ]
        with m.If(self.load):
            m.d.sync += [signal.eq(0) for signal in (
                self.b, self.i, self.j, at_b, at_i, at_j, told)]
            m.d.sync += self.active.eq(
                (self.unroll.b != 0) & (self.unroll.i != 0) & (self.unroll.j != 0))
        with m.Elif(self.bad):
            m.d.sync += self.active.eq(0)
        with m.Elif(self.active):
            m.d.sync += [told.eq(told + 1), self.j.eq(self.j + 1),
                         at_j.eq(at_j + self.places.j)]
            with m.If(self.j + 1 == self.unroll.j):
                m.d.sync += [self.j.eq(0), at_j.eq(0), self.i.eq(self.i + 1),
                             at_i.eq(at_i + self.places.i)]
                with m.If(self.i + 1 == self.unroll.i):
                    m.d.sync += [self.i.eq(0), at_i.eq(0), self.b.eq(self.b + 1),
                                 at_b.eq(at_b + self.places.b)]
                    with m.If(self.b + 1 == self.unroll.b):
                        m.d.sync += self.active.eq(0)
        return m


class SumScan(wiring.Component):
    """Partial sums that leave the lanes or come back, a group of lanes' a cycle.

    All dot products of a full tile of one group of lanes, then of the next.

    Parameters
    ----------
    dots : dot products of a full tile

    Ports
    -----
    load : starts from `word`, for `groups` groups, which must be steady from then on
    advance : whether the sums at the output are moved in this cycle
    active : whether there are any; `group` of lanes, `dot` product, `word` where they lie
    """

    def __init__(self, dots):
        self._dots = dots
        super().__init__({
            "load": In(1), "first": In(20), "groups": In(10), "advance": In(1),
            "active": Out(1), "group": Out(10), "dot": Out(range(dots)), "word": Out(20),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        with m.If(self.load):
            m.d.sync += [self.active.eq(self.groups != 0), self.group.eq(0), self.dot.eq(0),
                         self.word.eq(self.first)]
        with m.Elif(self.active & self.advance):
            m.d.sync += [self.word.eq(self.word + 1), self.dot.eq(self.dot + 1)]
            with m.If(self.dot == self._dots - 1):
                m.d.sync += [self.dot.eq(0), self.group.eq(self.group + 1)]
                with m.If(self.group + 1 == self.groups):
                    m.d.sync += self.active.eq(0)
        return m
