"""What several workers of a server have in common: modules that are imported before there are any.

A worker shares the memory of what was there before it, and need not import it again. Nothing is run and no model is
loaded here: what libraries of models have running does not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
from typing import Final

__all__ = ["import_ahead"]

_FACES: Final = {
    "fastapi": "longshore.serving.fastapi_app",
    "flask": "longshore.serving.flask_app",
    "django": "longshore.serving.django_app.app",
}
_ALL: Final = (
    "longshore.packaging.direct",
    "longshore.serving.loading",
    "longshore.serving.tokens",
    # what most models are made of
    "longshore.training.preprocess",
    "sklearn.ensemble",
    "sklearn.linear_model",
)


def import_ahead(framework: str) -> None:
    """Import what workers will need, once for all of them.

    Args:
        framework: The web framework.
    """
    for name in (_FACES[framework], *_ALL):
        # a worker tells what is missing, if it needs that
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # a collection would write to what is shared
    gc.collect()
    gc.freeze()
