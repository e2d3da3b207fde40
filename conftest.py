"""Options and fixtures of all tests."""

import os
from importlib.util import find_spec

import pytest

SIMULATORS = ("verilator", "icarus")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of simulator."""
    parser.addoption(
        "--simulator",
        choices=SIMULATORS,
        default=None,
        help="what simulates RTL (default: TRANSCODE_SIMULATOR, else verilator, else icarus)",
    )


@pytest.fixture(scope="session")
def simulator(request: pytest.FixtureRequest) -> str:
    """Name of the simulator; a missing one fails, unless TRANSCODE_NO_RTL=1 skips RTL tests."""
    if os.environ.get("TRANSCODE_NO_RTL") == "1":
        pytest.skip("TRANSCODE_NO_RTL=1")
    if find_spec("amaranth") is None:
        pytest.fail(
            "Amaranth is missing: pip install 'transcode-codesign[rtl]', "
            "or set TRANSCODE_NO_RTL=1 to skip RTL tests"
        )
    from hwgen.simulation import MissingToolError, find_simulator

    try:
        return find_simulator(request.config.getoption("--simulator")).name
    except MissingToolError as error:
        pytest.fail(f"{error}; or set TRANSCODE_NO_RTL=1 to skip RTL tests")
