"""What is read from a liberty file."""

import pytest

from hwgen.technology.flow.liberty import Table, cell_power, parse

LIBRARY = """
/* a comment */
library (tiny) {
  cell (BUF) {
    area : 1.5;
    cell_leakage_power : 12.5;
    pin (A) { direction : input; capacitance : 2.0;
      internal_power () { when : "Z"; rise_power (hidden) {
        index_1 ("0.0,1.0"); values ("3.0,5.0"); }
        fall_power (scalar) { values ("1.0"); } } }
    pin (Z) { direction : output; function : "A";
      internal_power () { related_pin : "A"; rise_power (t) {
        index_1 ("0.0,1.0"); index_2 ("10,20"); values ("1,2", \\
                                                        "3,4"); }
        fall_power (t) { index_1 ("0.0,1.0"); index_2 ("10,20"); values ("5,6", "7,8"); } }
      timing () { related_pin : "A"; timing_sense : positive_unate;
        cell_rise (t) { values ("9"); }
        rise_transition (t) { index_1 ("0.0,1.0"); index_2 ("10,20"); values ("1,2", "3,4"); }
        fall_transition (t) { index_1 ("0.0,1.0"); index_2 ("10,20"); values ("2,3", "4,5"); } }
      timing () { related_pin : "A"; timing_type : setup_rising; }
    }
  }
  cell ("OTHER") { area : 2; }
}
"""


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "tiny.lib"
    path.write_text(LIBRARY)
    return path


def test_a_cell_has_loads_energies_transitions_and_leakage(library):
    cell = cell_power(library, "BUF")
    assert cell.leakage_nw == 12.5
    assert cell.pins["A"].direction == "input"
    assert cell.pins["A"].capacitance_ff == 2.0
    hidden = cell.pins["A"].energies[0]
    assert (hidden.related, hidden.when) == ("", "Z")
    assert hidden.rise.at(0.5) == 4.0
    assert hidden.fall.at(0.5) == 1.0
    driven = cell.pins["Z"].energies[0]
    assert (driven.related, driven.when) == ("A", "")
    assert driven.rise.at(0.5, 15) == 2.5
    assert driven.fall.at(0.0, 10) == 5.0
    (arc,) = cell.pins["Z"].arcs
    assert (arc.related, arc.sense) == ("A", "positive_unate")
    assert arc.fall.at(1.0, 10) == 4.0
    assert cell_power(library, "OTHER").pins == {}


def test_an_unknown_cell_is_refused(library):
    with pytest.raises(ValueError, match="tiny.lib has no cell INV"):
        cell_power(library, "INV")


def test_beyond_its_points_a_table_goes_on_as_it_was():
    table = Table((0.0, 1.0, 3.0), (10.0, 20.0), ((1.0, 2.0), (3.0, 4.0), (9.0, 10.0)))
    assert table.at(2.0, 10.0) == 6.0
    assert table.at(4.0, 10.0) == 12.0
    assert table.at(-1.0, 10.0) == -1.0
    assert table.at(0.0, 30.0) == 3.0


def test_groups_nest_and_attributes_keep_their_text():
    group = parse('cell (X) { a : 1.0; b ("1, 2"); pin (P) { c : "x y"; } }')
    assert group.arguments == ["X"]
    assert group.attributes == {"a": "1.0", "b": ["1, 2"]}
    assert group.first("pin").attributes == {"c": "x y"}
    assert group.first("bus") is None
    with pytest.raises(ValueError, match="begins with its name"):
        parse("{ }")
    with pytest.raises(ValueError, match="a is no liberty group"):
        parse("a : 1;")
