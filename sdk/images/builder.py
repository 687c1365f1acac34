"""Building and pushing with podman, buildah or docker, whichever is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from longshore.errors import ConfigError, ImageError, InvalidValue
from longshore.images.advice import advice, reason
from longshore.images.context import write_context
from longshore.images.dockerfile import CA_SECRET, PIP_SECRET
from longshore.images.recipe import Recipe
from longshore.spec.checks import check_choice, check_image

__all__ = ["BUILDERS", "BuiltImage", "build_command", "build_image", "find_builder", "push_image"]

BUILDERS: Final = ("podman", "buildah", "docker")
"""What can build, in the order in which it is looked for."""

_TAIL: Final = 200
# the health check is no part of OCI's format; what was pulled is not pulled again; buildah keeps no layers unasked
_OPTIONS: Final = {
    "podman": ("build", "--format=docker", "--pull=false"),
    "buildah": ("build", "--format=docker", "--pull=false", "--layers"),
    "docker": ("build", "--progress=plain"),
}


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that is there.

    Args:
        tags: Its names.
        id: Its digest where it was built.
        size: How large it is, in the builder's words.
        builder: What built it.
    """

    tags: Sequence[str]
    id: str
    size: str
    builder: str


def find_builder(name: str | None = None) -> str:
    """The builder to take.

    Args:
        name: One of :data:`BUILDERS`; None is the first that is there.

    Raises:
        ConfigError: If it is not there.
    """
    if name is not None:
        check_choice("builder", name, BUILDERS)
    found = next((each for each in ([name] if name else BUILDERS) if shutil.which(each)), None)
    if found is None:
        missing = "none of podman, buildah and docker is" if name is None else f"{name} is not"
        raise ConfigError(f"{missing} installed here: install podman, or write what it would build with --context")
    return found


def build_command(
    recipe: Recipe, tags: Sequence[str], builder: str, context: str, options: Sequence[str] = ()
) -> list[str]:
    """The command that builds what was written to a folder.

    Args:
        recipe: The image.
        tags: Its names.
        builder: One of :data:`BUILDERS`.
        context: The folder.
        options: Further options of the builder's.
    """
    if not tags:
        raise InvalidValue("tag", tags, "give the image a name")
    for tag in tags:
        check_image("tag", tag)
    secrets = {PIP_SECRET: recipe.pip_conf, CA_SECRET: recipe.ca_bundle}
    return [
        builder,
        *_OPTIONS[builder],
        *(f"--tag={tag}" for tag in tags),
        *([] if recipe.platform is None else [f"--platform={recipe.platform}"]),
        *(f"--secret=id={name},src={path.absolute()}" for name, path in secrets.items() if path is not None),
        *options,
        context,
    ]


def build_image(
    recipe: Recipe,
    tags: Sequence[str],
    *,
    builder: str | None = None,
    options: Sequence[str] = (),
    on_line: Callable[[str], None] = lambda _: None,
) -> BuiltImage:
    """Build an image.

    Args:
        recipe: The image.
        tags: Its names.
        builder: One of :data:`BUILDERS`; None is the first that is there.
        options: Further options of the builder's.
        on_line: Called with each line that the builder writes.

    Returns:
        The image.

    Raises:
        ConfigError: If the builder is not there.
        ImageError: If it could not build it.
        InvalidValue: If a name is none.
        ModelError: If the model is none.
    """
    builder = find_builder(builder)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        context, identity = Path(scratch, "context"), Path(scratch, "id")
        command = build_command(recipe, tags, builder, str(context), [f"--iidfile={identity}", *options])
        write_context(recipe, context)
        _run(command, f"{builder} could not build {tags[0]}", on_line)
        found = identity.read_text(encoding="utf-8").strip()
    shown = subprocess.run(
        [builder, "images", "--format={{.Size}}", tags[0]], capture_output=True, text=True, check=False
    )
    size = shown.stdout.strip() or "unknown"
    return BuiltImage(tags=tuple(tags), id=found if ":" in found else f"sha256:{found}", size=size, builder=builder)


def push_image(tag: str, *, builder: str | None = None, on_line: Callable[[str], None] = lambda _: None) -> None:
    """Push an image to the registry that its name begins with.

    Raises:
        ConfigError: If the builder is not there.
        ImageError: If it could not be pushed.
    """
    builder = find_builder(builder)
    check_image("tag", tag)
    _run([builder, "push", tag], f"{builder} could not push {tag}", on_line)


def _run(command: Sequence[str], what: str, on_line: Callable[[str], None]) -> None:
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    last = deque[str](maxlen=_TAIL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    with _ended(process):
        for line in process.stdout or ():
            text = line.decode(errors="replace").rstrip()
            last.append(text)
            on_line(text)
        status = process.wait()
    if status:
        todo = advice(last)
        raise ImageError(f"{what}: {reason(last)}" + (f". What to do: {todo}" if todo else f" (status {status})"))


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a process end with whoever waits for it."""
    with process:
        try:
            yield
        except BaseException:
            process.terminate()
            raise
