"""Hardware: designs, units, Verilog."""
