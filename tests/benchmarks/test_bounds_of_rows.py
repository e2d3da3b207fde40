"""The lower bounds of softmax and layer norm compute what they stand for, without streams."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pipeline import got, put, run

from hwgen.units.layer_norm.golden import _align, _root
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import TERM_FRACTION
from hwgen.units.layer_norm.table import Format as LayerNormFormat
from hwgen.units.softmax.golden import _exponential
from hwgen.units.softmax.golden import golden as softmax
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import Format

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from constructions.layer_norm import LayerNormBound  # noqa: E402
from constructions.softmax import Divider, SoftmaxBound  # noqa: E402


@pytest.mark.parametrize("i_exponent", [-7, -4, 0])
def test_softmax(i_exponent):
    spec = SoftmaxSpec(4, 8, 4)
    form = Format.of(spec)
    parts = {part: SoftmaxBound(spec, part) for part in SoftmaxBound.PARTS}
    rows = np.random.default_rng(5).integers(-128, 128, (30, 4))
    rows[0], rows[1] = 7, (-128, 127, -128, -128)
    distances = rows.max(axis=1, keepdims=True) - rows

    component = parts["exponential"]

    def drive(ctx, distance):
        put(ctx, component.distance, distance)
        ctx.set(component.i_exponent, i_exponent)

    terms = run(component, list(distances), drive, lambda ctx: got(ctx, component.term))
    exact = _exponential(distances, i_exponent, form)
    assert terms == (exact >> (form.fraction + form.growth - form.kept)).tolist()

    # What a row's sum is between the parts: (1 + mantissa) · 2^power.
    sums, one = [], form.fraction + form.growth + 1
    for row in exact.tolist():
        total = sum(2 * term + 1 for term in row)
        power = total.bit_length() - 1 - one
        place = form.inverse - one - power
        scaled = total << place if place >= 0 else total >> -place
        sums.append((scaled - (1 << form.inverse), power))
    component = parts["reciprocal"]

    def drive_sum(ctx, total):
        ctx.set(component.mantissa, total[0])
        ctx.set(component.power, total[1])

    inverses = run(component, sums, drive_sum, lambda ctx: ctx.get(component.inverse))
    component = parts["product"]

    def drive_factors(ctx, factors):
        put(ctx, component.term, factors[0])
        ctx.set(component.inverse, factors[1])

    given = run(component, list(zip(terms, inverses, strict=True)), drive_factors,
                lambda ctx: got(ctx, component.value))
    assert given == softmax(rows, i_exponent, spec).tolist()


def test_layer_norm():
    # ε so small that it changes nothing: the bound has none.
    spec = LayerNormSpec(2, 8, 64, 5e-324)
    form = LayerNormFormat.of(spec)
    parts = {part: LayerNormBound(spec, part) for part in LayerNormBound.PARTS}
    rng = np.random.default_rng(6)
    exponents = {"i_exponent": -4, "gamma_exponent": -6, "beta_exponent": -5, "o_exponent": -4}
    # Multiples, so that the leading digit is anywhere, odd and even.
    rows = [(rng.integers(-top, top, count) * (127 // top)).astype(np.int64)
            for count in (2, 4, 10, 64) for top in (1, 9, 127)]
    rows += [np.array([-128, -128]), np.array([-128, 127] * 32)]
    gamma, beta = rng.integers(-128, 128, (2, 64))

    component = parts["sums"]
    beats = [(row[k:k + 2], k == 0) for row in rows for k in range(0, len(row), 2)]

    def drive(ctx, beat):
        put(ctx, component.value, beat[0])
        ctx.set(component.first, beat[1])

    given = run(component, beats, drive,
                lambda ctx: (ctx.get(component.total), ctx.get(component.squares)))
    ends = np.cumsum([len(row) // 2 for row in rows]) - 1
    sums = [given[end] for end in ends.tolist()]
    assert sums == [(int(row.sum()), int((row * row).sum())) for row in rows]

    component = parts["root"]

    def drive_sums(ctx, number):
        ctx.set(component.count, len(rows[number]))
        ctx.set(component.total, sums[number][0])
        ctx.set(component.squares, sums[number][1])

    roots = run(component, list(range(len(rows))), drive_sums, lambda ctx: ctx.get(component.root))
    powers = run(component, list(range(len(rows))), drive_sums,
                 lambda ctx: ctx.get(component.power), component.POWER_STAGES)
    for row, (total, squares), root, power in zip(rows, sums, roots, powers, strict=True):
        if len(row) * squares != total**2:
            assert (root, power) == tuple(int(value) for value in _root(
                np.array(total), np.array(squares), np.array(len(row)), -4, spec.epsilon, form))

    component = parts["scale"]

    def drive_row(ctx, beat):
        value, count, total, factors, root, power, offset = beat
        put(ctx, component.value, value)
        put(ctx, component.gamma, factors)
        put(ctx, component.offset, offset)
        ctx.set(component.count, count)
        ctx.set(component.total, total)
        ctx.set(component.root, root)
        shift = power + exponents["o_exponent"] - exponents["gamma_exponent"] - TERM_FRACTION
        ctx.set(component.shift, max(0, shift + form.window - 1))

    offsets = _align(beta, np.full_like(beta, exponents["o_exponent"] - exponents["beta_exponent"]
                                        - TERM_FRACTION), form.offset - 1, sticky=True)
    beats, wanted = [], []
    for row, (total, _), root, power in zip(rows, sums, roots, powers, strict=True):
        exact = layer_norm(row, -4, gamma[:len(row)], -6, beta[:len(row)], -5, -4, spec)
        for k in range(0, min(len(row), 4), 2):
            wanted.append(exact[k:k + 2].tolist())
            # Inputs that are needed up to five cycles later stay until they are.
            beats += 6 * [(row[k:k + 2], len(row), total, gamma[k:k + 2], root, power,
                           offsets[k:k + 2])]
    given = run(component, beats, drive_row, lambda ctx: got(ctx, component.o))
    assert given[::6] == wanted


@pytest.mark.parametrize("kind", ["ripple", "operator"])
def test_divider(kind):
    component = Divider(9, 5, kind)
    pairs = [(dividend, divisor) for dividend in range(0, 512, 7) for divisor in range(1, 32)]
    pairs += [(511, divisor) for divisor in range(1, 32)]

    def drive(ctx, pair):
        ctx.set(component.dividend, pair[0])
        ctx.set(component.divisor, pair[1])

    given = run(component, pairs, drive, lambda ctx: ctx.get(component.quotient), 1)
    assert given == [dividend // divisor for dividend, divisor in pairs]


def test_divider_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="kind must be 'ripple' or 'operator', not 'srt'"):
        Divider(9, 5, "srt")
