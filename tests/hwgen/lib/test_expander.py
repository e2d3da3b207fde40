"""Expander and compactor over all masks of a small window, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import unsigned
from amaranth.sim import Simulator

from hwgen.lib.compactor import Compactor
from hwgen.lib.expander import Expander
from hwgen.units.lines import LineFormat
from hwgen.units.row_storage import RowStorage
from hwgen.units.stages import COMPACT, EXPAND


def simulate(component, testbench):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def storage(window, parallel, piece=1):
    return RowStorage(LineFormat(6, window, piece), parallel, max_row=4 * max(window, parallel))


def masks_of(window):
    """All zero_masks of a small window; of a larger one, all of each half beside a random other."""
    if window <= 8:
        return list(range(1 << window))
    half, rng = window // 2, np.random.default_rng(window)
    others = [int(other) for other in rng.integers(1 << half, size=1 << half)]
    return [mask | other << half for mask, other in enumerate(others)] + [
        other | mask << half for mask, other in enumerate(others)]


def lines_of(masks, window, rng):
    """Elements of lines, and their zero-free values; what is behind these is anything."""
    marked = (np.array(masks)[:, None] >> np.arange(window) & 1).astype(bool)
    elements = np.where(marked, rng.choice([-32, -1, 1, 31, 9, -14], marked.shape), 0)
    places = np.argsort(~marked, axis=1, kind="stable")
    packed = np.take_along_axis(elements, places, axis=1)
    junk = rng.integers(-32, 32, marked.shape)
    return elements, np.where(np.arange(window) < marked.sum(1, keepdims=True), packed, junk)


def expanded(form, beats, values):
    """Send beats, one a cycle but for `None`, and values as they are fetched; the beats that come.

    A beat's number travels with it.
    """
    dut, received, waiting = Expander(form, unsigned(16)), [], iter(values)

    async def testbench(ctx):
        for cycle in range(len(beats) + EXPAND):
            beat = beats[cycle] if cycle < len(beats) else None
            ctx.set(dut.i.valid, beat is not None)
            for name, value in (beat or {}).items():
                ctx.set(dut.i[name], value)
            ctx.set(dut.i.carried, cycle)
            fetch = ctx.get(dut.fetch)
            if ctx.get(dut.o.valid):
                assert ctx.get(dut.o.carried) == cycle - EXPAND
                received.append([ctx.get(dut.o.value[k]) for k in range(form.parallel)])
            await ctx.tick()
            if fetch:
                for k, value in enumerate(next(waiting)):
                    ctx.set(dut.value[k], int(value))

    simulate(dut, testbench)
    assert next(waiting, None) is None
    return received


@pytest.mark.parametrize(("window", "parallel"), [
    (8, 2), (8, 4), (8, 8), (16, 8), (4, 8), (2, 8), (4, 1), (1, 4), (1, 1)])
def test_lines_of_all_masks_are_expanded(window, parallel):
    rng = np.random.default_rng(window + parallel)
    form = storage(window, parallel)
    masks = masks_of(window)
    rng.shuffle(masks)
    masks *= form.ways  # a multiple of the lines of a beat
    elements, values = lines_of(masks, window, rng)
    beats = []
    for start in range(0, len(masks), form.ways):
        zero_mask = sum(mask << k * window for k, mask in enumerate(masks[start:start + form.ways]))
        beats += [{"zero_mask": zero_mask, "part": part, "end": part == form.line_beats - 1}
                  for part in range(form.line_beats)]
    received = expanded(form, beats, values.reshape(-1, form.ways * window))
    np.testing.assert_array_equal(received, elements.reshape(-1, parallel))


def test_a_line_ends_early_and_beats_have_gaps():
    rng = np.random.default_rng(3)
    form, beats, wanted = storage(8, 2), [], []
    masks = [0xFF, 0xA5, 0x0F, 0xFF, 0x00, 0x7E] * 8
    elements, values = lines_of(masks, 8, rng)
    for mask, line in zip(masks, elements, strict=True):
        length = int(rng.integers(1, 5))
        for part in range(length):
            beats += [None] * int(rng.integers(3))
            beats.append({"zero_mask": mask, "part": part, "end": part == length - 1})
        wanted += line.reshape(-1, 2)[:length].tolist()
    np.testing.assert_array_equal(expanded(form, beats, values), wanted)


@pytest.mark.parametrize(("parallel", "piece"), [(8, 8), (8, 4), (8, 2), (8, 1), (1, 1)])
def test_beats_of_all_masks_are_compacted(parallel, piece):
    rng = np.random.default_rng(parallel + piece)
    form = storage(8, parallel, piece)
    dut, received = Compactor(form), []
    elements, _ = lines_of(rng.permutation(1 << parallel), parallel, rng)
    masks = [sum(1 << int(k) for k in np.flatnonzero(line)) for line in elements]

    async def testbench(ctx):
        for cycle in range(len(masks) + COMPACT + 1):
            if cycle < len(masks):
                ctx.set(dut.i.zero_mask, masks[cycle])
                for k, value in enumerate(elements[cycle]):
                    ctx.set(dut.i.value[k], int(value))
                ctx.set(dut.i.last, cycle % 3 == 0)
            ctx.set(dut.i.valid, cycle < len(masks))
            sent = cycle - COMPACT
            assert ctx.get(dut.o.valid) == (0 <= sent < len(masks))
            if ctx.get(dut.o.valid):
                assert ctx.get(dut.o.zero_mask) == masks[sent]
                assert ctx.get(dut.o.last) == (sent % 3 == 0)
                received.append([ctx.get(dut.o.value[k]) for k in range(parallel)])
            await ctx.tick()

    simulate(dut, testbench)
    pieces = elements.reshape(-1, piece)
    packed = np.take_along_axis(pieces, np.argsort(pieces == 0, axis=1, kind="stable"), axis=1)
    np.testing.assert_array_equal(np.array(received).reshape(-1, piece), packed)
