"""Norm engine."""

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
from hwgen.units.layer_norm.rtl import LayerNorm
from hwgen.units.norm_engine.spec import ROW_BANKS, NormEngineSpec
from hwgen.units.residual_add.rtl import ResidualAdd

EXPONENTS = ("a", "b", "sum", "gamma", "beta", "o")

WEIGHTS = ROW_BANKS - 1
"""Bank of an operand's memory that holds γ or β; the banks of an addend come before."""


class NormEngine(wiring.Component):
    """Works on one stored row a step: a + b, layer norm, pruned, compacted and stored.

    Memories of addends and results have two banks each: while the engine works on a row, the next
    may be written and the results of the one before read. Both addends are expanded side by side.
    γ and β have a bank each, beside the addends a and b; a step with `load` brings them to the
    layer-norm module, which keeps them, and must come before the first row.

    Nothing waits: after `start` the engine takes `cost.cycles` for a row of `length` elements,
    whatever its zero_masks, or `cost.load_cycles` for γ and β, and is `busy` in these cycles, the
    one of `start` included. The next step may start in the cycle after. There is no back-pressure:
    a loaded layer-norm module with a ready sink takes a beat a cycle, and an empty one γ and β.

    All results of a row from `valid_rows` on are 0, and so are results from a row's end on to the
    end of its last beat.

    Parameters
    ----------
    spec : the modules, lines and pieces

    Ports
    -----
    operation : struct {a_exponent, b_exponent, sum_exponent, gamma_exponent, beta_exponent,
        o_exponent: signed(8), of the addends, their sum, γ, β and the result; threshold: smallest
        magnitude that is kept; length: elements of a row, at least 1; valid_rows: real rows of a
        sequence}; steady while the engine is busy
    line : struct {valid, operand: 0 for a, 1 for b, 2 for γ, 3 for β; bank: of an addend, nothing
        for γ and β; line: which line of the row; zero_mask: a bit a position of the window; value:
        window × signed(bits), zero-free}, written into the operand's memory; zero_mask is 0 beyond
        the row's end. Not into what the engine works on
    step : struct {start, load: bring γ and β instead of working on a row, bank: of the addends,
        result_bank: of the result memory, row: the row's place in its sequence}; the rest counts
        with `start`
    busy : from the cycle of `start`, combinationally, to that of the last write of results, or of
        γ and β
    result : struct {enable, bank, piece: which piece of the row}, reads the result memory. Not the
        bank that the engine works on
    piece : struct {value: piece × signed(bits), zero-free; zero_mask}, one cycle after `result`
    """

    def __init__(self, spec: NormEngineSpec):
        self.spec = spec
        form = spec.rows
        super().__init__({
            "operation": In(data.StructLayout({
                **{f"{name}_exponent": signed(8) for name in EXPONENTS},
                "threshold": unsigned(spec.line.bits), "length": range(form.max_row + 1),
                "valid_rows": ROW})),
            "line": In(line_layout(form, operand=2, bank=1)),
            "step": In(data.StructLayout({
                "start": 1, "load": 1, "bank": 1, "result_bank": 1, "row": ROW})),
            "busy": Out(1),
            "result": In(result_layout(form)),
            "piece": Out(piece_layout(form)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, operation, step = self.spec, self.operation, self.step
        m.submodules.residual_add = add = ResidualAdd(spec.residual_add)
        m.submodules.layer_norm = norm = LayerNorm(spec.layer_norm)
        m.submodules.dynatran = dynatran = Dynatran(spec.dynatran)
        m.submodules.results = results = RowResults(spec.rows)

        working, loading = Signal(), Signal(reset_less=True)
        real, result_bank = Signal(reset_less=True), Signal(reset_less=True)
        a, b = (self._operand(m, number, real) for number in range(2))
        loaded = loading & a.o.valid & a.o.last
        with m.If(step.start):
            m.d.sync += [working.eq(1), loading.eq(step.load),
                         real.eq(step.row < operation.valid_rows),
                         result_bank.eq(step.result_bank)]
        with m.Elif(results.done | loaded):
            m.d.sync += working.eq(0)
        m.d.comb += [
            self.busy.eq(step.start | working),
            add.i_a.valid.eq(a.o.valid & ~loading),
            add.i_a.p.value.eq(a.o.value),
            add.i_a.p.valid_mask.eq(a.o.valid_mask),
            add.i_a.p.last.eq(a.o.last),
            add.i_b.valid.eq(b.o.valid & ~loading),
            add.i_b.p.value.eq(b.o.value),
            add.a_exponent.eq(operation.a_exponent),
            add.b_exponent.eq(operation.b_exponent),
            add.o_exponent.eq(operation.sum_exponent),
            norm.weights.valid.eq(a.o.valid & loading),
            norm.weights.p.gamma.eq(a.o.value),
            norm.weights.p.beta.eq(b.o.value),
            norm.weights.p.last.eq(a.o.last),
            norm.i_exponent.eq(operation.sum_exponent),
            norm.gamma_exponent.eq(operation.gamma_exponent),
            norm.beta_exponent.eq(operation.beta_exponent),
            norm.o_exponent.eq(operation.o_exponent),
            dynatran.i.valid.eq(norm.o.valid),
            norm.o.ready.eq(dynatran.i.ready),
            dynatran.i.p.value.eq(norm.o.p.value),
            # Where there is no element, layer norm gives 0.
            dynatran.i.p.valid_mask.eq(~0),
            dynatran.i.p.last.eq(norm.o.p.last),
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
        wiring.connect(m, add.o, norm.i)
        return m

    def _operand(self, m, number, real):
        """Memory of an addend, and of γ or β."""
        operation, step = self.operation, self.step
        memory = RowMemory(self.spec.rows, ROW_BANKS)
        m.submodules["ab"[number]] = memory
        m.d.comb += [
            memory.line.valid.eq(self.line.valid & (self.line.operand[0] == number)),
            memory.line.bank.eq(Mux(self.line.operand[1], WEIGHTS, self.line.bank)),
            memory.line.line.eq(self.line.line),
            memory.line.zero_mask.eq(self.line.zero_mask),
            memory.line.value.eq(self.line.value),
            memory.start.eq(step.start),
            memory.bank.eq(Mux(step.load, WEIGHTS, step.bank)),
            memory.length.eq(operation.length),
            memory.valid_length.eq(Mux(real, operation.length, 0)),
        ]
        return memory
