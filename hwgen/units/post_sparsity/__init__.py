"""Compression of results to zero-free form."""
