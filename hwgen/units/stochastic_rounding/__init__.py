"""Rounding up with the probability that the discarded fraction says."""
