"""Packages whose names load when first used, so that importing one costs next to nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any

from longshore.errors import MissingExtra
from longshore.extras import extra_of

__all__ = ["load"]


def load(package: str, home: Mapping[str, str], name: str) -> Any:
    """Find a public name of a package and keep it there; for the package's ``__getattr__``.

    Args:
        package: Name of the package.
        home: For each public name, the module that defines it.
        name: The name that was asked for.

    Raises:
        AttributeError: If it is none of them.
        MissingExtra: If it needs a package that is not installed.
    """
    if name not in home:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(home[name]), name)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        raise MissingExtra(f"{package}.{name}", error.name or "", extra) from error
    setattr(sys.modules[package], name, value)
    return value
