"""The report: totals, parts that add up, what is named, and what moves which way."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from hwgen.design_space import DesignSpace
from hwgen.technology.constants import Technology
from sim import Report, Workload, area, evaluate
from sim.charge import CAUSES


def evaluated(workload: Workload | None = None, *changes: dict[str, object]) -> Report:
    edge = AcceleratorDesign.load("edge")
    designs = [edge.model_copy(update=change) for change in changes or ({}, {"pes": 128})]
    return evaluate(designs, workload or Workload("bert-tiny", 64, 0.5))


@pytest.mark.parametrize("quantity", ["latency", "energy", "area"])
@pytest.mark.parametrize("by", ["component", "operation"])
def test_parts_add_up(quantity: str, by: str) -> None:
    report = evaluated()
    if quantity == "area" and by == "operation":
        with pytest.raises(ValueError, match="belongs to no operation"):
            report.breakdown(quantity, by)
        return
    total = {"latency": report.latency_cycles, "energy": report.energy_pj, "area": report.area_um2}
    parts = report.breakdown(quantity, by)
    assert sum(parts.values()) == pytest.approx(total[quantity], rel=1e-12)
    assert all(np.all(values >= 0) for values in parts.values())


def test_refuses_other_quantities() -> None:
    with pytest.raises(ValueError, match="latency, energy, area, not 'power'"):
        evaluated().breakdown("power")
    with pytest.raises(ValueError, match="not 'layer'"):
        evaluated().breakdown("energy", "layer")


def test_totals_follow_from_one_another() -> None:
    report = evaluated(None, {}, {"clock_mhz": 350.0}, {"batch_size": 16})
    assert report.latency_seconds == pytest.approx(
        report.latency_cycles / np.array([700e6, 350e6, 700e6])
    )
    assert report.power_mw == pytest.approx(report.energy_pj * 1e-12 / report.latency_seconds * 1e3)
    assert report.latency_cycles_per_sequence == pytest.approx(report.latency_cycles / [4, 4, 16])
    assert report.energy_pj_per_sequence == pytest.approx(report.energy_pj / [4, 4, 16])
    assert report.area_um2 == pytest.approx(area(report.designs).area_um2)
    overridden = evaluated(Workload("bert-tiny", 64, 0.5, batch_size=2))
    assert overridden.latency_cycles_per_sequence == pytest.approx(overridden.latency_cycles / 2)


def test_leakage_lasts_as_long_as_the_run() -> None:
    report = evaluated(None, {})
    leakage = report.breakdown("energy")["weight_buffer_leakage"]
    assert leakage == pytest.approx(8 * 210.40467e-3 * report.latency_seconds * 1e12)
    background = report.breakdown("energy")["main_memory_background"]
    assert background == pytest.approx(177.6e-3 * report.latency_seconds * 1e12)


def test_dynamic_energy_by_hand() -> None:
    report = evaluated(Workload("bert-tiny", 64, 0.5), {})
    table, parts = Technology.load("acceltran-14nm").table, report.breakdown("energy")
    h, s, f, b, layers, heads = 128, 64, 512, 4, 2, 2
    # Query, key, value, context, attention_output and feed_forward_1 are as wide as the model.
    products = layers * (6 * b * s * h + b * heads * s * s + b * s * f) + b * (h + 2)
    norms, softmax, tanh = 5 * b * s * h, layers * b * heads * s * s, b * h
    block, wide = table["block"], 16 * 16
    lanes = report.utilization["lanes"] * 1024
    busy = {
        "post_sparsity": (block["post_sparsity"], products + norms + softmax + tanh),
        "softmax": (table["tile_module"]["softmax"][16], (softmax + 2 * tanh) / wide),
        "layer_norm": (table["tile_module"]["layer_norm"][16], norms / wide),
        "lane": (table["lane"][16]["gelu"], lanes * report.latency_cycles),
        "fifo": (block["fifo"], lanes * report.latency_cycles),
        "dma": (block["dma"], 64 * report.utilization["main_memory"] * report.latency_cycles),
    }
    for name, (figures, cycles) in busy.items():
        wanted = figures["dynamic_mw"] / 0.7 * cycles
        assert parts[f"{name}_dynamic"] == pytest.approx(wanted), name


def test_stalls_are_what_steps_wait_for() -> None:
    report = evaluated()
    assert list(report.stalls) and set(report.stalls) == set(CAUSES)
    # 2 · (3 + 2) + 2 cycles in each step of Edge, 12: whole steps.
    assert report.stalls["step_constant"][0] % 12 == 0


def test_utilization_lies_between_0_and_1() -> None:
    for name, share in evaluated().utilization.items():
        assert np.all((share > 0) & (share < 1)), name


def test_multipliers_do_the_effectual_products() -> None:
    report = evaluated(
        Workload("bert-tiny", 64, {"INPUT": 0.5, "WEIGHT": 1, "LEFT": 0.2, "RIGHT": 0.3}), {}
    )
    h, s, f, b = 128, 64, 512, 4
    linear = 2 * b * s * (4 * h * h + 2 * h * f) + b * (h * h + 2 * h)
    attention = 2 * 2 * b * s * s * h
    pairs = 0.5 * linear + 0.06 * attention
    share = pairs / (1024 * 16 * report.latency_cycles)
    assert report.utilization["multipliers"] == pytest.approx(share)


def test_modules_work_for_the_beats_of_their_rows() -> None:
    report = evaluated(Workload("bert-tiny", 64, 0.5), {})
    s, b = 64, 4
    # Two layers of two heads: rows of 64 in 4 beats of 16; the pooler's 128 rows of two in one.
    softmax = 2 * 2 * b * s * 4 + b * 128
    # The embedding's rows of 128, and two norms a layer, in 8 beats.
    layer_norm = 5 * b * s * 8
    cycles = report.latency_cycles
    assert report.utilization["softmax"] == pytest.approx(softmax / (64 * 4) / cycles)
    assert report.utilization["layer_norm"] == pytest.approx(layer_norm / 64 / cycles)


def test_what_rtl_does_step_by_step_is_proven() -> None:
    report = evaluated(None, {"pes": 1}, {"pes": 1, "activation_buffer_kib": 96}, {})
    first, second, several = (
        {name for name, known in report.proven.items() if not known[index]} for index in range(3)
    )
    # The logits leave the accelerator.
    assert first == {"embedding", "pooler_tanh", "classifier"}
    # A hidden state of four sequences takes 40 KiB, as query and key do each.
    assert first < second and "0.key" in second and "0.query" not in second
    assert several == set(report.proven), "trees between PEs are modelled alone"
    assert report.to_dict()["proven"]["0.key"] == [True, False, False]


def test_what_is_not_priced() -> None:
    report = evaluated(None, {})
    assert "dynatran" in report.not_priced and "residual_add" in report.not_priced
    assert not any("background" in name for name in report.not_priced)
    rram = AcceleratorDesign.load("server")
    unknown = evaluate([rram], Workload("bert-tiny", 64, 0.5))
    assert "main_memory_background (rram)" in unknown.not_priced
    assert unknown.breakdown("energy")["main_memory_background"] == 0


def test_every_component_of_the_energy_names_its_constant() -> None:
    report = evaluated(None, {})
    table = Technology.load("acceltran-14nm").table
    for component, source in report.sources.items():
        path = source.removeprefix("acceltran-14nm: ").split(".")
        if component == "main_memory_background":
            assert "main_memory.yaml" in source
        elif path[0] in ("block", "buffer"):
            assert isinstance(table[path[0]][path[1]][path[2]], float)
        elif path[0] == "lane":
            assert path[1] in table["lane"][16]["gelu"]
        elif path[0] == "tile_module":
            assert path[2] in table["tile_module"][path[1]][16]
        else:
            assert path[0] in table


def test_report_is_json_with_its_inputs() -> None:
    report = evaluated()
    found = json.loads(json.dumps(report.to_dict()))
    assert found["technology"] == "acceltran-14nm" and "jha-lab" in found["technology_source"]
    assert found["workload"]["model_hash"] == report.workload.model.design_hash
    assert AcceleratorDesign.load(found["designs"][1]) == report.designs.design(1)
    assert found["latency_cycles"] == pytest.approx(report.latency_cycles.tolist())
    assert set(found["energy_pj_by_operation"]) == {"opening", *report.proven}


def test_less_work_never_takes_longer() -> None:
    space = DesignSpace.load("published")
    designs = space.sample(200, np.random.default_rng(0))
    designs.fields["nonlinearity"][:] = "gelu"
    dense = evaluate(designs, Workload("bert-tiny", 64, 0.9))
    sparse = evaluate(designs, Workload("bert-tiny", 64, 0.5))
    shorter = evaluate(designs, Workload("bert-tiny", 32, 0.5))
    assert np.all(sparse.latency_cycles < dense.latency_cycles)
    assert np.all(sparse.energy_pj < dense.energy_pj)
    assert np.all(shorter.latency_cycles < sparse.latency_cycles)


def test_a_faster_memory_never_takes_longer() -> None:
    edge = AcceleratorDesign.load("edge").model_dump()
    fast = {"type": "hbm", "banks": 32, "ranks": 1, "channels": 4, "latency_cycles": 36}
    report = evaluate([edge, {**edge, "memory": fast}], Workload("bert-tiny", 64, 0.5))
    assert report.latency_cycles[1] < report.latency_cycles[0]


def test_loop_orders_differ() -> None:
    edge = AcceleratorDesign.load("edge")
    designs = [edge.model_copy(update={"loop_order": order}) for order in LOOP_ORDERS]
    report = evaluate(designs, Workload("bert-base", 128, 0.5))
    assert len(set(np.round(report.energy_pj))) >= 8
    assert report.energy_pj.max() > 1.5 * report.energy_pj.min()


def test_needs_neither_torch_nor_amaranth() -> None:
    script = (
        "import sys; from sim import Workload, area, evaluate; "
        "evaluate(['edge'], Workload('bert-tiny', 64, 0.5)); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'amaranth', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
