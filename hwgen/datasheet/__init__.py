"""Data sheets of units: function, ports, timing, accuracy and cost, made from the unit itself.

Everything in a sheet is read where it is defined: docstrings, the spec, the component's signature,
a simulation of the RTL, the cost function, and the synthesised points in ppa.csv.
"""

from hwgen.datasheet.sheet import DataSheet, make_sheet
from hwgen.datasheet.write import write_sheets

__all__ = ["DataSheet", "make_sheet", "write_sheets"]
