"""Sum and layer norm of rows, from zero-free lines to zero-free pieces."""
