"""A lane: dot products and its non-linearity."""
