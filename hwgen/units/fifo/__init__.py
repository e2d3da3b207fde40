"""First in, first out."""
