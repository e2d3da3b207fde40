"""What a characterisation found, as text."""

import pytest
from rich.console import Console

from hwgen.technology.flow.characterize import Report
from hwgen.technology.flow.fpga import COLUMNS as FPGA_COLUMNS
from hwgen.technology.flow.ppa import COLUMNS as PPA_COLUMNS
from transcode import figures, output


@pytest.fixture
def printed(monkeypatch):
    """Print a report and return the text."""
    def printed(report: Report) -> str:
        console = Console(width=220, record=True)
        monkeypatch.setattr(figures, "console", console)
        monkeypatch.setattr(output, "console", console)
        figures.print_figures(report)
        return console.export_text()
    return printed


@pytest.mark.parametrize(
    ("target", "columns"), [("nangate45", PPA_COLUMNS), ("ecp5", FPGA_COLUMNS)]
)
def test_every_printed_column_is_one_of_the_table(target, columns):
    assert set(figures.SHOWN[target]) <= set(columns)


def test_new_rows_are_a_table_a_unit_with_its_operation(printed):
    row = {"unit": "dynatran", "parallel": "2", "bits": "8", **dict.fromkeys(PPA_COLUMNS, "1.5")}
    row["operation"], row["clock_gating"] = "element", "yes"
    text = printed(Report("nangate45", made=[row]))
    assert "dynatran in nangate45, energy of one element" in text
    assert "parallel" in text and "area (µm²)" in text and "yes" in text


def test_what_was_kept_is_stale_or_failed_is_said(printed):
    rows = [{"unit": "dynatran"}, {"unit": "dynatran"}, {"unit": "softmax"}]
    report = Report("ecp5", kept=rows, stale=rows[2:], failed={"softmax(bits=4)": "it is too big"})
    text = printed(report)
    assert "kept, for nothing has changed: dynatran 2, softmax 1" in text
    assert "stale: softmax 1" in text
    assert "stale rows lie outside the chosen points" in text
    assert "failed: softmax(bits=4): it is too big" in text
