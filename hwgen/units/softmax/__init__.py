"""Softmax over a row."""
