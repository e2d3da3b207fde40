"""Softmax engine."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.row_memory import (
    ROW,
    RowMemory,
    RowResults,
    line_layout,
    piece_layout,
    result_layout,
)
from hwgen.units.dynatran.rtl import Dynatran
from hwgen.units.softmax.rtl import Softmax
from hwgen.units.softmax_engine.spec import SoftmaxEngineSpec


class SoftmaxEngine(wiring.Component):
    """Works on one stored row a step: expanded, through softmax, pruned, compacted and stored.

    Row memory and result memory have two banks each: while the engine works on a row, the next
    may be written and the results of the one before read. Nothing waits: after `start` the engine
    takes `cost.cycles` for a row of `length` elements, whatever its zero_masks, and is `busy` in
    these cycles, the one of `start` included. The next row may start in the cycle after. There is
    no back-pressure: a softmax module with a ready sink takes a beat a cycle.

    Positions from `valid_length` on, and all of a row from `valid_rows` on, are not real: they do
    not count and their results are 0. Results from the row's end on to the end of its last beat
    are 0, too.

    Parameters
    ----------
    spec : the module, lines and pieces

    Ports
    -----
    operation : struct {i_exponent: signed(8), of the scores; threshold: smallest magnitude that is
        kept; length: elements of a row, at least 1; valid_length: real ones among them, at most
        `length`; valid_rows: real rows of a sequence}; steady while the engine is busy
    line : struct {valid, bank, line: which line of the row, zero_mask: a bit a position of the
        window, value: window × signed(bits), zero-free}, written into the row memory; zero_mask is
        0 beyond the row's end. Not into the bank that the engine works on
    step : struct {start, bank: of the row memory, result_bank: of the result memory, row: the row's
        place in its sequence}; the rest counts with `start`
    busy : from the cycle of `start`, combinationally, to that of the last write of results
    result : struct {enable, bank, piece: which piece of the row}, reads the result memory. Not the
        bank that the engine works on
    piece : struct {value: piece × signed(bits), zero-free; zero_mask}, one cycle after `result`
    """

    def __init__(self, spec: SoftmaxEngineSpec):
        self.spec = spec
        form = spec.rows
        elements = range(form.max_row + 1)
        super().__init__({
            "operation": In(data.StructLayout({
                "i_exponent": signed(8), "threshold": unsigned(spec.line.bits), "length": elements,
                "valid_length": elements, "valid_rows": ROW})),
            "line": In(line_layout(form, bank=1)),
            "step": In(data.StructLayout({"start": 1, "bank": 1, "result_bank": 1, "row": ROW})),
            "busy": Out(1),
            "result": In(result_layout(form)),
            "piece": Out(piece_layout(form)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, operation, step = self.spec, self.operation, self.step
        m.submodules.rows = rows = RowMemory(spec.rows, banks=2)
        m.submodules.softmax = softmax = Softmax(spec.softmax)
        m.submodules.dynatran = dynatran = Dynatran(spec.dynatran)
        m.submodules.results = results = RowResults(spec.rows)

        working = Signal()
        real, result_bank = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(step.start):
            m.d.sync += [working.eq(1), real.eq(step.row < operation.valid_rows),
                         result_bank.eq(step.result_bank)]
        with m.Elif(results.done):
            m.d.sync += working.eq(0)
        m.d.comb += [
            self.busy.eq(step.start | working),
            rows.line.eq(self.line),
            rows.start.eq(step.start),
            rows.bank.eq(step.bank),
            rows.length.eq(operation.length),
            rows.valid_length.eq(Mux(real, operation.valid_length, 0)),
            softmax.i.valid.eq(rows.o.valid),
            softmax.i.p.value.eq(rows.o.value),
            softmax.i.p.valid_mask.eq(rows.o.valid_mask),
            softmax.i.p.last.eq(rows.o.last),
            softmax.i_exponent.eq(operation.i_exponent),
            dynatran.i.valid.eq(softmax.o.valid),
            softmax.o.ready.eq(dynatran.i.ready),
            dynatran.i.p.value.eq(softmax.o.p.value),
            # Where there is no element, softmax gives 0.
            dynatran.i.p.valid_mask.eq(~0),
            dynatran.i.p.last.eq(softmax.o.p.last),
            dynatran.threshold.eq(operation.threshold),
            dynatran.o.ready.eq(1),
            results.i.valid.eq(dynatran.o.valid),
            results.i.value.eq(dynatran.o.p.value),
            results.i.zero_mask.eq(dynatran.o.p.zero_mask),
            results.i.last.eq(dynatran.o.p.last),
            results.bank.eq(result_bank),
            results.result.eq(self.result),
            self.piece.eq(results.piece),
        ]
        return m
