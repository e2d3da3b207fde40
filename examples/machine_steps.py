"""Follow a design step by step, as docs/machine.md does: python examples/machine_steps.py."""

import sys
from collections.abc import Iterator, Sequence

from hwgen.design import AcceleratorDesign
from sim import Workload
from sim.reference import Walk, walk
from sim.schedule import Block, Plan, Step, Transfer, schedule

ENGINES = (
    "lanes",
    "softmax",
    "layer_norm",
    "activation_buffer",
    "weight_buffer",
    "main_memory",
    "program",
    "configure",
)


def number(value: float) -> str:
    """Print a whole number as one, an expectation with one decimal."""
    return "–" if not value else f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def row(cells: Sequence[str]) -> str:
    """Lay out a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    """Lay out a Markdown table."""
    return [row(head), row(["---"] * len(head)), *(row(cells) for cells in rows)]


def cut(plan: Plan) -> list[str]:
    """How a product is cut: extents, tiles, block, trips."""
    rows = [
        [
            letter,
            *(
                str(column[letter])
                for column in (plan.extents, plan.tiles, plan.unroll, plan.trips)
            ),
        ]
        for letter in "bijk"
    ]
    head = ["dimension", "extent", "tile", "tiles of a block", "trips"]
    return table(head, iter(rows))


def ranges(block: Block, letters: str) -> str:
    """Index ranges of a block."""
    return " ".join(f"{one}{getattr(block, one)[0]}:{getattr(block, one)[1]}" for one in letters)


def moved(transfer: Transfer | None) -> str:
    """What moves, and where to or from if not the buffers."""
    return (
        ""
        if transfer is None
        else transfer.operand + ("" if transfer.resident else " (main memory)")
    )


def what(plan: Plan, step: Step) -> list[str]:
    """What a step computes, dispatches and writes."""
    dispatched = ", ".join(filter(None, [*map(moved, step.dispatch), moved(step.fill)]))
    letters = "bijk" if plan.task.operation.kind == "product" else "i"
    return [
        str(step.number).replace("-", "−"),
        ranges(step.compute, letters) if step.compute else "–",
        dispatched or "–",
        moved(step.write) or "–",
    ]


def product_steps(plan: Plan, walked: Walk) -> list[str]:
    """Every step of a product with the cycles of each engine."""
    times = [time for time in walked.steps if time.operation == plan.task.label]
    engines = [name for name in ENGINES if any(name in time.cycles for time in times)]
    copies = ["copies"] if plan.streams else []
    rows = (
        [
            *what(plan, step),
            *([ranges(step.copy, "jk") if step.copy else "–"] if copies else []),
            *(number(time.cycles.get(name, 0)) for name in engines),
            number(time.total),
        ]
        for step, time in zip(plan.steps(), times, strict=True)
    )
    head = [
        "step",
        "computes",
        "dispatches",
        "writes",
        *copies,
        *(name.replace("_", " ") for name in engines),
        "cycles",
    ]
    return table(head, rows)


def operations(plans: Sequence[Plan], walked: Walk) -> list[str]:
    """Each operation's waves, where its tensors live, its longest engines and its cycles."""
    rows = []
    for plan in plans:
        times = [time for time in walked.steps if time.operation == plan.task.label]
        waits: dict[str, int] = {}
        for time in times:
            longest = max(time.cycles, key=lambda name: time.cycles[name], default="nothing")
            waits[longest] = waits.get(longest, 0) + 1
        weight = (
            "–"
            if not plan.task.operation.has_weight
            else ("prefetched" if plan.prefetched else "streams")
        )
        result = "buffer" if plan.write_resident else "main memory"
        rows.append(
            [
                plan.task.label,
                str(plan.waves),
                weight,
                result,
                ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in waits.items()),
                number(walked.operation_cycles[plan.task.label]),
            ]
        )
    head = ["operation", "waves", "weights", "result", "steps by what they wait for", "cycles"]
    return table(head, iter(rows))


def pages(
    model: str = "bert-tiny",
    design: str = "small",
    sequence_length: int | str = 64,
    density: float | str = 0.5,
) -> dict[str, list[str]]:
    """Make the tables: one product's cut and steps, the attention, and every operation."""
    loaded = AcceleratorDesign.load(design)
    workload = Workload(model, int(sequence_length), float(density))  # type: ignore[arg-type]
    plans = {plan.task.label: plan for plan in schedule(loaded, workload).plans}
    walked = walk(loaded, workload, keep_steps=True)
    half = loaded.model_copy(update={"weight_buffer_kib": -(-loaded.weight_buffer_kib // 2)})
    wide = next(
        plan for plan in schedule(half, workload).plans
        if plan.task.label == "0.feed_forward_0")
    return {
        "query is cut": cut(plans["0.query"]),
        "steps of query": product_steps(plans["0.query"], walked),
        "score is cut": cut(plans["0.score"]),
        "steps of score": product_steps(plans["0.score"], walked),
        "steps of softmax": product_steps(plans["0.attention_softmax"], walked)[:6],
        "steps of feed_forward_0 with half of the weight buffer": product_steps(
            wide, walk(half, workload, keep_steps=True))[:8],
        "operations": operations(
            [plan for name, plan in plans.items() if not name.startswith("1.")], walked
        ),
        "total": [
            f"In all {number(walked.latency_cycles)} cycles, "
            f"{number(walked.operation_cycles['opening'])} of them in the step that opens."
        ],
    }


def main(*arguments: str) -> None:
    """Print the tables for a model, a design, a sequence length and a density."""
    for name, lines in pages(*arguments).items():
        sys.stdout.write(f"\n{name}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
