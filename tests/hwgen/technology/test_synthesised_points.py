"""What the committed points, not made-up ones, are enough for."""

import numpy as np
import pytest

from hwgen.design import DesignBatch
from hwgen.design_space import DesignSpace
from hwgen.technology.constants import Technology
from hwgen.technology.synthesised import NODES


@pytest.mark.parametrize("name", sorted(NODES))
def test_every_named_design_and_space_is_priced(name: str) -> None:
    technology = Technology.load(name)
    named = DesignBatch.of(["edge", "server", "small"])
    drawn = [DesignSpace.load(space).sample(3000, np.random.default_rng(0))
             for space in ("demo", "published", "simulable")]
    for designs in (named, *drawn):
        for table in (technology.area_um2(designs), technology.leakage_mw(designs),
                      *technology.dynamic_pj(designs).values()):
            for block, values in table.items():
                assert (values >= 0).all(), block
