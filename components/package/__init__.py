"""Steps that lay a model out for its server."""
