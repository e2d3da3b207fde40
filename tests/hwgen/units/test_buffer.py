"""buffer: RTL in Amaranth's simulator."""

import numpy as np
import pytest
from buffer_bench import SPECS, Bench, Watched, expect, random_rows, requests_of

from hwgen.units.buffer import cost, golden, rtl
from hwgen.units.buffer.spec import BIASES, EVEN_WORDS, LINE_ENTRIES, ODD_WORDS, BufferSpec


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(rtl, "SynchronousMemory", Watched)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_pieces_are_stored_while_lines_are_read(spec, gaps):
    """A loaded image is read while a second is stored behind it; then the second is read."""
    rng = np.random.default_rng(spec.window + spec.piece)
    bench = Bench(spec, rng)
    elements = 2 * spec.window - spec.piece if spec.pieces > 1 else spec.window + 1
    old = random_rows(spec, rng, 4, elements)
    new = random_rows(spec, rng, 5, elements)
    image = golden.pack(spec, old)
    # The new values begin in the word behind the last old ones, which a read may ask for.
    start = -(-int(image.used.max()) // spec.piece) * spec.piece
    order = rng.permutation(golden.storage_order(spec, 5, elements)).tolist()
    base, lines = 8, -(-elements // spec.window)
    padded = np.zeros((5, lines * spec.window), dtype=np.int64)
    padded[:, :elements] = new
    stored = golden.pack(spec, new, base, start, order=order)
    contents = {}

    async def testbench(bench):
        await bench.load(image)
        stores = [bench.store(base + row * lines + piece // spec.pieces, piece % spec.pieces,
                              padded[row, piece * spec.piece:(piece + 1) * spec.piece])
                  for row, piece in order]
        stores = [{"open": {"enable": 1, "start": start, "limit": spec.positions}}, *stores,
                  {"flush": 1}]
        reads = [*requests_of(spec, old, 0)] * 4
        expected = {}
        while stores or reads:
            requests = {}
            if stores and ("flush" in stores[0] or rng.random() >= gaps):
                requests |= stores.pop(0)
            if reads and rng.random() >= gaps:
                line, absent, *expected[bench.cycle + cost.read_latency(spec)] = reads.pop(0)
                requests["read"] = {"enable": 1, "line": line, "absent": absent}
            await bench.tick(**requests)
        for _ in range(cost.store_latency(spec)):
            await bench.tick()
        reads = [*requests_of(spec, new, base)]
        for number in rng.permutation(len(reads)):
            line, absent, *expected[bench.cycle + cost.read_latency(spec)] = reads[number]
            await bench.tick(read={"enable": 1, "line": line, "absent": absent})
        for _ in range(cost.read_latency(spec) + 1):
            await bench.tick()
        for cycle, line in expected.items():
            expect(bench, cycle, *line)
        assert not bench.lines
        for memory, bank, address, _ in stored.writes():
            contents[memory, bank, address] = await bench.raw(memory, bank, address)
        assert not bench.ctx.get(bench.dut.overflow | bench.dut.out_of_range)

    bench.run(testbench)
    for memory, bank, address, data in stored.writes():
        found = contents[memory, bank, address]
        if memory != LINE_ENTRIES:
            # Behind the last value of a bank there may be anything.
            first = (2 * address + (memory == ODD_WORDS)) * spec.piece
            left = start + int(stored.used[bank]) - first
            found &= (1 << spec.bits * left) - 1
        assert found == data, (memory, bank, address)


@pytest.mark.usefixtures("watched")
def test_words_that_a_read_does_not_need_are_left_alone():
    """The word behind a short piece may be written while it is read, or be behind the last one."""
    spec = BufferSpec(4, 4, 4, words=6, lines=8)
    bench = Bench(spec, np.random.default_rng(1))
    images = [golden.pack(spec, [[1, 2, 3, 0]], base=0), golden.pack(spec, [[0, 5, 0, 0]], 1, 20)]
    lines = [(0b0111, [1, 2, 3]), (0b0010, [5])]

    async def testbench(bench):
        for image in images:
            await bench.load(image)
        await bench.tick(open={"enable": 1, "start": 4, "limit": 24})
        expected = {}
        for number in range(2):
            for values in ([1, 2, 3, 4], [5, 6, 7, 0], [0, 0, 0, 0], [0, 0, 0, 0]):
                expected[bench.cycle + cost.read_latency(spec)] = lines[number]
                await bench.tick(read={"enable": 1, "line": number}, **bench.store(5, 0, values))
            for word in (1, 1, 1, 2):
                expected[bench.cycle + cost.read_latency(spec)] = lines[number]
                await bench.tick(read={"enable": 1, "line": number},
                                 words={"write": 1, "write_word": word, "data": 0x4321})
        for _ in range(cost.read_latency(spec)):
            await bench.tick()
        for cycle, line in expected.items():
            expect(bench, cycle, *line)

    bench.run(testbench)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("words", [2, 6])
def test_flush_writes_no_word_where_none_is_open(words):
    spec = BufferSpec(4, 2, 2, words=6, lines=8)
    bench = Bench(spec, np.random.default_rng(1))

    async def testbench(bench):
        await bench.write(EVEN_WORDS, 0, 1, 0xab)
        await bench.tick(open={"enable": 1, "start": 2 * words - 4, "limit": 12})
        for line in range(2):
            await bench.tick(**bench.store(line, 0, [1, 2]))
        await bench.tick(flush=1)
        for _ in range(cost.store_latency(spec)):
            await bench.tick()
        assert await bench.raw(EVEN_WORDS, 0, 1) == 0xab
        assert await bench.raw(ODD_WORDS, 0, words // 2 - 1) == 0x21
        assert not bench.ctx.get(bench.dut.overflow)

    bench.run(testbench)


def test_writes_happen_when_cost_says():
    spec = BufferSpec(4, 2, 2, words=4, lines=4)
    bench = Bench(spec, np.random.default_rng(1))

    async def testbench(bench):
        for address in range(2):
            await bench.write(EVEN_WORDS, 0, address, 0)
        await bench.tick(open={"enable": 1, "start": 0, "limit": 8})
        await bench.tick(**bench.store(1, 0, [1, 2]))
        for _ in range(cost.store_latency(spec) - 1):
            await bench.tick()
        # The write is in this cycle: a read of the raw port still finds what was there before.
        assert await bench.raw(EVEN_WORDS, 0, 0) == 0
        assert await bench.raw(EVEN_WORDS, 0, 0) == 0x21
        assert await bench.raw(LINE_ENTRIES, 0, 1) == 0b11

    bench.run(testbench)


@pytest.mark.usefixtures("watched")
def test_flush_then_open_and_flush_then_more():
    spec = BufferSpec(4, 8, 4, words=8, lines=8)
    bench = Bench(spec, np.random.default_rng(1))
    first, more, other = [1, 0, 2, 0], [0, 3, 4, 5], [6, 7, 0, 0]

    async def testbench(bench):
        await bench.tick(open={"enable": 1, "start": 4, "limit": 16})
        await bench.tick(**bench.store(0, 1, first))
        await bench.tick(flush=1)
        await bench.tick(**bench.store(1, 1, more))
        await bench.tick(flush=1)
        await bench.tick(open={"enable": 1, "start": 16, "limit": 32})
        await bench.tick(**bench.store(2, 1, other))
        await bench.tick(flush=1)
        for _ in range(cost.store_latency(spec)):
            await bench.tick()
        words = {}
        for number in (1, 2, 4):
            code = await bench.raw(ODD_WORDS if number % 2 else EVEN_WORDS, 1, number // 2)
            words[number] = golden.values_of(spec, code)
        assert words[1] == [1, 2, 3, 4]
        assert words[2][:1] == [5]
        assert words[4][:2] == [6, 7]
        for number, start in enumerate((4, 6, 16)):
            entry = await bench.raw(LINE_ENTRIES, 1, number)
            assert entry >> spec.piece == start

    bench.run(testbench)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("end", [2, 4])
def test_a_piece_that_passes_the_limit_is_left_out(end):
    """In the middle of the bank, and at its end."""
    spec = BufferSpec(4, 8, 4, words=4, lines=8)
    bench = Bench(spec, np.random.default_rng(1))
    pieces = [[1, 2, 3, 0], [4, 5, 6, 7], [0, 1, 1, 0], [0, 0, 0, 7], [0, 0, 0, 0], [5, 0, 0, 0]]
    first = 4 * (end - 2)

    async def testbench(bench):
        flags = []
        await bench.tick(**bench.store(0, 1, pieces[5]))
        await bench.tick(**bench.store(0, 1, pieces[4]))
        await bench.tick()
        # Nothing may be stored before `open`.
        assert bench.ctx.get(bench.dut.overflow)
        await bench.write(LINE_ENTRIES, 1, 2, 0xff)
        await bench.write(LINE_ENTRIES, 1, 5, 0xff)
        await bench.tick(open={"enable": 1, "start": first, "limit": 4 * end})
        for number, piece in enumerate(pieces):
            await bench.tick(**bench.store(number, 1, piece))
            flags.append(bench.ctx.get(bench.dut.overflow))
        await bench.tick(flush=1)
        await bench.tick()
        await bench.tick()
        entries = [await bench.raw(LINE_ENTRIES, 1, number) for number in range(6)]
        limit = 4 * end % spec.positions
        assert entries == [0b0111 | first << 4, 0b1111 | first + 3 << 4, 0xff,
                           0b1000 | first + 7 << 4, limit << 4, 0xff]
        words = [await bench.raw(memory, 1, first // 8) for memory in (EVEN_WORDS, ODD_WORDS)]
        assert words == [0x4321, 0x7765]

    bench.run(testbench)


def test_overflow_stays_and_comes_with_the_piece():
    spec = BufferSpec(4, 8, 4, words=4, lines=8)
    bench = Bench(spec, np.random.default_rng(1))

    async def testbench(bench):
        await bench.tick(open={"enable": 1, "start": 0, "limit": 4})
        await bench.tick(**bench.store(0, 0, [1, 2, 3, 0]))
        await bench.tick(**bench.store(1, 1, [1, 2, 3, 4]))
        await bench.tick(**bench.store(2, 0, [1, 2, 0, 0]))
        assert not bench.ctx.get(bench.dut.overflow)
        await bench.tick(**bench.store(3, 0, [1, 0, 0, 0]))
        for _ in range(5):
            assert bench.ctx.get(bench.dut.overflow)
            assert not bench.ctx.get(bench.dut.out_of_range)
            await bench.tick()

    bench.run(testbench)


@pytest.mark.usefixtures("watched")
def test_a_line_out_of_range_is_not_stored_and_read_as_zeros():
    spec = BufferSpec(4, 4, 2, words=4, lines=5, biases=3, bias_bits=6)

    def flag(bench):
        return bench.ctx.get(bench.dut.out_of_range)

    async def store(bench):
        await bench.load(golden.pack(spec, [[1, 2, 3, 4]], base=1))
        await bench.tick(open={"enable": 1, "start": 2, "limit": 8})
        await bench.tick(**bench.store(5, 0, [1, 1]))
        assert flag(bench)
        await bench.tick(**bench.store(4, 0, [5, 6]))
        for _ in range(cost.store_latency(spec)):
            await bench.tick()
        assert flag(bench)
        assert not bench.ctx.get(bench.dut.overflow)
        assert await bench.raw(LINE_ENTRIES, 0, 4) == 0b11 | 2 << 2
        assert await bench.raw(LINE_ENTRIES, 0, 1) == 0b11

    async def read(bench):
        await bench.load(golden.pack(spec, [[1, 2, 3, 4]], base=1))
        began = bench.cycle
        await bench.tick(read={"enable": 1, "line": 1})
        assert not flag(bench)
        await bench.tick(read={"enable": 1, "line": 5})
        assert flag(bench)
        await bench.tick(read={"enable": 1, "line": 1, "absent": 1})
        for _ in range(cost.read_latency(spec)):
            await bench.tick()
        for offset, line in enumerate(((0b1111, [1, 2, 3, 4]), (0, []), (0b11, [1, 2]))):
            expect(bench, began + cost.read_latency(spec) + offset, *line)
        assert flag(bench)

    async def whole(bench):
        await bench.tick(words={"write": 1, "write_word": 3, "data": 0x12},
                         entry={"write": 1, "line": 4, "data": 0b11100 << 5},
                         bias_word={"write": 1, "address": 2, "data": 9})
        assert not flag(bench)
        assert await bench.raw(ODD_WORDS, 0, 1) == 0x12
        assert await bench.raw(LINE_ENTRIES, 1, 4) == 0b11100
        for name, request in (("words", {"write_word": 4}), ("entry", {"line": 5}),
                              ("bias_word", {"address": 3})):
            async def missing(bench, name=name, request=request):
                await bench.tick(**{name: {"write": 1, "data": 0, **request}})
                assert flag(bench)
            Bench(spec, np.random.default_rng(1)).run(missing)

    async def bias(bench):
        await bench.tick(read={"bias_enable": 1, "bias_address": 2})
        assert not flag(bench)
        await bench.tick(read={"bias_address": 3})
        assert not flag(bench)
        await bench.tick(read={"bias_enable": 1, "bias_address": 3})
        assert flag(bench)
        for _ in range(cost.read_latency(spec)):
            await bench.tick()
        assert not bench.lines

    for testbench in (store, read, whole, bias):
        Bench(spec, np.random.default_rng(1)).run(testbench)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.biases], ids=str)
def test_biases_come_with_their_lines_and_stay(spec):
    rng = np.random.default_rng(1)
    half, together = 1 << spec.bias_bits - 1, spec.biases_together
    biases = rng.integers(-half, half, spec.biases).tolist()
    rows = random_rows(spec, rng, 8, spec.window)
    expected = []

    async def testbench(bench):
        await bench.load(golden.pack(spec, rows))
        for address in range(spec.bias_words):
            word = sum(bias % (2 * half) << spec.bias_bits * place for place, bias in enumerate(
                biases[address * together:(address + 1) * together]))
            if address % 2:
                await bench.write(BIASES, spec.pieces - 1, address, word)
            else:
                await bench.tick(bias_word={"write": 1, "address": address, "data": word})
            assert await bench.raw(BIASES, 0, address) == word
        began, last = bench.cycle, None
        for line in range(8):
            request = {"enable": 1, "line": line}
            if line == 0 or rng.random() < 0.5:
                address = int(rng.integers(spec.biases))
                last = biases[address]
                request |= {"bias_enable": 1, "bias_address": address}
            expected.append(last)
            await bench.tick(read=request)
        for _ in range(cost.read_latency(spec)):
            await bench.tick()
        found = [bench.lines[began + cost.read_latency(spec) + line].bias for line in range(8)]
        assert found == expected

    Bench(spec, rng).run(testbench)
