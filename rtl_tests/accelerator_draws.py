"""Designs and cases drawn at random, each from a seed by which it can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.activation.table import LARGEST_GAIN
from rtl_tests.accelerator_cases import (
    Case,
    prepare,
    random_prefetch,
    random_product,
    random_rows,
)

MOST_LINES = 240
"""Lines of activations of an operand: loading them takes most of a case's time."""

MOST_DOTS = 800
"""Dot products of a case."""

DENSITIES = (0.0, 0.1, *3 * (0.5,), 0.9, *2 * (1.0,))


def small_design(**changes: Any) -> AcceleratorDesign:
    """Make a design whose simulation is built in a minute."""
    return AcceleratorDesign.model_validate({
        "tile_b": 2, "tile_x": 4, "tile_y": 4, "nonlinearity": "relu", "pes": 1, "lanes_per_pe": 4,
        "macs_per_lane": 2, "softmax_per_pe": 2, "batch_size": 1, "activation_buffer_kib": 4,
        "weight_buffer_kib": 4, "mask_buffer_kib": 2,
        "memory": {"type": "dram", "banks": 32, "ranks": 2, "channels": 1}, "loop_order": "bijk",
        "integer_bits": 4, "fraction_bits": 6, "k_max": 256, "max_sequence_length": 32,
        "window": 8, "k_segment": 16, **changes})


def random_design(seed: int) -> AcceleratorDesign:
    """Draw a design of one processing element, with buffers of 2,048 lines that are dense."""
    rng = np.random.default_rng([seed, 0])

    def choose(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    bits = int(rng.integers(6, 21))
    macs = choose(1, 2, 4, 8)
    # A partial sum of 2·bits + 8 has to fit the values of a line.
    fits = [window for window in (macs, 2 * macs, 4 * macs) if window * bits >= 2 * bits + 8]
    window = choose(*fits or [4])
    integer_bits = int(rng.integers(1, bits))
    made = small_design(
        tile_b=choose(1, 2), tile_x=choose(2, 4, 8), tile_y=choose(2, 4, 8),
        nonlinearity=choose("relu", "gelu"),
        # Lanes decide how long the simulation is built.
        lanes_per_pe=int(rng.integers(1, 9)) if macs < 4 else int(rng.integers(1, 5)),
        macs_per_lane=macs, window=window, k_segment=window * int(rng.integers(1, 4)),
        fifo_depth=macs * int(rng.integers(1, 5)), softmax_per_pe=int(rng.integers(1, 5)),
        integer_bits=integer_bits, fraction_bits=bits - integer_bits,
        stochastic_rounding=choose(False, True),
        activation_buffer_kib=-(-window * bits // 4), weight_buffer_kib=-(-window * bits // 4),
        mask_buffer_kib=window)
    memory = {"type": choose("dram", "dram", "rram", "hbm")}
    if rng.random() < 0.7:
        memory["latency_cycles"] = choose(1, 2, 3, 10, 40)
    kept = made.memory.model_dump(include={"banks", "ranks", "channels"})
    return AcceleratorDesign.model_validate({
        **made.model_dump(), "memory": {**kept, **memory},
        # In a fast clock's cycle main memory gives less than a word.
        "clock_mhz": choose(700.0, 2100.0, 4700.0)})


def in_order(design: AcceleratorDesign, order: str) -> AcceleratorDesign:
    """Give a design another loop order, which its RTL does not depend on."""
    return design.model_copy(update={"loop_order": order})


def random_cases(design: AcceleratorDesign, seed: int, products: int = 6) -> list[Case]:
    """Draw products, two of them of several heads, a softmax, a norm and a large product.

    Whatever they are, weights that they do not need come during some of them.
    """
    rng = np.random.default_rng([seed, 1])
    drawn = [_fitting(rng, design, _product) for _ in range(products - 2)]
    drawn += [_fitting(rng, design, maker)
              for maker in (_score, _context, _softmax, _norm, _large)]
    return drawn


def smallest_cases(design: AcceleratorDesign) -> list[Case]:
    """Make operations of one element."""
    rng = np.random.default_rng(0)
    full: dict[str, Any] = {"density": 1.0, "threshold": 0}
    one = random_prefetch(rng, design, (1, 1), density=1.0)
    return [
        random_product(rng, design, (1, 1, 1, 1), densities=(1.0, 1.0), threshold=0),
        random_product(rng, design, (1, 1, 1, 1), densities=(1.0, 1.0), threshold=0,
                       streams=True).with_prefetch(one),
        random_product(rng, design, (1, 1, 1, 1), has_weight=False, transposed=True),
        random_rows(rng, design, "softmax", (1, 1), **full),
        random_rows(rng, design, "add_norm", (1, 1), **full),
    ]


def in_every_order(design: AcceleratorDesign, seed: int) -> list[Case]:
    """Draw one product of several segments, and take it in each of the 24 orders.

    If one is found, its partial sums spill in some orders and stay in the lanes in others. If it
    has a weight, that comes in blocks in every other order; in all of them another one comes
    meanwhile.
    """
    fitting: list[Case] = []
    rng = np.random.default_rng([seed, 2])
    for _ in range(100):
        case = _meanwhile(rng, _product(rng, design, segments=True))
        made = [case.in_order(order, streams=(number + seed) % 2 == 0)
                for number, order in enumerate(LOOP_ORDERS)]
        both = {2, 3} <= {min(each.plan.waves_inside, 3) for each in made}
        if (both or not fitting) and all(_fits(each) for each in made):
            fitting = made
            if both:
                break
    if not fitting:
        raise ValueError(f"no product fits design {seed}: {design}")
    return fitting


def _fits(case: Case) -> bool:
    extents = case.plan.extents
    lines = -(-extents["k"] // case.plan.design.window)
    weighted = case.plan.task.operation.has_weight
    rows = (extents["i"] if weighted else max(extents["i"], extents["j"])) * extents["b"]
    if rows * lines > MOST_LINES or case.result.size > MOST_DOTS:
        return False
    try:
        prepare(case)
    except ValueError:
        return False
    return True


def _fitting(
    rng: np.random.Generator,
    design: AcceleratorDesign,
    make: Callable[[np.random.Generator, AcceleratorDesign], Case],
) -> Case:
    for _ in range(100):
        case = make(rng, in_order(design, str(rng.choice(LOOP_ORDERS))))
        if rng.random() < 0.5:
            case = _meanwhile(rng, case)
        if _fits(case):
            return case
    raise ValueError(f"nothing that {make.__name__} draws fits {design}")


def _meanwhile(rng: np.random.Generator, case: Case) -> Case:
    """Let a weight come from main memory during a case."""
    design = case.plan.design
    shape = int(rng.integers(1, 25)), _extent(rng, design.window, 4)
    return case.with_prefetch(random_prefetch(
        rng, design, shape, density=float(rng.choice(DENSITIES)),
        has_biases=bool(rng.integers(2))))


def _extent(rng: np.random.Generator, tile: int, tiles: int) -> int:
    """One element, whole tiles, or anything up to `tiles` tiles."""
    kind = rng.random()
    if kind < 0.15:
        return 1
    return tile * int(rng.integers(1, tiles + 1)) if kind < 0.3 else int(
        rng.integers(1, tile * tiles + 1))


def _valid(rng: np.random.Generator, rows: int, columns: int) -> tuple[int, int] | None:
    """Real rows and columns, or None where all are."""
    if rng.random() < 0.5:
        return None
    return int(rng.integers(1, rows + 1)), int(rng.integers(1, columns + 1))


def _threshold(rng: np.random.Generator, bits: int) -> int:
    """Prune nothing, or the smaller values, or now and then nearly all."""
    limit = 1 << (bits if rng.random() < 0.1 else bits - 3)
    return int(rng.integers(2)) * int(rng.integers(limit))


def _densities(rng: np.random.Generator) -> tuple[float, float]:
    left, right = rng.choice(DENSITIES, 2).tolist()
    return left, right


def _lane(rng: np.random.Generator, design: AcceleratorDesign, pairs: float) -> dict[str, Any]:
    """Draw what the lanes of a product are set to: mostly what leaves values to look at."""
    bits = design.bits
    natural = bits - 2 + int(np.log2(max(1.0, pairs)) / 2)
    shift = int(np.clip(natural + rng.integers(-3, 3), 0, design.accumulator_bits - 1))
    if rng.random() < 0.1:
        shift = int(rng.integers(design.accumulator_bits))
    rounded = int(rng.integers(-bits - 2, 3))
    output = rounded + int(rng.integers(-LARGEST_GAIN, LARGEST_GAIN + 1))
    if rng.random() < 0.1:
        rounded = int(rng.integers(-128, 128))
        output = int(rng.integers(max(-128, rounded - LARGEST_GAIN), 128))
    return {"shift": shift, "exponents": (rounded, output), "activate": int(rng.integers(3)),
            "threshold": _threshold(rng, bits)}


def _product(
    rng: np.random.Generator, design: AcceleratorDesign, segments: bool = False
) -> Case:
    tiles = {"b": design.tile_b, "i": design.tile_x, "j": design.tile_y}
    b, i, j = (_extent(rng, tile, most) for tile, most in zip(tiles.values(), (3, 4, 4),
                                                              strict=True))
    k = _extent(rng, design.k_segment, 4)
    if segments:
        k = min(design.k_max, design.k_segment * int(rng.integers(1, 4)) + _extent(
            rng, design.k_segment, 1))
    k = min(k, design.k_max)
    densities = (0.5, 0.9) if segments else _densities(rng)
    return random_product(
        rng, design, (b, i, j, k), has_weight=bool(rng.integers(2)),
        streams=bool(rng.integers(2)), densities=densities,
        transposed=bool(rng.random() < 0.3), valid=_valid(rng, i, j),
        **_lane(rng, design, k * densities[0] * densities[1]))


def _large(rng: np.random.Generator, design: AcceleratorDesign) -> Case:
    """Draw a product whose weight is larger than the weight buffer, and so comes in blocks."""
    lines = design.k_max // design.window
    j = AcceleratorSpec.of(design).weights.words // lines + int(rng.integers(1, design.tile_y + 1))
    densities = _densities(rng)
    k = lines * design.window
    return random_product(
        rng, design, (1, int(rng.integers(1, 4)), j, k), streams=True, densities=densities,
        **_lane(rng, design, k * densities[0] * densities[1]))


def _heads(rng: np.random.Generator, design: AcceleratorDesign, transposed: bool) -> Case:
    heads, batch = int(rng.integers(2, 4)), int(rng.integers(1, 3))
    width = design.window * int(rng.integers(1, 3))
    length = _extent(rng, design.tile_x, 3)
    outer, inner = (width, length) if transposed else (length, width)
    densities = _densities(rng)
    return random_product(
        rng, design, (heads * batch, length, outer, inner), has_weight=False, heads=heads,
        densities=densities, transposed=transposed, valid=_valid(rng, length, outer),
        **_lane(rng, design, inner * densities[0] * densities[1]))


def _score(rng: np.random.Generator, design: AcceleratorDesign) -> Case:
    return _heads(rng, design, False)


def _context(rng: np.random.Generator, design: AcceleratorDesign) -> Case:
    return _heads(rng, design, True)


def _softmax(rng: np.random.Generator, design: AcceleratorDesign) -> Case:
    rows, width = int(rng.integers(1, 7)), _extent(rng, 8, 4)
    bits = design.bits
    return random_rows(
        rng, design, "softmax", (rows, width), sequences=int(rng.integers(1, 4)),
        density=float(rng.choice(DENSITIES)),
        exponents={"rows": int(rng.integers(-bits, 4 - bits // 2))},
        threshold=int(rng.choice([0, rng.integers(1 << max(1, bits - 6))])),
        valid=_valid(rng, rows, width))


def _norm(rng: np.random.Generator, design: AcceleratorDesign) -> Case:
    rows, width = int(rng.integers(1, 7)), _extent(rng, 16, 4)
    bits = design.bits
    rows_exponent = int(rng.integers(-bits - 4, 2))
    gamma = -int(rng.integers(bits))
    output = gamma + int(rng.integers(-3, 8))
    exponents = {
        "rows": rows_exponent, "residual": rows_exponent + int(rng.integers(-4, 5)),
        "sum": rows_exponent + int(rng.integers(-1, 4)), "gamma": gamma, "output": output,
        "beta": output + int(rng.integers(-12, 6))}
    return random_rows(
        rng, design, "add_norm", (rows, width), sequences=int(rng.integers(1, 3)),
        density=float(rng.choice(DENSITIES)), exponents=exponents,
        threshold=_threshold(rng, bits), valid=_valid(rng, rows, width))
