"""Serving platforms, each a module of pure functions; see :mod:`longshore.targets.base`."""
