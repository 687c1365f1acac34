"""Longshore's own images: what there is, and how they are named."""

from __future__ import annotations

import os
from typing import Final

from longshore._version import __version__
from longshore.spec.checks import check_registry

__all__ = [
    "DIGEST_ENV",
    "IMAGES",
    "MODEL_ENV",
    "NAME_ENV",
    "REGISTRY",
    "REGISTRY_ENV",
    "REVISION_ENV",
    "image_name",
]

IMAGES: Final = ("fastapi", "flask", "django", "kserve", "seldon", "python", "torch", "tensorflow")
"""The model server behind each web framework, inside KServe's and Seldon's own; what pipeline steps run in; and both of
these for deep learning."""

REGISTRY_ENV: Final = "LONGSHORE_IMAGE_REGISTRY"
"""Names a registry of one's own, in the environment of whatever compiles or deploys."""

REGISTRY: Final = os.environ.get(REGISTRY_ENV) or "ghcr.io/longshore"
"""Where they are."""

check_registry(REGISTRY_ENV, REGISTRY)

MODEL_ENV: Final = "LONGSHORE_MODEL"
NAME_ENV: Final = "LONGSHORE_MODEL_NAME"
DIGEST_ENV: Final = "LONGSHORE_MODEL_DIGEST"
REVISION_ENV: Final = "LONGSHORE_REVISION"
"""What the environment tells a server of a model that lies in its image, where its arguments say nothing."""


def image_name(image: str, registry: str | None = None) -> str:
    """The full name of one of :data:`IMAGES` in this version.

    Args:
        image: Which.
        registry: Registry and path before its name; None is :data:`REGISTRY`.
    """
    return f"{registry or REGISTRY}/longshore-{image}:{__version__}"
