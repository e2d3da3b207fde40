"""Layer norm over a row."""
