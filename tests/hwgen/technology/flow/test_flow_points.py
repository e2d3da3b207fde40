"""Which specs are characterised, and on which operands."""

from dataclasses import fields

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.technology.flow import points as points_module
from hwgen.technology.flow import workload as workload_module
from hwgen.technology.flow.points import VARIATIONS, points
from hwgen.technology.flow.workload import workload
from hwgen.units.operands import typical
from hwgen.units.ppa import DENSITIES
from hwgen.units.registry import RTL_UNITS, jobs_of, spec_class_of


@pytest.mark.parametrize("unit", RTL_UNITS)
def test_the_default_comes_first_and_nothing_twice(unit):
    specs = points(unit)
    edge = AcceleratorDesign.load("edge").model_copy(update={"stochastic_rounding": True})
    own = AcceleratorDesign.load("edge").unit_specs
    assert specs[0] == own.get(unit, edge.unit_specs[unit])
    assert len(set(specs)) == len(specs)
    assert 5 <= len(specs) <= len(VARIATIONS)
    assert {spec.bits for spec in specs} == {8, 12, 16, 20, 24} or specs[0].bits != edge.bits


def test_a_unit_that_no_design_has_lists_its_own(monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(points_module, "spec_class_of", lambda unit: str)
        with pytest.raises(ValueError, match="residual_add has no default: .* SPECS"):
            points("residual_add")
    from hwgen.units.dynatran import workload as dynatran
    monkeypatch.setattr(dynatran, "SPECS", ("one", "two"), raising=False)
    assert points("dynatran") == ["one", "two"]


@pytest.mark.parametrize("unit", RTL_UNITS)
def test_a_job_is_the_same_every_time_and_denser_ones_have_fewer_zeros(unit):
    spec = points(unit)[0]
    works = [workload(unit, spec, density) for density in DENSITIES]
    for density, work in zip(DENSITIES, works, strict=True):
        assert work.operations > 0
        assert work.operation
        assert work.job.cycles == jobs_of(unit).predicted_cycles(spec, work.job)
        again = workload(unit, spec, density)
        assert again.job.to_json() == work.job.to_json()
    assert len({str(work.job.to_json()["operands"]) for work in works}) == len(works)


@pytest.mark.parametrize("density", DENSITIES)
def test_the_density_is_that_of_the_operands(density):
    lane = workload("mac_lane", points("mac_lane")[0], density)
    values = np.concatenate(lane.job.operands["left"] + lane.job.operands["right"])
    assert np.count_nonzero(values) / values.size == pytest.approx(density, abs=0.03)
    assert lane.operations == values.size / 2
    pruned = workload("dynatran", points("dynatran")[0], density)
    kept = np.abs(pruned.job.operands["value"]) >= pruned.job.operands["threshold"]
    assert kept.mean() == pytest.approx(density, abs=0.03)
    assert pruned.operations == kept.size


def test_a_density_that_is_none_is_refused():
    with pytest.raises(ValueError, match="above 0 and at most 1, not 0"):
        workload("dynatran", points("dynatran")[0], 0)


@pytest.mark.parametrize("unit", RTL_UNITS)
def test_without_a_workload_of_its_own_a_units_random_jobs_are_thinned(unit, monkeypatch):
    monkeypatch.setattr(workload_module, "find_spec", lambda name: None)
    spec = points(unit)[0]
    dense, sparse = (workload(unit, spec, density) for density in (1.0, 0.25))
    assert dense.operations == sparse.operations
    count = {work.job.name: sum(number != 0 for value in work.job.operands.values()
                                for number in workload_module._flat(value))
             for work in (dense, sparse)}
    assert count["density 0.25"] < 0.8 * count["density 1"]
    jobs_of(unit).expected(spec, sparse.job)


def test_typical_operands_are_bell_shaped_and_of_the_density():
    value = typical(np.random.default_rng(0), (20_000,), 12, 0.5)
    assert np.count_nonzero(value) / value.size == pytest.approx(0.5, abs=0.02)
    assert value.std() == pytest.approx(2047 / 4 * 0.5**0.5, rel=0.03)
    assert np.abs(value).max() <= 2047


def test_every_spec_is_a_dataclass():
    for unit in RTL_UNITS:
        assert [field.name for field in fields(spec_class_of(unit))]
