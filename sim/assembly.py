"""Steps of a plan as descriptors: addresses, banks and constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise

from hwgen.design import AcceleratorDesign
from hwgen.program import FORMAT_VERSION, INITIAL, KINDS, Descriptor
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.loader.cost import ImageSize, biases_together
from sim.homes import Constants, Homes, Walk
from sim.schedule import NO_IMAGE, Block, Plan, Step
from sim.weights import FIRST, Images, Place


def header(design: AcceleratorDesign) -> Descriptor:
    """Name the machine that a program is for: orders and densities are the program's own."""
    number = AcceleratorSpec.of(design).number
    return Descriptor("header", {"version": FORMAT_VERSION, "machine": number})


def opening(plan: Plan, images: Images | None) -> Iterator[Descriptor]:
    """Give the step that copies what a program's first operation finds, if that has a weight.

    Parameters
    ----------
    plan, images : the operation, and where its weight lies
    """
    if images is not None:
        copy = _copy(plan.image, images.addresses[FIRST], images.places[0])
        yield Descriptor("step", copy)


def descriptors(
    plan: Plan, homes: Homes, constants: Constants, following: Images | None = None
) -> Iterator[Descriptor]:
    """Give an operation's configuration and steps.

    Parameters
    ----------
    plan : the operation; all activations that it reads and writes must be resident
    homes : where its tensors lie
    constants : what its units are set to
    following : where the next operation's weight lies, of which `plan.load` comes meanwhile

    Raises
    ------
    ValueError
        If the kind of operation has no RTL, or nothing says where `plan.load` lies.
    """
    kind = plan.task.operation.kind
    prefetch = {}
    if plan.load != NO_IMAGE:
        if following is None:
            raise ValueError(f"{plan.task.label} loads an image that has no place")
        prefetch = _image(
            "prefetch", plan.load, following.addresses[FIRST], following.places[0])
    if kind == "product":
        return _product(plan, homes, constants, prefetch)
    if kind == "tanh":
        raise ValueError(f"{plan.task.label} is a tanh, which has no RTL yet")
    return _rows(plan, homes, constants, prefetch)


def _image(name: str, size: ImageSize, address: int, place: Place) -> dict[str, int]:
    """Fields that say what an image has, where it lies and where it goes."""
    found = {"address": address, "biases": size.biases, "lines": size.lines,
             "values": size.values, "slots": size.slots,
             "line": place.line, "word": place.word, "bias": place.bias}
    return {f"{name}_{field}": int(value) for field, value in found.items()}


def _copy(size: ImageSize, address: int, place: Place) -> dict[str, int]:
    return {"copy_enable": 1, **_image("copy", size, address, place)}


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


def _product(
    plan: Plan, homes: Homes, constants: Constants, prefetch: Mapping[str, int]
) -> Iterator[Descriptor]:
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
            **prefetch,
            **constants.fields,
        },
    )
    left, right, results = _Banks(), _Banks(), _Banks()
    copied = 0
    for step in _after_configuration(plan):
        # What is written was computed in the step before, and what is computed from came then.
        written = results.last
        fields: dict[str, int] = {"prefetch_slots": step.prefetch_slots}
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
                fields |= _weight(plan, homes, transfer.block, copied)
        if step.copy is not None:
            # The block that came before is read in this step, if any: it lies in the other place.
            copied += 1
            fields |= _copy_block(plan, homes, step.copy, copied)
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


def _weight(plan: Plan, homes: Homes, block: Block, copied: int) -> dict[str, int]:
    """Fields that send a weight's columns from where they lie, when some blocks were copied."""
    assert homes.images is not None
    places = homes.images.places
    place = places[copied % len(places)]
    design = plan.design
    together = biases_together(design.window, design.bits, design.accumulator_bits)
    found = {
        "right_weights": 1,
        "bias_enable": int(block.k[0] == 0),
        "bias": place.bias * together + (0 if plan.streams else block.j[0]),
    }
    return {**found, "right_line": place.line} if plan.streams else found


def _copy_block(plan: Plan, homes: Homes, block: Block, copied: int) -> dict[str, int]:
    """Fields that bring a block of a weight that streams, the `copied`-th one."""
    assert homes.images is not None
    images = homes.images
    place = images.places[copied % len(images.places)]
    return _copy(plan.block_image(block), images.addresses[block.j[0], block.k[0]], place)


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


def _rows(
    plan: Plan, homes: Homes, constants: Constants, prefetch: Mapping[str, int]
) -> Iterator[Descriptor]:
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
            **({"weights_line": homes.images.places[0].line, "weights_lines": lines,
                "weights_absent": absent} if homes.images is not None else {}),
            **prefetch,
            **constants.fields,
        },
    )
    operands, results = _Banks(), _Banks()
    for step in _after_configuration(plan):
        written = results.last
        fields: dict[str, int] = {"prefetch_slots": step.prefetch_slots}
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
    plans: Sequence[Plan],
    homes: Mapping[str, Homes],
    constants: Mapping[str, Constants],
    following: Images | None = None,
) -> list[Descriptor]:
    """Put a program together: its header, the first weight's copy, the operations, its end.

    Parameters
    ----------
    plans : operations of one design, at least one
    homes, constants : of each operation, by its label
    following : where an image lies that the last operation loads

    Raises
    ------
    ValueError
        If the kind of an operation has no RTL, or an operation loads an image that has no place,
        or another one than the next operation's.
    """
    for plan, after in pairwise(plans):
        if plan.load != after.image:
            raise ValueError(
                f"{plan.task.label} does not load what {after.task.label} finds in its buffer")
    images = [homes[plan.task.label].images for plan in plans]
    parts = (
        descriptors(plan, homes[plan.task.label], constants[plan.task.label], after)
        for plan, after in zip(plans, [*images[1:], following], strict=True)
    )
    return [
        header(plans[0].design),
        *opening(plans[0], images[0]),
        *chain.from_iterable(parts),
        Descriptor("end"),
    ]
