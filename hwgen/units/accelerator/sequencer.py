"""Takes descriptors, one a step, and says when each step begins."""

from amaranth.hdl import Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.program import DESCRIPTOR_WORDS, FORMAT_VERSION, KINDS, OPCODES, WORD_BITS
from hwgen.units.accelerator.layout import descriptor_layout
from hwgen.units.accelerator.status import Status


class Sequencer(wiring.Component):
    """Takes the words of the next descriptor while a step runs, checks it, and starts it.

    A step begins in the cycle in which `issue` is high, with its descriptor on `step`, or on
    `configuration`, which stays for the steps that follow. The next one begins two cycles after
    the first cycle in which neither the sequencer nor anything else is busy. A program is a header, which
    must name this machine, any number of configurations and steps, and an end; then another may
    follow. After an error nothing is taken any more until reset.

    Parameters
    ----------
    spec : AcceleratorSpec; its number, and limits that a step must keep

    Ports
    -----
    program : stream of words; `program.ready` comes from a register
    busy : whether anything else still works; must be high from the cycle of `issue` on
    fault : an error of a buffer, sticky: Status.OVERFLOW or Status.OUT_OF_RANGE
    issue, configure : a step, or a configuration, begins
    step, configuration : descriptors, steady until the next of their kind
    fetching : takes words; counts as busy
    ended : the program ends, in the cycle in which a further step would have begun
    status : Status
    """

    def __init__(self, spec):
        self._spec = spec
        super().__init__({
            "program": In(stream.Signature(unsigned(WORD_BITS))),
            "busy": In(1),
            "fault": In(Status),
            "issue": Out(1),
            "configure": Out(1),
            "step": Out(descriptor_layout("step")),
            "configuration": Out(descriptor_layout("configure")),
            "fetching": Out(1),
            "ended": Out(1),
            "status": Out(Status),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        words = [Signal(WORD_BITS, name=f"word_{k}", reset_less=True)
                 for k in range(DESCRIPTOR_WORDS)]
        count = Signal(range(DESCRIPTOR_WORDS + 1))
        full, consumed, closing, stopped = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            full.eq(count == DESCRIPTOR_WORDS),
            stopped.eq(self.status > Status.DONE),
            self.program.ready.eq(~full & ~stopped),
            self.fetching.eq(~full & (self.status == Status.RUNNING)),
        ]
        with m.If(self.program.valid & self.program.ready):
            m.d.sync += count.eq(count + 1)
            for k, word in enumerate(words):
                with m.If(count == k):
                    m.d.sync += word.eq(self.program.payload)
        with m.If(consumed):
            m.d.sync += count.eq(0)
        # One cycle in which all is idle, one in which the next descriptor is looked at.
        m.d.sync += [self.issue.eq(0), self.configure.eq(0), self.ended.eq(0),
                     closing.eq(full & ~self.busy & ~self.issue & ~closing & ~stopped)]
        with m.If(closing):
            self._decode(m, words, consumed)
        return m

    def _decode(self, m, words, consumed):
        """Start what the descriptor says, or find out what is wrong with it."""
        whole = Signal(WORD_BITS * DESCRIPTOR_WORDS)
        m.d.comb += [whole[WORD_BITS * k:WORD_BITS * (k + 1)].eq(word)
                     for k, word in enumerate(words)]
        opened = Signal()

        def view(opcode):
            layout = descriptor_layout(opcode)
            return data.View(layout, whole[:layout.size])

        m.d.comb += consumed.eq(1)
        with m.If(self.fault != Status.IDLE):
            m.d.sync += self.status.eq(self.fault)
        with m.Elif(~opened & (whole[:4] != OPCODES["header"])):
            m.d.sync += self.status.eq(Status.BAD_DESCRIPTOR)
        with m.Else():
            with m.Switch(view("end").opcode):
                with m.Case(OPCODES["header"]):
                    header = view("header")
                    known = (header.version == FORMAT_VERSION) & ~opened
                    own = header.machine == Const(self._spec.number, 64)
                    m.d.sync += [
                        opened.eq(known & own),
                        self.status.eq(Mux(known, Mux(own, Status.RUNNING, Status.OTHER_DESIGN),
                                           Status.BAD_DESCRIPTOR)),
                    ]
                with m.Case(OPCODES["configure"]):
                    configuration = view("configure")
                    with m.If(self._configuration_is_bad(configuration)):
                        m.d.sync += self.status.eq(Status.BAD_DESCRIPTOR)
                    with m.Else():
                        m.d.sync += [self.configuration.eq(configuration), self.issue.eq(1),
                                     self.configure.eq(1)]
                with m.Case(OPCODES["step"]):
                    step = view("step")
                    with m.If(self._step_is_bad(step)):
                        m.d.sync += self.status.eq(Status.BAD_DESCRIPTOR)
                    with m.Else():
                        m.d.sync += [self.step.eq(step), self.issue.eq(1)]
                with m.Case(OPCODES["end"]):
                    m.d.sync += [opened.eq(0), self.ended.eq(1), self.status.eq(Status.DONE)]
                with m.Default():
                    m.d.sync += self.status.eq(Status.BAD_DESCRIPTOR)

    def _configuration_is_bad(self, c):
        """Whether a configuration asks for what no unit can do."""
        return ((c.kind >= len(KINDS)) | (c.activate > 2)
                | (c.shift >= self._spec.lane.mac_lane.accumulator_bits))

    def _step_is_bad(self, s):
        """Whether a step has an extent that no tile has, or something to do of no extent."""
        lane = self._spec.lane
        product = self.configuration.kind == KINDS.index("product")
        tile = ((s.windows == 0) | (s.windows > lane.segment_lines)
                | (s.last_b == 0) | (s.last_b > lane.tile_b)
                | (s.last_i == 0) | (s.last_i > lane.tile_x)
                | (s.last_j == 0) | (s.last_j > lane.tile_y) | (s.initial > 2))
        longest = Mux(product, lane.segment_lines,
                      max(self._spec.softmax.row_lines, self._spec.norm.row_lines))
        bad = s.compute & product & tile
        for side in ("left", "right"):
            part = {name: getattr(s, f"{side}_{name}") for name in ("b", "rows", "lines")}
            empty = (part["b"] == 0) | (part["rows"] == 0) | (part["lines"] == 0)
            bad |= getattr(s, f"{side}_enable") & (empty | (part["lines"] > longest))
        empty = (s.write_b == 0) | (s.write_rows == 0) | (s.write_pieces == 0)
        return bad | (s.write_enable & empty)
