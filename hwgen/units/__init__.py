"""The hardware units, a folder each."""
