"""The accelerator gives golden's integers in the cycles of ELECTOR's reference, step by step.

A case that fails is repeated by its seed and number: `many(random_design(seed), seed)[number]` in
the long suite, `many(SMALL, SEED)[number]` or `few(UNEVEN, SEED)[number]` in the normal one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.emit import unit_module
from hwgen.simulation import SimulationError
from hwgen.simulation.machine import MachineCase, run_program_jobs, run_programs
from hwgen.simulation.module import VerilogModule
from hwgen.units.accelerator.rtl import Accelerator
from hwgen.units.accelerator.spec import AcceleratorSpec
from model.space import TransformerDesign
from rtl_tests.accelerator_cases import (
    Case,
    Prepared,
    differences,
    prepare,
    random_prefetch,
    random_product,
)
from rtl_tests.accelerator_coverage import BINS, count_bins, report
from rtl_tests.accelerator_draws import (
    in_every_order,
    in_order,
    random_cases,
    random_design,
    small_design,
    smallest_cases,
)
from rtl_tests.accelerator_layers import layer_differences, machine_case
from sim import Workload
from sim.layer import LayerProgram, layer_program
from sim.machine_jobs import random_jobs
from sim.masks import RecordedMasks

if TYPE_CHECKING:
    from model.calibration import Calibration
    from model.flexibert import FlexiBertForSequenceClassification

pytestmark = pytest.mark.rtl

SMALL = small_design()

UNEVEN = small_design(
    tile_b=1, tile_x=4, tile_y=8, window=4, k_segment=8, lanes_per_pe=3, softmax_per_pe=4,
    nonlinearity="gelu", fraction_bits=10, activation_buffer_kib=24, weight_buffer_kib=24,
    mask_buffer_kib=8, clock_mhz=4700.0,
    memory={"type": "dram", "banks": 32, "ranks": 2, "channels": 1, "latency_cycles": 5})
"""Nothing of it is like SMALL: a beat of two lines, lanes that are no power of two, and a clock in
whose cycle main memory gives less than a word."""

TINY = small_design(
    tile_b=1, tile_x=8, tile_y=8, window=16, k_segment=64, lanes_per_pe=4, macs_per_lane=8,
    nonlinearity="gelu", fraction_bits=12, activation_buffer_kib=64, weight_buffer_kib=128,
    mask_buffer_kib=64, k_max=512, max_sequence_length=64)
"""Holds the activations of a layer of BERT-Tiny, whose feed-forward weights stream."""

NOT_IN_SMALL = (
    "tile_x > tile_y", "one lane", "one multiplier", "k_segment of one window",
    "lane that can round stochastically", "bits <= 8", "bits >= 18",
)
"""Bins that the normal suite leaves to the long one."""

SEED = 8
"""Of the normal suite's cases, which meet all of its bins."""

SEEDS = (*range(14), 18)
"""Designs of the long suite, with 38 cases on each."""

CYCLE_LIMIT = 200_000
"""Many times what any case takes."""


@cache
def module_of(design: AcceleratorDesign) -> VerilogModule:
    return unit_module(Accelerator(AcceleratorSpec.of(design)), "accelerator")


def check(design: AcceleratorDesign, cases: Sequence[Case], seed: int, simulator: str) -> None:
    """Run cases on one machine and compare what is stored, and each step's cycles."""
    prepared = [prepare(case) for case in cases]
    results = run_programs(
        module_of(design), [one.machine for one in prepared], simulator, cycle_limit=CYCLE_LIMIT)
    wrong = [
        f"seed {seed}, case {number}, {case}: {'; '.join(said)}"
        for number, (case, one, result) in enumerate(zip(cases, prepared, results, strict=True))
        if (said := differences(case, one, result))
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(wrong)


def few(design: AcceleratorDesign, seed: int) -> list[Case]:
    return [*random_cases(design, seed), *smallest_cases(design)]


def many(design: AcceleratorDesign, seed: int) -> list[Case]:
    return [*few(design, seed), *in_every_order(design, seed)]


def test_random_cases_and_every_order(simulator: str) -> None:
    check(SMALL, many(SMALL, SEED), SEED, simulator)


def test_a_second_design(simulator: str) -> None:
    check(UNEVEN, few(UNEVEN, SEED), SEED, simulator)


def test_the_small_designs_cover_their_bins() -> None:
    counts = count_bins([*many(SMALL, SEED), *few(UNEVEN, SEED)])
    print(report(counts))
    assert not [name for name in BINS if name not in NOT_IN_SMALL and not counts[name]]


def with_memory(prepared: Prepared, **changes: Any) -> MachineCase:
    """Let a case have another main memory."""
    machine = prepared.machine
    assert machine.memory is not None
    return replace(machine, memory=replace(machine.memory, **changes))


@pytest.fixture(scope="module")
def streaming() -> tuple[Case, Prepared]:
    """A product in blocks, and a weight that comes meanwhile."""
    rng = np.random.default_rng(5)
    case = random_product(rng, in_order(SMALL, "jkib"), (2, 9, 21, 40), streams=True)
    case = case.with_prefetch(random_prefetch(rng, SMALL, (13, 20)))
    return case, prepare(case)


def test_a_later_memory_takes_longer_and_changes_nothing_else(
    simulator: str, streaming: tuple[Case, Prepared]
) -> None:
    case, prepared = streaming
    latency = SMALL.memory.latency_cycles + 29
    memory = SMALL.memory.model_copy(update={"latency_cycles": latency})
    design = case.plan.design.model_copy(update={"memory": memory})
    later = replace(case, plan=replace(case.plan, design=design))
    (result,) = run_programs(
        module_of(SMALL), [with_memory(prepared, latency_cycles=latency)], simulator,
        cycle_limit=CYCLE_LIMIT)
    counted = replace(result, step_cycles=case.step_cycles())
    assert differences(case, prepared, counted) == []
    # The reference lets idle slots pass main memory as well, which do not wait for an answer.
    assert sum(result.step_cycles) > sum(case.step_cycles())
    assert all(least <= cycles <= most for least, cycles, most in zip(
        case.step_cycles(), result.step_cycles, later.step_cycles(), strict=True))


def test_a_memory_that_is_slower_than_the_accelerators_is_found(
    simulator: str, streaming: tuple[Case, Prepared]
) -> None:
    slower = with_memory(streaming[1], bits_per_cycle=Fraction(40))
    with pytest.raises(SimulationError, match="a request before main memory's rate allows"):
        run_programs(module_of(SMALL), [slower], simulator, cycle_limit=CYCLE_LIMIT)


def test_jobs_are_proven_and_a_wrong_word_of_main_memory_is_found(simulator: str) -> None:
    jobs = random_jobs(SMALL, SEED)
    words = list(jobs[0].memory.words)
    words[0] ^= 1 << 20
    wrong = replace(jobs[0], memory=replace(jobs[0].memory, words=tuple(words)))
    spec = AcceleratorSpec.of(SMALL).activations
    *proven, (result, said) = run_program_jobs(module_of(SMALL), spec, [*jobs, wrong], simulator)
    for job, (good, differing) in zip(jobs, proven, strict=True):
        assert (good.step_cycles, differing) == (job.step_cycles, []), job.name
    assert result.status == "done" and "values differ" in said[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_noise_is_the_same_in_every_order(simulator: str) -> None:
    design = small_design(stochastic_rounding=True)
    results, cases = [], []
    for order in ("bijk", "kjib", "jkbi", "ikbj"):
        for transposed in (False, True):
            rng = np.random.default_rng(7)
            made = random_product(rng, in_order(design, order), (2, 9, 11, 20),
                                  transposed=transposed, seed=777)
            cases.append(made)
            results.append(np.swapaxes(made.result, 1, 2) if transposed else made.result)
    assert all(np.array_equal(results[0], one) for one in results[::2])
    nearest = random_product(np.random.default_rng(7), design, (2, 9, 11, 20))
    assert not np.array_equal(results[0], nearest.result)
    check(design, cases, 7, simulator)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_designs(simulator: str, seed: int) -> None:
    design = random_design(seed)
    check(design, many(design, seed), seed, simulator)


@pytest.mark.slow
def test_the_random_designs_cover_every_bin(capsys: pytest.CaptureFixture[str]) -> None:
    counts = count_bins(case for seed in SEEDS for case in many(random_design(seed), seed))
    with capsys.disabled():
        print("", report(counts), sep="\n")
    assert not [name for name in BINS if not counts[name]]


def layer_of(
    model: FlexiBertForSequenceClassification, calibration: Calibration,
    design: AcceleratorDesign, sentence: dict[str, Any],
) -> LayerProgram:
    """Make the program of a model's first layer and one sentence, padding included."""
    from model.quantized import QuantizedModel

    recording = QuantizedModel(model, calibration, design).record(**sentence)
    workload = Workload(model.design, recording.valid_mask.shape[1], 1.0, batch_size=1)
    return layer_program(design, workload, RecordedMasks(recording, workload), 0)


def run_layer(layer: LayerProgram, simulator: str) -> int:
    """Run a layer, compare it, and return its cycles."""
    module = module_of(layer.plans[0].design)
    (result,) = run_programs(
        module, [machine_case(layer)], simulator, cycle_limit=10_000_000)
    said = layer_differences(layer, result)
    assert not said, "\n".join(said)
    return sum(result.step_cycles)


@pytest.mark.parametrize(
    ("changes", "streams"),
    [({}, ()), ({"weight_buffer_kib": 2}, ("0.feed_forward_0", "0.feed_forward_1"))])
def test_a_whole_layer(
    simulator: str, changes: dict[str, int], streams: tuple[str, ...]
) -> None:
    torch = pytest.importorskip("torch")
    from model.calibration import calibrate
    from model.configuration import FlexiBertConfig
    from model.flexibert import FlexiBertForSequenceClassification

    design = TransformerDesign.load({
        "layers": [{"hidden": 16, "heads": ["sa_sdp"] * 2, "feed_forward": [40]}],
        "vocabulary": 100, "max_positions": 32})
    torch.manual_seed(0)
    config = FlexiBertConfig.of(design, {"activation_threshold": 0.2}, initializer_range=0.3)
    model = FlexiBertForSequenceClassification(config).eval()
    length, real = 11, 9
    sentence = {"input_ids": torch.randint(1, 100, (1, length)),
                "attention_mask": (torch.arange(length) < real)[None].long()}
    calibration = calibrate(model, [sentence], bits=UNEVEN.bits)
    accelerator = UNEVEN.model_copy(update=changes)
    layer = layer_of(model, calibration, accelerator, sentence)
    assert tuple(plan.task.label for plan in layer.plans if plan.streams) == streams
    assert run_layer(layer, simulator) > 1000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_layer_of_a_trained_model_on_a_real_sentence(
    simulator: str, tmp_path: Path, record_property: Any
) -> None:
    torch = pytest.importorskip("torch")
    from model.calibration import calibrate
    from model.data import load_task, open_test
    from model.recipe import Recipe
    from model.tokens import tokenize
    from model.train import train

    task = load_task("movie-sentences")
    trained = train("bert-tiny", task, recipe=Recipe(epochs=1, distillation=0.0),
                    out=tmp_path / "model")
    assert trained.validation_accuracy > 0.6, "the model has learned nothing"
    why = "a sentence for the accelerator's RTL"
    texts = open_test(task, tmp_path / "openings.json", why).texts
    text = next(text for text in texts if 12 <= tokenize([text], 64).lengths[0] <= 16)

    def inputs(one: str, length: int) -> dict[str, Any]:
        tokens = tokenize([one], length)
        padded = torch.zeros((1, length), dtype=torch.int64)
        padded[0, : tokens.lengths[0]] = torch.from_numpy(tokens.ids[0])
        return {"input_ids": padded, "attention_mask": (padded != 0).long()}

    calibration = calibrate(
        trained.model, [inputs(one, 64) for one in task.train.texts[:128]], bits=TINY.bits)
    layer = layer_of(trained.model, calibration, TINY, inputs(text, 18))
    streams = [plan.task.label for plan in layer.plans if plan.streams]
    assert streams == ["0.feed_forward_0", "0.feed_forward_1"]
    cycles = run_layer(layer, simulator)
    record_property("cycles", cycles)
    print(f"{text!r}: {cycles} cycles")
