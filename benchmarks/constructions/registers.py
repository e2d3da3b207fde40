"""Pipelines of bare registers, for constructions that nobody stops and nobody asks."""

from functools import reduce
from operator import xor
from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Mux, Signal, Value, signed

from hwgen.lib.bit_heap import BitHeap
from hwgen.units.stochastic_rounding.noise import leap_columns


class Registers:
    """Stages of data registers alone: no valid bit, no enable, no reset.

    It takes the place of hwgen.lib.pipeline.Pipeline and hwgen.lib.flow.Flow in what writes stages.
    A constant needs no register and stays one.

    Parameters
    ----------
    m : the module that the registers are added to
    name : prefix of the signals
    cuts : stages that are registers, the first being 0; the others are wires. None for all
    """

    def __init__(self, m, name, cuts=None):
        self._m = m
        self._name = name
        self._cuts = cuts
        self._stages = 0
        self.latency = 0

    def stage(self, **values):
        """Register values, or lists of such, nested at will; return a namespace of registers."""
        cut = self._cuts is None or self._stages in self._cuts
        kept = {name: self._kept(value, f"{self._name}_{self._stages}_{name}", cut)
                for name, value in values.items()}
        self._stages += 1
        self.latency += cut
        return SimpleNamespace(**kept)

    def _kept(self, value, name, cut):
        if isinstance(value, list | tuple):
            return [self._kept(part, f"{name}_{k}", cut) for k, part in enumerate(value)]
        value = Value.cast(value)
        if isinstance(value, Const):
            return value
        signal = Signal(value.shape(), name=name, reset_less=cut)
        domain = self._m.d.sync if cut else self._m.d.comb
        domain += signal.eq(value)
        return signal


def accumulate(m, heap, first, name):
    """Add a heap to what was added since `first`, in a register with one carry-propagate adder.

    Returns
    -------
    The register, signed, a cycle later.
    """
    total = Signal(signed(heap.width), name=f"{name}_so_far", reset_less=True)
    # The loop's bits come in last, where one level of adders is left.
    rows = heap.rows()
    loop = BitHeap(m, heap.width, f"{name}_loop")
    for row in (*rows, Mux(first, 0, total.as_unsigned())):
        loop.add_bits(loop.named(row, "row"), 0)
    left, right = loop.rows()
    m.d.sync += total.eq(left + right)
    return total


def noise(m, load, seed):
    """Register that leaps in every cycle, or takes the seed where `load` is 1."""
    state = Signal(len(seed), name="noise_state", reset_less=True)
    leapt = Cat(reduce(xor, (bit for bit, column in
                             zip(state, leap_columns(len(state)), strict=True)
                             if column >> place & 1)) for place in range(len(state)))
    m.d.sync += state.eq(Mux(load, seed, leapt))
    return state
