"""Sum of two rows of different exponents."""
