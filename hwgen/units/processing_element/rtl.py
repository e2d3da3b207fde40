"""A processing element: lanes and engines for rows, between trees of registers."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.parts import part
from hwgen.lib.tree import Down, delayed, up
from hwgen.program import KINDS
from hwgen.units.accelerator.layout import descriptor_layout
from hwgen.units.lane.rtl import Lane
from hwgen.units.norm_engine.rtl import NormEngine
from hwgen.units.softmax_engine.rtl import SoftmaxEngine
from hwgen.units.stages import branch_levels


class ProcessingElement(wiring.Component):
    """Lanes, softmax engines and a norm engine, and the trees that lead to them and back.

    Whatever goes to a lane or an engine takes `spec.levels` cycles, and so does what comes back;
    constants, which are steady while anything works, come without registers.

    Parameters
    ----------
    spec : AcceleratorSpec

    Ports
    -----
    configuration, step : descriptors; steady while anything works
    start : a step begins
    clear, place : no lane has a tile any more; a lane gets one
    left, right : lines, with the tile and the row that they belong to; `right` also biases, and,
        while `weights` is high, the norm's scale (row 0) and offset (row 1)
    drain : partial sums of a group of lanes, which are on `sums` 2·levels + 1 cycles later. They
        come back on `left`, while its `sums` is high, in the place of a line's values
    request : a piece of a lane's or an engine's results, which is on `piece` 2·levels + 1 cycles
        later
    busy : OR of what works, `spec.levels` cycles later
    """

    def __init__(self, spec):
        self.spec = spec
        lane, line = spec.lane, spec.activations
        tag = {"valid": 1, "bank": 1, "b_tile": 12, "b": range(lane.tile_b), "tile": 14,
               "index": 14, "part": 10}
        values = data.StructLayout({
            "zero_mask": unsigned(line.window),
            "value": data.ArrayLayout(signed(line.bits), line.window)})
        longest = max(lane.tile_x, lane.tile_y)
        super().__init__({
            "configuration": In(descriptor_layout("configure")),
            "step": In(descriptor_layout("step")),
            "start": In(1),
            "clear": In(1),
            "place": In(data.StructLayout({"enable": 1, "place": 12, "b": 11, "i": 11, "j": 11})),
            "left": In(data.StructLayout({
                **tag, "row": range(lane.tile_x), "line": values, "sums": 1, "group": 10,
                "dot": range(lane.dots)})),
            "right": In(data.StructLayout({
                **tag, "row": range(lane.tile_y), "line": values, "weights": 1, "bias_valid": 1,
                "bias": signed(spec.weights.bias_bits)})),
            "request": In(data.StructLayout({
                "enable": 1, "bank": 1, "place": 12, "b": range(lane.tile_b),
                "row": range(longest), "part": range(longest // lane.piece), "index": 14,
                "whole": 14})),
            "drain": In(data.StructLayout({
                "enable": 1, "bank": 1, "group": 10, "dot": range(lane.dots)})),
            "sums": Out(spec.sums_together * lane.mac_lane.accumulator_bits),
            "piece": Out(data.StructLayout({
                "zero_mask": unsigned(lane.piece),
                "value": data.ArrayLayout(signed(lane.bits), lane.piece)})),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        lanes = [Lane(spec.lane) for _ in range(spec.lanes)]
        engines = [SoftmaxEngine(spec.softmax) for _ in range(spec.softmax_engines)]
        for name, units in (("lane", lanes), ("softmax_engine", engines)):
            for number, unit in enumerate(units):
                m.submodules[f"{name}_{number}"] = part(platform, name, unit)
        norm = NormEngine(spec.norm)
        m.submodules.norm_engine = part(platform, "norm_engine", norm)
        trees = {
            name: Down(m, spec.places, valid, value, name)
            for name, valid, value in (
                ("start", self.start, Const(0, 0)),
                ("clear", self.clear, Const(0, 0)),
                ("place", self.place.enable, self.place),
                ("left", self.left.valid, self.left),
                ("right", self.right.valid, self.right),
                ("request", self.request.enable, self.request),
                ("drain", self.drain.enable, self.drain),
            )
        }
        busy, pieces = [Signal() for _ in range(spec.places)], []
        for number in range(spec.places):
            leaf = {name: tree.leaf(number) for name, tree in trees.items()}
            units = []
            if number < spec.lanes:
                units.append(lanes[number])
                self._connect_lane(m, number, lanes[number], leaf)
            if number < spec.softmax_engines:
                units.append(engines[number])
                self._connect_softmax(m, number, engines[number], leaf)
            if number == 0:
                units.append(norm)
                self._connect_norm(m, norm, leaf)
            m.d.comb += busy[number].eq(Cat(unit.busy for unit in units).any())
            pieces += [self._answer(m, unit) for unit in units]
        self._gather_sums(m, lanes, trees["drain"])
        gathered = [reduce(or_, pieces[start::spec.places])
                    for start in range(min(spec.places, len(pieces)))]
        m.d.comb += [self.busy.eq(up(m, busy, "busy")),
                     Value.cast(self.piece).eq(up(m, gathered, "piece"))]
        return m

    def _answer(self, m, unit):
        """A unit's piece, or zeros where it was not asked."""
        asked = Signal()
        m.d.sync += asked.eq(unit.result.enable)
        ours = Signal(self.piece.shape())
        m.d.comb += [ours.zero_mask.eq(unit.piece.zero_mask), ours.value.eq(unit.piece.value)]
        value = Value.cast(ours)
        return value & asked.replicate(len(value))

    def _gather_sums(self, m, lanes, drain):
        """Partial sums of a group of lanes, side by side."""
        spec = self.spec
        together, missing = spec.sums_together, []
        for slot in range(together):
            mine = []
            for number in range(slot, spec.lanes, together):
                valid, request = drain.leaf(number)
                asked = Signal()
                m.d.sync += asked.eq(valid & (request.group == number // together))
                value = lanes[number].sum.as_unsigned()
                mine.append(value & asked.replicate(len(value)))
            late = spec.levels - branch_levels(len(mine))
            missing.append(delayed(m, up(m, mine, f"sums_{slot}"), late, f"sums_late_{slot}"))
        m.d.comb += self.sums.eq(Cat(missing))

    def _kind(self, name):
        return self.configuration.kind == KINDS.index(name)

    def _connect_lane(self, m, number, lane, leaf):
        configuration, step = self.configuration, self.step
        valid, place = leaf["place"]
        m.d.comb += [
            lane.place.enable.eq(leaf["clear"][0] | (valid & (place.place == number))),
            lane.place.used.eq(valid),
            *(getattr(lane.place, name).eq(getattr(place, name)) for name in "bij"),
            lane.step.start.eq(leaf["start"][0] & step.compute & self._kind("product")),
        ]
        m.d.comb += [field.eq(getattr(configuration, name))
                     for name, field in _fields(lane.operation)]
        banks = {"left_bank": "compute_left", "right_bank": "compute_right"}
        m.d.comb += [field.eq(getattr(step, banks.get(name, name)))
                     for name, field in _fields(lane.step) if name != "start"]
        group, slot = divmod(number, self.spec.sums_together)
        width = self.spec.lane.mac_lane.accumulator_bits
        (asked, drain), (valid, bus) = leaf["drain"], leaf["left"]
        m.d.comb += [
            lane.sums.read.eq(asked & (drain.group == group)),
            lane.sums.read_bank.eq(drain.bank), lane.sums.read_address.eq(drain.dot),
            lane.sums.write.eq(valid & bus.sums & (bus.group == group)),
            lane.sums.write_bank.eq(bus.bank), lane.sums.write_address.eq(bus.dot),
            lane.sums.value.eq(Value.cast(bus.line.value)[slot * width:(slot + 1) * width]),
        ]
        for side, row in (("left", "i"), ("right", "j")):
            valid, bus = leaf[side]
            if side == "left":
                valid = valid & ~bus.sums
            own = getattr(lane, side)
            m.d.comb += [
                own.valid.eq(valid & self._kind("product")), own.bank.eq(bus.bank),
                own.b.eq(bus.b_tile), own.tile.eq(bus.tile), own.row.b.eq(bus.b),
                getattr(own.row, row).eq(bus.row), own.line.eq(bus.part),
                own.zero_mask.eq(bus.line.zero_mask), own.value.eq(bus.line.value),
            ]
        m.d.comb += [lane.right.bias_valid.eq(bus.bias_valid), lane.right.bias.eq(bus.bias)]
        valid, request = leaf["request"]
        m.d.comb += [
            lane.result.enable.eq(valid & (request.place == number) & self._kind("product")),
            lane.result.bank.eq(request.bank), lane.result.b.eq(request.b),
            lane.result.row.eq(request.row), lane.result.piece.eq(request.part),
        ]

    def _connect_engine(self, m, number, engine, leaf, kind):
        """What a softmax engine and the norm engine have in common."""
        configuration, step = self.configuration, self.step
        valid, request = leaf["request"]
        # The row's place in its sequence and in the next one, side by side: one of them counts.
        row = Signal(15, name=f"{kind}_row_{number}")
        beyond = Signal(signed(16), name=f"{kind}_row_beyond_{number}")
        m.d.comb += [
            row.eq(step.origin_i + number),
            beyond.eq(step.origin_i - configuration.sequence + number),
            engine.step.start.eq(leaf["start"][0] & step.compute & self._kind(kind)
                                 & (number < step.tiles_i)),
            engine.step.bank.eq(step.compute_left),
            engine.step.result_bank.eq(step.result_bank),
            engine.step.row.eq(Mux(beyond < 0, row, beyond)),
            engine.operation.threshold.eq(configuration.threshold),
            engine.operation.length.eq(configuration.length),
            engine.operation.valid_rows.eq(configuration.valid_i),
            engine.result.enable.eq(valid & (request.index == number) & self._kind(kind)),
            engine.result.bank.eq(request.bank),
            engine.result.piece.eq(request.whole),
        ]

    def _connect_softmax(self, m, number, engine, leaf):
        self._connect_engine(m, number, engine, leaf, "softmax")
        valid, bus = leaf["left"]
        m.d.comb += [
            engine.operation.i_exponent.eq(self.configuration.i_exponent),
            engine.operation.valid_length.eq(self.configuration.valid_j),
            engine.line.valid.eq(valid & (bus.index == number) & self._kind("softmax")),
            engine.line.bank.eq(bus.bank), engine.line.line.eq(bus.part),
            engine.line.zero_mask.eq(bus.line.zero_mask), engine.line.value.eq(bus.line.value),
        ]

    def _connect_norm(self, m, norm, leaf):
        self._connect_engine(m, 0, norm, leaf, "norm")
        configuration = self.configuration
        (left_valid, left), (right_valid, right) = leaf["left"], leaf["right"]
        m.d.comb += [
            norm.operation.a_exponent.eq(configuration.i_exponent),
            norm.operation.b_exponent.eq(configuration.addend_exponent),
            norm.operation.sum_exponent.eq(configuration.sum_exponent),
            norm.operation.gamma_exponent.eq(configuration.gamma_exponent),
            norm.operation.beta_exponent.eq(configuration.beta_exponent),
            norm.operation.o_exponent.eq(configuration.o_exponent),
            norm.step.load.eq(self.step.load),
            norm.line.valid.eq((left_valid | right_valid) & self._kind("norm")),
            norm.line.operand.eq(Mux(left_valid, 0, Mux(right.weights, 2 + right.index[0], 1))),
        ]
        for name in ("bank", "part"):
            target = {"bank": norm.line.bank, "part": norm.line.line}[name]
            m.d.comb += target.eq(Mux(left_valid, getattr(left, name), getattr(right, name)))
        for name in ("zero_mask", "value"):
            m.d.comb += getattr(norm.line, name).eq(
                Mux(left_valid, Value.cast(getattr(left.line, name)),
                    Value.cast(getattr(right.line, name))))


def _fields(struct):
    """Names and values of a struct's fields."""
    return [(name, getattr(struct, name)) for name, _ in struct.shape()]
