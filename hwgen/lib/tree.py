"""Trees of registers from one place to many and back: no wire reaches everything in a cycle."""

from amaranth.hdl import Cat, ShapeCastable, Signal, Value

from hwgen.units.stages import BRANCH, branch_levels


class Down:
    """A bus to `leaves` places, each of whose registers drives `BRANCH` at most.

    Latency ⌈log4 leaves⌉ cycles, interval 1. Data registers move only with `valid`.

    Parameters
    ----------
    m : the module that the registers are added to
    leaves : places that are reached
    valid, data : what enters; `data` is a view or a value
    name : prefix of the registers
    """

    def __init__(self, m, leaves, valid, data, name):
        self._shape = data.shape()
        stage = [(valid, Value.cast(data))]
        levels = branch_levels(leaves)
        self._valids, self.latency = [valid], levels
        for level in range(1, levels + 1):
            copies = -(-leaves // BRANCH ** (levels - level + 1))
            made = []
            for copy in range(copies):
                source_valid, source = stage[copy // BRANCH if level > 1 else 0]
                prefix = f"{name}_{level}_{copy}"
                copy_valid = Signal(name=f"{prefix}_valid")
                copy_data = Signal(len(source), name=f"{prefix}_data", reset_less=True)
                m.d.sync += copy_valid.eq(source_valid)
                with m.If(source_valid):
                    m.d.sync += copy_data.eq(source)
                made.append((copy_valid, copy_data))
            stage = made
        self._stage = stage
        self._leaves = leaves

    def leaf(self, number):
        """Return (valid, data) at a place; data in its own shape."""
        valid, value = self._stage[number // BRANCH if self.latency else 0]
        return valid, self._shape(value) if isinstance(self._shape, ShapeCastable) else value


def up(m, values, name):
    """OR of all values, ⌈log4 of their number⌉ cycles later."""
    values = [Value.cast(value) for value in values]
    for level in range(branch_levels(len(values))):
        merged = []
        for number in range(0, len(values), BRANCH):
            register = Signal(len(values[0]), name=f"{name}_{level}_{number // BRANCH}")
            together = values[number]
            for value in values[number + 1:number + BRANCH]:
                together = together | value
            m.d.sync += register.eq(together)
            merged.append(register)
        values = merged
    return values[0]


def delayed(m, value, cycles, name):
    """`value`, `cycles` cycles later."""
    value = Value.cast(value)
    for number in range(cycles):
        register = Signal(len(value), name=f"{name}_{number}")
        m.d.sync += register.eq(value)
        value = register
    return value


def lasting(m, active, cycles, name):
    """Whether `active` is high, or was in one of the last `cycles` cycles."""
    if not cycles:
        return active
    past = Signal(cycles, name=name)
    m.d.sync += past.eq(Cat(active, past)[:cycles])
    return active | past.any()
