"""What things cost in a technology."""
