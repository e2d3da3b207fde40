"""A step begins once, when its descriptor is there, it may begin, and all has ended before it."""

import pytest
from accelerator import COMPUTE, HEADER, PRODUCT, SPEC, give, steps
from amaranth.hdl import Cat, Mux, Signal, Value
from amaranth.lib import data
from insides import insides
from mutations import mutated_class
from proofs import Claims, Refuted

from hwgen.program import DESCRIPTOR_WORDS, FORMAT_VERSION, KINDS, OPCODES, WORD_BITS, Descriptor
from hwgen.units.accelerator.layout import descriptor_layout
from hwgen.units.accelerator.sequencer import Sequencer
from hwgen.units.accelerator.status import Status


class Taken:
    """What a naive host has given since the sequencer last decided on a descriptor.

    Parameters
    ----------
    claims : get the registers
    dut : the sequencer
    """

    def __init__(self, claims, dut):
        m, sync = claims.m, claims.m.d.sync
        before = claims.past(dut.status)
        decided, took = Signal(), dut.program.valid & dut.program.ready
        self.number, self.before = Signal(4, name="taken"), before
        self.words = [Signal(WORD_BITS, name=f"given_{k}") for k in range(DESCRIPTOR_WORDS)]
        self.held = Signal(4, name="held")
        m.d.comb += [decided.eq(dut.issue | dut.ended | (dut.status != before)),
                     self.held.eq(Mux(decided, 0, self.number))]
        sync += self.number.eq(self.held + took)
        with m.If(took):
            for k, word in enumerate(self.words):
                with m.If(self.held == k):
                    sync += word.eq(dut.program.payload)

    def descriptor(self, opcode):
        """All words as a descriptor of some kind."""
        layout = descriptor_layout(opcode)
        return data.View(layout, Cat(self.words)[:layout.size])


def _free_surroundings(claims, dut, program):
    """Words come at any time, and work ends at any time; nothing begins to work by itself."""
    claims.anything(dut.busy, dut.fault)
    if program is None:
        claims.anything(dut.program.payload, dut.program.valid)
    else:
        give(claims, dut.program, program)
    claims.assume(~dut.issue | dut.busy)
    claims.assume(~dut.fetching | dut.busy)
    claims.assume(~dut.busy | claims.past(dut.busy) | dut.issue | dut.fetching)
    fault = Value.cast(dut.fault)
    claims.assume((claims.past(fault) == 0) | (fault == claims.past(fault)))
    claims.assume((fault == 0) | (fault > Status.DONE))


def sequencer_claims(sequencer_class, only=None, program=None):
    """What is claimed of a sequencer, whatever comes, or for a program."""
    claims, dut = Claims(only), sequencer_class(SPEC)
    fragment, signals = insides(dut)
    claims.m.submodules.sequencer = fragment
    _free_surroundings(claims, dut, program)
    taken = Taken(claims, dut)
    opcode, header = (taken.descriptor(name) for name in ("end", "header"))
    begins = dut.issue & ~dut.configure
    failed = dut.status > Status.DONE
    starts_program = (dut.status == Status.RUNNING) & (taken.before != Status.RUNNING)

    claims.always("a step begins when its descriptor is whole, and each but once",
                  ~(dut.issue | dut.ended) | (taken.number == DESCRIPTOR_WORDS))
    claims.always("what begins is what came", ~dut.issue | Mux(
        dut.configure,
        (opcode.opcode == OPCODES["configure"])
        & (Value.cast(dut.configuration) == Value.cast(taken.descriptor("configure"))),
        (opcode.opcode == OPCODES["step"])
        & (Value.cast(dut.step) == Value.cast(taken.descriptor("step")))))
    idle = ~claims.past(dut.busy) & ~claims.past(claims.past(dut.busy))
    claims.always("nothing begins while anything is busy", ~(dut.issue | dut.ended) | idle)
    steady = {name: Value.cast(getattr(dut, name)) == claims.past(Value.cast(getattr(dut, name)))
              for name in ("step", "configuration")}
    claims.always("descriptors change only when they begin",
                  (steady["step"] | begins)
                  & (steady["configuration"] | (dut.issue & dut.configure)))
    claims.always("nothing begins after an error",
                  ~failed | ~(dut.issue | dut.configure | dut.ended | dut.program.ready))
    claims.always("an error stays",
                  (taken.before <= Status.DONE) | (dut.status == taken.before))
    claims.always("a fault shows in the next cycle",
                  (claims.past(Value.cast(dut.fault)) == 0) | failed)
    claims.always("a program begins with a header that names this design", ~starts_program | (
        (taken.number == DESCRIPTOR_WORDS) & (opcode.opcode == OPCODES["header"])
        & (header.version == FORMAT_VERSION) & (header.machine == SPEC.number)))
    claims.always("nothing begins outside a program",
                  ~dut.issue | (dut.status == Status.RUNNING))
    claims.always("a program's end is told once", dut.ended == (
        (dut.status == Status.DONE) & (taken.before != Status.DONE)))
    claims.always("a program ends only if it has begun",
                  ~dut.ended | (taken.before == Status.RUNNING))

    configured = Signal()
    with claims.m.If(dut.issue | dut.ended):
        claims.m.d.sync += configured.eq(dut.issue & (configured | dut.configure))
    step = dut.step
    only_copies = ~Cat(step.compute, step.left_enable, step.right_enable, step.drain_enable,
                       step.fill_enable, step.write_enable).any()
    claims.always("a step has a configuration of its program", ~begins | configured | only_copies)
    _claim_extents(claims, dut, begins)
    _strengthen(claims, dut, signals, taken, configured)
    _claim_reachable(claims, dut, begins)
    return claims


def _claim_extents(claims, dut, begins):
    """Claim that every count of a walk comes to its end, and that lanes and engines have room."""
    step, c, lane = dut.step, dut.configuration, SPEC.lane
    product, norm = (c.kind == KINDS.index(name) for name in ("product", "norm"))
    counts = [(step.left_enable, (step.left_b, step.left_rows, step.left_lines)),
              (step.right_enable, (step.right_b, step.right_rows, step.right_lines)),
              (step.write_enable, (step.write_b, step.write_rows, step.write_pieces))]
    claims.always("no walk is endless", (~begins | ~Cat(
        enable & (count == 0) for enable, walk in counts for count in walk).any())
        & (~(dut.issue & dut.configure & norm) | (c.weights_lines != 0)))
    claims.always("no copy is without lines or slots", (~begins | ~step.copy_enable | (
        (step.copy_lines != 0) & (step.copy_slots > step.copy_values)))
        & (~(dut.issue & dut.configure) | (c.prefetch_lines == 0)
           | (c.prefetch_slots > c.prefetch_values)))
    lines = Mux(product, lane.segment_lines, SPEC.norm.row_lines)
    claims.always("no line goes beyond an operand's memory", ~begins | ~Cat(
        step[f"{side}_enable"] & (step[f"{side}_lines"] > lines) for side in ("left", "right")
    ).any())
    room = {"left": lane.tile_x, "right": lane.tile_y}
    claims.always("no line is for a lane or an engine that is not there", ~begins | ~Cat(
        step[f"{side}_enable"] & Mux(
            product, (step[f"{side}_rows"] > SPEC.lanes * tile)
            | (step[f"{side}_b"] > SPEC.lanes * lane.tile_b),
            (step[f"{side}_rows"] > SPEC.softmax_engines) | (step[f"{side}_b"] != 1))
        for side, tile in room.items()).any())
    claims.always("a row fits its engine", ~begins | product | _row_fits(c) | ~step.compute)
    claims.always("a tile is one of the block and not beyond its lanes",
                  ~(begins & step.compute & product) | ~Cat(
                      (step[f"tiles_{name}"] == 0) | (step[f"tiles_{name}"] > c[f"unroll_{name}"])
                      | (step[f"last_{name}"] == 0) | (step[f"last_{name}"] > extent)
                      for name, extent in (("b", lane.tile_b), ("i", lane.tile_x),
                                           ("j", lane.tile_y))).any())
    claims.always("what is computed from is not written", ~(begins & step.compute & product) | ~(
        (step.left_enable & (step.left_bank == step.compute_left))
        | (step.right_enable & (step.right_bank == step.compute_right))))


def _row_fits(configuration):
    longest = SPEC.norm.layer_norm.max_row
    return (configuration.length != 0) & (configuration.length <= longest)


def _strengthen(claims, dut, signals, taken, configured):
    """Claim how the registers stand to one another, which makes the other claims inductive."""
    count, closing = signals["count"], signals["closing"]
    failed = dut.status > Status.DONE
    claims.always("what is taken is counted", failed | (count == taken.held))
    claims.always("no more is taken than a descriptor", count <= DESCRIPTOR_WORDS)
    claims.always("what is taken is kept", Cat(
        (taken.held > k) & (signals[f"word_{k}"] != word)
        for k, word in enumerate(taken.words)) == 0)
    claims.always("what is decided on is whole", ~closing | (count == DESCRIPTOR_WORDS))
    claims.always("what is decided on has waited", ~closing | ~claims.past(dut.busy))
    claims.always("a program is open while it runs",
                  failed | (signals["opened"] == (dut.status == Status.RUNNING)))
    claims.always("a configuration is remembered", failed | (
        signals["configured"] == ((configured & ~dut.ended) | (dut.issue & dut.configure))))
    c = dut.configuration
    product = c.kind == KINDS.index("product")
    sizes = {"b": SPEC.lane.tile_b, "i": SPEC.lane.tile_x, "j": SPEC.lane.tile_y}
    claims.always("a configuration is a good one", failed | ~signals["configured"] | Mux(
        product, ~Cat((c[f"unroll_{name}"] == 0) | (c[f"unroll_{name}"] > SPEC.lanes)
                      for name in sizes).any(), _row_fits(c)))
    claims.always("the extents of a block are known", failed | dut.configure | ~Cat(
        signals[f"block_{name}"] != c[f"unroll_{name}"] * size
        for name, size in sizes.items()).any())
    claims.always("a configuration is of its program", failed | dut.ended
                  | (dut.status == Status.RUNNING) | ~configured)


def _claim_reachable(claims, dut, begins):
    """Claim that programs run: no other claim holds because nothing ever begins."""
    begun = Signal()
    claims.m.d.sync += begun.eq(begun | begins)
    claims.some_time("a product begins", begins & dut.step.compute
                     & (dut.configuration.kind == KINDS.index("product")))
    claims.some_time("a program ends after a step", begun & dut.ended)
    claims.some_time("a fault comes while a step runs",
                     claims.past(begun) & (dut.status == Status.OVERFLOW))


def test_a_sequencer_is_safe(tmp_path):
    sequencer_claims(Sequencer).prove(tmp_path, 4)


def test_a_program_comes_to_its_end(tmp_path):
    sequencer_claims(Sequencer).reach(tmp_path, 30)


WRONG_HEADERS = (
    Descriptor("header", {**HEADER.fields, "machine": SPEC.number ^ 1}),
    Descriptor("header", {**HEADER.fields, "version": FORMAT_VERSION + 1}),
)
PROGRAM = steps(COMPUTE)
ENDLESS = Descriptor("step", {"left_enable": 1, "left_b": 1, "left_rows": 1})
END = Descriptor("end")


@pytest.mark.parametrize(("method", "right", "wrong", "claim", "program"), [
    ("elaborate", "closing.eq(full &", "closing.eq(count.any() &",
     "a program begins with a header that names this design", None),
    ("elaborate", "count.eq(0)", "count.eq(Mux(words[0][:4] == OPCODES['configure'],"
     " DESCRIPTOR_WORDS, 0))",
     "a step begins when its descriptor is whole, and each but once", PROGRAM),
    ("elaborate", "full & ~self.busy", "full", "nothing begins while anything is busy", PROGRAM),
    ("elaborate", "with m.If(count == k):", "with m.If(count == (k ^ 1)):",
     "what begins is what came", None),
    ("elaborate", "& ~faulty & ~stopped", "", "nothing begins after an error", PROGRAM),
    ("elaborate", "m.d.sync += self.status.eq(self.fault)", "pass",
     "a fault shows in the next cycle", PROGRAM),
    ("_decode", "Mux(own, Status.RUNNING, Status.OTHER_DESIGN)", "Status.RUNNING",
     "a program begins with a header that names this design", WRONG_HEADERS[:1]),
    ("_decode", "(header.version == FORMAT_VERSION)", "Const(1)",
     "a program begins with a header that names this design", WRONG_HEADERS[1:]),
    ("_decode", "[opened.eq(0), self.ended", "[self.ended", "nothing begins outside a program",
     (HEADER, END, PRODUCT)),
    ("_decode", "self.ended.eq(1), ", "", "a program's end is told once", (HEADER, END)),
    ("_decode", "[self.step.eq(step), self.issue.eq(1)]", "[self.step.eq(step)]",
     "descriptors change only when they begin", PROGRAM),
    ("_is_bad", "(~opened & ~is_a[\"header\"])", "Const(0)", "nothing begins outside a program",
     (PRODUCT,)),
    ("_is_bad", "(~configured & ~checks.only_copies(step))", "Const(0)",
     "a step has a configuration of its program", (*PROGRAM[:2], END, HEADER, PROGRAM[2])),
    ("_is_bad", " | checks.step_is_bad(step, loaded)", "", "no copy is without lines or slots",
     (HEADER, Descriptor("step", {"copy_enable": 1, "copy_lines": 1}))),
    ("_is_bad", " & checks.configuration_is_bad(configuration)", " & 0",
     "no copy is without lines or slots",
     (HEADER, Descriptor("configure", {**PRODUCT.fields, "prefetch_lines": 1}))),
    ("_is_bad", " | checks.step_is_bad(step, loaded)", "", "no walk is endless",
     (HEADER, PRODUCT, ENDLESS)),
    ("_is_bad", " & checks.configuration_is_bad(configuration)", " & 0", "a row fits its engine",
     (HEADER, Descriptor("configure", {"kind": 1}),
      Descriptor("step", {"compute": 1, "tiles_i": 1}))),
])
def test_a_wrong_sequencer_is_refuted(method, right, wrong, claim, program, tmp_path):
    claims = sequencer_claims(mutated_class(Sequencer, right, wrong, method), claim, program)
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        claims.try_out(tmp_path, 45)
