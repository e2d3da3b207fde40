"""Steps of a plan as descriptors: addresses, banks and constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from hwgen.design import AcceleratorDesign
from hwgen.program import FORMAT_VERSION, INITIAL, KINDS, Descriptor
from hwgen.units.accelerator.spec import AcceleratorSpec
from sim.homes import Constants, Homes, Walk
from sim.schedule import Block, Plan, Step


def header(design: AcceleratorDesign) -> Descriptor:
    """Name the machine that a program is for: orders and densities are the program's own."""
    number = AcceleratorSpec.of(design).number
    return Descriptor("header", {"version": FORMAT_VERSION, "machine": number})


def descriptors(plan: Plan, homes: Homes, constants: Constants) -> Iterator[Descriptor]:
    """Give an operation's configuration and steps.

    Parameters
    ----------
    plan : the operation; everything that it reads and writes must be resident
    homes : where its tensors lie
    constants : what its units are set to

    Raises
    ------
    ValueError
        If the kind of operation has no RTL.
    """
    kind = plan.task.operation.kind
    if kind == "product":
        return _product(plan, homes, constants)
    if kind == "tanh":
        raise ValueError(f"{plan.task.label} is a tanh, which has no RTL yet")
    return _rows(plan, homes, constants)


def _lane_strides(plan: Plan) -> dict[str, int]:
    """Lanes from a tile to the next, along b, i and j: the block is filled in loop order."""
    strides, lanes = {}, 1
    for letter in reversed(plan.design.loop_order):
        if letter != "k":
            strides[letter] = lanes
            lanes *= plan.unroll[letter]
    return strides


def _tiles(plan: Plan, block: Block) -> dict[str, tuple[int, int]]:
    """Number of a block's tiles, and the extent of the last, along b, i and j."""
    found = {}
    for letter in "bij":
        size, tile = block.size(letter), plan.tiles[letter]
        number = math.ceil(size / tile)
        found[letter] = number, size - (number - 1) * tile
    return found


class _Banks:
    """Which of two banks is written next, and which was written last."""

    def __init__(self) -> None:
        self.last = 1

    def turn(self) -> int:
        self.last = 1 - self.last
        return self.last


def _lines(plan: Plan, extent: int) -> tuple[int, int]:
    """Lines of `extent` elements, and pieces of the last of them that are behind their end."""
    window, piece = plan.design.window, plan.design.piece
    lines = math.ceil(extent / window)
    return lines, window // piece - math.ceil((extent - (lines - 1) * window) / piece)


def _product(plan: Plan, homes: Homes, constants: Constants) -> Iterator[Descriptor]:
    operation = plan.task.operation
    strides = _lane_strides(plan)
    yield Descriptor(
        "configure",
        {
            "kind": KINDS.index("product"),
            "transposed": int(plan.task.transposed),
            "right_has_b": int(not operation.has_weight),
            "valid_i": constants.valid_i,
            "valid_j": constants.valid_j,
            **{f"lane_{letter}": strides[letter] for letter in "bij"},
            **{f"unroll_{letter}": plan.unroll[letter] for letter in "bij"},
            **homes.reads[0].strides("left"),
            **homes.reads[1].strides("right"),
            **homes.result.strides("result"),
            "start": homes.start,
            "limit": homes.limit,
            "groups": plan.sum_groups if plan.spills else 0,
            **constants.fields,
        },
    )
    left, right, results = _Banks(), _Banks(), _Banks()
    for step in _after_configuration(plan):
        # What is written was computed in the step before, and what is computed from came then.
        written = results.last
        fields: dict[str, int] = {}
        if step.compute is not None:
            fields |= _compute(plan, step.compute, _sums_bank(plan, step.number))
            fields["seed"] = constants.seed
            fields |= {"compute_left": left.last, "compute_right": right.last}
            if fields["closing"]:
                fields["result_bank"] = results.turn()
        for transfer in step.dispatch:
            port = transfer.operand
            bank = (left if port == "left" else right).turn()
            walk = homes.reads[0 if port == "left" else 1]
            fields |= _read(plan, transfer.block, port, bank, walk)
            if port == "right" and operation.has_weight:
                fields |= {
                    "right_weights": 1,
                    "bias_enable": int(transfer.block.k[0] == 0),
                    "bias": homes.bias + transfer.block.j[0],
                }
        for port, moved, wave in (
            ("fill", step.fill, step.number + 1),
            ("drain", step.write, step.number - 1),
        ):
            if moved is not None and moved.operand == "sums":
                place = wave % plan.waves_inside * plan.sum_words
                made = {"enable": 1, "bank": _sums_bank(plan, wave), "word": homes.sums + place}
                fields |= {f"{port}_{name}": value for name, value in made.items()}
        if step.write is not None and step.write.operand == "result":
            fields |= _write(plan, step.write.block, homes, written, step)
        yield Descriptor("step", fields)


def _sums_bank(plan: Plan, wave: int) -> int:
    """Bank of a wave's partial sums: each block's own, or in turn where they spill."""
    return wave % 2 if plan.spills else wave % plan.waves_inside % 2


def _after_configuration(plan: Plan) -> Iterator[Step]:
    """Steps −1 to waves: the configuration is a descriptor of its own."""
    return (step for step in plan.steps() if step.number > -2)


def _compute(plan: Plan, block: Block, inside: int) -> dict[str, int]:
    tiles = _tiles(plan, block)
    closing = block.k[1] == plan.extents["k"]
    initial = "sums" if block.k[0] else "bias" if plan.task.operation.has_weight else "zero"
    return {
        "compute": 1,
        **{f"tiles_{letter}": tiles[letter][0] for letter in "bij"},
        **{f"last_{letter}": tiles[letter][1] for letter in "bij"},
        "windows": _lines(plan, block.size("k"))[0],
        "initial": INITIAL.index(initial),
        "closing": int(closing),
        "sums_bank": inside,
        **{
            f"first_tile_{letter}": getattr(block, letter)[0] // plan.tiles[letter]
            for letter in "bij"
        },
        "origin_i": block.i[0],
        "origin_j": block.j[0],
    }


def _read(plan: Plan, block: Block, port: str, bank: int, walk: Walk) -> dict[str, int]:
    letter = "i" if port == "left" else "j"
    has_b = port == "left" or not plan.task.operation.has_weight
    b = block.b[0] if has_b else 0
    lines, absent = _lines(plan, block.size("k"))
    made = {
        "enable": 1,
        "bank": bank,
        "line": walk.line(b, getattr(block, letter)[0]) + block.k[0] // plan.design.window,
        "b": block.size("b") if has_b else 1,
        "rows": block.size(letter),
        "lines": lines,
        "absent": absent if block.k[1] == plan.extents["k"] else 0,
        "phase": walk.phase(b),
    }
    return {f"{port}_{name}": value for name, value in made.items()}


def _write(plan: Plan, block: Block, homes: Homes, bank: int, step: Step) -> dict[str, int]:
    row, element = ("j", "i") if plan.task.transposed else ("i", "j")
    pieces = plan.design.window // plan.design.piece
    column = getattr(block, element)[0] // plan.design.piece
    made = {
        "enable": 1,
        "bank": bank,
        "line": homes.result.line(block.b[0], getattr(block, row)[0]) + column // pieces,
        "piece": column % pieces,
        "b": block.size("b"),
        "rows": block.size(row),
        "pieces": math.ceil(block.size(element) / plan.design.piece),
        "phase": homes.result.phase(block.b[0]),
        "flush": int(step.number == plan.waves),
    }
    return {f"write_{name}": value for name, value in made.items()}


def _rows(plan: Plan, homes: Homes, constants: Constants) -> Iterator[Descriptor]:
    norm = plan.task.operation.kind == "add_norm"
    width = plan.extents["k"]
    lines, absent = _lines(plan, width)
    yield Descriptor(
        "configure",
        {
            "kind": KINDS.index("norm" if norm else "softmax"),
            "length": width,
            "sequence": constants.sequence,
            "valid_i": constants.valid_i,
            "valid_j": constants.valid_j,
            **homes.reads[0].strides("left"),
            **homes.reads[-1].strides("right"),
            **homes.result.strides("result"),
            "start": homes.start,
            "limit": homes.limit,
            **({"weights_line": homes.weights, "weights_lines": lines, "weights_absent": absent}
               if norm else {}),
            **constants.fields,
        },
    )
    operands, results = _Banks(), _Banks()
    for step in _after_configuration(plan):
        written = results.last
        fields: dict[str, int] = {}
        if step.number == -1 and norm:
            fields |= {"compute": 1, "load": 1, "tiles_i": 1}
        if step.compute is not None:
            fields |= {
                "compute": 1,
                "tiles_i": step.compute.size("i"),
                "origin_i": step.compute.i[0] % constants.sequence,
                "compute_left": operands.last,
                "result_bank": results.turn(),
            }
        if step.dispatch:
            bank = operands.turn()
        for transfer in step.dispatch:
            index = int(transfer.operand[-1])
            made = {"enable": 1, "bank": bank, "b": 1, "lines": lines, "absent": absent,
                    "line": homes.reads[index].line(0, transfer.block.i[0]),
                    "rows": transfer.block.size("i")}
            port = ("left", "right")[index]
            fields |= {f"{port}_{name}": value for name, value in made.items()}
        if step.write is not None:
            made = {"enable": 1, "bank": written, "b": 1,
                    "line": homes.result.line(0, step.write.block.i[0]),
                    "rows": step.write.block.size("i"),
                    "pieces": math.ceil(width / plan.design.piece),
                    "flush": int(step.number == plan.waves)}
            fields |= {f"write_{name}": value for name, value in made.items()}
        yield Descriptor("step", fields)


def program(
    plans: Sequence[Plan], homes: Mapping[str, Homes], constants: Mapping[str, Constants]
) -> list[Descriptor]:
    """Put a program together: its header, the operations in order, its end.

    Parameters
    ----------
    plans : operations of one design, at least one
    homes, constants : of each operation, by its label

    Raises
    ------
    ValueError
        If the kind of an operation has no RTL.
    """
    parts = (descriptors(plan, homes[plan.task.label], constants[plan.task.label])
             for plan in plans)
    return [header(plans[0].design), *chain.from_iterable(parts), Descriptor("end")]
