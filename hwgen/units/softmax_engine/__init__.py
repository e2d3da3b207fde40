"""Softmax of rows, from zero-free lines to zero-free pieces."""
