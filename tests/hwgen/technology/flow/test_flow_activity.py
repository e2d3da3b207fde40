"""Toggles and duty from a VCD."""

import pytest

from hwgen.technology.flow.activity import read_activities

VCD = """$timescale 1ns $end
$scope module bench $end
$var wire 1 ! clk $end
$var wire 3 # word [2:0] $end
$var wire 1 % late $end
$upscope $end
$enddefinitions $end
#0
$dumpvars
0!
bx #
x%
$end
#10
1!
b11 #
#11
0!
#12
1!
b101 #
1%
#13
0!
#14
1!
b1z1 #
0%
#20
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "nets.vcd"
    path.write_text(VCD)
    return path


def test_a_window_counts_what_changes_in_it(file):
    (window,) = read_activities(file, [(10, 14)], 2)
    assert window.cycles == 2
    assert window.toggles == {"clk": 4, "word[0]": 0, "word[1]": 1, "word[2]": 1, "late": 0}
    assert window.duty == {"clk": 0.5, "word[0]": 1.0, "word[1]": 0.5, "word[2]": 0.5,
                           "late": 0.75}


def test_windows_follow_one_another_and_unknown_counts_as_a_half(file):
    first, second = read_activities(file, [(10, 12), (14, 20)], 2)
    assert first.toggles["clk"] == 2
    assert second.cycles == 3
    assert second.toggles == {"clk": 1, "word[0]": 0, "word[1]": 0, "word[2]": 0, "late": 1}
    assert second.duty["word[1]"] == 0.5
    assert second.duty["word[2]"] == 1.0


def test_a_file_that_ends_early_is_refused(file):
    with pytest.raises(ValueError, match="ends at 20, before the window that ends at 30"):
        read_activities(file, [(10, 30)], 2)
