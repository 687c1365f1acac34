"""A model that shall lie in an image: fetched and checked."""

from __future__ import annotations

from pathlib import Path

from longshore.errors import ModelError
from longshore.images.recipe import BakedModel
from longshore.packaging.loading import extras_of
from longshore.packaging.model import CARD_FILE, directory_digest, read_card, verify
from longshore.storage import fetch_directory

__all__ = ["read_model"]


def read_model(uri: str, scratch: Path, *, name: str, digest: str | None = None) -> BakedModel:
    """Read the model that shall lie in an image.

    Args:
        uri: Its directory, a path or URI.
        scratch: A folder for what is fetched.
        name: Name that it gets in request paths.
        digest: The recorded digest of its directory; give it wherever it is known.

    Raises:
        DigestMismatch: If it is not the model that was recorded.
        ModelError: If it is none.
        StorageError: If it cannot be fetched.
    """
    directory = fetch_directory(uri, scratch)
    versions = sorted(path.parent.name for path in directory.glob(f"*/{CARD_FILE}"))
    if versions and not (directory / CARD_FILE).exists():
        raise ModelError(f"{uri} holds the versions {', '.join(versions)}: an image has one, so name its directory")
    verify(directory, digest)
    return BakedModel(
        directory=directory,
        name=name,
        digest=digest or directory_digest(directory),
        extras=extras_of(read_card(directory)),
    )
