"""Sum of two rows of different exponents, one rounding."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.pipeline import Pipeline
from hwgen.units.residual_add.cost import STAGES
from hwgen.units.residual_add.spec import ResidualAddSpec


class ResidualAdd(wiring.Component):
    """a + b exactly, rounded once to the output's exponent (ties to even), saturating.

    Both addends are shifted onto one grid, which the exponents choose so that no more than
    2·bits + 3 bits are ever needed; what falls below it is one sticky bit. Where the addends have
    no fraction of an output unit, their sum is exact on a grid of their own and is raised last.

    Latency 5 cycles, initiation interval 1, elastic: one enable for the five stages, the ready
    register of the slice at the output. A beat enters when both inputs have one, so `ready` of
    either input follows `valid` of the other within the cycle. The exponents must be steady from
    two cycles before the first beat until the last has left.

    Parameters
    ----------
    spec : elements a beat and their width

    Ports
    -----
    i_a : stream of {value: `parallel` × signed(bits), valid_mask: `parallel` bits, last}
    i_b : stream of {value}, the other addend, beat for beat
    o : stream of {value, valid_mask, last}; the last two are those of `i_a`
    a_exponent, b_exponent, o_exponent : signed(8), exponents of both addends and of the sum
    """

    def __init__(self, spec: ResidualAddSpec):
        self.spec = spec
        value = data.ArrayLayout(signed(spec.bits), spec.parallel)
        row = data.StructLayout(
            {"value": value, "valid_mask": unsigned(spec.parallel), "last": 1})
        super().__init__({
            "i_a": In(stream.Signature(row)),
            "i_b": In(stream.Signature(data.StructLayout({"value": value}))),
            "o": Out(stream.Signature(row)),
            "a_exponent": In(signed(8)),
            "b_exponent": In(signed(8)),
            "o_exponent": In(signed(8)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        grid = self._grid(m)
        both = stream.Signature(unsigned(0)).create()
        m.d.comb += [
            both.valid.eq(self.i_a.valid & self.i_b.valid),
            self.i_a.ready.eq(both.ready & self.i_b.valid),
            self.i_b.ready.eq(both.ready & self.i_a.valid),
        ]
        pipe = Pipeline(m, both, group=STAGES, name="add")
        row = {"valid_mask": self.i_a.p.valid_mask, "last": self.i_a.p.last}
        elements = [SimpleNamespace(a=a, b=b)
                    for a, b in zip(self.i_a.p.value, self.i_b.p.value, strict=True)]
        for compute in (self._shifted, self._added_low, self._added_high, self._raised):
            computed = [compute(element, grid) for element in elements]
            s = pipe.stage(**row, **{f"{name}{k}": value for k, values in enumerate(computed)
                                     for name, value in values.items()})
            row = {name: getattr(s, name) for name in row}
            elements = [SimpleNamespace(**{name: getattr(s, f"{name}{k}") for name in values})
                        for k, values in enumerate(computed)]
        result = Signal(data.ArrayLayout(signed(self.spec.bits), self.spec.parallel))
        m.d.comb += [result[k].eq(self._rounded(element)) for k, element in enumerate(elements)]
        pipe.finish(self.o, value=result, **row)
        return m

    def _grid(self, m):
        """Registered controls: where each addend lies on the grid, which grid, the final shift.

        With s = (exponent of an addend) − (exponent of the sum), there are three cases.

        - Both s negative: the *fine* grid, `bits` places below the output's unit and a sticky bit.
          What does not fit it is at most a quarter unit; two such addends round to 0.
        - One s at least 0, the other at most 0: one place below the unit, and a sticky bit. The
          addend with s ≥ 0 has neither; `bits` places up it saturates whatever the other is, and
          further up it does the same.
        - Both positive: the same grid, its unit that of the smaller s, and a final shift.
        """
        bits = self.spec.bits
        up = {"a": Signal(signed(9), name="a_up", reset_less=True),
              "b": Signal(signed(9), name="b_up", reset_less=True)}
        m.d.sync += [up["a"].eq(self.a_exponent - self.o_exponent),
                     up["b"].eq(self.b_exponent - self.o_exponent)]
        least, below = Signal(signed(9)), Signal()
        grid = SimpleNamespace(fine=Signal(name="fine", reset_less=True),
                               rise=Signal(range(bits), name="rise", reset_less=True),
                               shift={}, lost={})
        m.d.comb += [
            least.eq(Mux(up["a"] < up["b"], up["a"], up["b"])),
            below.eq((up["a"] < 0) & (up["b"] < 0)),
        ]
        m.d.sync += [
            grid.fine.eq(below),
            # At most all bits but one: −1 then still becomes the smallest number.
            grid.rise.eq(Mux(least < 0, 0, Mux(least > bits - 1, bits - 1, least))),
        ]
        # At shift 0 an addend stands above the grid, at the longest only its sign is left on it.
        longest = 2 * bits + 1
        for side, own in up.items():
            shift = Signal(range(longest + 1), name=f"{side}_shift", reset_less=True)
            wanted = Signal(signed(10), name=f"{side}_wanted")
            m.d.comb += wanted.eq(
                Mux(below, 1 - own, bits - own + Mux(least < 0, 0, least)))
            m.d.sync += shift.eq(Mux(wanted < 0, 0, Mux(wanted > longest, longest, wanted)))
            grid.shift[side] = shift
            grid.lost[side] = Signal(bits, name=f"{side}_lost")
            m.d.comb += grid.lost[side].eq(Cat(shift > bits + 2 + k for k in range(bits)))
        return grid

    def _shifted(self, s, grid):
        """Both addends on the grid, and in its last bit whether a 1 has fallen out."""
        values = {}
        for side in ("a", "b"):
            value = getattr(s, side)
            wide = Cat(Const(0, self.spec.bits + 2), value).as_signed() >> grid.shift[side]
            sticky = (value & grid.lost[side]).any()
            values[side] = Cat(wide[0] | sticky, wide[1:]).as_signed()
        return values

    def _added_low(self, s, grid):
        """The lower half of the sum; the upper halves of the addends wait for its carry."""
        half = self.spec.bits + 1
        return {"low": s.a[:half] + s.b[:half],
                "a": s.a[half:].as_signed(), "b": s.b[half:].as_signed()}

    def _added_high(self, s, grid):
        """The sum in whole units, and what is below a unit."""
        half = self.spec.bits + 1
        # A 1 below the last bit of both addends is a carry into it.
        carried = Cat(s.low[half], s.a).as_signed() + Cat(s.low[half], s.b).as_signed()
        total = Cat(s.low[:half], carried[1:])
        return {"value": Mux(grid.fine, total[half:].as_signed(), total[2:].as_signed()),
                "guard": Mux(grid.fine, total[half - 1], total[1]),
                "sticky": Mux(grid.fine, total[:half - 1].any(), total[0])}

    def _raised(self, s, grid):
        """The sum's lower bits shifted up, and whether that is not all of it.

        Only a sum that is not shifted has a fraction. The largest number counts as too large:
        whether it is rounded up or not, it stays what it is.
        """
        bits = self.spec.bits
        low, high, negative = s.value[:bits - 1], s.value[bits - 1:], s.value[-1]
        lost = Cat(grid.rise >= bits - 1 - k for k in range(bits - 1))
        beyond = ((high ^ negative.replicate(len(high))).any()
                  | ((low ^ negative.replicate(bits - 1)) & lost).any())
        return {"value": (s.value << grid.rise)[:bits],
                "up": s.guard & (s.sticky | s.value[0]),
                "beyond": beyond | (~negative & low.all()),
                "negative": negative}

    def _rounded(self, s):
        """The sum rounded and saturated."""
        bits = self.spec.bits
        limit = Cat((~s.negative).replicate(bits - 1), s.negative)
        return Mux(s.beyond, limit, (s.value + s.up)[:bits]).as_signed()
