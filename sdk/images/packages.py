"""Packages that a user adds to an image: checked here, for they reach pip's files and its command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from longshore.errors import ConfigError, InvalidValue

__all__ = ["Packages", "read_packages"]

_HASH: Final = re.compile(r"\s--hash=(sha256|sha384|sha512):[0-9a-f]+(?=\s|$)")
_COMMENT: Final = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True)
class Packages:
    """What a user adds.

    Args:
        requirements: Lines of a requirements file.
        archives: Wheels and source archives on this machine.
        names: The canonical names of all of them: what longshore has locked under these is left out.
    """

    requirements: tuple[str, ...] = ()
    archives: tuple[Path, ...] = ()
    names: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.names)


def read_packages(given: Sequence[str], files: Sequence[Path] = ()) -> Packages:
    """Read what a user adds.

    Args:
        given: Requirements as pip takes them (``catboost==1.2.8``), or paths of wheels and source archives.
        files: Requirements files, with digests or without, and with no options.

    Raises:
        InvalidValue: If one is no requirement, or has a password.
        ConfigError: If a file cannot be read.
    """
    requirements, archives, names = list[str](), list[Path](), set[str]()
    for text in given:
        if text.endswith((".whl", ".tar.gz", ".zip")) and "://" not in text:
            names.add(_archive_name(Path(text)))
            archives.append(Path(text))
        else:
            names.add(_requirement_name("pip", text))
            requirements.append(text.strip())
    for path in files:
        for line in _lines(path):
            names.add(_requirement_name(str(path), _HASH.sub("", line)))
            requirements.append(line)
    if len({path.name for path in archives}) < len(archives):
        raise InvalidValue("pip", [str(path) for path in archives], "give each file once")
    return Packages(tuple(requirements), tuple(archives), frozenset(names))


def _archive_name(path: Path) -> str:
    try:
        name = parse_wheel_filename(path.name)[0] if path.suffix == ".whl" else parse_sdist_filename(path.name)[0]
    except (InvalidWheelFilename, InvalidSdistFilename) as error:
        raise InvalidValue("pip", str(path), f"the file keeps the name that it was built with ({error})") from error
    if not path.is_file():
        raise InvalidValue("pip", str(path), "there is no such file")
    return name


def _requirement_name(field: str, text: str) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        why = str(error).splitlines()[0]
        raise InvalidValue(
            field,
            text,
            f"use a requirement such as catboost==1.2.8, or the path of a wheel ({why}); pip's options go into the "
            "file of --pip-conf",
        ) from error
    if requirement.url is not None and urlsplit(requirement.url).password is not None:
        raise InvalidValue(field, requirement.name, "no password in a URL: give it in the file of --pip-conf")
    return canonicalize_name(requirement.name)


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the requirements file {path} cannot be read: {error}") from error
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        if requirement := _COMMENT.sub("", line).strip():
            yield requirement
