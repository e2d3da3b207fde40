"""Where the tensors of some operations lie in an accelerator's buffers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hwgen.units.accelerator.spec import AcceleratorSpec
from sim.homes import Homes, Walk
from sim.schedule import NO_IMAGE, Plan
from sim.weights import Images, WeightPlaces
from sim.workload import Workload


@dataclass(frozen=True)
class Tensor:
    """A tensor in the activation buffer.

    Parameters
    ----------
    line : its first line
    rows, elements : rows, and elements of each along the axis on which they are read
    start, limit : positions of its values in each bank, from the first to behind the last
    """

    line: int
    rows: int
    elements: int
    start: int
    limit: int


@dataclass(frozen=True)
class Placement:
    """Where everything lies.

    Parameters
    ----------
    tensors : by the name of the operation that writes them
    weights : images, by the label of the operation that reads them
    homes : of each operation, by its label
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Images] = field(default_factory=dict)
    homes: dict[str, Homes] = field(default_factory=dict)


class _Space:
    """Addresses from 0 to `size` of which some are taken: the first gap that fits is given."""

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size = name, size
        self._taken: list[tuple[int, int]] = []

    def take(self, length: int) -> int:
        at = 0
        for start, stop in sorted(self._taken):
            if at + length <= start:
                break
            at = max(at, stop)
        if at + length > self._size:
            raise ValueError(f"{length} {self._name} do not fit one after another in {self._size}")
        self._taken.append((at, at + length))
        return at

    def free(self, start: int) -> None:
        self._taken = [one for one in self._taken if one[0] != start]


def place(plans: Iterable[Plan], workload: Workload, slack: float = 0.125) -> Placement:
    """Give every tensor that some operations read or write a place, and free it after its last use.

    Parameters
    ----------
    plans : operations of one design in the order in which they run; all activations that they read
        and write, partial sums included, must be resident. What none of them writes is there when
        they start
    workload : what they are of
    slack : part of a tensor's declared size by which a bank may hold more than the others

    Raises
    ------
    ValueError
        If an activation streams, a tensor or a weight's image does not fit, or heads are no whole
        lines.
    """
    plans = list(plans)
    spec = AcceleratorSpec.of(plans[0].design)
    lines = _Space("lines", spec.activations.lines)
    words = _Space("words", spec.activations.words)
    weights = WeightPlaces(spec.weights)
    placement = Placement()
    batch = workload.batch_size or plans[0].design.batch_size
    window, piece = spec.lane.window, spec.lane.piece
    shapes = {plan.task.label: _shape(plan) for plan in plans}
    writes = {plan.task.label: plan.task.write_density for plan in plans}
    last = {name: plan.task.label for plan in plans for name in plan.task.operation.reads}

    def settle(name: str, rows: int, elements: int, density: float) -> None:
        per_row = math.ceil(elements / window)
        taken = rows * per_row
        size = _words(taken, density, slack)
        start = words.take(size) * piece
        placement.tensors[name] = Tensor(
            lines.take(taken), rows, elements, start, start + size * piece)

    for plan in plans:
        operation = plan.task.operation
        if not all(plan.reads_resident):
            raise ValueError(f"{plan.task.label} reads what is not in the buffers")
        if not plan.write_resident:
            raise ValueError(f"{plan.task.label} writes what is not to stay in the buffers")
        if _spills(plan) and not plan.sums_resident:
            raise ValueError(f"{plan.task.label}: the partial sums are not to stay in the buffers")
        for index, name in enumerate(operation.reads):
            if name not in placement.tensors:
                if name in writes:
                    raise ValueError(f"{plan.task.label} reads {name} before it is written")
                elements = workload.stored_row[name]
                rows = _elements(plan, index) // elements
                settle(name, rows, elements, plan.task.read_densities[index])
        settle(plan.task.label, *shapes[plan.task.label], plan.task.write_density)
        sums = words.take(plan.waves_inside * plan.sum_words) if _spills(plan) else 0
        if plan.image != NO_IMAGE:
            placement.weights[plan.task.label] = weights.take(plan)
        placement.homes[plan.task.label] = _homes(plan, placement, batch, window, sums)
        if _spills(plan):
            words.free(sums)
        for name in dict.fromkeys(operation.reads):
            if last[name] == plan.task.label:
                words.free(placement.tensors[name].start // piece)
                lines.free(placement.tensors[name].line)
    return placement


def _spills(plan: Plan) -> bool:
    return plan.task.operation.kind == "product" and plan.spills


def _elements(plan: Plan, index: int) -> int:
    """Elements of a tensor that a plan reads."""
    extents = plan.extents
    if plan.task.operation.kind != "product":
        return extents["i"] * extents["k"]
    return extents["b"] * extents["k"] * extents["j" if index else "i"]


def _shape(plan: Plan) -> tuple[int, int]:
    """Rows of a plan's result as it is stored, and elements of each."""
    b, i, j, k = (plan.extents[letter] for letter in "bijk")
    operation = plan.task.operation
    if operation.kind != "product":
        return i, k
    if plan.task.transposed:
        return b * j, i
    if operation.name == "context":
        return b // operation.heads * i, operation.heads * j
    return b * i, j


def _words(lines: int, density: float, slack: float) -> int:
    """Words of each bank for lines of a density, the last of them perhaps not full."""
    return math.ceil(min(1.0, density * (1 + slack)) * lines) + 1


def _homes(plan: Plan, placement: Placement, batch: int, window: int, sums: int) -> Homes:
    operation, extents = plan.task.operation, plan.extents
    result = placement.tensors[plan.task.label]
    reads = [placement.tensors[name] for name in operation.reads]

    def by_head(tensor: Tensor, rows: int, head_lines: int) -> Walk:
        per_row = math.ceil(tensor.elements / window)
        return Walk(tensor.line, per_row, rows * per_row, head_lines, batch)

    def plain(tensor: Tensor, rows: int) -> Walk:
        per_row = math.ceil(tensor.elements / window)
        return Walk(tensor.line, per_row, rows * per_row)

    heads = operation.heads > 1
    if heads and operation.name in ("score", "context"):
        width = extents["k"] if operation.name == "score" else extents["j"]
        if width % window:
            raise ValueError(
                f"heads of {width} elements must be whole lines: window = {window} does not "
                f"divide them; choose a smaller window")
        if operation.name == "score":
            walks = [by_head(one, extents["i"], width // window) for one in reads]
            written = plain(result, extents["i"])
        else:
            per_row = math.ceil(reads[1].elements / window)
            walks = [
                plain(reads[0], extents["i"]),
                by_head(reads[1], operation.heads * width, width * per_row),
            ]
            written = by_head(result, extents["i"], width // window)
    elif operation.kind == "product":
        rows = extents["j"] if plan.task.transposed else extents["i"]
        # The pooler reads the first row of each sequence alone.
        walks = [plain(reads[0], reads[0].rows // extents["b"])]
        walks.append(weight_walk(plan, placement.weights[plan.task.label])
                     if operation.has_weight else plain(reads[1], extents["j"]))
        written = plain(result, rows)
    else:
        walks = [plain(one, one.rows) for one in reads]
        written = plain(result, result.rows)
    return Homes(
        tuple(walks), written, result.start, result.limit, sums=sums,
        images=placement.weights.get(plan.task.label))


def weight_walk(plan: Plan, images: Images) -> Walk:
    """Columns of a product's weight, or of a block of it, from its first place on."""
    lines = plan.block_lines if plan.streams else math.ceil(plan.extents["k"] / plan.design.window)
    return Walk(images.places[0].line, lines, plan.extents["j"] * lines)
