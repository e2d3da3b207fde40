"""Follow one product through the RTL, as docs/processing-element.md does.

python examples/machine_waveform.py [folder]: prints the tables, and draws waveform.svg in a folder.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.hdl import Fragment, Shape
from amaranth.sim import Simulator

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor, assemble, disassemble
from hwgen.units.accelerator.rtl import Accelerator
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import line
from hwgen.units.buffer.spec import EVEN_WORDS, LINE_ENTRIES, ODD_WORDS
from hwgen.units.layer_norm.cost import memories as layer_norm_memories
from hwgen.units.processing_element.rtl import ProcessingElement
from hwgen.units.softmax.cost import queues

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(Path(__file__).parent)]  # neither folder is an installed package

from machine_steps import ENGINES, number, table, what  # noqa: E402

from rtl_tests.accelerator_cases import Case, MachineCase, prepare, random_product  # noqa: E402

DESIGN = {
    "tile_b": 1, "tile_x": 4, "tile_y": 4, "nonlinearity": "relu", "pes": 1, "lanes_per_pe": 2,
    "macs_per_lane": 2, "softmax_per_pe": 1, "batch_size": 1, "activation_buffer_kib": 4,
    "weight_buffer_kib": 4, "mask_buffer_kib": 2, "window": 8, "k_segment": 8,
    "memory": {"type": "dram", "banks": 32, "ranks": 2, "channels": 1}, "loop_order": "bijk",
    "integer_bits": 4, "fraction_bits": 4, "k_max": 256, "max_sequence_length": 32,
}
"""Two lanes of two multipliers; lines of two pieces."""

EXTENTS = (1, 4, 8, 16)
"""B, I, J, K: a tile for each lane, and two segments."""

COLOURS = {"sequencer": "#5f6b7a", "memory": "#7b3f98", "buffers": "#0b5fa5", "lane": "#2e7d32",
           "results": "#b26a00"}
CYCLE_WIDTH, ROW_HEIGHT, LEFT, TOP = 7, 20, 212, 52


@dataclass(frozen=True)
class Row:
    """A row of the waveform.

    Parameters
    ----------
    group, name : colour, and what stands at its left
    signals : by path of the submodule: high where all named ports of one of them are
    """

    group: str
    name: str
    signals: tuple[tuple[str, tuple[str, ...]], ...]


def rows(lanes: int, pieces: int) -> Iterator[Row]:
    """Rows of an accelerator of some lanes, whose lines have some pieces."""
    def one(group: str, name: str, path: str, *ports: str) -> Row:
        return Row(group, name, ((path, ports),))

    yield one("sequencer", "issue", "", "issue")
    yield one("sequencer", "words of the next descriptor", "sequencer", "fetching")
    yield one("sequencer", "something is busy", "sequencer", "busy")
    yield one("memory", "word of main memory asked", "", "memory.enable")
    yield one("memory", "word of main memory there", "", "memory_data.valid")
    yield one("memory", "entry of a line written", "weights", "entry.write")
    yield one("buffers", "place told to a lane", "element", "place.enable")
    yield one("buffers", "left line asked", "activations", "read.enable")
    yield one("buffers", "left line at the PE", "element", "left.valid")
    yield one("buffers", "right line asked", "weights", "read.enable")
    yield one("buffers", "right line at the PE", "element", "right.valid")
    for lane in range(lanes):
        path = f"element.lane_{lane}"
        yield one("lane", f"lane {lane}: busy", path, "busy")
        yield one("lane", "masks of a window taken", f"{path}.gather",
                  "i_left_mask.valid", "i_left_mask.ready")
        yield one("lane", "beat of pairs multiplied", f"{path}.macs", "i.valid", "i.ready")
        yield one("lane", "partial sum stored", f"{path}.sums_0", "write_enable")
        yield one("lane", "piece stored", f"{path}.results", "write_enable")
    yield one("results", "piece asked", "element", "request.enable")
    yield one("results", "piece at the buffer", "activations", "store.enable")
    yield Row("results", "word of values written", tuple(
        (f"activations.bank_{bank}.{half}", ("write_enable",))
        for bank in range(pieces) for half in ("even", "odd")))


@dataclass(frozen=True)
class Waveform:
    """What was seen.

    Parameters
    ----------
    starts : cycles in which a configuration or a step begins, and that of the end, from 0 on
    rows : for each row, whether it is high, a cycle each
    """

    starts: tuple[int, ...]
    rows: dict[Row, list[bool]]


def components(fragment: Any, path: str = "") -> dict[str, Any]:
    """Every component of an elaborated design, by its path."""
    found = {path: fragment.origins[0]} if fragment.origins else {}
    for part, name, _ in fragment.subfragments:
        if name is not None:
            found |= components(part, f"{path}.{name}".lstrip("."))
    return found


def record(spec: AcceleratorSpec, case: MachineCase) -> tuple[Waveform, dict[str, Any]]:
    """Run a program on the simulated RTL; what was seen, and the components that were built."""
    dut = Accelerator(spec)
    fragment = Fragment.get(dut, None)
    parts = components(fragment)

    def port(path: str, name: str) -> Any:
        found = parts[path]
        for field in name.split("."):
            found = getattr(found, field)
        return found

    watched = {row: [[port(path, name) for name in names] for path, names in row.signals]
               for row in rows(spec.lanes, spec.activations.pieces)}
    seen: dict[Row, list[bool]] = {row: [] for row in watched}
    starts: list[int] = []
    simulator = Simulator(fragment)
    simulator.add_clock(1e-9)

    async def bench(ctx: Any) -> None:
        for name, words in case.loads.items():
            raw = getattr(dut, name)
            for (memory, bank, address), value in words.items():
                given = {"write": 1, "memory": memory, "bank": bank, "address": address,
                         "data": value}
                for field, bits in given.items():
                    ctx.set(getattr(raw, field), bits)
                await ctx.tick()
            ctx.set(raw.write, 0)
        words = assemble(case.program)
        memory, answers = case.memory, deque([None] * spec.loader.latency)
        assert memory is not None
        while not ctx.get(dut.ended):
            answer = answers.popleft()
            ctx.set(dut.memory_data.valid, answer is not None)
            if answer is not None:
                ctx.set(dut.memory_data.tag, answer[0])
                ctx.set(dut.memory_data.word, answer[1])
            asked = dut.memory
            answers.append((ctx.get(asked.tag), memory.words[ctx.get(asked.address)])
                           if ctx.get(asked.enable) else None)
            ctx.set(dut.program.valid, bool(words))
            ctx.set(dut.program.payload, words[0] if words else 0)
            if ctx.get(dut.program.ready) and words:
                words.pop(0)
            if ctx.get(dut.issue):
                starts.append(len(seen[next(iter(seen))]))
            if starts:
                for row, choices in watched.items():
                    seen[row].append(any(all(map(ctx.get, ports)) for ports in choices))
            await ctx.tick()
        starts.append(len(seen[next(iter(seen))]))

    simulator.add_testbench(bench)
    simulator.run()
    return Waveform(tuple(starts), seen), parts


def draw(waveform: Waveform) -> str:
    """Draw the rows as bars with their lengths in cycles, and each step's begin and length."""
    end = waveform.starts[-1]
    width, bottom = LEFT + CYCLE_WIDTH * end + 16, TOP + ROW_HEIGHT * len(waveform.rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 34}" '
        f'viewBox="0 0 {width} {bottom + 34}" font-family="DejaVu Sans, Verdana, sans-serif" '
        f'font-size="11">',
        f'<rect width="{width}" height="{bottom + 34}" fill="white"/>',
    ]

    def text(x: float, y: float, said: object, **style: object) -> str:
        given = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
        return f'<text x="{x:g}" y="{y:g}"{given}>{said}</text>'

    def at(cycle: int) -> int:
        return LEFT + CYCLE_WIDTH * cycle

    for place, row in enumerate(waveform.rows):
        y = TOP + ROW_HEIGHT * place
        if place % 2 == 0:
            parts.append(f'<rect x="0" y="{y}" width="{width}" height="{ROW_HEIGHT}" '
                         'fill="#f4f6f8"/>')
        parts.append(text(LEFT - 8, y + 14, row.name, text_anchor="end"))
    for step, (start, stop) in enumerate(pairwise(waveform.starts), start=-3):
        name = "opening" if step == -3 else f"step {step}".replace("-", "−")
        parts += [
            f'<line x1="{at(start)}" y1="{TOP - 34}" x2="{at(start)}" y2="{bottom}" '
            'stroke="#888" stroke-width="1"/>',
            text(at(start) + 4, TOP - 22, name, font_weight="bold"),
            text(at(start) + 4, TOP - 8, f"{stop - start} cycles"),
        ]
    for place, (row, levels) in enumerate(waveform.rows.items()):
        y, cycle = TOP + ROW_HEIGHT * place, 0
        for high, run in groupby(levels):
            length = len(list(run))
            if high:
                colour = COLOURS[row.group]
                parts.append(f'<rect x="{at(cycle)}" y="{y + 4}" width="{CYCLE_WIDTH * length - 1}"'
                             f' height="{ROW_HEIGHT - 7}" fill="{colour}"/>')
                if length >= 3:
                    parts.append(text(at(cycle) + CYCLE_WIDTH * length / 2, y + 14, length,
                                      text_anchor="middle", fill="white", font_size=10))
            cycle += length
    parts.append(f'<line x1="{LEFT}" y1="{bottom}" x2="{at(end)}" y2="{bottom}" stroke="#444"/>')
    for cycle in range(0, end + 1, 10):
        parts += [f'<line x1="{at(cycle)}" y1="{bottom}" x2="{at(cycle)}" y2="{bottom + 4}" '
                  'stroke="#444"/>',
                  text(at(cycle), bottom + 16, cycle, text_anchor="middle", fill="#444")]
    parts += [text(LEFT - 8, bottom + 16, "cycle", text_anchor="end", fill="#444"), "</svg>"]
    return "\n".join(parts) + "\n"


def binary(value: int, bits: int) -> str:
    """Print a zero_mask, position 0 at its right."""
    return f"`{value:0{bits}b}`"


def lines_of(case: Case, spec: AcceleratorSpec, loads: Mapping[Any, int]) -> list[str]:
    """The lines of the left operand's first two rows, and their entries in each bank."""
    buffer, left = spec.activations, case.recorded.left[0]  # type: ignore[union-attr]
    cut = left.reshape(len(left), -1, buffer.window)
    found = []
    for row in range(2):
        for part, positions in enumerate(cut[row]):
            at = row * cut.shape[1] + part
            zero_mask, values = line(positions)
            entries = (loads[LINE_ENTRIES, bank, at] for bank in range(buffer.pieces))
            found.append([
                str(at), f"row {row}, {part * buffer.window} to {(part + 1) * buffer.window - 1}",
                " ".join(map(str, positions)), binary(zero_mask, buffer.window),
                " ".join(map(str, values)),
                *(f"{binary(code % (1 << buffer.piece), buffer.piece)}, {code >> buffer.piece}"
                  for code in entries),
            ])
    head = ["line", "elements", "what they are", "zero_mask", "values",
            *(f"bank {bank}: zero_mask, start" for bank in range(buffer.pieces))]
    return table(head, iter(found))


def words_of(spec: AcceleratorSpec, loads: Mapping[Any, int], count: int = 4) -> list[str]:
    """The first words of values of each bank."""
    buffer = spec.activations
    half = 1 << buffer.bits - 1

    def values(bank: int, word: int) -> str:
        code = loads.get((ODD_WORDS if word % 2 else EVEN_WORDS, bank, word // 2))
        if code is None:
            return "–"
        places = (code >> buffer.bits * place for place in range(buffer.piece))
        return " ".join(str((value + half) % (2 * half) - half) for value in places)

    found = ([str(word), "odd" if word % 2 else "even", str(word // 2), str(word * buffer.piece),
              *(values(bank, word) for bank in range(buffer.pieces))] for word in range(count))
    head = ["word", "memory", "address", "first position",
            *(f"bank {bank}" for bank in range(buffer.pieces))]
    return table(head, found)


def image_of(spec: AcceleratorSpec, case: Case, words: Sequence[int]) -> list[str]:
    """Main memory's first words: biases, then a group's masks and values."""
    buffer, size = spec.weights, case.plan.image

    def signed(word: int, bits: int, count: int) -> str:
        half = 1 << bits - 1
        places = (word >> bits * place for place in range(count))
        return " ".join(str((value + half) % (2 * half) - half) for value in places)

    found = []
    for address, word in enumerate(words[:size.biases + 1 + size.values]):
        if address < size.biases:
            said = ["biases", signed(word, buffer.bias_bits, buffer.biases_together)]
        elif address == size.biases:
            masks = (binary((word >> buffer.window * line) % (1 << buffer.window), buffer.window)
                     for line in range(buffer.bits))
            said = ["masks", " ".join(masks)]
        else:
            said = ["values", signed(word, buffer.bits, buffer.window)]
        found.append([str(address), *said])
    return table(["address", "word of", "what, the lowest bits first"], iter(found))


def program_text(program: Sequence[Descriptor]) -> list[str]:
    """Descriptors as they come back from the program's words."""
    said = []
    for descriptor in disassemble(assemble(program)):
        given = " ".join(
            f"{name}={value:#x}" if name == "machine" else f"{name}={value}"
            for name, value in descriptor.fields.items())
        said.append(f"{descriptor.opcode:10}{given}".rstrip())
    return ["```", *said, "```"]


def steps_of(case: Case) -> list[str]:
    """Each step, the opening one first, with its engines' cycles by the reference."""
    times = case.steps()
    engines = [name for name in ENGINES if any(name in time.cycles for time in times)]
    done = [["opening", "–", "–", "–"], *(what(case.plan, step) for step in case.plan.steps())]
    found = ([*said, *(number(time.cycles.get(name, 0)) for name in engines), number(time.total)]
             for said, time in zip(done, times, strict=True))
    head = ["step", "computes", "dispatches", "writes",
            *(name.replace("_", " ") for name in engines), "cycles"]
    return table(head, found)


def memories_of(spec: AcceleratorSpec) -> list[str]:
    """Every memory: how many of it, entries, width, and bits of all."""
    found = []
    for name, buffer in (("activation", spec.activations), ("weight", spec.weights)):
        found += [(f"{name} buffer: line entries", buffer.pieces, buffer.lines, buffer.entry_bits),
                  (f"{name} buffer: even words, odd words", 2 * buffer.pieces, buffer.words // 2,
                   buffer.word_bits)]
        if buffer.biases:
            found.append((f"{name} buffer: biases", 1, buffer.biases, buffer.bias_bits))
    softmax, norm = spec.softmax, spec.norm
    for name, count, sizes in (
        ("lane", spec.lanes, spec.lane.memories()),
        ("softmax engine", spec.softmax_engines, softmax.memories()),
        # A queue keeps one of its entries in an output register.
        ("softmax", spec.softmax_engines, {
            part: (depth - 1, width) for part, (depth, width) in queues(softmax.softmax).items()}),
        ("norm engine", 1, norm.memories()),
        ("layer norm", 1, layer_norm_memories(norm.layer_norm)),
    ):
        found += [(f"{name}: {part}", count, *size) for part, size in sizes.items()]
    rows = ([name, str(count), str(depth), str(width), f"{count * depth * width:,}"]
            for name, count, depth, width in found)
    return table(["memory", "how many", "entries", "bits of one", "bits of all"], rows)


def buses_of(element: ProcessingElement) -> list[str]:
    """Every bus of the processing element, with its fields."""
    made = []
    for name, member in element.signature.members.items():
        if name in ("configuration", "step"):
            continue
        fields = _fields(member.shape)
        total = sum(bits for _, bits in fields)
        said = ", ".join(f"{field} {bits}" for field, bits in fields if field) or "–"
        made.append([f"`{name}`", "in" if member.flow.name == "In" else "out", str(total), said])
    return table(["bus", "", "bits", "fields and their bits"], iter(made))


def _fields(shape: Any, prefix: str = "") -> list[tuple[str, int]]:
    """Fields of a layout, inner ones with what they are part of, and their bits."""
    if not hasattr(shape, "members"):
        return [(prefix, Shape.cast(shape).width)]
    return [found for name, inner in shape.members.items()
            for found in _fields(inner, f"{prefix}.{name}".lstrip("."))]


def pages() -> tuple[dict[str, list[str]], str]:
    """Make the tables and the drawing.

    Raises
    ------
    RuntimeError
        If a step of the RTL takes other cycles than the reference says.
    """
    design = AcceleratorDesign.load(DESIGN)
    spec = AcceleratorSpec.of(design)
    case = random_product(np.random.default_rng(1), design, EXTENTS, shift=5, threshold=2)
    machine = prepare(case).machine
    waveform, parts = record(spec, machine)
    cycles = tuple(after - before for before, after in pairwise(waveform.starts))
    if cycles != case.step_cycles():
        raise RuntimeError(f"steps of the RTL take {cycles} cycles, not {case.step_cycles()}")
    loads = machine.loads["activations"]
    assert machine.memory is not None
    program = [part for part in machine.program if isinstance(part, Descriptor)]
    return {
        "memories": memories_of(spec),
        "buses": buses_of(parts["element"]),
        "lines": lines_of(case, spec, loads),
        "words": words_of(spec, loads),
        "image": image_of(spec, case, machine.memory.words),
        "program": program_text(program),
        "steps": steps_of(case),
    }, draw(waveform)


def main(folder: str = str(ROOT / "docs" / "processing-element")) -> None:
    """Print the tables, and draw."""
    tables, drawing = pages()
    for name, lines in tables.items():
        sys.stdout.write(f"\n{name}\n\n" + "\n".join(lines) + "\n")
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "waveform.svg").write_text(drawing)


if __name__ == "__main__":
    main(*sys.argv[1:])
