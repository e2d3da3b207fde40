"""Brings images from main memory into a buffer, at main memory's own pace."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import popcount
from hwgen.units.buffer.bank import whole_layouts
from hwgen.units.loader.cost import LOAD
from hwgen.units.loader.layout import (
    BIASES,
    IMAGE,
    JOBS,
    MASKS,
    REQUEST,
    TAG,
    VALUES,
    answer_layout,
)
from hwgen.units.loader.spec import LoaderSpec


class Loader(wiring.Component):
    """Asks main memory for the words of images and writes them into a buffer.

    An image is biases, then groups of a word of masks and words of values (`golden.image`). Words
    come in slots, `rate_numerator` / `rate_denominator` bits a cycle; a group takes `slots` of
    them, those beyond its words idle, so that its masks, one line's a cycle, are in the directory
    before the next ones come. In a step a whole image is copied, if any, and then `slots` slots of
    the prefetched image go by, whether or not anything of it is left. Where a line's values start
    in a bank is counted from its masks.

    Main memory answers requests in their order, each the same number of cycles later, and nothing
    ever waits. `active` is high from the cycle after `start` for `cost.memory_cycles` cycles less
    one, where main memory has the latency of the spec; where it is slower, until all has come.

    Parameters
    ----------
    spec : LoaderSpec

    Ports
    -----
    prepare, prefetch : takes what is to be prefetched in the steps that follow
    start, slots, copies, copy : in a step: slots of the prefetch, whether there is an image, which
    request, answer : to and from main memory; `tag` comes back with the word
    word, entry, bias_word : writes of the buffer
    active : whether anything is under way
    """

    def __init__(self, spec: LoaderSpec):
        self.spec = spec
        super().__init__({
            "prepare": In(1),
            "prefetch": In(IMAGE),
            "start": In(1),
            "slots": In(20),
            "copies": In(1),
            "copy": In(IMAGE),
            "request": Out(REQUEST),
            "answer": In(answer_layout(spec.word_bits)),
            **{name: Out(layout) for name, layout in whole_layouts(spec.buffer).items()},
            "active": Out(1),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        begins = {"copy": self.start & self.copies, "prefetch": self.prepare}
        images = {"copy": self.copy, "prefetch": self.prefetch}
        asked = self._ask(m, begins, images)
        self._write(m, begins, images)
        under_way = Signal(16)
        ending = Signal(range(self.spec.latency + self._end + 1))
        arrives = self.answer.valid
        m.d.sync += under_way.eq(under_way + self.request.enable - arrives)
        with m.If(asked.tick):
            m.d.sync += ending.eq(self.spec.latency + self._end)
        with m.Elif(arrives & (ending <= self._end)):
            m.d.sync += ending.eq(self._end)
        with m.Elif(ending.any()):
            m.d.sync += ending.eq(ending - 1)
        m.d.comb += self.active.eq(asked.active | under_way.any() | ending.any())
        return m

    @property
    def _end(self):
        """Cycles from a word's arrival to the write of its last mask."""
        return self.spec.buffer.bits + LOAD - 1

    def _ask(self, m, begins, images):
        """Request words, one a slot; whether slots go by, and whether one does now."""
        spec = self.spec
        copying = Signal()
        slots = Signal(20, name="slots_left")
        walks = {job: _ImageWalk(m, job, image, spec.buffer.bits) for job, image in images.items()}
        active = Signal(name="asking")
        tick = Signal()
        whole = spec.word_bits * spec.rate_denominator
        # Bits that main memory has had time for since the last word.
        credit = Signal(range(whole))
        reached = Signal(range(2 * whole))
        m.d.comb += [
            active.eq(copying | slots.any()),
            reached.eq(credit + spec.rate_numerator),
            tick.eq(active & (reached >= whole)),
        ]
        with m.If(self.start):
            m.d.sync += [credit.eq(0), slots.eq(self.slots), copying.eq(self.copies)]
        with m.Elif(active):
            m.d.sync += credit.eq(Mux(tick, reached - whole, reached))
        with m.If(tick & copying):
            m.d.sync += copying.eq(~walks["copy"].last)
        with m.If(tick & ~copying):
            m.d.sync += slots.eq(slots - 1)
        for job, walk in walks.items():
            with m.If(begins[job]):
                walk.begin()
            with m.Elif(tick & (copying == (job == "copy"))):
                walk.step()
        copy, prefetch = walks["copy"], walks["prefetch"]
        m.d.comb += [
            self.request.enable.eq(tick & Mux(copying, copy.real, prefetch.real)),
            self.request.address.eq(Mux(copying, copy.address, prefetch.address)),
            self.request.tag.eq(Cat(Mux(copying, copy.kind, prefetch.kind), ~copying)),
        ]
        return SimpleNamespace(active=active, tick=tick)

    def _write(self, m, begins, images):
        """Write what arrives where its image goes."""
        buffer = self.spec.buffer
        places = []
        for job in JOBS:
            place = _Place(m, job, images[job], buffer)
            with m.If(begins[job]):
                place.begin()
            places.append(place)
        # A Mux, since Icarus does not evaluate a switch over registers that stay as they begin.
        copy, prefetch = places
        tag = data.View(TAG, self.answer.tag)
        kind = Signal(2, reset_less=True)
        job = Signal(reset_less=True)
        word = Signal(self.spec.word_bits, reset_less=True)
        arrived = Signal()
        m.d.sync += arrived.eq(self.answer.valid)
        with m.If(self.answer.valid):
            m.d.sync += [kind.eq(tag.kind), job.eq(tag.job)]
        with m.If(self.answer.valid & (tag.kind != MASKS)):
            m.d.sync += word.eq(self.answer.word)
        writes = {name: arrived & (kind == number) for name, number in
                  (("biases", BIASES), ("values", VALUES))}
        m.d.comb += [
            self.word.write.eq(writes["values"]),
            self.word.write_word.eq(Mux(job, prefetch.word, copy.word)),
            self.word.data.eq(word),
            self.bias_word.write.eq(writes["biases"]),
            self.bias_word.address.eq(Mux(job, prefetch.bias, copy.bias)),
            self.bias_word.data.eq(word[:buffer.bias_word_bits]),
        ]
        for number, place in enumerate(places):
            with m.If(writes["values"] & (job == number)):
                m.d.sync += place.word.eq(place.word + 1)
            with m.If(writes["biases"] & (job == number)):
                m.d.sync += place.bias.eq(place.bias + 1)
        self._write_entries(m, places, tag)

    def _write_entries(self, m, places, tag):
        """Write the masks of a word into the directory one by one, with where values start."""
        buffer = self.spec.buffer
        masks = Signal(self.spec.word_bits, reset_less=True)
        left = Signal(range(buffer.bits + 1), name="masks_left")
        job = Signal(name="masks_job", reset_less=True)
        with m.If(self.answer.valid & (tag.kind == MASKS)):
            m.d.sync += [masks.eq(self.answer.word), left.eq(buffer.bits), job.eq(tag.job)]
        with m.Elif(left.any()):
            m.d.sync += [masks.eq(masks >> buffer.window), left.eq(left - 1)]
        counted = Signal()
        counted_job = Signal(reset_less=True)
        pieces = [masks.word_select(bank, buffer.piece) for bank in range(buffer.pieces)]
        mask = [Signal(buffer.piece, name=f"mask_{bank}", reset_less=True)
                for bank in range(buffer.pieces)]
        count = [Signal(range(buffer.piece + 1), name=f"count_{bank}", reset_less=True)
                 for bank in range(buffer.pieces)]
        m.d.sync += counted.eq(left.any())
        with m.If(left.any()):
            m.d.sync += counted_job.eq(job)
            for bank, piece in enumerate(pieces):
                m.d.sync += [mask[bank].eq(piece),
                             count[bank].eq(popcount(m, list(piece), f"ones_{bank}"))]
        copy, prefetch = places
        line, lines = (Mux(counted_job, getattr(prefetch, name), getattr(copy, name))
                       for name in ("line", "lines"))
        positions = [Mux(counted_job, one, other) for one, other in
                     zip(prefetch.position, copy.position, strict=True)]
        real = lines.any()
        m.d.comb += [
            self.entry.write.eq(counted & real),
            self.entry.line.eq(line),
            self.entry.data.eq(Cat(Cat(one, position) for one, position in
                                   zip(mask, positions, strict=True))),
        ]
        for number, place in enumerate(places):
            with m.If(counted & (counted_job == number) & place.lines.any()):
                m.d.sync += [place.line.eq(place.line + 1), place.lines.eq(place.lines - 1),
                             *(position.eq(position + more) for position, more in
                               zip(place.position, count, strict=True))]


class _ImageWalk:
    """Which word of an image comes in the next slot."""

    def __init__(self, m, job, image, lines_of_group):
        self._m, self._image, self._lines_of_group = m, image, lines_of_group
        self.address = Signal.like(image.address, name=f"{job}_address", reset_less=True)
        self._biases = Signal.like(image.biases, name=f"{job}_biases")
        self._lines = Signal.like(image.lines, name=f"{job}_lines")
        self._phase = Signal.like(image.slots, name=f"{job}_phase", reset_less=True)
        self._values = Signal.like(image.values, name=f"{job}_values", reset_less=True)
        self._slots = Signal.like(image.slots, name=f"{job}_slots", reset_less=True)
        self.kind = Signal(2, name=f"{job}_kind")
        self.real = Signal(name=f"{job}_real")
        self._closes = Signal(name=f"{job}_closes")
        self.last = Signal(name=f"{job}_last")
        final = self._lines <= lines_of_group
        m.d.comb += [
            self.kind.eq(Mux(self._biases.any(), BIASES, Mux(self._phase.any(), VALUES, MASKS))),
            self.real.eq(self._biases.any() | (self._lines.any() & (self._phase <= self._values))),
            self._closes.eq(self._phase + 1 == self._slots),
            self.last.eq(Mux(self._biases.any(), (self._biases == 1) & ~self._lines.any(),
                             self._closes & final)),
        ]

    def begin(self):
        """Take the image."""
        image = self._image
        self._m.d.sync += [
            self.address.eq(image.address), self._biases.eq(image.biases),
            self._lines.eq(image.lines), self._phase.eq(0), self._values.eq(image.values),
            self._slots.eq(image.slots)]

    def step(self):
        """Let a slot go by."""
        m = self._m
        m.d.sync += self.address.eq(self.address + self.real)
        with m.If(self._biases.any()):
            m.d.sync += self._biases.eq(self._biases - 1)
        with m.Elif(self._lines.any()):
            m.d.sync += self._phase.eq(Mux(self._closes, 0, self._phase + 1))
            with m.If(self._closes):
                more = self._lines > self._lines_of_group
                m.d.sync += self._lines.eq(Mux(more, self._lines - self._lines_of_group, 0))


class _Place:
    """Where what comes of an image goes next."""

    def __init__(self, m, job, image, buffer):
        self._m, self._image, self._buffer = m, image, buffer
        for name in ("line", "lines", "word", "bias"):
            setattr(self, name, Signal.like(image[name], name=f"{job}_next_{name}",
                                            reset_less=name != "lines"))
        self.position = [Signal(buffer.position_bits, name=f"{job}_position_{bank}",
                                reset_less=True) for bank in range(buffer.pieces)]

    def begin(self):
        """Go to where the image begins."""
        image = self._image
        start = Cat(Const(0, self._buffer.place_bits), image.word)
        self._m.d.sync += [
            self.line.eq(image.line), self.lines.eq(image.lines), self.word.eq(image.word),
            self.bias.eq(image.bias), *(position.eq(start) for position in self.position)]
