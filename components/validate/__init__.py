"""Steps that judge data and models."""
