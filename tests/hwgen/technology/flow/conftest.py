"""Tools of the flow, for the tests that need them."""

import pytest

from hwgen.simulation import MissingToolError


@pytest.fixture
def flow_tools():
    """Skip where Yosys, OpenSTA, Icarus or the cells are missing: `make test` does without."""
    from hwgen.technology.flow.ppa import PROGRAMS
    from hwgen.technology.flow.tools import require

    try:
        require(PROGRAMS)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.fixture
def fpga_tools():
    """Skip where Yosys or nextpnr is missing."""
    from hwgen.technology.flow.fpga import PROGRAMS
    from hwgen.technology.flow.tools import require

    try:
        require(PROGRAMS)
    except MissingToolError as error:
        pytest.skip(str(error))
