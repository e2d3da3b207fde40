"""An accelerator of one processing element: buffers, sequencer, and what moves between them."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.tree import delayed, lasting
from hwgen.program import KINDS, WORD_BITS
from hwgen.units.accelerator.scan import STRIDES, LineScan, PieceScan, PlaceScan, SumScan
from hwgen.units.accelerator.sequencer import Sequencer
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.accelerator.status import Status
from hwgen.units.buffer import cost as buffer_cost
from hwgen.units.buffer.rtl import Buffer
from hwgen.units.loader.layout import REQUEST, answer_layout
from hwgen.units.loader.rtl import Loader
from hwgen.units.processing_element.rtl import ProcessingElement


class Accelerator(wiring.Component):
    """Runs programs of steps out of its two buffers of lines.

    In a step, each port does at most one job: left and then right lines from the activation
    buffer, right lines and biases from the weight buffer, pieces of results into the activation
    buffer, images from main memory into the weight buffer; the lanes, or an engine for rows, work
    meanwhile. The step lasts as long as the longest of these, and `AcceleratorSpec.levels` · 2 + 2
    cycles more. Steps never wait for anything else.

    The buffers are loaded and unloaded through the raw ports while no program runs.

    Parameters
    ----------
    spec : AcceleratorSpec

    Ports
    -----
    program : stream of descriptors' words
    activations, weights, activations_data, weights_data : raw access to a buffer's memories
    memory, memory_data : requests to main memory, and its words, in the same order with the same
        tags, each the spec's latency later
    issue : a step or a configuration begins in this cycle
    ended : the program has ended, in the cycle in which a further step would have begun
    status : Status; an error stays until reset
    """

    def __init__(self, spec: AcceleratorSpec):
        self.spec = spec
        self._activations = Buffer(spec.activations)
        self._weights = Buffer(spec.weights)
        super().__init__({
            "program": In(stream.Signature(unsigned(WORD_BITS))),
            "activations": In(self._activations.raw.shape()),
            "activations_data": Out(self._activations.raw_data.shape()),
            "weights": In(self._weights.raw.shape()),
            "weights_data": Out(self._weights.raw_data.shape()),
            "memory": Out(REQUEST),
            "memory_data": In(answer_layout(spec.loader.word_bits)),
            "issue": Out(1),
            "ended": Out(1),
            "status": Out(Status),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        m.submodules.sequencer = sequencer = Sequencer(spec)
        m.submodules.activations = activations = self._activations
        m.submodules.weights = weights = self._weights
        m.submodules.element = element = ProcessingElement(spec)
        wiring.connect(m, wiring.flipped(self.program), sequencer.program)
        m.d.comb += [
            activations.raw.eq(self.activations), self.activations_data.eq(activations.raw_data),
            weights.raw.eq(self.weights), self.weights_data.eq(weights.raw_data),
            self.issue.eq(sequencer.issue),
            self.ended.eq(sequencer.ended),
            self.status.eq(sequencer.status),
            element.configuration.eq(sequencer.configuration),
            element.step.eq(sequencer.step),
            element.start.eq(sequencer.issue & ~sequencer.configure),
        ]
        placing = self._place(m, sequencer, element)
        reading = self._read(m, sequencer, activations, weights, element)
        writing = self._write(m, sequencer, activations, element)
        loading = self._load(m, sequencer, weights)
        active = (sequencer.issue | sequencer.fetching | placing | reading | writing.asking
                  | loading)
        m.d.comb += sequencer.busy.eq(
            lasting(m, active, 2 * spec.levels, "active_before") | element.busy | writing.storing)
        self._fault(m, sequencer, activations, weights)
        return m

    def _place(self, m, sequencer, element):
        """Tell lanes their tiles while an operation is configured; whether that goes on."""
        m.submodules.places = places = PlaceScan(self.spec.lanes)
        configuration = sequencer.configuration
        m.d.comb += [
            places.load.eq(sequencer.configure & (configuration.kind == KINDS.index("product"))),
            *_copy(places.places, configuration, "lane"),
            *_copy(places.unroll, configuration, "unroll"),
            element.clear.eq(sequencer.configure),
            element.place.enable.eq(places.active),
            element.place.place.eq(places.place),
            element.place.b.eq(places.b),
            element.place.i.eq(places.i),
            element.place.j.eq(places.j),
        ]
        return places.active

    def _load(self, m, sequencer, weights):
        """Bring images from main memory into the weight buffer; whether that goes on."""
        m.submodules.loader = loader = Loader(self.spec.loader)
        step = sequencer.step
        m.d.comb += [
            loader.prepare.eq(sequencer.configure),
            *_copy(loader.prefetch, sequencer.configuration, "prefetch"),
            loader.start.eq(sequencer.issue & ~sequencer.configure),
            loader.slots.eq(step.prefetch_slots),
            loader.copies.eq(step.copy_enable),
            *_copy(loader.copy, step, "copy"),
            self.memory.eq(loader.request),
            loader.answer.eq(self.memory_data),
            weights.entry.eq(loader.entry),
            weights.bias_word.eq(loader.bias_word),
            *(getattr(weights.words, name).eq(getattr(loader.word, name))
              for name, _ in loader.word.shape()),
        ]
        return loader.active

    def _read(self, m, sequencer, activations, weights, element):
        """Send lines to the processing element; whether that goes on."""
        spec, step, configuration = self.spec, sequencer.step, sequencer.configuration
        lane = spec.lane
        m.submodules.left = left = LineScan(lane.tile_b, lane.tile_x)
        m.submodules.right = right = LineScan(lane.tile_b, lane.tile_y)
        starts = sequencer.issue & ~sequencer.configure
        # While an operation is configured, the norm's weights come: two rows, scale and offset.
        norm_weights = sequencer.configure & (configuration.kind == KINDS.index("norm"))
        configured, loads_weights = Signal(), Signal()
        with m.If(sequencer.issue):
            m.d.sync += configured.eq(sequencer.configure)
        m.d.comb += loads_weights.eq(sequencer.configure | (configured & ~sequencer.issue))
        from_weights = Signal()
        m.d.comb += [
            from_weights.eq(loads_weights | step.right_weights),
            *_copy(left.read, step, "left"),
            left.load.eq(starts),
            left.strides.eq(_strides(configuration, "left")),
            left.advance.eq(1),
            right.load.eq(starts | norm_weights),
            right.strides.eq(_strides(configuration, "right")),
            right.advance.eq(from_weights | ~left.active),
        ]
        with m.If(loads_weights):
            m.d.comb += [
                right.read.enable.eq(1),
                right.read.line.eq(configuration.weights_line),
                right.read.b.eq(1),
                right.read.rows.eq(2),
                right.read.lines.eq(configuration.weights_lines),
                right.read.absent.eq(configuration.weights_absent),
                right.read.phase.eq(0),
            ]
        with m.Else():
            m.d.comb += _copy(right.read, step, "right")
        reads_left = left.active
        reads_right = right.active & ~from_weights & ~left.active
        m.d.comb += [
            activations.read.enable.eq(reads_left | reads_right),
            activations.read.line.eq(Mux(left.active, left.line, right.line)),
            activations.read.absent.eq(Mux(left.active, left.absent, right.absent)),
            weights.read.absent.eq(right.absent),
            weights.read.enable.eq(right.active & from_weights),
            weights.read.line.eq(right.line),
            weights.read.bias_enable.eq(
                right.active & from_weights & step.bias_enable & (right.part == 0)),
            weights.read.bias_address.eq(step.bias + right.index),
        ]
        latency = buffer_cost.read_latency(spec.activations)
        m.submodules.fill = fill = SumScan(lane.dots)
        m.d.comb += [
            fill.load.eq(starts & step.fill_enable),
            fill.first.eq(step.fill_word),
            fill.groups.eq(configuration.groups),
            fill.advance.eq(~reads_left & ~reads_right),
        ]
        comes = fill.active & fill.advance
        # A word is read late, for its sums to arrive as late as a line.
        m.d.comb += [
            activations.words.read.eq(delayed(m, comes, latency - 1, "fill_reads")),
            activations.words.read_word.eq(delayed(m, fill.word, latency - 1, "fill_word")),
            element.left.sums.eq(delayed(m, comes, latency, "fill_valid")),
            element.left.group.eq(delayed(m, fill.group, latency, "fill_group")),
            element.left.dot.eq(delayed(m, fill.dot, latency, "fill_dot")),
        ]
        for side, scan, valid, bank in (
            ("left", left, reads_left | comes,
             Mux(element.left.sums, step.fill_bank, step.left_bank)),
            ("right", right, reads_right | (right.active & from_weights), step.right_bank),
        ):
            bus = getattr(element, side)
            tag = {"b_tile": scan.b_tile, "b": scan.b, "tile": scan.tile, "row": scan.row,
                   "index": scan.index, "part": scan.part}
            m.d.comb += [bus.valid.eq(delayed(m, valid, latency, f"{side}_valid")),
                         bus.bank.eq(bank)]
            m.d.comb += [getattr(bus, name).eq(delayed(m, value, latency, f"{side}_{name}"))
                         for name, value in tag.items()]
        # Lines under way: between the scan and the processing element.
        under_way = lasting(
            m, left.active | right.active | fill.active, latency, "lines_before")
        m.d.comb += [
            element.left.line.zero_mask.eq(activations.line.zero_mask),
            Value.cast(element.left.line.value).eq(
                Mux(element.left.sums, activations.words_data,
                    Value.cast(activations.line.value))),
            *(getattr(element.right.line, name).eq(
                Mux(from_weights, Value.cast(getattr(weights.line, name)),
                    Value.cast(getattr(activations.line, name))))
              for name in ("zero_mask", "value")),
            element.right.weights.eq(loads_weights),
            element.right.bias_valid.eq(delayed(m, weights.read.bias_enable, latency, "bias")),
            element.right.bias.eq(weights.line.bias),
        ]
        return under_way

    def _write(self, m, sequencer, activations, element):
        """Bring results from the processing element to the buffer; what of it goes on."""
        spec, step, configuration = self.spec, sequencer.step, sequencer.configuration
        lane = spec.lane
        m.submodules.pieces = scan = PieceScan(
            lane.tile_b, lane.tile_x, lane.tile_y, lane.piece, spec.activations.pieces)
        m.d.comb += [
            scan.load.eq(sequencer.issue & ~sequencer.configure),
            *_copy(scan.write, step, "write"),
            scan.strides.eq(_strides(configuration, "result")),
            scan.transposed.eq(configuration.transposed),
            *_copy(scan.places, configuration, "lane"),
            element.request.enable.eq(scan.active),
            element.request.bank.eq(step.write_bank),
            element.request.place.eq(scan.place),
            element.request.b.eq(scan.b),
            element.request.row.eq(scan.row),
            element.request.part.eq(scan.part),
            element.request.index.eq(scan.index),
            element.request.whole.eq(scan.whole),
            activations.open.enable.eq(sequencer.configure),
            activations.open.start.eq(configuration.start),
            activations.open.limit.eq(configuration.limit),
        ]
        m.submodules.drain = drain = SumScan(lane.dots)
        way = 2 * spec.levels + 1
        m.d.comb += [
            drain.load.eq(scan.load & step.drain_enable),
            drain.first.eq(step.drain_word),
            drain.groups.eq(configuration.groups),
            drain.advance.eq(1),
            element.drain.enable.eq(drain.active),
            element.drain.bank.eq(step.drain_bank),
            element.drain.group.eq(drain.group),
            element.drain.dot.eq(drain.dot),
            activations.words.write.eq(delayed(m, drain.active, way, "drain_arrives")),
            activations.words.write_word.eq(delayed(m, drain.word, way, "drain_word")),
            activations.words.data.eq(element.sums),
        ]
        asking = scan.active | drain.active
        arrives = delayed(m, scan.active, way, "piece_arrives")
        m.d.comb += [
            activations.store.enable.eq(arrives),
            activations.store.line.eq(delayed(m, scan.line, way, "piece_line")),
            activations.store.bank.eq(delayed(m, scan.bank, way, "piece_bank")),
            activations.store.value.eq(element.piece.value),
            activations.store.zero_mask.eq(element.piece.zero_mask),
        ]
        # The word that is not full is written in the cycle after the last piece.
        ends = Signal()
        m.d.sync += ends.eq(arrives & ~delayed(m, scan.active, way - 1, "piece_follows"))
        m.d.comb += activations.flush.eq(ends & step.write_flush)
        storing = lasting(
            m, lasting(m, asking, way, "asked_before"),
            buffer_cost.store_latency(spec.activations) + 1, "stored_before")
        return SimpleNamespace(asking=asking, storing=storing)

    def _fault(self, m, sequencer, activations, weights):
        """Errors of the buffers, and of a configuration that lanes cannot follow."""
        out_of_range = activations.out_of_range | weights.out_of_range
        misplaced = Signal()
        with m.If(m.submodules.places.bad):
            m.d.sync += misplaced.eq(1)
        m.d.comb += sequencer.fault.eq(
            Mux(activations.overflow, Status.OVERFLOW,
                Mux(out_of_range, Status.OUT_OF_RANGE,
                    Mux(misplaced, Status.BAD_DESCRIPTOR, Status.IDLE))))


def _copy(target, source, prefix):
    """Assign the fields of `target` from those of `source` with a prefix."""
    return [getattr(target, name).eq(getattr(source, f"{prefix}_{name}"))
            for name, _ in target.shape()]


def _strides(configuration, prefix):
    """Strides of a port as its scan takes them."""
    return Cat(getattr(configuration, f"{prefix}_{name}") for name, _ in STRIDES)
