"""Steps that bring data in and divide it."""
