"""Which packages an image gets: exact versions with digests.

``requirements/lock.txt`` is one resolution of everything, which images share; the files beside it name the packages
that one extra takes of it. What cannot be had beside the rest has a lock of its own. ``make lock`` writes them all.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

__all__ = ["FORMATS", "STORES", "WHOLE", "Locks", "locks_of"]

FORMATS: Final = ("xgboost", "lightgbm", "onnx")
"""Extras with libraries that models are of; scikit-learn is in each image."""

STORES: Final = ("s3", "gcs", "azure")
"""Extras with the clients of stores that models are fetched from."""

WHOLE: Final = {
    "python": "lock",
    "seldon": "lock-seldon",
    "torch": "lock-torch",
    "tensorflow": "lock-tensorflow",
}
"""Images that have all of a lock, and which."""

_SOURCES: Final = frozenset({"flask-opentracing", "jaeger-client", "kfp-server-api", "opentracing", "threadloop"})
"""Packages that have no wheels."""

_BUILD: Final = frozenset({"setuptools", "wheel"})
"""What builds them."""

_ENTRY: Final = re.compile(r"^([a-z0-9][a-z0-9.-]*)==.*\n(?:    --hash=.*\n)*", re.MULTILINE)


@dataclass(frozen=True)
class Locks:
    """The packages of an image: requirements files with digests.

    Args:
        models: What models are of: heavy, seldom new, and the same in most images.
        libraries: The rest.
        sources: Those of the rest that have no wheels.
        build: What builds them.
    """

    models: str
    libraries: str
    sources: tuple[str, ...] = ()
    build: str = ""

    @property
    def constraints(self) -> str:
        """The versions alone, for what is installed beside them."""
        pinned = re.findall(r"^[a-z0-9].*?(?= \\$)", self.models + self.libraries, re.MULTILINE)
        return "".join(f"{line}\n" for line in sorted(pinned))


def locks_of(image: str, extras: Collection[str], without: Collection[str] = ()) -> Locks:
    """The packages of an image.

    Args:
        image: One of :data:`longshore.spec.image.IMAGES`.
        extras: Which of :data:`FORMATS` and :data:`STORES` it has; some images have all in any case.
        without: Packages, by their canonical names, that come from elsewhere.
    """
    entries = _entries(WHOLE.get(image, "lock"))
    models = _names("models").union(*(_names(extra) for extra in extras if extra in FORMATS)) & set(entries)
    chosen = set(entries) if image in WHOLE else models.union(_names(image), *(_names(extra) for extra in extras))
    models, libraries = models - set(without), chosen - models - set(without)

    def lines(names: Collection[str]) -> str:
        return "".join(entries[name] for name in sorted(names))

    sources = tuple(sorted(libraries & _SOURCES))
    return Locks(lines(models), lines(libraries), sources, lines(_BUILD) if sources else "")


@functools.cache
def _entries(lock: str) -> Mapping[str, str]:
    """What a lock has of each package: several versions where they depend on the Python that runs them."""
    entries: dict[str, str] = {}
    for found in _ENTRY.finditer(_text(lock)):
        entries[found[1]] = entries.get(found[1], "") + found[0]
    return entries


def _names(extra: str) -> frozenset[str]:
    return frozenset(_text(extra).split())


def _text(name: str) -> str:
    return resources.files("longshore.images").joinpath("requirements", f"{name}.txt").read_text(encoding="utf-8")
