"""What synthesis chooses by the timing of netlists, with netlists made up."""

from types import SimpleNamespace

import pytest

from hwgen.technology.flow import timing


class Netlist:
    """What synthesis gives: full adders make it slower."""

    def __init__(self, full_adders, cells):
        self.full_adders, self.cells = full_adders, cells

    def count(self, prefix):
        return self.cells if prefix == "FA_X1" and self.full_adders else 0


@pytest.mark.parametrize(("cells", "with_ns", "without_ns", "taken", "tries"), [
    (5, 1.429, 1.2, True, [True]),          # keeps the clock
    (5, 1.4291, 1.2, False, [True, False]),   # would miss it
    (5, 1.5, 1.6, True, [True, False]),     # both miss it
    (0, 1.6, 1.2, True, [True]),            # has no full adder to do without
])
def test_full_adders_are_cells_where_the_clock_is_kept(
    cells, with_ns, without_ns, taken, tries, monkeypatch, tmp_path
):
    tried = []

    def synthesise(elaborated, folder, *, clock_gating, full_adders, clock_ps, library):
        assert (elaborated, clock_gating, clock_ps, library) == ("lane", True, 1429, None)
        tried.append(full_adders)
        return Netlist(full_adders, cells)

    def critical_path(netlist, folder, clock_ps, library):
        return SimpleNamespace(delay_ns=with_ns if netlist.full_adders else without_ns)

    monkeypatch.setattr(timing, "synthesise", synthesise)
    monkeypatch.setattr(timing, "critical_path", critical_path)
    netlist, path, full_adders = timing.synthesise_for_clock("lane", tmp_path)
    assert tried == tries
    assert netlist.full_adders == full_adders == taken
    assert path.delay_ns == (with_ns if taken else without_ns)
