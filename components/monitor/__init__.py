"""Steps that watch an endpoint."""
