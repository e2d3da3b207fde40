"""Rows of a row engine: what brings them to its units, and what keeps their results."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import element
from hwgen.lib.compaction import at_least
from hwgen.lib.compactor import Compactor
from hwgen.lib.expander import Expander
from hwgen.lib.flow import Flow
from hwgen.lib.memory import SynchronousMemory

ROW = unsigned(16)
"""Shape of a row's place in its sequence, and of a number of rows."""


def line_layout(form, **address):
    """Return the layout of a line that is written: valid, `address`, line, zero_mask, value.

    Parameters
    ----------
    form : RowStorage, the lines
    address : shapes of what says where the row is
    """
    window = form.line.window
    return data.StructLayout({
        "valid": 1, **address, "line": range(form.row_lines), "zero_mask": unsigned(window),
        "value": data.ArrayLayout(signed(form.line.bits), window)})


def piece_layout(form):
    """Return the layout of a piece that is read: zero-free values, and their zero_mask."""
    piece = form.line.piece
    return data.StructLayout({
        "value": data.ArrayLayout(signed(form.line.bits), piece), "zero_mask": unsigned(piece)})


def result_layout(form):
    """Return the layout of what reads a piece: enable, bank, and which piece of the row."""
    return data.StructLayout({"enable": 1, "bank": 1, "piece": range(form.row_pieces)})


class RowMemory(wiring.Component):
    """Memory for some rows of zero-free lines, from which one comes as beats of elements.

    The first beat of a row is at the output `ROW_START` + `EXPAND` cycles after the cycle of its
    start, and the others follow, one a cycle, without back-pressure. The next row may start in the
    cycle after the last beat. Lines may be written at any time to a row that is not being read, one
    a cycle, in any order.

    Parameters
    ----------
    form : RowStorage, the lines and beats
    banks : rows that are kept

    Ports
    -----
    line : struct {valid, bank: which row, line: which of its lines, zero_mask: a bit a position of
        the window, value: window × signed(bits), zero-free}; zero_mask is 0 beyond the row's end
    start, bank : start to read a row, and which
    length : elements of the row, at least 1; steady from the row's start on until its last beat
    valid_length : real elements of the row, at most `length`; steady one cycle later
    o : struct {valid, value: `parallel` × signed(bits), valid_mask, last}, from registers, but for
        valid_mask, which is some gates behind them; what lies beyond `valid_length` is not valid
    """

    def __init__(self, form, banks):
        self.form, self.banks = form, banks
        super().__init__({
            "line": In(line_layout(form, bank=range(banks))),
            "start": In(1),
            "bank": In(range(banks)),
            "length": In(range(form.max_row + 1)),
            "valid_length": In(range(form.max_row + 1)),
            "o": Out(data.StructLayout({
                "valid": 1, "value": data.ArrayLayout(signed(form.line.bits), form.parallel),
                "valid_mask": unsigned(form.parallel), "last": 1})),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        form = self.form
        below = (form.parallel - 1).bit_length()
        m.submodules.expander = expander = Expander(
            form, data.StructLayout({"full": 1, "partial": 1, "last": 1}))

        # What the row's beats are compared with is there in the first cycle of reading.
        reading, beat = Signal(), Signal(range(form.row_beats), reset_less=True)
        last_beat = Signal.like(beat)
        m.d.sync += last_beat.eq((self.length - 1) >> below)
        last = beat == last_beat
        part = beat[:(form.line_beats - 1).bit_length()]
        end = part.all() | last
        address = self._address(m, reading & end, "zero_mask_address")
        with m.If(self.start):
            m.d.sync += [reading.eq(1), beat.eq(0)]
        with m.Elif(reading):
            m.d.sync += [reading.eq(~last), beat.eq(beat + 1)]

        flow = Flow(m, reading, "read")
        whole = self.valid_length >> below
        s = flow.stage(part=part, end=end, full=beat < whole, partial=beat == whole, last=last)
        m.d.comb += [
            expander.i.valid.eq(flow.valid),
            expander.i.part.eq(s.part),
            expander.i.end.eq(s.end),
            expander.i.carried.full.eq(s.full),
            expander.i.carried.partial.eq(s.partial),
            expander.i.carried.last.eq(s.last),
        ]
        self._store(m, expander, reading & (part == 0), address)

        tag = expander.o.carried
        inside = Cat(at_least(form.parallel, self.valid_length[:below]))
        m.d.comb += [
            self.o.valid.eq(expander.o.valid),
            self.o.value.eq(expander.o.value),
            self.o.valid_mask.eq(tag.full.replicate(form.parallel)
                                 | (~inside & tag.partial.replicate(form.parallel))),
            self.o.last.eq(tag.last),
        ]
        return m

    def _address(self, m, advance, name):
        """Counter over the entries of the row that is read."""
        address = Signal(range(self.banks * self.form.bank_entries), name=name, reset_less=True)
        with m.If(self.start):
            m.d.sync += address.eq(self._base(self.bank))
        with m.Elif(advance):
            m.d.sync += address.eq(address + 1)
        return address

    def _base(self, bank):
        """First entry of a bank."""
        bases = [number * self.form.bank_entries for number in range(self.banks)]
        return element([Const(base, max(bases).bit_length()) for base in bases], bank)

    def _store(self, m, expander, read, address):
        """Memories of zero_masks, and those of values, which are read when `fetch` says so."""
        form = self.form
        size = (form.ways - 1).bit_length()
        way, entry = self.line.line[:size], self.line.line[size:]
        write_address = Signal.like(address)
        m.d.comb += write_address.eq(self._base(self.line.bank) + entry)
        value_address = self._address(m, expander.fetch, "value_address")
        found = {"zero_masks": [], "values": []}
        for number in range(form.ways):
            for name, data_in, enable, read_address in (
                    ("zero_masks", self.line.zero_mask, read, address),
                    ("values", self.line.value, expander.fetch, value_address)):
                memory = SynchronousMemory(
                    data_in.shape(), self.banks * form.bank_entries)
                m.submodules[f"{name}_{number}"] = memory
                m.d.comb += [
                    memory.write_enable.eq(self.line.valid & (way == number)),
                    memory.write_address.eq(write_address),
                    memory.write_data.eq(data_in),
                    memory.read_enable.eq(enable),
                    memory.read_address.eq(read_address),
                ]
                found[name].append(memory.read_data)
        m.d.comb += [
            expander.i.zero_mask.eq(Cat(found["zero_masks"])),
            expander.value.eq(Cat(found["values"])),
        ]


class RowResults(wiring.Component):
    """Compacts a row's results, and keeps two rows of them as pieces.

    A beat is written `COMPACT` cycles after it has come. Interval 1, no back-pressure.

    Parameters
    ----------
    form : RowStorage, the beats and pieces

    Ports
    -----
    i : struct {valid, value: `parallel` × signed(bits), zero_mask, last}; the elements that the
        zero_mask does not mark must be 0
    bank : where the row goes; steady from its first beat on until `done`
    done : 1 in the cycle in which the row's last beat is written
    result : struct {enable, bank, piece}, reads a piece: any but one that is being written
    piece : struct {value: piece × signed(bits), zero-free, zero_mask}, one cycle after `result`
    """

    def __init__(self, form):
        self.form = form
        super().__init__({
            "i": In(data.StructLayout({
                "valid": 1, "value": data.ArrayLayout(signed(form.line.bits), form.parallel),
                "zero_mask": unsigned(form.parallel), "last": 1})),
            "bank": In(1),
            "done": Out(1),
            "result": In(result_layout(form)),
            "piece": Out(piece_layout(form)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        form = self.form
        m.submodules.compactor = compactor = Compactor(form)
        depth, _ = form.result_memory()
        pieces = data.ArrayLayout(piece_layout(form), form.beat_pieces)
        m.submodules.memory = memory = SynchronousMemory(pieces, depth)
        beat = Signal(range(form.row_beats))
        o = compactor.o
        with m.If(o.valid):
            m.d.sync += beat.eq(Mux(o.last, 0, beat + 1))
        size = (form.beat_pieces - 1).bit_length()
        within = Signal(range(form.beat_pieces), reset_less=True)
        with m.If(self.result.enable):
            m.d.sync += within.eq(self.result.piece[:size])
        m.d.comb += [
            compactor.i.eq(self.i),
            self.done.eq(o.valid & o.last),
            memory.write_enable.eq(o.valid),
            memory.write_address.eq(Cat(self.bank, beat)),
            memory.read_enable.eq(self.result.enable),
            memory.read_address.eq(Cat(self.result.bank, self.result.piece[size:])),
            Value.cast(self.piece).eq(element(
                [Value.cast(piece) for piece in memory.read_data], within)),
        ]
        for number in range(form.beat_pieces):
            places = slice(number * form.line.piece, (number + 1) * form.line.piece)
            written = memory.write_data[number]
            m.d.comb += [written.zero_mask.eq(o.zero_mask[places]),
                         *(target.eq(o.value[place]) for target, place in zip(
                             written.value, range(places.start, places.stop), strict=True))]
        return m
