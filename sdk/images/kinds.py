"""What sets longshore's images apart: a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["KINDS", "Kind"]

_DRAIN_SECONDS: Final = 8
"""Less than the ten that podman and docker wait before they kill."""


@dataclass(frozen=True)
class Kind:
    """What sets an image apart.

    Args:
        what: What it is, for its label.
        ports: What it listens on: first the one that is asked for its health.
        command: What a container runs, with the arguments that it is given.
        arguments: Those that it has if it is given none.
        health: The path that tells whether it answers; None where nothing listens.
        bakes: Whether a model can lie in it.
        steps: Whether steps of pipelines run in it, which may install packages of their own.
        system: Debian packages that it has.
    """

    what: str
    ports: Sequence[int] = ()
    command: Sequence[str] = ()
    arguments: Sequence[str] = ()
    health: str | None = None
    bakes: bool = False
    steps: bool = False
    system: Sequence[str] = ()


def _face(framework: str, what: str, *, steps: bool = False, system: Sequence[str] = ()) -> Kind:
    arguments = (f"--framework={framework}", "--host=0.0.0.0", "--port=8080", f"--drain-seconds={_DRAIN_SECONDS}")
    return Kind(
        what,
        ports=(8080, 9000) if framework == "fastapi" else (8080,),
        command=("python", "-m", "longshore.serving", *arguments),
        health="/v2/health/ready",
        bakes=True,
        steps=steps,
        system=system,
    )


KINDS: Final = {
    "fastapi": _face("fastapi", "longshore's model server with FastAPI, on Uvicorn"),
    "flask": _face("flask", "longshore's model server with Flask, on Gunicorn"),
    "django": _face("django", "longshore's model server with Django, on Gunicorn"),
    "kserve": Kind(
        "a model packaged by longshore, in KServe's own model server",
        ports=(8080, 8081),
        command=("python", "-m", "longshore.serving.kserve_server", f"--drain-seconds={_DRAIN_SECONDS}"),
        health="/v2/health/ready",
        bakes=True,
    ),
    "seldon": Kind(
        "a model packaged by longshore in Seldon Core 1's microservice, and longshore's nodes of graphs",
        ports=(9000, 5000, 6000),
        command=("seldon-core-microservice",),
        arguments=("longshore.serving.seldon_app.Model",),
        health="/health/status",
    ),
    "python": Kind("longshore with all extras, for the steps of pipelines", arguments=("python",), steps=True),
    # TorchServe, which packages are tried in, is a Java program
    "torch": _face(
        "fastapi",
        "steps with PyTorch, and longshore's model server for its networks",
        steps=True,
        system=("default-jre-headless",),
    ),
    "tensorflow": _face("fastapi", "steps with TensorFlow, and longshore's model server for its networks", steps=True),
}
"""The images, by their names in :data:`longshore.spec.image.IMAGES`."""
