"""Lines in memory: a line read a cycle, a piece stored a cycle, and nothing ever waits."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import named, popcount
from hwgen.lib.compaction import at_least
from hwgen.lib.flow import Flow
from hwgen.lib.memory import SynchronousMemory
from hwgen.units.buffer import cost
from hwgen.units.buffer.spec import (
    BIASES,
    EVEN_WORDS,
    LINE_ENTRIES,
    MOST_ENTRIES,
    ODD_WORDS,
    BufferSpec,
)


class Buffer(wiring.Component):
    """Banks of pieces that are read as whole lines, and stored one by one in any order.

    Bank q holds piece q of all lines: in a memory of entries each line's zero_mask and the position
    where its values start, and in two memories the even and the odd words of values, so that up to
    `piece` values from any position on are read in a cycle. Position is word · `piece` + place.

    **Reading.** A line a cycle. `line.valid` is `read.enable`, `cost.read_latency` cycles later:
    the entries; the words; each piece turned to place 0; pieces joined, two and two. A line's
    values are zero-free from place 0 on, and 0 behind the last. The last `read.absent` pieces of
    the line are behind the row's end: nobody has written their entries, and they count as empty.
    The bias arrives with the line that was asked for in the same cycle, and stays until the next.
    `line` is defined while `valid` is high; it comes from registers, the bias from its memory.

    **Storing.** A piece a cycle, to any bank. Its values are appended at the bank's write position:
    they join the open word, which a register holds until it is full. The last write that a store
    causes happens `cost.store_latency` cycles after `store.enable`.

    - `open` sets where all banks write next and which position they may not reach, both multiples
      of `piece`, from the next store on. Nothing may be stored before the first `open`.
    - `flush` writes the open words; their places behind the last value hold anything. More may be
      stored after it. It may come in the cycle after the last store or later, and `open` in the
      cycle after that or later; without `flush`, what is in open words is lost at `open`.
    - A line must not be read while it is stored or before its words are written.

    **Words.** A word of every bank at once, as it stands, written in the cycle of `words.write` and
    read in that after `words.read`; for what is neither lines nor pieces. Not in a cycle in which a
    line's values are read, or a word of stored values is written.

    Lines and biases are addressed by as many bits in every buffer, so that none outside it is taken
    for one inside.

    **Errors** stay until reset. `overflow`: a piece would have passed the limit; neither its values
    nor its entry are written. `out_of_range`: there is no such line or bias. It is not stored; it
    is read as a line of zeros, so that who waits for it goes on.

    **The raw port** is for whoever moves memory images while nothing else happens. It writes in the
    cycle of `raw.write`; `raw_data` is there one cycle after `raw.read`. Memories are numbered as
    in the spec; an entry has its zero_mask in its lowest bits, a word its first value.

    Data registers have no reset and move only with a line or a piece.

    Parameters
    ----------
    spec : widths, a line's format and the depths of the memories

    Ports
    -----
    read : which line, and which bias
    line : the line, a fixed number of cycles later
    store : a piece, zero-free from place 0 on, its zero_mask, and the line that it is part of; its
        number in the line is its bank
    open, flush : where pieces go from now on; write what waits
    words, words_data : a word of every bank, the first bank's lowest
    overflow, out_of_range : errors
    raw, raw_data : a word of any memory
    """

    def __init__(self, spec: BufferSpec):
        self.spec = spec
        biases = {"bias_enable": 1, "bias_address": range(MOST_ENTRIES)} if spec.biases else {}
        bias = {"bias": signed(spec.bias_bits)} if spec.biases else {}
        super().__init__({
            "read": In(data.StructLayout({
                "enable": 1, "line": range(MOST_ENTRIES), "absent": range(spec.pieces), **biases})),
            "line": Out(data.StructLayout({
                "valid": 1, "zero_mask": unsigned(spec.window),
                "value": data.ArrayLayout(signed(spec.bits), spec.window), **bias})),
            "store": In(data.StructLayout({
                "enable": 1, "line": range(MOST_ENTRIES), "bank": range(spec.pieces),
                "zero_mask": unsigned(spec.piece),
                "value": data.ArrayLayout(signed(spec.bits), spec.piece)})),
            "open": In(data.StructLayout({
                "enable": 1, "start": range(spec.positions), "limit": range(spec.positions + 1)})),
            "flush": In(1),
            "words": In(data.StructLayout({
                "write": 1, "read": 1, "write_word": range(MOST_ENTRIES),
                "read_word": range(MOST_ENTRIES), "data": spec.pieces * spec.word_bits})),
            "words_data": Out(spec.pieces * spec.word_bits),
            "overflow": Out(1),
            "out_of_range": Out(1),
            "raw": In(_raw_layout(spec)),
            "raw_data": Out(spec.raw_bits),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, words = self.spec, self.words
        banks = [_Bank(spec) for _ in range(spec.pieces)]
        nowhere = {way: words[way] & _missing(words[f"{way}_word"], spec.words)
                   for way in ("write", "read")}
        for number, bank in enumerate(banks):
            m.submodules[f"bank_{number}"] = bank
            mine = self.raw.bank == number
            m.d.comb += [bank.raw.eq(self.raw), bank.raw.write.eq(self.raw.write & mine),
                         bank.raw.read.eq(self.raw.read & mine)]
            part = slice(number * spec.word_bits, (number + 1) * spec.word_bits)
            m.d.comb += [
                *(bank.words[way].eq(words[way] & ~missing) for way, missing in nowhere.items()),
                *(bank.words[f"{way}_word"].eq(_entry(words[f"{way}_word"], spec.words))
                  for way in nowhere),
                bank.words.data.eq(words.data[part]),
                self.words_data[part].eq(bank.words_data),
            ]
        raw_data = reduce(or_, (bank.raw_data for bank in banks))
        errors = [self._read(m, banks), self._store(m, banks), *nowhere.values()]
        if self.spec.biases:
            missing, bias = self._biases(m)
            errors.append(missing)
            raw_data |= bias
        m.d.comb += self.raw_data.eq(raw_data)
        with m.If(reduce(or_, errors)):
            m.d.sync += self.out_of_range.eq(1)
        return m

    def _read(self, m, banks):
        """Join the pieces that the banks find; whether there is no such line."""
        spec, read = self.spec, self.read
        missing = _missing(read.line, spec.lines)
        for number, bank in enumerate(banks):
            m.d.comb += [
                bank.read.enable.eq(read.enable),
                bank.read.present.eq(~missing & (read.absent < spec.pieces - number)),
                bank.read.line.eq(read.line),
            ]
        flow = Flow(m, banks[0].piece.valid, "merge")
        zero_mask = Cat(bank.piece.zero_mask for bank in banks)
        parts = [(_values(bank.piece.value), bank.piece.count) for bank in banks]
        while len(parts) > 1:
            joined = []
            for number in range(0, len(parts), 2):
                (first, count), (second, more) = parts[number:number + 2]
                moved = _moved_up(m, second, count, f"merge_{flow.latency}_{number}")
                joined.append({
                    "value": [*(low | high for low, high in zip(first, moved, strict=False)),
                              *moved[len(first):]],
                    "count": count + more})
            s = flow.stage(zero_mask=zero_mask, parts=joined)
            zero_mask = s.zero_mask
            parts = [(part["value"], part["count"]) for part in s.parts]
        m.d.comb += [
            self.line.valid.eq(flow.valid),
            self.line.zero_mask.eq(zero_mask),
            *(self.line.value[k].eq(value) for k, value in enumerate(parts[0][0])),
        ]
        return read.enable & missing

    def _store(self, m, banks):
        """Turn a piece to its place in its bank; whether there is no such line."""
        spec, store = self.spec, self.store
        missing = _missing(store.line, spec.lines)
        opening = Flow(m, self.open.enable, "open")
        opened = opening.stage(word=self.open.start[spec.place_bits:],
                               limit=self.open.limit[spec.place_bits:])
        limit = Signal(range(spec.words + 1))
        with m.If(opening.valid):
            m.d.sync += limit.eq(opened.limit)
        flow = Flow(m, store.enable, "store")
        s = flow.stage(
            keep=~missing, bank=store.bank, line=_entry(store.line, spec.lines),
            zero_mask=store.zero_mask,
            count=popcount(m, list(store.zero_mask), "stored"), value=_values(store.value))
        chosen = [flow.valid & (s.bank == number) for number in range(spec.pieces)]
        at = {name: named(m, reduce(or_, (
            _only(getattr(bank, name), mine) for bank, mine in zip(banks, chosen, strict=True))),
            f"store_{name}") for name in ("word", "place", "fills", "overflows")}
        with m.If(at["overflows"]):
            m.d.sync += self.overflow.eq(1)
        merging = Flow(m, flow.valid & s.count.any() & ~at["overflows"], "merge_store")
        t = merging.stage(
            bank=s.bank, word=at["word"], full=at["fills"],
            held=~Cat(at_least(spec.piece, at["place"])),
            value=_turned(m, s.value, at["place"], -1, "stored"))
        flushing = Signal(2)
        m.d.sync += flushing.eq(Cat(self.flush, flushing[0]))
        for number, bank in enumerate(banks):
            m.d.comb += [
                bank.open.enable.eq(opening.valid), bank.open.word.eq(opened.word),
                bank.limit.eq(limit),
                bank.append.enable.eq(chosen[number]), bank.append.line.eq(s.line),
                bank.append.zero_mask.eq(s.zero_mask), bank.append.count.eq(s.count),
                bank.merge.enable.eq(merging.valid & (t.bank == number)),
                bank.merge.word.eq(t.word), bank.merge.full.eq(t.full), bank.merge.held.eq(t.held),
                *(bank.merge.value[k].eq(value) for k, value in enumerate(t.value)),
                bank.flush.eq(flushing[1]),
            ]
        return store.enable & missing

    def _biases(self, m):
        """Read a bias when its line comes: its address waits, which takes fewer registers.

        Returns whether there is no such bias, and what the raw port reads.
        """
        spec, read = self.spec, self.read
        m.submodules.biases = biases = SynchronousMemory(
            unsigned(spec.bias_bits), spec.biases)
        missing = _missing(read.bias_address, spec.biases)
        flow = Flow(m, read.bias_enable & ~missing, "bias")
        address = _entry(read.bias_address, spec.biases)
        for _ in range(cost.read_latency(spec) - 1):
            address = flow.stage(address=address).address
        m.d.comb += self.line.bias.eq(biases.read_data)
        return read.bias_enable & missing, _connect(
            m, biases, self.raw, BIASES, (flow.valid, address), (0, 0, 0))


class _Bank(wiring.Component):
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
            "raw": In(_raw_layout(spec)),
            "raw_data": Out(spec.raw_bits),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, read, piece = self.spec, self.read, self.piece
        m.submodules.entries = entries = SynchronousMemory(unsigned(spec.entry_bits), spec.lines)
        raw_data = _connect(m, entries, self.raw, LINE_ENTRIES,
                            (read.enable & read.present, read.line), self._append(m))
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
            # Of a short piece the second word is not needed: it may be behind the last one, or be
            # written just now.
            reads = wanted & ~(here & (address == written[1:])) & ~_missing(address, memory.depth)
            gives = self.words.read & (self.words.read_word[0] == odd)
            takes = self.words.write & (self.words.write_word[0] == odd)
            raw_data |= _connect(
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
            _only(value, count > k)
            for k, value in enumerate(_turned(m, mixed, s.place, 1, "aligned"))])
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
        arrived = _values(merge.value)
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


def _raw_layout(spec):
    """Layout of a raw port's requests."""
    return data.StructLayout({
        "write": 1, "read": 1, "memory": 2, "bank": range(spec.pieces),
        "address": range(max(spec.words // 2, spec.lines, spec.biases)), "data": spec.raw_bits})


def _connect(m, memory, raw, number, read, write):
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
    return _only(memory.read_data, unloads)


def _missing(number, depth):
    """Whether a number is none of an entry; constant where it cannot be."""
    return number >= depth if depth < 1 << len(number) else Const(0, 1)


def _entry(number, depth):
    """Return the bits of a number that the address of an entry has."""
    return number[:max(1, (depth - 1).bit_length())]


def _only(value, condition):
    """Return the value where the condition holds, else 0."""
    value = Value.cast(value)
    return value & condition.replicate(len(value))


def _values(array):
    """Elements of an array, as bits."""
    return [Value.cast(array[k]).as_unsigned() for k in range(array.shape().length)]


def _turned(m, values, places, direction, name):
    """Turn values in a circle: place k of the result has the one from k + direction · places."""
    for level, bit in enumerate(places):
        step = direction << level
        values = [named(m, Mux(bit, values[(k + step) % len(values)], value),
                        f"{name}_{level}_{k}") for k, value in enumerate(values)]
    return values


def _moved_up(m, values, places, name):
    """Move values up by at most their number; zeros follow, from below and behind them."""
    size, zero = 2 * len(values), Const(0, len(values[0]))
    for level, bit in enumerate(places):
        step = 1 << level
        stay = [*values, *[zero] * step][:size]
        move = [*[zero] * step, *values][:size]
        values = [named(m, Mux(bit, far, near), f"{name}_{level}_{k}")
                  for k, (near, far) in enumerate(zip(stay, move, strict=True))]
    return values
