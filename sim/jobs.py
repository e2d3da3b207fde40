"""Jobs of the units, cut out of a recorded forward pass, with cycles as the reference has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen.design import AcceleratorDesign
from hwgen.fixed_point import round_shift, saturate
from hwgen.program import Job
from hwgen.units.dynatran import cost as dynatran
from hwgen.units.layer_norm import jobs as layer_norm
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax import cost as softmax
from model.recording import RecordedProduct, Recording
from sim.masks import RecordedMasks
from sim.schedule import Block, Plan, Range, schedule
from sim.workload import Workload

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LaneJob:
    """One tile and one segment: what one lane does in one wave.

    Parameters
    ----------
    name : "first", "interior" or "edge", with where it comes from
    plan : the product
    block : the tile's index ranges
    """

    name: str
    plan: Plan
    block: Block


def unit_jobs(design: AcceleratorDesign, workload: Workload, recording: Recording) -> list[Job]:
    """First, interior and edge job of each unit that has RTL.

    Parameters
    ----------
    design : whose tiles they are
    workload : with the recording's batch_size and sequence_length
    recording : integers of one forward pass of the workload's model

    Raises
    ------
    ValueError
        If the recording is of another model, batch, length or format.
    """
    if recording.bits != design.bits:
        raise ValueError(
            f"the recording has values of {recording.bits} bits, the design of {design.bits}"
        )
    masks = RecordedMasks(recording, workload)
    plans = list(schedule(design, workload).plans)
    products = [plan for plan in plans if plan.task.operation.kind == "product"]
    jobs = []
    for job in _choose(products, masks, prefer_activation=True, closing=False):
        jobs += [_pre_sparsity(job, masks), _mac_lane(job, masks)]
    for job in _choose(
        [plan for plan in products if not plan.task.operation.activation],
        masks,
        prefer_activation=False,
        closing=True,
    ):
        jobs += _after_lane(job, masks)
    rows = {
        kind: [plan for plan in plans if plan.task.operation.kind == kind]
        for kind in ("softmax", "add_norm")
    }
    return jobs + _softmax(rows["softmax"], masks) + _layer_norm(rows["add_norm"], masks)


def _choose(
    plans: list[Plan], masks: RecordedMasks, prefer_activation: bool, closing: bool
) -> list[LaneJob]:
    """Pick the first tile of the first product, a full one of another, and a partial one.

    Parameters
    ----------
    plans : the products
    masks : of the tiles that would do, the one with most effectual pairs is picked
    prefer_activation : whether the full one shall be of a product with a non-linearity
    closing : whether only last segments count, after which results leave the lane
    """
    inner = [plan for plan in plans if plan.task.operation.activation] if prefer_activation else []
    middle = inner[len(inner) // 2] if inner else plans[len(plans) // 2]
    ragged = sorted(plans, key=_partial_dimensions, reverse=True)
    edges = (_busiest(plan, masks, "edge", closing) for plan in ragged)
    # Tiles of padding alone are all zeros: another product's edge is then a better test.
    edge = next((pick for pick in edges if pick[1] > 0), None)
    return [
        _busiest(plans[0], masks, "first", closing)[0],
        _busiest(middle, masks, "interior", closing)[0],
        (edge or _busiest(ragged[0], masks, "edge", closing))[0],
    ]


def _busiest(plan: Plan, masks: RecordedMasks, name: str, closing: bool) -> tuple[LaneJob, int]:
    """Pick the tile with most effectual pairs among those that a name means, with its pairs."""
    last = {letter: (plan.extents[letter] - 1) // plan.tiles[letter] for letter in "bijk"}
    at_k = last["k"] if closing else {"first": 0, "interior": last["k"] // 2}.get(name, last["k"])
    k = _range(plan, "k", at_k)
    among = []
    for letter in "bij":
        partial = plan.extents[letter] % plan.tiles[letter] > 0
        if name == "first":
            among.append(slice(0, 1))
        elif name == "edge":
            among.append(slice(last[letter] if partial else 0, last[letter] + 1))
        else:
            among.append(slice(0, max(1, last[letter] + 1 - partial)))
    pairs = masks.lane_jobs(plan, k).pairs[tuple(among)]
    best = np.unravel_index(int(pairs.argmax()), pairs.shape)
    b, i, j = (
        _range(plan, letter, part.start + int(offset))
        for letter, part, offset in zip("bij", among, best, strict=True)
    )
    return LaneJob(f"{name}: {plan.task.label}", plan, Block(b, i, j, k)), int(pairs[best])


def _partial_dimensions(plan: Plan) -> int:
    return sum(plan.extents[letter] % plan.tiles[letter] > 0 for letter in "bijk")


def _range(plan: Plan, letter: str, tile: int) -> Range:
    start = tile * plan.tiles[letter]
    return start, min(plan.extents[letter], start + plan.tiles[letter])


def _operands(job: LaneJob, product: RecordedProduct) -> tuple[Ints, Ints]:
    """Operands of the tile's dot products, b, i and j in turn, shape (dots, length)."""
    b, i, j, k = (slice(*ends) for ends in (job.block.b, job.block.i, job.block.j, job.block.k))
    left = product.left[b, i, None, k]
    right = (
        product.right[k, j].T[None, None]
        if product.right.ndim == 2
        else (product.right[b, k, j].transpose(0, 2, 1)[:, None])
    )
    shape = np.broadcast_shapes(left.shape, right.shape)
    return (
        np.broadcast_to(left, shape).reshape(-1, shape[-1]),
        np.broadcast_to(right, shape).reshape(-1, shape[-1]),
    )


def _exponents(product: RecordedProduct) -> dict[str, int]:
    return {"i": int(product.exponents["rounded"]), "o": int(product.exponents["output"])}


def _pre_sparsity(job: LaneJob, masks: RecordedMasks) -> Job:
    left, right = _operands(job, masks.product(job.plan.task.operation))
    periods = masks.lane_jobs(job.plan, job.block.k).periods[_tile(job)]
    cycles = int(periods + pre_sparsity.latency(job.plan.design.pre_sparsity))
    return Job(
        "pre_sparsity",
        job.name,
        {"left": left, "right": right},
        shapes={"dot_products": list(left.shape)},
        cycles=cycles,
    )


def _tile(job: LaneJob) -> tuple[int, int, int]:
    tiles, block = job.plan.tiles, job.block
    return block.b[0] // tiles["b"], block.i[0] // tiles["i"], block.j[0] // tiles["j"]


def _initial(job: LaneJob, product: RecordedProduct) -> Ints:
    """What the tile's accumulators start from: biases and the sums of segments before."""
    block = job.block
    b, i, j = slice(*block.b), slice(*block.i), slice(*block.j)
    before = slice(0, block.k[0])
    right = product.right[before, j] if product.right.ndim == 2 else product.right[b, before, j]
    sums = product.left[b, i, before] @ right
    return np.ravel(sums + (0 if product.initial is None else product.initial[j]))


def _mac_lane(job: LaneJob, masks: RecordedMasks) -> Job:
    spec, product = job.plan.design.mac_lane, masks.product(job.plan.task.operation)
    left, right = _operands(job, product)
    effectual = (left != 0) & (right != 0)
    pairs = effectual.sum(axis=1)
    operands = {
        "left": [row[used].tolist() for row, used in zip(left, effectual, strict=True)],
        "right": [row[used].tolist() for row, used in zip(right, effectual, strict=True)],
        "initial": _initial(job, product),
        "shift": int(product.shift),
        "activate": int(product.activate),
    }
    cycles = int(mac_lane.cycles(spec, mac_lane.beats_of(spec, pairs).sum()))
    return Job(
        "mac_lane", job.name, operands, _exponents(product), {"pairs": pairs.tolist()}, cycles
    )


def _after_lane(job: LaneJob, masks: RecordedMasks) -> list[Job]:
    """What dynatran and post_sparsity do with the lane's results, in the order in which they leave.

    A lane prunes them one by one; the job has the beats of a row engine, which is the design's
    unit. post_sparsity takes them in pieces of a row.
    """
    design, product = job.plan.design, masks.product(job.plan.task.operation)
    left, right = _operands(job, product)
    sums = _initial(job, product) + (left * right).sum(axis=1)
    values = saturate(round_shift(sums, product.shift), design.bits)
    valid = np.ones(len(values), dtype=np.int64)
    if product.valid_mask is not None:
        b, i, j = (slice(*ends) for ends in (job.block.b, job.block.i, job.block.j))
        valid = product.valid_mask[b, i, j].reshape(-1).astype(np.int64)
    extents = tuple(job.block.size(letter) for letter in "bij")
    if job.plan.task.transposed:
        values, valid = (
            each.reshape(extents).swapaxes(1, 2).reshape(-1) for each in (values, valid)
        )
        extents = extents[0], extents[2], extents[1]
    wide = design.dynatran.parallel
    beats = -(-len(values) // wide)
    padding = (0, beats * wide - len(values))
    shape = (beats, wide)
    pruning = Job(
        "dynatran",
        job.name,
        {
            "value": np.pad(values, padding).reshape(shape),
            "valid_mask": np.pad(valid, padding).reshape(shape),
            "last": (np.arange(beats) == beats - 1).astype(np.int64),
            "threshold": int(product.threshold),
        },
        cycles=int(dynatran.cycles(design.dynatran, beats)),
    )
    kept = np.where((np.abs(values) >= product.threshold) & (valid == 1), values, 0)
    compression = Job(
        "post_sparsity",
        job.name,
        {"value": kept},
        shapes={"tiles": _pieces(extents[2], design.piece) * (extents[0] * extents[1])},
        cycles=int(post_sparsity.cycles(design.post_sparsity, len(kept))),
    )
    return [pruning, compression]


def _pieces(row: int, piece: int) -> list[int]:
    """Elements of each piece of a row."""
    return [min(piece, row - start) for start in range(0, row, piece)]


def _softmax(plans: list[Plan], masks: RecordedMasks) -> list[Job]:
    jobs = []
    for name, plan in (
        ("first", plans[0]),
        ("interior", plans[len(plans) // 2]),
        ("edge", plans[-1]),
    ):
        recorded = masks.rows(plan.task.operation)
        real = recorded.valid_mask.sum(axis=1)
        shortest = np.where(real > 0, real, real.max() + 1).argmin()
        at = {"first": 0, "interior": int(real.argmax()), "edge": int(shortest)}[name]
        row, valid_mask = recorded.rows[at], recorded.valid_mask[at]
        operands = {"rows": [row.tolist()], "valid_masks": [valid_mask.astype(int).tolist()]}
        cycles = int(softmax.cycles(plan.design.softmax, len(row)))
        jobs.append(
            Job(
                "softmax",
                f"{name}: {plan.task.label}",
                operands,
                {"i": int(recorded.exponents["rows"])},
                {"rows": [len(row)]},
                cycles,
            )
        )
    return jobs


def _layer_norm(plans: list[Plan], masks: RecordedMasks) -> list[Job]:
    """One row of the first, a middle and the last layer norm, as the residual adder gives it."""
    jobs = []
    for name, plan in (
        ("first", plans[0]),
        ("interior", plans[len(plans) // 2]),
        ("edge", plans[-1]),
    ):
        recorded = masks.rows(plan.task.operation)
        residual, gamma, beta = recorded.residual, recorded.gamma, recorded.beta
        assert residual is not None and gamma is not None and beta is not None
        last = len(recorded.rows) - 1
        at = {"first": 0, "interior": last // 2, "edge": last}[name]
        exponents = recorded.exponents
        row = residual_add(
            recorded.rows[at],
            exponents["rows"],
            residual[at],
            exponents["residual"],
            exponents["sum"],
            plan.design.residual_add,
        )
        jobs.append(
            layer_norm.make_job(
                plan.design.layer_norm,
                [row],
                [np.ones(len(row))],
                gamma,
                beta,
                {
                    "i": exponents["sum"],
                    "gamma": exponents["gamma"],
                    "beta": exponents["beta"],
                    "o": exponents["output"],
                },
                f"{name}: {plan.task.label}",
            )
        )
    return jobs
