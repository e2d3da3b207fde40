"""Register slices, and elastic pipelines cut by them."""

from types import SimpleNamespace

from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class _Buffer(wiring.Component):
    """A stream in and a stream out of one shape."""

    def __init__(self, shape):
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})


class Skid(_Buffer):
    """One entry that takes the beat which a sink that has just stopped did not: cuts `ready`.

    `i.ready` comes from a register; `i.valid` and `i.payload` reach `o` combinationally while the
    entry is empty. Latency 0 cycles, initiation interval 1. Data registers have no reset.

    Parameters
    ----------
    shape : shape of the payload (a layout keeps its fields)
    """

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        ready = Signal(init=1)
        waiting = Signal(Shape.cast(self._shape).width, reset_less=True)
        incoming = Value.cast(self.i.payload)
        m.d.comb += [
            self.i.ready.eq(ready),
            self.o.valid.eq(self.i.valid | ~ready),
            Value.cast(self.o.payload).eq(Mux(ready, incoming, waiting)),
        ]
        m.d.sync += ready.eq(self.o.ready | ~self.o.valid)
        with m.If(self.i.valid & ready & ~self.o.ready):
            m.d.sync += waiting.eq(incoming)
        return m


class OutputRegister(_Buffer):
    """One entry in front of a sink: cuts `valid` and the payload.

    `o.valid` and `o.payload` come from registers; `o.ready` reaches `i.ready` combinationally.
    Latency 1 cycle, initiation interval 1. Data registers have no reset, and move only with a beat,
    so that they take no clock power while idle once their clock is gated.

    Parameters
    ----------
    shape : shape of the payload (a layout keeps its fields)
    """

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        valid = Signal()
        payload = Signal(Shape.cast(self._shape).width, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(self.o.ready | ~valid),
            self.o.valid.eq(valid),
            Value.cast(self.o.payload).eq(payload),
        ]
        with m.If(self.i.ready):
            m.d.sync += valid.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += payload.eq(Value.cast(self.i.payload))
        return m


class RegisterSlice(_Buffer):
    """Two-entry buffer that cuts every combinational path between its two sides.

    `o.valid` and `o.payload` come from registers and so does `i.ready`. Latency 1 cycle, initiation
    interval 1; under back-pressure one beat waits at the output and one in the second entry. Data
    registers have no reset.

    Parameters
    ----------
    shape : shape of the payload (a layout keeps its fields)
    """

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        m.submodules.skid = skid = Skid(self._shape)
        m.submodules.register = register = OutputRegister(self._shape)
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        wiring.connect(m, skid.o, register.i)
        wiring.connect(m, register.o, wiring.flipped(self.o))
        return m


class Pipeline:
    """Elastic pipeline, written stage by stage inside a component's `elaborate`.

    Every call of `stage`, and the closing `finish`, is one register: latency 1, interval 1. A
    group of `group` stages shares one enable, the ready register of the slice that ends it; so no
    ready path and no enable reaches further than a group. The latency of it all is `latency`, the
    number of stages with `finish`: n beats into an idle pipeline take n + latency cycles from the
    first transfer in to the last transfer out, both included.

    Parameters
    ----------
    m : the module that the stages are added to
    i : the stream that feeds the pipeline; its `ready` is driven here
    group : stages that share an enable, the slice included; None for all of them, where the
        pipeline is short or state spans stages
    name : prefix of submodules and signals, for a component with several pipelines

    Examples
    --------
    ::

        pipe = Pipeline(m, self.i)
        s = pipe.stage(product=self.i.p.left * self.i.p.right, last=self.i.p.last)
        with m.If(pipe.advance):
            m.d.sync += total.eq(Mux(s.last, 0, total + s.product))
        s = pipe.stage(keep=s.last, value=total + s.product)
        pipe.finish(self.o, value=s.value)
    """

    def __init__(self, m, i, *, group=4, name="pipeline"):
        if group is not None and group < 1:
            raise ValueError(f"group must be at least 1 stage, not {group}")
        self._m = m
        self._group = group
        self._name = name
        self.latency = 0
        self._slices = 0
        self._open(i)

    @property
    def valid(self):
        """Whether the current stage (the last one made) holds a beat."""
        return self._valid

    @property
    def advance(self):
        """Whether the beat of the current stage moves on in this cycle: when to update state."""
        return self._valid & self._enable

    def stage(self, keep=None, **values):
        """Register `values` and return their registered copies as a namespace.

        Parameters
        ----------
        keep : if given, only beats for which it is 1 go on; the others end here
        values : anything Amaranth takes as a value, computed from the current stage
        """
        if self._stages + 1 == self._group:
            return self._slice(keep, values)
        m, index = self._m, self.latency
        valid = Signal(name=f"{self._name}_{index}_valid")
        registers = {
            name: Signal(_shape(value), name=f"{self._name}_{index}_{name}", reset_less=True)
            for name, value in values.items()
        }
        with m.If(self._enable):
            m.d.sync += valid.eq(self._kept(keep))
        with m.If(self._enable & self._kept(keep)):
            m.d.sync += [
                Value.cast(registers[name]).eq(Value.cast(value)) for name, value in values.items()
            ]
        self._valid = valid
        self._stages += 1
        self.latency += 1
        return SimpleNamespace(**registers)

    def finish(self, o, keep=None, **values):
        """End the pipeline with a slice that drives the stream `o`.

        `values` are its payload's fields; a payload that is no layout takes one called `payload`.
        """
        m = self._m
        end = self._new_slice(o.payload.shape())
        m.d.comb += end.i.valid.eq(self._kept(keep))
        if set(values) == {"payload"}:
            m.d.comb += end.i.payload.eq(values["payload"])
        else:
            fields = {name for name, _ in end.i.payload.shape()}
            if fields != set(values):
                raise ValueError(
                    f"the payload has the fields {sorted(fields)}, not {sorted(values)}"
                )
            m.d.comb += [end.i.payload[name].eq(value) for name, value in values.items()]
        wiring.connect(m, end.o, wiring.flipped(o))
        self.latency += 1

    def hold(self, done):
        """End the pipeline without a slice: the last stage keeps its beat until `done`.

        `done` then enables the whole of the last group, combinationally, and may depend on `valid`.
        """
        self._m.d.comb += self._enable.eq(~self._valid | done)

    def _open(self, source):
        """Begin a group that takes its beats from `source`."""
        self._stages = 0
        self._valid = source.valid
        self._enable = Signal(name=f"{self._name}_{self._slices}_enable")
        self._m.d.comb += source.ready.eq(self._enable)

    def _kept(self, keep):
        return self._valid if keep is None else self._valid & keep

    def _new_slice(self, shape):
        end = RegisterSlice(shape)
        self._m.submodules[f"{self._name}_slice_{self._slices}"] = end
        self._slices += 1
        self._m.d.comb += self._enable.eq(end.i.ready)
        return end

    def _slice(self, keep, values):
        """Register `values` in a slice and begin the next group."""
        m = self._m
        end = self._new_slice(
            data.StructLayout({name: _shape(value) for name, value in values.items()})
        )
        m.d.comb += end.i.valid.eq(self._kept(keep))
        m.d.comb += [
            Value.cast(end.i.payload[name]).eq(Value.cast(value)) for name, value in values.items()
        ]
        self._open(end.o)
        self.latency += 1
        return SimpleNamespace(**{name: end.o.payload[name] for name in values})


def _shape(value):
    """Shape of a value, keeping the layout of a view."""
    return value.shape() if hasattr(value, "shape") else Value.cast(value).shape()
