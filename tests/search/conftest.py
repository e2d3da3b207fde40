"""One finished search, for the tests that only look at it."""

import pytest
from fakes import search


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return search(tmp_path_factory.mktemp("search") / "run")
