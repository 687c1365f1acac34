"""The paths that a model server answers, and what answers those that ask for no prediction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from longshore.serving import protocol
from longshore.serving.core import Predictor
from longshore.serving.messages import Answer
from longshore.serving.metrics import CONTENT_TYPE
from longshore.serving.refusals import RequestError

if TYPE_CHECKING:
    from longshore.serving.application import Application

__all__ = ["ROUTES", "Found", "Route", "find_route", "no_route"]

_LONGEST: Final = 512
"""A model's name has at most 63 characters, so no path of these routes is longer."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path that is answered.

    Args:
        method: Its method.
        template: The path, with ``{model}`` and ``{version}`` where those stand.
        summary: What it is for.
        tag: What it belongs to.
        answer: What answers it, given the model that the path names or else the default one.
        reads: For a prediction, its protocol.
        open: Whether it needs no token.
    """

    method: str
    template: str
    summary: str
    tag: str
    answer: Callable[[Application, Predictor], Answer] | None = None
    reads: str | None = None
    open: bool = False


Found = tuple[Route, Mapping[str, str]]
"""A route, and the parameters in the path."""


def find_route(method: str, path: str) -> Found | None:
    """The route that answers a path, and the parameters in it; None if there is none."""
    # what strangers send must not fill memory
    return _find_route(method, path) if len(path) <= _LONGEST else None


@lru_cache(maxsize=1024)
def _find_route(method: str, path: str) -> Found | None:
    for route, pattern in _PATTERNS:
        if route.method == method and (found := pattern.fullmatch(path)) is not None:
            return route, found.groupdict()
    return None


def no_route(method: str, path: str) -> RequestError:
    """What is raised for a path that no route answers: 404, or 405 where another method is meant."""
    if others := [route.method for route, pattern in _PATTERNS if pattern.fullmatch(path)]:
        return RequestError(405, f"{method} is not for {path}: use {' or '.join(others)}")
    return RequestError(404, f"there is no {path}; GET /v2/models/NAME says what the model takes")


def _json(content: Any, status: int = 200) -> Answer:
    return Answer(status, protocol.encode(content))


def _readiness(application: Application, **about: str) -> Answer:
    up = not application.draining
    return _json({"ready": up, **about}, 200 if up else 503)


def _models(application: Application, _: Predictor) -> Answer:
    return _json({"models": [application.models.name]})


def _model_ready(application: Application, predictor: Predictor) -> Answer:
    return _readiness(application, name=predictor.name)


def _metadata(application: Application, predictor: Predictor) -> Answer:
    return _json(protocol.model_v2(predictor, application.models.versions))


def _server(_: Application, __: Predictor) -> Answer:
    return _json(protocol.server_v2())


def _live(_: Application, __: Predictor) -> Answer:
    return _json({"live": True})


def _ready(application: Application, predictor: Predictor) -> Answer:
    return _readiness(application, revision=predictor.revision)


def _metrics(application: Application, _: Predictor) -> Answer:
    return Answer(200, application.metrics.render(), CONTENT_TYPE)


def _both(template: str, **route: Any) -> Sequence[Route]:
    """A route for the default version and one for each other."""
    versioned = template.replace("{model}", "{model}/versions/{version}")
    return Route(template=template, **route), Route(template=versioned, **route)


_V1: Final = "KServe V1"
_V2: Final = "Open Inference Protocol V2"
_SERVER: Final = "Server"
_READY: Final = "Whether the model is ready"
_TAKES: Final = "What the model takes and gives (V2)"

ROUTES: Final[Sequence[Route]] = (
    *_both("/v1/models/{model}:predict", method="POST", summary="Predict rows (V1)", tag=_V1, reads="v1"),
    *_both("/v2/models/{model}/infer", method="POST", summary="Predict columns (V2)", tag=_V2, reads="v2"),
    Route("GET", "/v1/models", "The models (V1)", _V1, _models),
    *_both("/v1/models/{model}", method="GET", summary=f"{_READY} (V1)", tag=_V1, answer=_model_ready),
    *_both(
        "/v2/models/{model}", method="GET", summary="What the model takes and gives (V2)", tag=_V2, answer=_metadata
    ),
    *_both("/v2/models/{model}/ready", method="GET", summary=f"{_READY} (V2)", tag=_V2, answer=_model_ready),
    Route("GET", "/v2", "About the server (V2)", _SERVER, _server),
    Route("GET", "/v2/health/live", "Whether the process answers (V2)", _SERVER, _live, open=True),
    Route("GET", "/v2/health/ready", "Whether the revision takes requests (V2)", _SERVER, _ready, open=True),
    Route("GET", "/metrics", "Prometheus metrics", _SERVER, _metrics, open=True),
)
"""All paths that are answered."""

_PATTERNS: Final = tuple(
    (route, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(route.template)))) for route in ROUTES
)
