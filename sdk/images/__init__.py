"""Container images of the model server and of pipeline steps, built with podman, buildah or docker.

=================================  ==================================================================================
:mod:`longshore.images.recipe`     what an image shall be
:mod:`longshore.images.packages`   what a user adds
:mod:`longshore.images.baking`     a model that lies in it
:mod:`longshore.images.locks`      exact versions with digests of all packages
:mod:`longshore.images.wheel`      longshore itself, of the files that run now
:mod:`longshore.images.dockerfile` a recipe as a Dockerfile
:mod:`longshore.images.context`    the folder with all that it copies
:mod:`longshore.images.builder`    the builder's command, and what it says
=================================  ==================================================================================
"""

from __future__ import annotations

from longshore.images.baking import read_model
from longshore.images.builder import BUILDERS, BuiltImage, build_command, build_image, find_builder, push_image
from longshore.images.context import write_context
from longshore.images.dockerfile import dockerfile
from longshore.images.locks import FORMATS, STORES
from longshore.images.packages import Packages, read_packages
from longshore.images.recipe import BASE, BakedModel, Recipe

__all__ = [
    "BASE",
    "BUILDERS",
    "FORMATS",
    "STORES",
    "BakedModel",
    "BuiltImage",
    "Packages",
    "Recipe",
    "build_command",
    "build_image",
    "dockerfile",
    "find_builder",
    "push_image",
    "read_model",
    "read_packages",
    "write_context",
]
