"""What an image shall be: values that are checked when they are built, so that what reaches a Dockerfile is valid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from longshore.errors import InvalidValue
from longshore.images.kinds import KINDS
from longshore.images.locks import FORMATS, STORES, WHOLE
from longshore.images.packages import Packages
from longshore.spec.checks import check_choice, check_digest, check_dns_label, check_image, check_registry, freeze
from longshore.spec.image import IMAGES

__all__ = ["BASE", "BakedModel", "Recipe"]

BASE: Final = "docker.io/library/python:3.11-slim"
"""The base image: a Linux with glibc, and Python 3.11 or later with pip and venv."""

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_PLATFORM: Final = re.compile(r"linux/[a-z0-9]+(/v[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class BakedModel:
    """A model that lies in the image.

    Args:
        directory: Where it is now.
        name: Its name in request paths.
        digest: Digest of its directory.
        extras: The extras that bring what it is of, beside what every server has.
    """

    directory: Path
    name: str
    digest: str
    extras: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_dns_label("name", self.name)
        check_digest("digest", self.digest)

    @property
    def revision(self) -> str:
        """The revision that the image serves."""
        return f"{self.name[:50].rstrip('-')}-{self.digest.removeprefix('sha256:')[:8]}"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An image.

    Args:
        image: One of :data:`longshore.spec.image.IMAGES`.
        base: What it stands on, see :data:`BASE`.
        platform: What it runs on, such as ``linux/arm64``; None is what builds it.
        extras: The libraries of models and the clients of stores that it has; None is all that have a use: with a
            model those that the model needs, for KServe no stores.
        packages: What the user adds.
        model: A model to serve with no storage at run time.
        labels: Labels beside those that it has anyway.
        registry: The registry of one's own that what is deployed from it is pulled from (``python``).
        pip_conf: File of pip's settings, such as an index of one's own: pip is shown it, and no layer has it.
        ca_bundle: File of the certificates that pip trusts, likewise.

    Raises:
        InvalidValue: If a field breaks its rule.
    """

    image: str
    base: str = BASE
    platform: str | None = None
    extras: Sequence[str] | None = None
    packages: Packages = field(default_factory=Packages)
    model: BakedModel | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    registry: str | None = None
    pip_conf: Path | None = None
    ca_bundle: Path | None = None

    def __post_init__(self) -> None:
        check_choice("image", self.image, IMAGES)
        check_image("base", self.base)
        if self.platform is not None and not _PLATFORM.fullmatch(self.platform):
            raise InvalidValue("platform", self.platform, "use linux/amd64, linux/arm64 or the like")
        if self.registry is not None:
            check_registry("registry", self.registry)
        if self.image in WHOLE and self.extras is not None:
            raise InvalidValue("extras", ",".join(self.extras), f"the image {self.image} has all in any case")
        if self.model is not None:
            self._check_model(self.model)
        for extra in self.extras or ():
            check_choice("extras", extra, (*FORMATS, *STORES))
        for name in ("pip_conf", "ca_bundle"):
            path = getattr(self, name)
            if path is not None and (not path.is_file() or "," in str(path)):
                raise InvalidValue(name, str(path), "name a file that is there, with no comma in its path")
        for key, value in self.labels.items():
            if not _LABEL.fullmatch(key):
                raise InvalidValue("label", key, "use lower-case letters, digits, '.', '-' and '_' before the '='")
            if not value.isprintable():
                raise InvalidValue(f"label {key}", value, "use printable characters")
        freeze(self, "labels")

    def _check_model(self, model: BakedModel) -> None:
        if not KINDS[self.image].bakes:
            raise InvalidValue("model", model.name, f"the image {self.image} is told its models when it runs")
        other = next((extra for extra in model.extras if extra in WHOLE and extra != self.image), None)
        if other is not None:
            raise InvalidValue("image", self.image, f"the model is of what the image {other} has: take that")

    @property
    def brings(self) -> tuple[str, ...]:
        """The extras that it has."""
        if self.extras is not None:
            return tuple(self.extras)
        if self.model is not None:
            return tuple(extra for extra in self.model.extras if extra in FORMATS)
        return FORMATS if self.image == "kserve" else (*FORMATS, *STORES)
