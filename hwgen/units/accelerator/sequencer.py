"""Takes descriptors, one a step, and says when each step begins."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.program import DESCRIPTOR_WORDS, FORMAT_VERSION, OPCODES, WORD_BITS
from hwgen.units.accelerator.checks import Checks
from hwgen.units.accelerator.layout import descriptor_layout
from hwgen.units.accelerator.status import Status


class Sequencer(wiring.Component):
    """Takes the words of the next descriptor while a step runs, checks it, and starts it.

    A step begins in the cycle in which `issue` is high, with its descriptor on `step`, or on
    `configuration`, which stays for the steps that follow. The next one begins two cycles after
    the first cycle in which neither the sequencer nor anything else is busy. A program is a header,
    which must name this machine, any number of configurations and steps, and an end; then another
    may follow. Before the first configuration a step can only copy.

    A descriptor that `Checks` refuses is not started. A fault shows as soon as it happens; the step
    ends, and no other begins. After an error nothing is taken any more until reset.

    Parameters
    ----------
    spec : AcceleratorSpec; its number, and limits that a step must keep

    Ports
    -----
    program : stream of words; `program.ready` comes from a register
    busy : whether anything else still works; must be high from the cycle of `issue` on
    fault : an error found while a step runs, or Status.IDLE; sticky
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
        full, closing, stopped = (Signal(name=name) for name in ("full", "closing", "stopped"))
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
        with m.If(closing):
            m.d.sync += count.eq(0)
        # One cycle in which all is idle, one in which the next descriptor is started. What is wrong
        # with it is found out in the first of these, or before.
        m.d.sync += [self.issue.eq(0), self.configure.eq(0), self.ended.eq(0),
                     closing.eq(full & ~self.busy & ~self.issue & ~closing & ~stopped)]
        faulty = Signal()
        m.d.comb += faulty.eq(self.fault != Status.IDLE)
        with m.If(faulty & ~stopped):
            m.d.sync += self.status.eq(self.fault)
        whole = Signal(WORD_BITS * DESCRIPTOR_WORDS)
        m.d.comb += [whole[WORD_BITS * k:WORD_BITS * (k + 1)].eq(word)
                     for k, word in enumerate(words)]
        self._decode(m, whole, closing & ~faulty & ~stopped)
        return m

    def _decode(self, m, whole, starts):
        """Start what the descriptor says, or say that it is wrong."""
        opened = Signal()
        opcode, header, configuration, step = (
            data.View(layout, whole[:layout.size])
            for layout in map(descriptor_layout, ("end", "header", "configure", "step")))
        is_a = {name: opcode.opcode == number for name, number in OPCODES.items()}
        bad, known, own = (Signal(name=name, reset_less=True) for name in ("bad", "known", "own"))
        m.d.sync += [
            bad.eq(self._is_bad(m, opened, is_a, configuration, step, starts)),
            known.eq((header.version == FORMAT_VERSION) & ~opened),
            own.eq(header.machine == Const(self._spec.number, 64)),
        ]
        with m.If(starts):
            with m.If(bad | (is_a["header"] & ~known)):
                m.d.sync += self.status.eq(Status.BAD_DESCRIPTOR)
            with m.Elif(is_a["header"]):
                m.d.sync += [opened.eq(own),
                             self.status.eq(Mux(own, Status.RUNNING, Status.OTHER_DESIGN))]
            with m.Elif(is_a["configure"]):
                m.d.sync += [self.configuration.eq(configuration), self.issue.eq(1),
                             self.configure.eq(1)]
            with m.Elif(is_a["step"]):
                m.d.sync += [self.step.eq(step), self.issue.eq(1)]
            with m.Else():
                m.d.sync += [opened.eq(0), self.ended.eq(1), self.status.eq(Status.DONE)]

    def _is_bad(self, m, opened, is_a, configuration, step, starts):
        """Whether the descriptor is refused, but for what is wrong with a header."""
        checks = Checks(m, self._spec, self.configuration)
        configured, loaded = Signal(name="configured"), Signal(name="loaded")
        with m.If(starts):
            with m.If(is_a["step"]):
                m.d.sync += loaded.eq(loaded | (step.compute & step.load))
            with m.Else():
                m.d.sync += [configured.eq(is_a["configure"]), loaded.eq(0)]
        return (
            ~Cat(is_a.values()).any()
            | (~opened & ~is_a["header"])
            | (is_a["configure"] & checks.configuration_is_bad(configuration))
            | (is_a["step"] & ((~configured & ~checks.only_copies(step))
                               | checks.step_is_bad(step, loaded)))
        )
