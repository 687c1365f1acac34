"""Whole pipelines, composed of :mod:`longshore.components`. They load when first used."""

import importlib
from typing import Any, Final

_PIPELINES: Final = ("train_and_deploy", "seldon_ab_test", "torch_to_torchserve", "tensorflow_versions")

__all__ = ["get", "names"]


def names() -> tuple[str, ...]:
    """Names of all pipelines."""
    return _PIPELINES


def get(name: str) -> Any:
    """The pipeline of that name.

    Raises:
        KeyError: If there is none.
    """
    if name not in _PIPELINES:
        raise KeyError(name)
    return getattr(importlib.import_module(f"{__name__}.{name}"), name)
