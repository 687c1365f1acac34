"""What a user names by its import path."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from longshore.errors import TrainingError
from longshore.extras import extra_of

__all__ = ["import_path"]


def import_path(parameter: str, path: str, *, example: str) -> Any:
    """What is behind an import path.

    Args:
        parameter: The parameter that holds it, for messages.
        path: Such as ``sklearn.ensemble.RandomForestClassifier``.
        example: A valid one, for messages.

    Raises:
        TrainingError: If it cannot be imported.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise TrainingError(
            f"{parameter} = {path!r} is not an import path: write the module and the name in it, such as {example!r}"
        )
    module = _import_module(f"{parameter} = {path!r}", module_name)
    found = getattr(module, name, None)
    if found is None:
        close = get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "check the name in the library's documentation"
        raise TrainingError(f"{parameter} = {path!r}: the module {module_name} has no {name!r}; {hint}")
    return found


def _import_module(what: str, module_name: str) -> ModuleType:
    root = module_name.partition(".")[0]
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name == root and (extra := extra_of(root)):
            hint = f"pip install 'longshore[{extra}]'"
        elif error.name and module_name.startswith(error.name) and error.name != root:
            hint = "check the module's name in the library's documentation"
        else:
            hint = f"install the package that brings {error.name!r}"
        raise TrainingError(f"{what} cannot be imported: {error}; {hint}") from error
    except Exception as error:
        raise TrainingError(
            f"{what} cannot be imported: importing {module_name} failed with {type(error).__name__}: {error}"
        ) from error
