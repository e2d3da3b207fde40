"""Units are found by name."""

from dataclasses import asdict

import pytest

from hwgen.design import AcceleratorDesign
from hwgen.units.registry import RTL_UNITS, component_of, jobs_of, spec_of


@pytest.mark.parametrize("unit", RTL_UNITS)
def test_a_name_leads_to_spec_jobs_and_component(unit):
    edge = AcceleratorDesign.load("edge").model_dump()
    spec = AcceleratorDesign.load({**edge, "stochastic_rounding": True}).unit_specs[unit]
    assert spec_of(unit, asdict(spec)) == spec
    assert jobs_of(unit).__name__ == f"hwgen.units.{unit}.jobs"
    assert component_of(unit).__module__ == f"hwgen.units.{unit}.rtl"


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="must be one of mac_lane, .* not 'layer_norms'"):
        component_of("layer_norms")
    with pytest.raises(ValueError, match="dynatran: .*'depth'"):
        spec_of("dynatran", {"parallel": 4, "bits": 8, "depth": 1})
    with pytest.raises(ValueError, match="bits must be a whole number from 4 to 24, not 3"):
        spec_of("dynatran", {"parallel": 4, "bits": 3})
