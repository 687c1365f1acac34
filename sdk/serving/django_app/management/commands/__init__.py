"""Commands of the Django face."""
