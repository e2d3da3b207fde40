"""Places of images in the weight buffer: all of a half or a quarter, and not a word more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_main_memory import design, product_case

from hwgen.program import FIELDS
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.loader.cost import ImageSize
from sim.assembly import descriptors
from sim.homes import Constants, Homes, Walk
from sim.machine_cases import Case, random_product
from sim.schedule import Plan
from sim.weights import FIRST, Images, Place, WeightPlaces, weight_blocks

SPEC = BufferSpec(20, 8, 4, words=88, lines=72, biases=96, bias_bits=51, biases_together=2)
"""Halves of 36 lines, 44 words of every bank and 24 words of biases; quarters of 18, 22 and 12."""


@pytest.mark.parametrize(("field", "name"), [
    ("lines", "lines"), ("values", "words of every bank"), ("biases", "words of biases")])
def test_an_image_has_all_of_a_half(field: str, name: str) -> None:
    largest = ImageSize(lines=36, biases=24, groups=2, values=22, slots=23)
    places = WeightPlaces(SPEC)
    assert places.take_image("one", largest) == Images({FIRST: 0}, (Place(0, 0, 0),))
    assert places.take_image("other", largest) == Images({FIRST: 24 + 46}, (Place(36, 44, 24),))
    assert places.take_image("next", largest).places == (Place(0, 0, 0),)
    larger = replace(largest, **{field: getattr(largest, field) + 1})
    if field == "values":
        larger = replace(largest, groups=1, values=45)
    with pytest.raises(ValueError, match=f"more: .* {name} does not fit the .* half the weight"):
        places.take_image("more", larger)


@pytest.mark.parametrize(("room", "name"), [
    ({"lines": 4}, "lines"), ({"words": 4}, "words of every bank"),
    ({"biases": 8}, "words of biases")])
def test_a_block_has_all_of_a_quarter(room: dict[str, int], name: str) -> None:
    plan = product_case("bijk", streams=True).plan
    sizes = [plan.block_image(block) for block in weight_blocks(plan).values()]
    most = {"lines": 4 * max(size.lines for size in sizes),
            "words": 4 * max(size.groups * size.values for size in sizes),
            "biases": 8 * max(size.biases for size in sizes)}
    spec = replace(SPEC, **most)
    first, second = WeightPlaces(spec).take(plan).places
    assert first == Place(0, 0, 0)
    assert second == Place(most["lines"] // 4, most["words"] // 4, most["biases"] // 8)
    less = {field: most[field] - number for field, number in room.items()}
    with pytest.raises(ValueError, match=f"{name} does not fit the .* a quarter of the weight"):
        WeightPlaces(replace(spec, **less)).take(plan)


def test_biases_lie_where_a_step_can_name_them() -> None:
    many = replace(SPEC, lines=1 << 18, biases=1 << 17)
    places = WeightPlaces(many)
    size = ImageSize(lines=36, biases=24, groups=2, values=22, slots=23)
    (first,), (second,) = (places.take_image("one", size).places for _ in range(2))
    assert (first.bias, second.bias) == (0, 1 << 14)
    # Two biases a word: the last of the second half is the last of 16 bits.
    assert 2 * second.bias + (1 << 15) == 1 << dict(FIELDS["step"])["bias"]


def test_an_image_has_as_many_words_of_biases_as_a_descriptor_can_ask_for() -> None:
    many = replace(SPEC, lines=1 << 18, biases=1 << 17)
    most = (1 << dict(FIELDS["configure"])["prefetch_biases"]) - 1
    size = ImageSize(lines=36, biases=most, groups=2, values=22, slots=23)
    WeightPlaces(many).take_image("one", size)
    with pytest.raises(ValueError, match=f"{most + 1} words of biases is more than the {most}"):
        WeightPlaces(many).take_image("one", replace(size, biases=most + 1))


def case(columns: int) -> Case:
    """A product with a whole weight of several blocks of columns."""
    rng = np.random.default_rng(3)
    return random_product(rng, design(loop_order="ikjb"), (1, 5, columns, 16))


def test_a_blocks_biases_are_behind_those_of_the_columns_before_it() -> None:
    plan = case(21).plan
    images = Images({FIRST: 0}, (Place(36, 44, 24),))
    homes = Homes((Walk(0, 2), Walk(36, 2)), Walk(100, 3), 0, 64, images=images)
    _, *steps = descriptors(plan, homes, Constants(5, 21))
    read = [one.fields for one in steps if one.fields.get("right_enable")]
    # Two biases lie in a word. Columns of two lines follow one another, eight in a block.
    assert [fields["bias"] for fields in read[:3]] == [48, 56, 64]
    assert [fields["right_line"] for fields in read[:3]] == [36, 52, 68]


def test_the_first_block_comes_meanwhile_to_the_first_place() -> None:
    streaming: Plan = product_case("bijk", streams=True).plan
    first = replace(case(21).plan, load=streaming.image)
    places = Place(36, 44, 24), Place(54, 66, 36)
    homes = Homes((Walk(0, 2), Walk(0, 2)), Walk(100, 3), 0, 64,
                  images=Images({FIRST: 0}, (Place(0, 0, 0),)))
    addresses = {FIRST: 70, (0, 16): 90}
    configuration, *_ = descriptors(first, homes, Constants(5, 21), Images(addresses, places))
    assert {name: configuration.fields[f"prefetch_{name}"]
            for name in ("address", "line", "word", "bias")} == {
                "address": 70, "line": 36, "word": 44, "bias": 24}
