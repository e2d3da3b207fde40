"""A bench for a buffer: what it is asked for, the lines that come, and memories that watch."""

from amaranth.hdl import Assert
from amaranth.sim import Simulator

from hwgen.lib.memory import SynchronousMemory
from hwgen.units.buffer import golden, rtl
from hwgen.units.buffer.spec import BufferSpec

SPECS = [
    BufferSpec(4, 4, 1, words=34, lines=20),
    BufferSpec(5, 4, 2, words=64, lines=33, biases=5, bias_bits=11),
    BufferSpec(4, 4, 4, words=36, lines=32, biases=12, bias_bits=4, biases_together=4),
    BufferSpec(4, 8, 2, words=40, lines=21),
    BufferSpec(6, 8, 4, words=42, lines=24, biases=1, bias_bits=3),
    BufferSpec(20, 64, 16, words=32, lines=20, biases=4, bias_bits=51, biases_together=4),
]
"""One, two and four banks; pieces of one value and of a whole line; depths of any kind."""


class Watched(SynchronousMemory):
    """A memory that tells if an address is read while it is written, or there is none such."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.sync += [
            Assert(~(self.read_enable & self.write_enable)
                   | (self.read_address != self.write_address)),
            Assert(~self.read_enable | (self.read_address < self.depth)),
            Assert(~self.write_enable | (self.write_address < self.depth)),
        ]
        return m


class Bench:
    """A buffer, what it is asked for in each cycle, and the lines that come."""

    def __init__(self, spec, rng):
        self.spec, self.rng, self.dut = spec, rng, rtl.Buffer(spec)
        self.cycle, self.lines = 0, {}

    def run(self, testbench):
        async def process(ctx):
            self.ctx = ctx
            await testbench(self)

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(process)
        simulator.run()

    async def tick(self, **requests):
        """Set inputs for one cycle, note the line that is there, and go on."""
        ctx, dut = self.ctx, self.dut
        for name, request in requests.items():
            ctx.set(getattr(dut, name), request)
        line = ctx.get(dut.line)
        if line.valid:
            self.lines[self.cycle] = line
        await ctx.tick()
        self.cycle += 1
        for name, request in requests.items():
            ctx.set(getattr(dut, name), {} if isinstance(request, dict) else 0)

    def store(self, line, bank, values):
        """Request that stores a piece, anything behind its last value."""
        zero_mask, kept = golden.line(values)
        filler = self.rng.integers(-8, 8, self.spec.piece - len(kept))
        return {"store": {"enable": 1, "line": line, "bank": bank, "zero_mask": zero_mask,
                          "value": [*kept.tolist(), *filler.tolist()]}}

    async def load(self, image):
        for memory, bank, address, data in image.writes():
            await self.write(memory, bank, address, data)

    async def write(self, memory, bank, address, data):
        await self.tick(raw={"write": 1, "memory": memory, "bank": bank, "address": address,
                             "data": data})

    async def raw(self, memory, bank, address):
        await self.tick(raw={"read": 1, "memory": memory, "bank": bank, "address": address})
        return self.ctx.get(self.dut.raw_data)


def random_rows(spec, rng, count, elements):
    """Rows whose pieces are empty, full and anything between."""
    half = 1 << spec.bits - 1
    rows = rng.integers(-half, half, (count, elements))
    for row in rows:
        for start in range(0, elements, spec.piece):
            row[start:start + spec.piece] *= rng.random(len(row[start:start + spec.piece])) < (
                rng.choice([0.0, 0.4, 0.8, 1.0]))
    return rows


def requests_of(spec, rows, base):
    """Each line of some rows: its number, its absent pieces, its zero_mask and its values."""
    count, elements = rows.shape
    lines = -(-elements // spec.window)
    for number in range(count * lines):
        row, offset = divmod(number, lines)
        part = rows[row, offset * spec.window:(offset + 1) * spec.window]
        absent = spec.pieces - -(-len(part) // spec.piece)
        zero_mask, values = golden.line(part)
        yield base + number, absent, zero_mask, values.tolist()


def expect(bench, cycle, zero_mask, values):
    """The line that came in a cycle is this one."""
    line = bench.lines.pop(cycle)
    assert line.zero_mask == zero_mask
    assert list(line.value) == [*values, *[0] * (bench.spec.window - len(values))]
