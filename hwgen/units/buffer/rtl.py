"""Lines in memory: a line read a cycle, a piece stored a cycle, and nothing ever waits."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import named, popcount
from hwgen.lib.compaction import at_least
from hwgen.lib.flow import Flow
from hwgen.lib.memory import SynchronousMemory
from hwgen.units.buffer import cost
from hwgen.units.buffer.bank import (
    Bank,
    connect_memory,
    entry_of,
    is_missing,
    moved_up,
    only,
    raw_layout,
    turned,
    values_of,
    whole_layouts,
)
from hwgen.units.buffer.spec import (
    BIASES,
    MOST_ENTRIES,
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
    read in that after `words.read`; for what is neither lines nor pieces, or comes as it is to lie.
    Not read in a cycle in which a line's values are, nor written in one in which stored values are.
    Likewise `entry`, a line's entry in every bank, and `bias_word`, a word of biases: not in a
    cycle in which a piece is stored.

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
    entry : a line's entry in every bank, the first bank's lowest
    bias_word : a word of biases, the first one's lowest
    overflow, out_of_range : errors
    raw, raw_data : a word of any memory
    """

    def __init__(self, spec: BufferSpec):
        self.spec = spec
        biases = {"bias_enable": 1, "bias_address": range(MOST_ENTRIES)} if spec.biases else {}
        bias = {"bias": signed(spec.bias_bits)} if spec.biases else {}
        whole = whole_layouts(spec)
        word = {name: field.shape for name, field in whole.pop("word")}
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
            "words": In(data.StructLayout(
                {**word, "read": 1, "read_word": range(MOST_ENTRIES)})),
            "words_data": Out(spec.pieces * spec.word_bits),
            **{name: In(layout) for name, layout in whole.items()},
            "overflow": Out(1),
            "out_of_range": Out(1),
            "raw": In(raw_layout(spec)),
            "raw_data": Out(spec.raw_bits),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, words = self.spec, self.words
        banks = [Bank(spec) for _ in range(spec.pieces)]
        nowhere = {way: words[way] & is_missing(words[f"{way}_word"], spec.words)
                   for way in ("write", "read")}
        no_line = self.entry.write & is_missing(self.entry.line, spec.lines)
        for number, bank in enumerate(banks):
            m.submodules[f"bank_{number}"] = bank
            mine = self.raw.bank == number
            m.d.comb += [bank.raw.eq(self.raw), bank.raw.write.eq(self.raw.write & mine),
                         bank.raw.read.eq(self.raw.read & mine)]
            part = slice(number * spec.word_bits, (number + 1) * spec.word_bits)
            m.d.comb += [
                *(bank.words[way].eq(words[way] & ~missing) for way, missing in nowhere.items()),
                *(bank.words[f"{way}_word"].eq(entry_of(words[f"{way}_word"], spec.words))
                  for way in nowhere),
                bank.words.data.eq(words.data[part]),
                self.words_data[part].eq(bank.words_data),
                bank.entry.write.eq(self.entry.write & ~no_line),
                bank.entry.line.eq(entry_of(self.entry.line, spec.lines)),
                bank.entry.data.eq(self.entry.data.word_select(number, spec.entry_bits)),
            ]
        raw_data = reduce(or_, (bank.raw_data for bank in banks))
        errors = [self._read(m, banks), self._store(m, banks), *nowhere.values(), no_line]
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
        missing = is_missing(read.line, spec.lines)
        for number, bank in enumerate(banks):
            m.d.comb += [
                bank.read.enable.eq(read.enable),
                bank.read.present.eq(~missing & (read.absent < spec.pieces - number)),
                bank.read.line.eq(read.line),
            ]
        flow = Flow(m, banks[0].piece.valid, "merge")
        zero_mask = Cat(bank.piece.zero_mask for bank in banks)
        parts = [(values_of(bank.piece.value), bank.piece.count) for bank in banks]
        while len(parts) > 1:
            joined = []
            for number in range(0, len(parts), 2):
                (first, count), (second, more) = parts[number:number + 2]
                moved = moved_up(m, second, count, f"merge_{flow.latency}_{number}")
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
        missing = is_missing(store.line, spec.lines)
        opening = Flow(m, self.open.enable, "open")
        opened = opening.stage(word=self.open.start[spec.place_bits:],
                               limit=self.open.limit[spec.place_bits:])
        limit = Signal(range(spec.words + 1))
        with m.If(opening.valid):
            m.d.sync += limit.eq(opened.limit)
        flow = Flow(m, store.enable, "store")
        s = flow.stage(
            keep=~missing, bank=store.bank, line=entry_of(store.line, spec.lines),
            zero_mask=store.zero_mask,
            count=popcount(m, list(store.zero_mask), "stored"), value=values_of(store.value))
        chosen = [flow.valid & (s.bank == number) for number in range(spec.pieces)]
        at = {name: named(m, reduce(or_, (
            only(getattr(bank, name), mine) for bank, mine in zip(banks, chosen, strict=True))),
            f"store_{name}") for name in ("word", "place", "fills", "overflows")}
        with m.If(at["overflows"]):
            m.d.sync += self.overflow.eq(1)
        merging = Flow(m, flow.valid & s.count.any() & ~at["overflows"], "merge_store")
        t = merging.stage(
            bank=s.bank, word=at["word"], full=at["fills"],
            held=~Cat(at_least(spec.piece, at["place"])),
            value=turned(m, s.value, at["place"], -1, "stored"))
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
        spec, read, given = self.spec, self.read, self.bias_word
        m.submodules.biases = biases = SynchronousMemory(
            unsigned(spec.bias_word_bits), spec.bias_words)
        missing = is_missing(read.bias_address, spec.biases)
        nowhere = given.write & is_missing(given.address, spec.bias_words)
        flow = Flow(m, read.bias_enable & ~missing, "bias")
        address = entry_of(read.bias_address, spec.biases)
        for _ in range(cost.read_latency(spec) - 1):
            address = flow.stage(address=address).address
        place_bits = spec.biases_together.bit_length() - 1
        read_word = (flow.valid, address[place_bits:])
        bias = biases.read_data
        if place_bits:
            place = flow.stage(place=address[:place_bits]).place
            bias = biases.read_data.word_select(place, spec.bias_bits)
        m.d.comb += self.line.bias.eq(bias)
        return (read.bias_enable & missing) | nowhere, connect_memory(
            m, biases, self.raw, BIASES, read_word,
            (given.write & ~nowhere, entry_of(given.address, spec.bias_words), given.data))
