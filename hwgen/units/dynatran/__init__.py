"""Pruning against a threshold."""
