"""Effectual pairs of two zero-free operands."""
