"""Rows through a row engine in Amaranth's simulator, as steps follow one another."""

import numpy as np
from amaranth.hdl import Cat
from amaranth.sim import Simulator

JUNK = 5
"""What stands behind the zero-free values of a line."""


def lines_of(row, window):
    """Lines of a row: zero_mask and values, zero-free with junk behind them."""
    lines = []
    for start in range(0, len(row), window):
        part = np.asarray(row[start:start + window])
        values = [int(value) for value in part if value]
        zero_mask = sum(1 << int(k) for k in np.flatnonzero(part))
        lines.append((zero_mask, values + [JUNK] * (window - len(values))))
    return lines


def drawn(rng, bits, length, density):
    """A row with zeros, of values of all sizes."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    spread = high * float(rng.choice([0.1, 0.4, 2.0]))
    values = np.clip(np.rint(rng.normal(0, spread, length)), low, high).astype(np.int64)
    return np.where(rng.random(length) < density, values, 0)


class Steps:
    """Steps of an engine: in each, lines of later steps are written and earlier results are read.

    Parameters
    ----------
    dut : the engine
    form : its RowStorage
    streams : (submodule, port) of the streams at which nothing may ever have to wait
    """

    def __init__(self, dut, form, streams):
        self.dut, self.form, self._streams = dut, form, streams
        self._steps, self.busy, self.results = [], [], []

    def add(self, step, lines, operation, pieces):
        """Add a step.

        Parameters
        ----------
        step : fields of the port `step`
        lines : (fields of the port `line` that say where, row) of each row to write before
        operation : fields of the port `operation`
        pieces : pieces of the result; 0 for none
        """
        self._steps.append((step, lines, operation, pieces))

    def run(self):
        """Run all steps; afterwards, `busy` has the cycles and `results` the rows of each."""
        modules, elaborate = [], self.dut.elaborate
        self.dut.elaborate = lambda platform: modules.append(elaborate(platform)) or modules[0]
        simulator = Simulator(self.dut)
        streams = [getattr(getattr(modules[0].submodules, unit), port)
                   for unit, port in self._streams]

        async def nothing_waits(ctx):
            waiting = Cat(stream.valid & ~stream.ready for stream in streams)
            async for _, _, refused in ctx.tick().sample(waiting):
                assert refused == 0

        simulator.add_clock(1e-6)
        simulator.add_testbench(self._testbench)
        simulator.add_testbench(nothing_waits, background=True)
        simulator.run()

    def _writes(self, number):
        """Lines that are written for a step."""
        if number == len(self._steps):
            return []
        return [
            {"valid": 1, **where, "line": line, "zero_mask": zero_mask, "value": values}
            for where, row in self._steps[number][1]
            for line, (zero_mask, values) in enumerate(lines_of(row, self.form.line.window))
        ]

    def _reads(self, number):
        """Pieces that are read of the step before a step."""
        if number == 0:
            return []
        step, _, _, pieces = self._steps[number - 1]
        return [{"enable": 1, "bank": step["result_bank"], "piece": k} for k in range(pieces)]

    async def _testbench(self, ctx):
        writes = self._writes(0)
        while writes:
            ctx.set(self.dut.line, writes.pop(0))
            await ctx.tick()
        for number, (step, _, operation, _) in enumerate(self._steps):
            ctx.set(self.dut.operation, operation)
            ctx.set(self.dut.step, {"start": 1, **step})
            await self._one(ctx, self._writes(number + 1), self._reads(number))
        await self._one(ctx, [], self._reads(len(self._steps)))
        assert self.busy.pop() == 0

    async def _one(self, ctx, writes, reads):
        """One step: as long as the engine is busy, or there are lines or pieces left."""
        dut, busy, read, row = self.dut, 0, False, []
        while ctx.get(dut.busy) or writes or reads or read:
            busy += ctx.get(dut.busy)
            if read:
                row += self._piece(ctx)
            read = bool(reads)
            ctx.set(dut.line, writes.pop(0) if writes else {"valid": 0})
            ctx.set(dut.result, reads.pop(0) if reads else {"enable": 0})
            await ctx.tick()
            ctx.set(dut.step, {"start": 0})
        self.busy.append(busy)
        if row:
            self.results.append(row)

    def _piece(self, ctx):
        """Elements of the piece at the output, whose other places must be 0."""
        piece, positions = self.dut.piece, range(self.form.line.piece)
        zero_mask = ctx.get(piece.zero_mask)
        values = [ctx.get(piece.value[k]) for k in positions]
        count = zero_mask.bit_count()
        assert all(values[:count]) and not any(values[count:])
        remaining = iter(values)
        return [next(remaining) if zero_mask >> k & 1 else 0 for k in positions]
