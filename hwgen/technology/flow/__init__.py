"""The synthesis that writes each unit's ppa.csv: needs Yosys, OpenSTA and Icarus."""
