"""What is put into main memory: whole weights, blocks of weights, γ and β, where plans look."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from hwgen.program import ProgramJob
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.loader.golden import image
from sim.machine_cases import Case, random_prefetch, random_product, random_rows
from sim.machine_jobs import prepare, random_jobs
from sim.main_memory import least_density, main_memory, weight_images
from sim.weights import FIRST, Images, Place, WeightPlaces, weight_blocks


def design(**changes: Any) -> AcceleratorDesign:
    return AcceleratorDesign.load({
        **AcceleratorDesign.load("small").model_dump(), "pes": 1, "tile_b": 1, "tile_x": 4,
        "tile_y": 4, "window": 8, "k_segment": 16, "macs_per_lane": 2, "fifo_depth": 2,
        "lanes_per_pe": 2, "softmax_per_pe": 2, "activation_buffer_kib": 16,
        "weight_buffer_kib": 16, "mask_buffer_kib": 8, **changes})


def product_case(order: str, **changes: Any) -> Case:
    rng = np.random.default_rng(1)
    return random_product(rng, design(loop_order=order), (2, 5, 11, 37), **changes)


def images_of(case: Case) -> Images:
    return WeightPlaces(AcceleratorSpec.of(case.plan.design).weights).take(case.plan)


def test_a_whole_weight_is_its_columns_and_biases() -> None:
    case = product_case("bijk")
    spec = AcceleratorSpec.of(case.plan.design).weights
    assert case.recorded.initial is not None  # type: ignore[union-attr]
    expected = image(spec, case.recorded.right.T, case.plan.image,  # type: ignore[union-attr]
                     case.recorded.initial)  # type: ignore[union-attr]
    assert weight_images(spec, case.plan, case.recorded, images_of(case)) == {0: expected}


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_blocks_are_columns_of_a_segment_with_the_first_ones_biases(order: str) -> None:
    case = product_case(order, streams=True)
    plan, recorded, images = case.plan, case.recorded, images_of(case)
    spec = AcceleratorSpec.of(plan.design).weights
    found = weight_images(spec, plan, recorded, images)
    assert len(found) == len(images.addresses) == plan.trips["j"] * plan.trips["k"]
    for (j, k), address in images.addresses.items():
        block = weight_blocks(plan)[j, k]
        part = np.zeros((block.size("j"), 16), dtype=np.int64)
        part[:, :block.size("k")] = recorded.right[k:k + 16, slice(*block.j)].T  # type: ignore[union-attr]
        biases = recorded.initial[slice(*block.j)] if k == 0 else ()  # type: ignore[union-attr, index]
        assert found[address] == image(spec, part, plan.block_image(block), biases)


@pytest.mark.parametrize("streams", [False, True])
def test_the_least_density_is_the_least(streams: bool) -> None:
    case = product_case("jkib", streams=streams)
    spec = AcceleratorSpec.of(case.plan.design).weights
    density = least_density(case.plan, case.recorded)
    assert case.plan.task.weight_density == density

    def made(declared: float) -> object:
        plan = replace(case.plan, task=replace(case.plan.task, weight_density=declared))
        return weight_images(spec, plan, case.recorded, images_of(case))

    assert made(density)
    with pytest.raises(ValueError, match="product: the rows need .* declare a density of at least"):
        made(density * 0.6)


def test_scale_and_offset_are_two_dense_rows() -> None:
    case = random_rows(np.random.default_rng(1), design(), "add_norm", (3, 21))
    spec = AcceleratorSpec.of(case.plan.design).weights
    rows = np.stack([case.recorded.gamma, case.recorded.beta])  # type: ignore[union-attr]
    assert (case.plan.image.lines, case.plan.image.biases) == (6, 0)
    assert weight_images(spec, case.plan, case.recorded, Images({FIRST: 5}, (Place(0, 0, 0),))) == {
        5: image(spec, rows, case.plan.image)}


def test_images_are_put_together() -> None:
    memory = main_memory(design(), [{0: [1, 2]}, {4: [3], 2: [4]}])
    assert memory.words == (1, 2, 4, 0, 3)
    assert memory.latency_cycles == design().memory.latency_cycles
    assert memory.bits_per_cycle == design().memory_bits_per_cycle
    assert main_memory(design(), []).words == ()


def test_a_case_has_its_weight_and_behind_it_what_comes_meanwhile() -> None:
    rng = np.random.default_rng(2)
    case = product_case("bijk", streams=True)
    made = case.with_prefetch(random_prefetch(rng, case.plan.design, (6, 20)))
    assert made.prefetch is not None
    prepared, alone = prepare(made), prepare(case)
    assert prepared.memory.words[:len(alone.memory.words)] == alone.memory.words
    spec = AcceleratorSpec.of(case.plan.design).weights
    behind = image(spec, made.prefetch.rows, made.prefetch.size, made.prefetch.biases)
    assert list(prepared.memory.words[len(alone.memory.words):]) == behind
    assert prepared.prefetch == Place(spec.lines // 2, spec.words // 2,
                                      spec.biases // spec.biases_together // 2)
    # Nothing of a case's own weight is there before it is copied.
    assert set(prepared.loads) == {"activations"}


def test_jobs_survive_json_with_their_memory() -> None:
    jobs = random_jobs(design(), 3)
    assert [job.name for job in jobs][:2] == ["product with weights",
                                              "product with weights in blocks"]
    for job in jobs:
        back = ProgramJob.from_json(json.loads(json.dumps(job.to_json())))
        assert (back.words, back.loads, back.memory, back.step_cycles) == (
            job.words, job.loads, job.memory, job.step_cycles)
        for one, other in zip(back.results, job.results, strict=True):
            assert (one.line, one.start) == (other.line, other.start)
            assert np.array_equal(one.rows, other.rows)
    assert jobs[0].memory.words and not jobs[2].memory.words
