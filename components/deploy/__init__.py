"""Steps that bring a model to its users."""
