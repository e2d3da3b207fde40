"""What runs RTL."""
