"""Counters that walk over a tile's dot products, and over the lines of each."""

from amaranth.hdl import Const, Signal


class TileWalk:
    """Counts b, i and j of a tile's dot products, j fastest, or i fastest if transposed.

    The counters come from registers and start from zero; after a tile they are at zero again.

    Parameters
    ----------
    m : the module that the counters are added to
    name : prefix of the signals
    last : namespace of the last `b`, `i` and `j` of the tile and, for a walk over the lines of each
        dot product, its last `line`; steady from the first to the last advance of a tile
    transposed : whether i is fastest; as steady
    advance : whether the counters go on in this cycle

    Attributes
    ----------
    b, i, j, line : the counters
    ends : whether this is the tile's last dot product, and its last line
    line_ends : whether this is the dot product's last line
    i_steps, j_steps : which of the counters of rows and columns the next advance changes, or sets
        back to where it is because its extent is 1; both where it changes b or ends the tile
    """

    def __init__(self, m, name, last, transposed, advance):
        self.b, self.i, self.j = (
            Signal.like(getattr(last, part), name=f"{name}_{part}") for part in "bij")
        self.line_ends = self.line = Const(1, 1)
        if hasattr(last, "line"):
            self.line = Signal.like(last.line, name=f"{name}_line")
            self.line_ends = Signal(name=f"{name}_line_ends")
            m.d.comb += self.line_ends.eq(self.line == last.line)
        b_ends, i_ends, j_ends = (Signal(name=f"{name}_{part}_ends") for part in "bij")
        b_steps, self.i_steps, self.j_steps = (
            Signal(name=f"{name}_{part}_steps") for part in "bij")
        self.ends = Signal(name=f"{name}_ends")
        m.d.comb += [
            b_ends.eq(self.b == last.b),
            i_ends.eq(self.i == last.i),
            j_ends.eq(self.j == last.j),
            self.i_steps.eq(self.line_ends & (transposed | j_ends)),
            self.j_steps.eq(self.line_ends & (~transposed | i_ends)),
            b_steps.eq(self.line_ends & i_ends & j_ends),
            self.ends.eq(b_steps & b_ends),
        ]
        counters = [(self.b, b_steps, b_ends), (self.i, self.i_steps, i_ends),
                    (self.j, self.j_steps, j_ends)]
        if hasattr(last, "line"):
            counters.append((self.line, Const(1, 1), self.line_ends))
        for counter, steps, wraps in counters:
            with m.If(advance & steps):
                m.d.sync += counter.eq((counter + 1) & ~wraps.replicate(len(counter)))
