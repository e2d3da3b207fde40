"""The loader in Amaranth's simulator: what it leaves in a buffer, and when it has finished."""

from collections import deque
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hwgen.units.buffer.golden import Image
from hwgen.units.buffer.rtl import Buffer
from hwgen.units.buffer.spec import BIASES, EVEN_WORDS, LINE_ENTRIES, ODD_WORDS, BufferSpec
from hwgen.units.loader.cost import image_size, memory_cycles
from hwgen.units.loader.golden import image, value_words
from hwgen.units.loader.layout import JOBS
from hwgen.units.loader.rtl import Loader
from hwgen.units.loader.spec import LoaderSpec

SMALL = BufferSpec(4, 8, 2, words=40, lines=48, biases=8, bias_bits=11, biases_together=2)
WIDE = BufferSpec(6, 8, 8, words=32, lines=40, biases=16, bias_bits=20, biases_together=2)
SPECS = [
    LoaderSpec(SMALL, 3, 32, 1),
    LoaderSpec(SMALL, 7, 31, 3),
    LoaderSpec(WIDE, 1, 17, 2),
    LoaderSpec(WIDE, 5, 48, 1),
]
"""A word a cycle, and slower ones at rates that are no whole cycles; several banks, and one."""


class Both(wiring.Component):
    """A loader with the buffer that it fills."""

    def __init__(self, spec):
        self.loader, self.buffer = Loader(spec), Buffer(spec.buffer)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.buffer = self.loader, self.buffer
        m.d.comb += [self.buffer.entry.eq(self.loader.entry),
                     self.buffer.bias_word.eq(self.loader.bias_word),
                     *(getattr(self.buffer.words, name).eq(getattr(self.loader.word, name))
                       for name, _ in self.loader.word.shape())]
        return m


@dataclass
class Stored:
    """Rows in main memory and where they go."""

    spec: LoaderSpec
    rows: np.ndarray
    biases: np.ndarray
    address: int
    line: int = 0
    word: int = 0
    bias: int = 0
    more_values: int = 0
    size: object = field(init=False)

    def __post_init__(self):
        buffer = self.spec.buffer
        lines = len(self.rows) * -(-self.rows.shape[1] // buffer.window)
        self.size = image_size(
            lines, value_words(buffer, self.rows) + self.more_values, len(self.biases),
            window=buffer.window, bits=buffer.bits, accumulator_bits=buffer.bias_bits + 1,
            lines_per_cycle=1, rate_numerator=self.spec.rate_numerator,
            rate_denominator=self.spec.rate_denominator)

    @property
    def fields(self):
        size = self.size
        return {"address": self.address, "biases": size.biases, "lines": size.lines,
                "values": size.values, "slots": size.slots, "line": self.line, "word": self.word,
                "bias": self.bias}

    def words(self):
        return image(self.spec.buffer, self.rows, self.size, self.biases)


class Bench:
    """Main memory, and what is told to the loader cycle by cycle."""

    def __init__(self, spec, memory, delay=0):
        self.spec, self._memory = spec, memory
        self.dut = Both(spec)
        self._under_way = deque([None] * (spec.latency + delay))
        self.requests = []
        self.entries = []

    def run(self, script):
        async def testbench(bench):
            await script(bench)

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(testbench)
        simulator.run()

    async def tick(self, bench, **values):
        """One cycle; whether the loader was active in it."""
        loader = self.dut.loader
        for name, value in values.items():
            bench.set(getattr(loader, name), value)
        arrived = self._under_way.popleft()
        bench.set(loader.answer, {"valid": 0, "tag": 0, "word": 0} if arrived is None else
                  {"valid": 1, "tag": arrived[1], "word": self._memory.get(arrived[0], 0)})
        request = bench.get(loader.request)
        asked = (request.address, request.tag) if request.enable else None
        self._under_way.append(asked)
        self.requests.append(asked)
        entry = bench.get(loader.entry)
        if entry.write:
            self.entries.append(entry.line)
        active = bench.get(loader.active)
        await bench.tick()
        for name in values:
            if name in ("prepare", "start"):
                bench.set(getattr(loader, name), 0)
        return active

    async def step(self, bench, **values):
        """A step; the cycles of main memory in it, as its cost counts them."""
        await self.tick(bench, start=1, **values)
        cycles = 1
        while await self.tick(bench):
            cycles += 1
            assert cycles < 5000
        return cycles if cycles > 1 else 0

    async def read(self, bench, memory, bank, address):
        port = self.dut.buffer
        bench.set(port.raw, {"read": 1, "memory": memory, "bank": bank, "address": address})
        await self.tick(bench)
        bench.set(port.raw, {"read": 0})
        return bench.get(port.raw_data)

    async def check(self, bench, stored):
        """Compare what lies in the buffer with what should."""
        spec = self.spec.buffer
        lines, words = stored.size.lines, stored.size.groups * stored.size.values
        entries = {(bank, at): await self.read(bench, LINE_ENTRIES, bank, at)
                   for bank, at in product(range(spec.pieces),
                                           range(stored.line, stored.line + lines))}
        memories = [
            {(bank, at): await self.read(bench, number, bank, at)
             for bank, at in product(range(spec.pieces), range(
                 stored.word // 2, min(spec.words // 2, (stored.word + words) // 2 + 1)))}
            for number in (EVEN_WORDS, ODD_WORDS)]
        found = Image(spec, entries, *memories, np.zeros(spec.pieces))
        assert np.array_equal(found.rows(stored.line, *stored.rows.shape), stored.rows)
        for number, bias in enumerate(stored.biases.tolist()):
            word, place = divmod(number, spec.biases_together)
            code = await self.read(bench, BIASES, 0, stored.bias + word)
            assert code >> place * spec.bias_bits & (1 << spec.bias_bits) - 1 \
                == bias % (1 << spec.bias_bits)


def values(rng, spec, shape, density):
    limit = 1 << spec.buffer.bits - 1
    drawn = rng.integers(-limit, limit, shape)
    return np.where(rng.random(shape) < density, drawn, 0)


def biases(rng, spec, count):
    limit = 1 << spec.buffer.bias_bits - 1
    return rng.integers(-limit, limit, count)


NO_BIASES = np.zeros(0, dtype=np.int64)


def cycles(spec, slots):
    return memory_cycles(
        slots * spec.word_bits, spec.latency, width=spec.buffer.bits, lines_per_cycle=1,
        rate_numerator=spec.rate_numerator, rate_denominator=spec.rate_denominator)


@pytest.mark.parametrize("density", [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_an_image_is_copied_in_its_time(spec, density):
    rng = np.random.default_rng(3)
    # Five rows of two lines are no whole group.
    stored = Stored(spec, values(rng, spec, (5, 13), density), biases(rng, spec, 5), 100,
                    line=3, word=4, bias=1, more_values=1)
    words = stored.words()
    assert len(words) == stored.size.words
    bench = Bench(spec, dict(enumerate(words, 100)))

    async def script(sim):
        took = await bench.step(sim, copies=1, copy=stored.fields, slots=0)
        assert took == cycles(spec, stored.size.all_slots)
        await bench.check(sim, stored)

    bench.run(script)
    asked = [request[0] for request in bench.requests if request]
    assert asked == list(range(100, 100 + len(words)))
    # The last group has masks of lines that the image does not have.
    assert bench.entries == list(range(3, 3 + stored.size.lines))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_shares_of_a_prefetch_go_on_between_copies(spec):
    rng = np.random.default_rng(5)
    first = Stored(spec, values(rng, spec, (6, 16), 0.5), biases(rng, spec, 6), 0)
    blocks = [Stored(spec, values(rng, spec, (4, 8), density), biases(rng, spec, count), address,
                     line=20 + 4 * number, word=16 + 4 * number, bias=3)
              for number, (address, density, count) in enumerate(((200, 0.4, 2), (300, 0.9, 0)))]
    memory = {stored.address + number: word for stored in (first, *blocks)
              for number, word in enumerate(stored.words())}
    bench = Bench(spec, memory)
    share = -(-first.size.all_slots // 4)

    async def script(sim):
        await bench.tick(sim, prepare=1, prefetch=first.fields)
        for number in range(5):
            block = blocks[number] if number < 2 else None
            copied = {"copies": 1, "copy": block.fields} if block else {"copies": 0}
            took = await bench.step(sim, slots=share, **copied)
            slots = share + (block.size.all_slots if block else 0)
            # Slots behind the image's end take their time as well.
            assert took == cycles(spec, slots)
        for stored in (first, *blocks):
            await bench.check(sim, stored)

    bench.run(script)
    by_job = {job: [address for request in bench.requests if request
                    for address, tag in [request] if tag >> 2 == number]
              for number, job in enumerate(JOBS)}
    assert by_job["prefetch"] == list(range(first.size.words))
    assert len(by_job["copy"]) == sum(block.size.words for block in blocks)


def test_a_copy_ends_with_its_own_image(spec=SPECS[0]) -> None:
    """Also where the prefetched image waits for its last slot."""
    rng = np.random.default_rng(6)
    first = Stored(spec, values(rng, spec, (6, 16), 0.5), biases(rng, spec, 6), 0)
    block = Stored(spec, values(rng, spec, (4, 8), 0.9), biases(rng, spec, 2), 200,
                   line=20, word=16, bias=3)
    memory = {stored.address + number: word for stored in (first, block)
              for number, word in enumerate(stored.words())}
    bench = Bench(spec, memory)

    async def script(sim):
        await bench.tick(sim, prepare=1, prefetch=first.fields)
        await bench.step(sim, slots=first.size.all_slots - 1, copies=0)
        took = await bench.step(sim, slots=1, copies=1, copy=block.fields)
        assert took == cycles(spec, 1 + block.size.all_slots)
        for stored in (first, block):
            await bench.check(sim, stored)

    bench.run(script)


def test_biases_alone_are_an_image(spec=SPECS[0]) -> None:
    rng = np.random.default_rng(7)
    stored = Stored(spec, np.zeros((0, 8), dtype=np.int64), biases(rng, spec, 5), 9, bias=1)
    bench = Bench(spec, dict(enumerate(stored.words(), 9)))

    async def script(sim):
        took = await bench.step(sim, copies=1, copy=stored.fields, slots=0)
        assert took == cycles(spec, 3)
        await bench.check(sim, stored)

    bench.run(script)
    assert bench.entries == []


def test_a_step_has_many_slots(spec=SPECS[0]) -> None:
    bench = Bench(spec, {})

    async def script(sim):
        assert await bench.step(sim, copies=0, slots=1100) == cycles(spec, 1100)

    bench.run(script)
    assert not any(bench.requests)


def test_requests_keep_main_memorys_pace() -> None:
    spec = SPECS[1]
    rng = np.random.default_rng(1)
    stored = Stored(spec, values(rng, spec, (6, 16), 1.0), biases(rng, spec, 0), 0)
    bench = Bench(spec, dict(enumerate(stored.words())))

    async def script(sim):
        await bench.step(sim, copies=1, copy=stored.fields, slots=0)

    bench.run(script)
    when = [cycle for cycle, request in enumerate(bench.requests) if request]
    assert when == [-(-(slot + 1) * 32 * 3 // 31) for slot in range(stored.size.words)]


@pytest.mark.parametrize("delay", [1, 30])
def test_a_slower_memory_makes_a_step_longer_and_nothing_else(delay):
    spec = SPECS[0]
    rng = np.random.default_rng(2)
    stored = Stored(spec, values(rng, spec, (6, 16), 0.5), biases(rng, spec, 6), 0)
    bench = Bench(spec, dict(enumerate(stored.words())), delay=delay)

    async def script(sim):
        took = await bench.step(sim, copies=1, copy=stored.fields, slots=0)
        assert took == cycles(spec, stored.size.all_slots) + delay
        await bench.check(sim, stored)

    bench.run(script)


@pytest.mark.parametrize("words", [2, 4, 8, 16])
def test_nothing_is_over_while_words_are_under_way(words):
    """As many as come together, and long after all were asked for."""
    spec = SPECS[0]
    stored = Stored(spec, np.ones((1, 8), dtype=np.int64), NO_BIASES, 0, more_values=words - 2)
    assert stored.size.words == words
    bench = Bench(spec, dict(enumerate(stored.words())), delay=60)

    async def script(sim):
        took = await bench.step(sim, copies=1, copy=stored.fields, slots=0)
        # Idle slots behind the last word wait for no answer.
        assert took == cycles(spec, words) + 60
        await bench.check(sim, stored)

    bench.run(script)


def test_a_step_without_slots_takes_nothing() -> None:
    bench = Bench(SPECS[0], {})

    async def script(sim):
        assert await bench.step(sim, copies=0, slots=0) == 0

    bench.run(script)
    assert not any(bench.requests)


@pytest.mark.parametrize(("field", "value"), [
    ("latency", 0), ("latency", 4097), ("rate_denominator", 0), ("rate_numerator", 33)])
def test_parameters_outside_their_range_are_refused(field, value):
    given = {"latency": 4096, "rate_numerator": 32, "rate_denominator": 1}
    assert LoaderSpec(SMALL, **given).word_bits == 32
    given[field] = value
    with pytest.raises(ValueError, match=field):
        LoaderSpec(SMALL, **given)


def test_a_buffer_without_biases_is_refused():
    with pytest.raises(ValueError, match="biases"):
        LoaderSpec(BufferSpec(4, 8, 2, words=40, lines=48), 3, 32, 1)
