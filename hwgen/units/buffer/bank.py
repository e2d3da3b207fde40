"""A bank of a buffer: its memories, what finds a piece in them, and what appends one."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import named, popcount
from hwgen.lib.compaction import at_least
from hwgen.lib.flow import Flow
from hwgen.lib.memory import SynchronousMemory
from hwgen.units.buffer.spec import (
    EVEN_WORDS,
    LINE_ENTRIES,
    MOST_ENTRIES,
    ODD_WORDS,
)


class Bank(wiring.Component):
    """A bank: its memories, what finds a piece in them, and what appends one.

    `piece` comes 3 cycles after `read`, all zeros where it is not present. A piece that is stored
    first meets `append`, which gives it a place and writes its entry, then `merge`, which writes a
    word if it is full.

    Parameters
    ----------
    spec : of the buffer

    Ports
    -----
    read, piece : what to find, and what was found, zero behind its last value
    open, limit : the next word to fill, and the first that may not be
    append : what is stored; word and place say where, fills whether it ends its first word,
        overflows that it is not stored after all
    merge : values at their places in a word, of which those before the first are held already
    flush : write the word that is open
    words, words_data : a word, as it stands
    entry : a line's entry, as it stands
    raw, raw_data : a word of any memory; raw_data is 0 if none was asked for
    """

    def __init__(self, spec):
        self.spec = spec
        word = range(spec.words + 1)
        piece = {"zero_mask": unsigned(spec.piece), "count": range(spec.piece + 1)}
        value = {"value": data.ArrayLayout(unsigned(spec.bits), spec.piece)}
        super().__init__({
            "read": In(data.StructLayout({"enable": 1, "present": 1, "line": range(spec.lines)})),
            "piece": Out(data.StructLayout({"valid": 1, **piece, **value})),
            "open": In(data.StructLayout({"enable": 1, "word": word})),
            "limit": In(word),
            "append": In(data.StructLayout({"enable": 1, "line": range(spec.lines), **piece})),
            "word": Out(word),
            "place": Out(spec.place_bits),
            "fills": Out(1),
            "overflows": Out(1),
            "merge": In(data.StructLayout({
                "enable": 1, "full": 1, "word": word, "held": unsigned(spec.piece), **value})),
            "flush": In(1),
            "words": In(data.StructLayout({
                "write": 1, "read": 1, "write_word": range(spec.words),
                "read_word": range(spec.words), "data": spec.word_bits})),
            "words_data": Out(spec.word_bits),
            "entry": In(data.StructLayout({
                "write": 1, "line": range(spec.lines), "data": spec.entry_bits})),
            "raw": In(raw_layout(spec)),
            "raw_data": Out(spec.raw_bits),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, read, piece = self.spec, self.read, self.piece
        m.submodules.entries = entries = SynchronousMemory(unsigned(spec.entry_bits), spec.lines)
        appends, line, content = self._append(m)
        entry = self.entry
        raw_data = connect_memory(
            m, entries, self.raw, LINE_ENTRIES, (read.enable & read.present, read.line),
            (appends | entry.write, Mux(entry.write, entry.line, line),
             Mux(entry.write, entry.data, content)))
        flow = Flow(m, read.enable, "read")
        s = flow.stage(present=read.present)
        zero_mask = named(m, entries.read_data[:spec.piece] & s.present.replicate(spec.piece),
                          "found")
        start = entries.read_data[spec.piece:]
        place, word = start[:spec.place_bits], start[spec.place_bits:]
        # An empty piece needs no word, wherever its values start.
        wanted = named(m, flow.valid & zero_mask.any(), "wanted")
        writing, written, content = self._merge(m)
        words, kept, given = [], [], Signal(reset_less=True)
        with m.If(self.words.read):
            m.d.sync += given.eq(self.words.read_word[0])
        for number, name in ((EVEN_WORDS, "even"), (ODD_WORDS, "odd")):
            memory = SynchronousMemory(unsigned(spec.word_bits), spec.words // 2)
            m.submodules[name] = memory
            odd = number == ODD_WORDS
            address = named(m, (word if odd else word + 1)[1:], f"{name}_address")
            here = named(m, writing & (written[0] == odd), f"{name}_write")
            gives = self.words.read & (self.words.read_word[0] == odd)
            takes = self.words.write & (self.words.write_word[0] == odd)
            # Of a short piece the second word is not needed: it may be behind the last one, or be
            # written just now.
            just_now = (here & (address == written[1:])) \
                | (takes & (address == self.words.write_word[1:]))
            reads = wanted & ~just_now & ~is_missing(address, memory.depth)
            raw_data |= connect_memory(
                m, memory, self.raw, number,
                (reads | gives, Mux(gives, self.words.read_word[1:], address)),
                (here | takes, Mux(takes, self.words.write_word[1:], written[1:]),
                 Mux(takes, self.words.data, content)))
            kept.append(memory.read_data)
            words.append([memory.read_data.word_select(k, spec.bits) for k in range(spec.piece)])
        m.d.comb += [self.raw_data.eq(raw_data), self.words_data.eq(Mux(given, kept[1], kept[0]))]
        s = flow.stage(zero_mask=zero_mask, place=place, odd=word[0])
        count = popcount(m, list(s.zero_mask), "nonzeros")
        # Values from `place` on are in the first of the two words, those before it in the second.
        mixed = [named(m, Mux(first == s.odd, odd, even), f"mixed_{k}") for k, (first, even, odd)
                 in enumerate(zip(at_least(spec.piece, s.place), *words, strict=True))]
        s = flow.stage(zero_mask=s.zero_mask, count=count, value=[
            only(value, count > k)
            for k, value in enumerate(turned(m, mixed, s.place, 1, "aligned"))])
        m.d.comb += [
            piece.valid.eq(flow.valid), piece.zero_mask.eq(s.zero_mask), piece.count.eq(s.count),
            *(piece.value[k].eq(value) for k, value in enumerate(s.value)),
        ]
        return m

    def _append(self, m):
        """Move the write position; the write of an entry."""
        spec, append = self.spec, self.append
        following = named(m, self.word + 1, "following_word")
        end = named(m, self.place + append.count, "end")
        rest = end[:spec.place_bits].any()
        takes = Signal()
        m.d.comb += [
            self.fills.eq(end[spec.place_bits]),
            self.overflows.eq(append.enable & append.count.any() & (
                (self.word >= self.limit) | ((following >= self.limit) & self.fills & rest))),
            takes.eq(append.enable & ~self.overflows),
        ]
        with m.If(takes):
            m.d.sync += self.place.eq(end[:spec.place_bits])
            with m.If(self.fills):
                m.d.sync += self.word.eq(following)
        with m.If(self.open.enable):
            m.d.sync += [self.place.eq(0), self.word.eq(self.open.word)]
        position = Cat(self.place, self.word)[:spec.position_bits]
        return takes, append.line, Cat(append.zero_mask, position)

    def _merge(self, m):
        """Complete the open word, or keep what does not; the write of a word."""
        spec, merge = self.spec, self.merge
        arrived = values_of(merge.value)
        # A word whose last place is taken is full, and waits no longer.
        held = [Signal(spec.bits, name=f"held_{k}", reset_less=True) for k in range(spec.piece - 1)]
        with m.If(merge.enable):
            for k, register in enumerate(held):
                with m.If(merge.full | ~merge.held[k]):
                    m.d.sync += register.eq(arrived[k])
        content = [Mux(merge.held[k] | self.flush, register, arrived[k])
                   for k, register in enumerate(held)]
        return (named(m, (merge.enable & merge.full) | (self.flush & self.place.any()), "writing"),
                named(m, Mux(self.flush, self.word, merge.word), "written_word"),
                named(m, Cat(content, arrived[-1]), "written"))


def whole_layouts(spec):
    """Layouts of what is written as it is to lie: a word and an entry of every bank, and biases."""
    layouts = {
        "word": {"write": 1, "write_word": range(MOST_ENTRIES),
                 "data": spec.pieces * spec.word_bits},
        "entry": {"write": 1, "line": range(MOST_ENTRIES), "data": spec.pieces * spec.entry_bits},
    }
    if spec.biases:
        layouts["bias_word"] = {
            "write": 1, "address": range(MOST_ENTRIES), "data": spec.bias_word_bits}
    return {name: data.StructLayout(fields) for name, fields in layouts.items()}


def raw_layout(spec):
    """Layout of a raw port's requests."""
    return data.StructLayout({
        "write": 1, "read": 1, "memory": 2, "bank": range(spec.pieces),
        "address": range(max(spec.words // 2, spec.lines, spec.bias_words)),
        "data": spec.raw_bits})


def connect_memory(m, memory, raw, number, read, write):
    """Connect a memory, the raw port first; what the raw port read in the cycle before, or 0.

    Parameters
    ----------
    raw, number : requests of the raw port, and the number that this memory has there
    read : enable and address
    write : enable, address and data
    """
    mine = raw.memory == number
    unloads = Signal(name=f"unloads_{number}")
    m.d.sync += unloads.eq(raw.read & mine)
    m.d.comb += [
        memory.read_enable.eq(read[0] | (raw.read & mine)),
        memory.read_address.eq(Mux(raw.read, raw.address, read[1])),
        memory.write_enable.eq(write[0] | (raw.write & mine)),
        memory.write_address.eq(Mux(raw.write, raw.address, write[1])),
        memory.write_data.eq(Mux(raw.write, raw.data, write[2])),
    ]
    return only(memory.read_data, unloads)


def is_missing(number, depth):
    """Whether a number is none of an entry; constant where it cannot be."""
    return number >= depth if depth < 1 << len(number) else Const(0, 1)


def entry_of(number, depth):
    """Return the bits of a number that the address of an entry has."""
    return number[:max(1, (depth - 1).bit_length())]


def only(value, condition):
    """Return the value where the condition holds, else 0."""
    value = Value.cast(value)
    return value & condition.replicate(len(value))


def values_of(array):
    """Elements of an array, as bits."""
    return [Value.cast(array[k]).as_unsigned() for k in range(array.shape().length)]


def turned(m, values, places, direction, name):
    """Turn values in a circle: place k of the result has the one from k + direction · places."""
    for level, bit in enumerate(places):
        step = direction << level
        values = [named(m, Mux(bit, values[(k + step) % len(values)], value),
                        f"{name}_{level}_{k}") for k, value in enumerate(values)]
    return values


def moved_up(m, values, places, name):
    """Move values up by at most their number; zeros follow, from below and behind them."""
    size, zero = 2 * len(values), Const(0, len(values[0]))
    for level, bit in enumerate(places):
        step = 1 << level
        stay = [*values, *[zero] * step][:size]
        move = [*[zero] * step, *values][:size]
        values = [named(m, Mux(bit, far, near), f"{name}_{level}_{k}")
                  for k, (near, far) in enumerate(zip(stay, move, strict=True))]
    return values
