"""RTL of a lane: its memories, and the units that compute between them."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.flow import Flow
from hwgen.lib.memory import SynchronousMemory
from hwgen.lib.walk import TileWalk
from hwgen.units.dynatran.rtl import Dynatran
from hwgen.units.lane.golden import SEED_SHIFTS
from hwgen.units.lane.layout import (
    BIAS,
    SUM,
    left_layout,
    operation_layout,
    piece_layout,
    place_layout,
    result_layout,
    right_layout,
    step_layout,
    sums_layout,
)
from hwgen.units.lane.spec import LaneSpec
from hwgen.units.mac_lane.rtl import MacLane
from hwgen.units.post_sparsity.rtl import PostSparsity
from hwgen.units.pre_sparsity.rtl import SIDES, PreSparsity


class Lane(wiring.Component):
    """Dot products of an output tile, a segment a step, from stored lines to compressed pieces.

    A lane keeps the tile that `place` gave it, and takes from the buses the lines of that tile, one
    of each operand a cycle, also while it computes from the other bank. Nothing pushes back: no
    port has a ready, and the units inside never wait for one another's results.

    A step computes one segment of all dot products of the tile, in the order b, i, j, or b, j, i
    where `transposed`, each from `initial`. Unless `closing`, their accumulators become partial
    sums in `sums_bank`, which a later segment of the same tile may begin with. Where `closing`,
    they are rounded, pruned and compressed, and become pieces in `result_bank`: those of a row of
    the result, i or where transposed j, each of `piece` elements or what is left of the row. What
    stands at or beyond `valid_i` or `valid_j` becomes zero.

    A lane is busy for `cost.cycles`, from the cycle of `start` up to that of its last write, and
    may start again in the next cycle.

    A step whose block does not reach the lane's tile leaves the lane idle. What is read twice in a
    row from an operand memory is read once.

    Parameters
    ----------
    spec : LaneSpec

    Ports
    -----
    place : {enable, used, b, i, j}: the tile's place in a full block; taken while no lane is busy
    operation : constants of the operation, as for MacLane and Dynatran; `transposed`;
        `right_has_b`: the right operand is another one for every b; `valid_i`, `valid_j`: real rows
        and columns of the whole result
    step : {start, …}: `tiles_b`, `tiles_i`, `tiles_j` of the block, `last_b`, `last_i`, `last_j`,
        the extents of its last tile in each dimension; `windows` of the segment; `initial` (zero,
        bias, partial sum: 0, 1, 2); `closing`; banks; `origin_i`, `origin_j`, index of the block's
        first row and column in the whole result; with noise_bits, `seed` of the tensor's noise and
        `first_tile_b`, `first_tile_i`, `first_tile_j`, the block's first tile in the whole result,
        from which a tile's seed follows (`golden.tile_seed`)
    left, right : {valid, bank, b, tile, row, line, zero_mask, value}: a line is written in the
        cycle in which it comes if the lane has its tile: b and i on the left; j on the right, and b
        where `right_has_b`. The bias of a column comes with any of its lines
    result, piece : a piece of the results, one cycle after `enable`; it must not be in the bank
        that is written
    sums, sum : a partial sum that leaves, one cycle after `read`, or comes back; neither in the
        bank that is computed with
    busy : whether the lane computes in this cycle; combinational from `step.start`
    """

    def __init__(self, spec: LaneSpec):
        self.spec = spec
        super().__init__({
            "place": In(place_layout(spec)),
            "operation": In(operation_layout(spec)),
            "step": In(step_layout(spec)),
            "left": In(left_layout(spec)),
            "right": In(right_layout(spec)),
            "result": In(result_layout(spec)),
            "piece": Out(piece_layout(spec)),
            "sums": In(sums_layout(spec)),
            "sum": Out(signed(spec.mac_lane.accumulator_bits)),
            "busy": Out(1),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        memories = {name: SynchronousMemory(width, depth)
                    for name, (depth, width) in spec.memories().items()}
        for name, memory in memories.items():
            m.submodules[name] = memory
        m.submodules.gather = gather = PreSparsity(spec.pre_sparsity)
        m.submodules.macs = macs = MacLane(spec.mac_lane)
        place = self._place(m)
        start, last = self._extents(m, place)
        self._take_lines(m, memories, place)
        self._read_masks(m, memories, gather, start, last)
        self._read_values(m, memories, gather, start, last)
        self._multiply(m, memories, gather, macs, start, last)
        if spec.mac_lane.noise_bits:
            m.d.comb += macs.seed.eq(self._seed(m, start, place))
        written = self._finish(m, memories, macs, self._real(m, start, place), last)
        running = Signal()
        m.d.comb += self.busy.eq(start | running)
        m.d.sync += running.eq(self.busy & ~written)
        return m

    def _place(self, m):
        """Registers of the lane's tile."""
        tile = range(self.spec.lanes)
        place = SimpleNamespace(
            used=Signal(name="place_used"),
            **{name: Signal(tile, name=f"place_{name}", reset_less=True) for name in "bij"})
        with m.If(self.place.enable):
            m.d.sync += place.used.eq(self.place.used)
        with m.If(self.place.enable & self.place.used):
            m.d.sync += [getattr(place, name).eq(self.place[name]) for name in "bij"]
        return place

    def _extents(self, m, place):
        """Whether the lane starts, and the last of b, i and j of its tile and of lines."""
        spec, step = self.spec, self.step
        start = Signal(name="starts")
        m.d.comb += start.eq(step.start & place.used & (place.b < step.tiles_b)
                             & (place.i < step.tiles_i) & (place.j < step.tiles_j))
        last = SimpleNamespace()
        for name, extent in (("b", spec.tile_b), ("i", spec.tile_x), ("j", spec.tile_y)):
            end = Signal(range(extent), name=f"last_{name}")
            is_last = getattr(place, name) + 1 == step[f"tiles_{name}"]
            m.d.comb += end.eq(Mux(is_last, step[f"last_{name}"] - 1, extent - 1))
            setattr(last, name, end)
        last.line = Signal(range(spec.segment_lines), name="last_line")
        m.d.comb += last.line.eq(step.windows - 1)
        return start, last

    def _address(self, side, row, bank, b, line):
        """Where a line lies: dense for one matrix, whatever the number of lines."""
        return Cat(row, bank, b if side == "left" else b & self.operation.right_has_b.replicate(
            len(b)), line)

    def _take_lines(self, m, memories, place):
        """Write what comes for the lane's tile."""
        any_b = {"left": Const(0, 1), "right": ~self.operation.right_has_b}
        for side, row in (("left", "i"), ("right", "j")):
            bus = getattr(self, side)
            mine = Signal(name=f"{side}_is_mine")
            m.d.comb += mine.eq(bus.valid & place.used & (bus.tile == getattr(place, row))
                                & ((bus.b == place.b) | any_b[side]))
            for kind, written in (("masks", bus.zero_mask), ("values", bus.value)):
                memory = memories[f"{side}_{kind}"]
                m.d.comb += [
                    memory.write_enable.eq(mine),
                    memory.write_address.eq(
                        self._address(side, bus.row[row], bus.bank, bus.row.b, bus.line)),
                    memory.write_data.eq(written),
                ]
            if side == "right":
                biases = memories["biases"]
                m.d.comb += [
                    biases.write_enable.eq(mine & bus.bias_valid),
                    biases.write_address.eq(Cat(bus.row.j, bus.bank)),
                    biases.write_data.eq(bus.bias),
                ]

    def _read_operands(self, m, memories, kind, start, last, ready):
        """Read the lines of all dot products, one whenever there is room.

        Returns whether the memories' outputs hold lines, and whether they are a dot product's last.
        """
        valid, ends, active = (Signal(name=f"{kind}_{name}")
                               for name in ("valid", "ends", "active"))
        read = Signal(name=f"{kind}_read")
        m.d.comb += read.eq(start | (active & (~valid | ready)))
        walk = TileWalk(m, kind, last, self.operation.transposed, read)
        m.d.sync += valid.eq(read | (valid & ~ready))
        with m.If(read):
            m.d.sync += [active.eq(~walk.ends), ends.eq(walk.line_ends)]
        several = self.step.windows != 1
        for side, row, steps in zip(SIDES, (walk.i, walk.j), (walk.i_steps, walk.j_steps),
                                    strict=True):
            # A line that the memory's output holds already is not read again. With b, and after the
            # tile's end, both rows and columns step.
            other = Signal(init=1, name=f"{kind}_{side}_other")
            with m.If(read):
                m.d.sync += other.eq(several | steps)
            memory = memories[f"{side}_{kind}"]
            m.d.comb += [
                memory.read_enable.eq(read & other),
                memory.read_address.eq(
                    self._address(side, row, self.step[f"{side}_bank"], walk.b, walk.line)),
            ]
        return valid, ends

    def _read_masks(self, m, memories, gather, start, last):
        """Feed the zero_masks, both at once."""
        left, right = gather.i_left_mask, gather.i_right_mask
        valid, ends = self._read_operands(m, memories, "masks", start, last, left.ready)
        for side, port in zip(SIDES, (left, right), strict=True):
            m.d.comb += [port.valid.eq(valid), port.p.last.eq(ends),
                         port.p.zero_mask.eq(memories[f"{side}_masks"].read_data)]

    def _read_values(self, m, memories, gather, start, last):
        """Feed the values, both at once."""
        left, right = gather.i_left, gather.i_right
        valid, _ = self._read_operands(m, memories, "values", start, last, left.ready)
        for side, port in zip(SIDES, (left, right), strict=True):
            m.d.comb += [port.valid.eq(valid),
                         Cat(port.p.value).eq(memories[f"{side}_values"].read_data)]

    def _multiply(self, m, memories, gather, macs, start, last):
        """Bring pairs and initial values to the multipliers."""
        pairs, beat = gather.o, macs.i
        ends = Signal(name="dot_ends")
        initial, tile_ends = self._read_initial(m, memories, start, last, ends)
        m.d.comb += [
            ends.eq(pairs.valid & pairs.ready & pairs.p.last),
            beat.valid.eq(pairs.valid), pairs.ready.eq(beat.ready),
            Cat(beat.p.left).eq(Cat(pairs.p.left)), Cat(beat.p.right).eq(Cat(pairs.p.right)),
            beat.p.initial.eq(initial), beat.p.last.eq(pairs.p.last),
        ]
        m.d.comb += [getattr(macs, name).eq(self.operation[name])
                     for name in ("shift", "activate", "i_exponent", "o_exponent")]
        if self.spec.mac_lane.noise_bits:
            m.d.comb += [macs.stochastic.eq(self.operation.stochastic),
                         beat.p.tile_last.eq(tile_ends)]

    def _read_initial(self, m, memories, start, last, taken):
        """Initial value of the dot product whose beats leave next, and whether it is the last.

        One is in a register, the next one in the memory's output, so that no time of a memory is
        spent in the cycle of the multipliers. The first is there long before pairs are.
        """
        step = self.step
        active, fetched, held = (Signal(name=f"initial_{name}")
                                 for name in ("active", "fetched", "held"))
        fetch, move = Signal(name="initial_fetch"), Signal(name="initial_move")
        m.d.comb += [move.eq(fetched & (~held | taken)),
                     fetch.eq(start | (active & (~fetched | move)))]
        walk = TileWalk(m, "initial", SimpleNamespace(b=last.b, i=last.i, j=last.j),
                        self.operation.transposed, fetch)
        m.d.sync += [fetched.eq(fetch | (fetched & ~move)), held.eq(move | (held & ~taken))]
        fetched_ends = Signal(name="initial_fetched_ends", reset_less=True)
        with m.If(fetch):
            m.d.sync += [active.eq(~walk.ends), fetched_ends.eq(walk.ends)]
        biases = memories["biases"]
        m.d.comb += [
            biases.read_enable.eq(fetch & (step.initial == BIAS)),
            biases.read_address.eq(Cat(walk.j, step.right_bank)),
        ]
        for bank in range(2):
            computes, moves = step.sums_bank == bank, self.sums.read_bank == bank
            memory = memories[f"sums_{bank}"]
            leaves = self.sums.read & moves
            m.d.comb += [
                memory.read_enable.eq((fetch & (step.initial == SUM) & computes) | leaves),
                memory.read_address.eq(Mux(leaves, self.sums.read_address,
                                            self._sum_address(walk))),
            ]
        banks = [memories[f"sums_{bank}"].read_data for bank in range(2)]
        left_from = Signal(reset_less=True)
        with m.If(self.sums.read):
            m.d.sync += left_from.eq(self.sums.read_bank)
        m.d.comb += self.sum.eq(Mux(left_from, banks[1], banks[0]))
        initial = Signal(signed(self.spec.mac_lane.accumulator_bits), reset_less=True)
        ends = Signal(name="initial_ends", reset_less=True)
        with m.If(move):
            m.d.sync += [ends.eq(fetched_ends), initial.eq(
                Mux(step.initial == BIAS, biases.read_data,
                    Mux(step.initial == SUM, Mux(step.sums_bank, banks[1], banks[0]), 0)))]
        return initial, ends

    def _seed(self, m, start, place):
        """Seed of the tile's noise, in a register from two cycles on."""
        flow = Flow(m, start, "seed")
        s = flow.stage(tile={
            name: self.step[f"first_tile_{name}"] + getattr(place, name) for name in "bij"})
        return flow.stage(seed=(
            self.step.seed + sum(s.tile[name] << shift for name, shift in SEED_SHIFTS.items())
        )[:self.spec.mac_lane.noise_bits]).seed

    def _sum_address(self, walk):
        """Where a dot product's partial sum lies."""
        return Cat(walk.j, walk.i, walk.b)

    def _real(self, m, start, place):
        """How many rows and columns of the tile are real, in registers from two cycles on."""
        extents = {"i": self.spec.tile_x, "j": self.spec.tile_y}
        flow = Flow(m, start, "real")
        s = flow.stage(rest={
            name: self.operation[f"valid_{name}"] - self.step[f"origin_{name}"]
            - Cat(Const(0, (extent - 1).bit_length()), getattr(place, name))
            for name, extent in extents.items()})
        return flow.stage(real={
            name: Mux(s.rest[name] < 0, 0, Mux(s.rest[name] >= extent, extent,
                                               s.rest[name][:extent.bit_length()]))
            for name, extent in extents.items()}).real

    def _finish(self, m, memories, macs, real, last):
        """Store what leaves the multipliers; returns whether the step's last write is made."""
        spec, step, transposed = self.spec, self.step, self.operation.transposed
        sum_ready = Signal(name="sum_ready")
        m.d.comb += [macs.o.ready.eq(1), sum_ready.eq(macs.o.valid)]
        walk = TileWalk(m, "results", SimpleNamespace(b=last.b, i=last.i, j=last.j),
                        transposed, sum_ready)
        for bank in range(2):
            memory = memories[f"sums_{bank}"]
            comes = self.sums.write & (self.sums.write_bank == bank)
            m.d.comb += [
                memory.write_enable.eq(
                    (sum_ready & ~step.closing & (step.sums_bank == bank)) | comes),
                memory.write_address.eq(Mux(comes, self.sums.write_address,
                                             self._sum_address(walk))),
                memory.write_data.eq(Mux(comes, self.sums.value, macs.o.p.accumulator)),
            ]
        m.submodules.prune = prune = Dynatran(spec.dynatran)
        m.submodules.compress = compress = PostSparsity(spec.post_sparsity)
        within = (spec.piece - 1).bit_length()
        piece_ends = Signal()
        fastest_ends = Mux(transposed, walk.j_steps, walk.i_steps)
        place = Mux(transposed, walk.i[:within], walk.j[:within])
        m.d.comb += [
            piece_ends.eq(fastest_ends | (place == spec.piece - 1)),
            prune.threshold.eq(self.operation.threshold),
            prune.i.valid.eq(sum_ready & step.closing),
            prune.i.p.value[0].eq(macs.o.p.value),
            prune.i.p.valid_mask.eq((walk.i < real["i"]) & (walk.j < real["j"])),
            prune.i.p.last.eq(piece_ends),
            compress.i.valid.eq(prune.o.valid), prune.o.ready.eq(compress.i.ready),
            compress.i.p.value.eq(prune.o.p.value[0]), compress.i.p.last.eq(prune.o.p.last),
            compress.o_value.ready.eq(1), compress.o_mask.ready.eq(1),
        ]
        address = self._piece_address(
            Mux(transposed, walk.j, walk.i),
            Mux(transposed, walk.i[within:], walk.j[within:]), step.result_bank, walk.b)
        # The address keeps up with its piece: one cycle of dynatran and two of post_sparsity.
        flow = Flow(m, sum_ready & step.closing & piece_ends, "piece")
        s = flow.stage(address=address, ends=walk.ends)
        s = flow.stage(address=s.address, ends=s.ends)
        s = flow.stage(address=s.address, ends=s.ends)
        results = memories["results"]
        m.d.comb += [
            results.write_enable.eq(flow.valid),
            results.write_address.eq(s.address),
            results.write_data.eq(Cat(compress.o_value.p.value, compress.o_mask.p.zero_mask)),
            results.read_enable.eq(self.result.enable),
            results.read_address.eq(self._piece_address(
                self.result.row, self.result.piece, self.result.bank, self.result.b)),
            Cat(self.piece).eq(results.read_data),
        ]
        return Mux(step.closing, flow.valid & s.ends, sum_ready & walk.ends)

    def _piece_address(self, row, piece, bank, b):
        """Where a piece of the result lies: as many bits for a row and a piece in either order."""
        spec = self.spec
        plain, turned = (
            Cat(piece[:(elements // spec.piece - 1).bit_length()], row[:(rows - 1).bit_length()])
            for rows, elements in ((spec.tile_x, spec.tile_y), (spec.tile_y, spec.tile_x)))
        return Cat(Mux(self.operation.transposed, turned, plain), bank, b)
