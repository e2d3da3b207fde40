"""Parts as black boxes: ports, names, and netlists that are joined again."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.technology.flow.isolation import isolated
from hwgen.technology.flow.netlist import Cell, MemoryMacro, Netlist
from hwgen.technology.flow.outline import outline, parts_of
from hwgen.technology.flow.synthesis import elaborate, synthesise
from hwgen.technology.flow.timing import critical_path


class Adder(wiring.Component):
    """Adds two fields of what enters, and holds the sum in a register without reset."""

    def __init__(self, bits):
        self.bits = bits
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"a": bits, "b": bits}))),
            "nothing": In(0),
            "total": Out(bits),
        })

    def elaborate(self, platform):
        m = Module()
        total = Signal(self.bits, reset_less=True)
        m.d.sync += total.eq(self.i.p.a + self.i.p.b)
        m.d.comb += [self.total.eq(total), self.i.ready.eq(1)]
        return m


class Chain(wiring.Component):
    """Adds another number again and again."""

    def __init__(self, *bits):
        self.adders = [Adder(each) for each in bits]
        super().__init__({"number": In(8), "other": In(8), "result": Out(8)})

    def elaborate(self, platform):
        m = Module()
        number = self.number
        for place, adder in enumerate(self.adders):
            m.submodules[f"adder_{place}"] = adder
            following = Signal(8, name=f"number_{place}")
            m.d.comb += [adder.i.p.a.eq(number), adder.i.p.b.eq(self.other),
                         following.eq(adder.total + 1)]
            number = following
        m.d.comb += self.result.eq(number)
        return m


def test_black_boxes_have_the_ports_of_the_part_alone():
    elaborated = outline(Chain(8, 8), "chain", {Adder: lambda _: "adder"})
    box, = elaborated.boxes
    assert box.name == "adder"
    assert box.ports == {
        "clk": ("input", 1), "rst": ("input", 1), "i__payload": ("input", 16),
        "i__valid": ("input", 1), "i__ready": ("output", 1), "total": ("output", 8)}
    assert elaborated.text.count("cell \\adder ") == 2
    alone = elaborate(Adder(8), "adder")
    assert all(f"\\{name}\n" in alone.text for name in box.ports)


def test_parts_are_as_before_afterwards():
    before = elaborate(Chain(8), "chain")
    outline(Chain(8), "chain", {Adder: lambda _: "adder"})
    assert elaborate(Chain(8), "chain") == before
    # What is at the top is never a black box.
    assert outline(Adder(8), "adder", {Adder: lambda _: "adder"}) == elaborate(Adder(8), "adder")


def test_parts_of_one_name_have_the_same_ports():
    kinds = {Adder: lambda each: f"adder_{each.bits}"}
    assert [box.name for box in outline(Chain(8, 4), "chain", kinds).boxes] == [
        "adder_8", "adder_4"]
    with pytest.raises(ValueError, match="parts that are called adder have different ports"):
        outline(Chain(8, 4), "chain", {Adder: lambda _: "adder"})


def test_paths_go_on_in_parts(flow_tools, tmp_path):
    kinds = {Adder: lambda _: "adder"}
    chain = synthesise(outline(Chain(8, 8), "chain", kinds), tmp_path / "chain", clock_gating=True)
    adder = synthesise(elaborate(Adder(8), "adder"), tmp_path / "adder", clock_gating=True)
    whole = synthesise(elaborate(Chain(8, 8), "chain"), tmp_path / "whole", clock_gating=True)
    assert sum(cell.kind == "adder" for cell in chain.cells) == 2
    assert chain.area_um2 + 2 * adder.area_um2 == pytest.approx(whole.area_um2, rel=0.15)
    cut = critical_path(chain, tmp_path / "cut", 1429)
    joined = critical_path(chain, tmp_path / "joined", 1429, parts=[adder])
    flat = critical_path(whole, tmp_path / "flat", 1429)
    assert cut.delay_ns < joined.delay_ns == pytest.approx(flat.delay_ns, rel=0.15)
    assert cut.start == "adder"
    assert joined.end.startswith("adder.total")


def test_inputs_with_large_loads_have_buffers(flow_tools):
    cells = [Cell(f"c{number}", "INV_X1", {"A": ("a" if number < 30 else "b",),
                                           "ZN": (f"n{number}",)}) for number in range(33)]
    macro = MemoryMacro("memory_32x2", 32, 2)
    cells.append(Cell("memory", macro.name, {"clk": ("clk",), "read_address": ("b", "c")}))
    widths = {port: ("input", 1) for port in ("clk", "a", "b", "c")}
    part = Netlist("part", (), widths, tuple(cells), {}, (macro,), False, 20.0, 0.0)
    found = isolated(part)
    # An inverter weighs 1.7 fF, a memory's input 5 fF: 51 fF, 10.1 fF and 5 fF.
    buffers = {cell.pins["A"]: cell for cell in found.cells if cell.kind.startswith("BUF")}
    assert {pins: cell.kind for pins, cell in buffers.items()} == {
        ("a",): "BUF_X4", ("b",): "BUF_X1"}
    assert found.area_um2 == pytest.approx(20 + 1.862 + 0.798)
    inside = {pins: cell.pins["Z"][0] for pins, cell in buffers.items()}
    kept = {cell.name: cell for cell in found.cells}
    assert all(kept[f"c{number}"].pins["A"] == (inside["a",],) for number in range(30))
    assert kept["memory"].pins == {"clk": ("clk",), "read_address": (inside["b",], "c")}
    assert isolated(found).area_um2 == found.area_um2


def test_parts_of_a_component_by_name():
    chain = Chain(8, 4, 8)
    assert parts_of(chain, {Adder: lambda each: f"adder_{each.bits}"}) == {
        "adder_8": chain.adders[0], "adder_4": chain.adders[1]}
