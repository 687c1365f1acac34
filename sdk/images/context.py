"""What a Dockerfile copies, in a folder: all of it is there, so that a build needs only the base image and an index."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from longshore.errors import ConfigError
from longshore.images.dockerfile import dockerfile
from longshore.images.locks import locks_of
from longshore.images.recipe import Recipe
from longshore.images.wheel import WHEEL, wheel
from longshore.packaging.model import verify

__all__ = ["write_context"]

# of the year that ZIP archives begin with: builders that look at dates see nothing new where nothing is
_DATE: Final = 315532800


def write_context(recipe: Recipe, folder: Path) -> None:
    """Write the Dockerfile and all that it copies. The same recipe gives the same bytes.

    Args:
        recipe: The image.
        folder: An empty folder, or one that is not there yet.

    Raises:
        ConfigError: If there is something in the folder.
        DigestMismatch: If the model is not the one that was recorded.
        ModelError: If it is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: name a folder that is, or one that is not there yet")
    locks = locks_of(recipe.image, recipe.brings, without=recipe.packages.names)
    files = {
        "Dockerfile": dockerfile(recipe),
        "models.txt": locks.models,
        "libraries.txt": locks.libraries,
        "build.txt": locks.build,
    }
    if added := recipe.packages:
        archives = [f"./packages/{path.name}" for path in added.archives]
        files["added.txt"] = "".join(f"{line}\n" for line in (*added.requirements, *archives))
        files["constraints.txt"] = locks.constraints
    for name, content in files.items():
        if content:
            (folder / name).write_text(content, encoding="utf-8")
    (folder / WHEEL).write_bytes(wheel())
    for archive in added.archives:
        (folder / "packages").mkdir(exist_ok=True)
        shutil.copyfile(archive, folder / "packages" / archive.name)
    if recipe.model is not None:
        shutil.copytree(recipe.model.directory, folder / "model")
        # the copy, which nobody changes any more
        verify(folder / "model", recipe.model.digest)
    for path in (folder, *folder.rglob("*")):
        # whoever the image runs as can read all of it
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (_DATE, _DATE))
