"""Steps that talk to the model registry."""
