"""What a model server answers, whatever web framework it stands in.

A face (FastAPI, Flask, Django) turns what its framework knows of a request into a :class:`Request`, and an
:class:`Answer` into what its framework sends. :data:`ROUTES` says which paths there are. With threads a face calls
:meth:`Application.answer`; one with an event loop takes the same steps through :class:`Exchange` and waits for the
model in between.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from longshore.errors import InputError, ModelError
from longshore.serving import protocol, tensors
from longshore.serving.core import Prediction, Predictor
from longshore.serving.metrics import CONTENT_TYPE, Kind, Metrics
from longshore.serving.models import Models
from longshore.serving.protocol import BODY_LIMIT, Call, RequestError
from longshore.serving.room import ROOM_BYTES, Place, Room

__all__ = [
    "CLIENT_GONE",
    "JSON",
    "ROUTES",
    "Answer",
    "Application",
    "Exchange",
    "Found",
    "Recorded",
    "Request",
    "Route",
    "find_route",
]

CLIENT_GONE: Final = 499
"""Status label of requests whose client went away before it had sent all; Nginx logs the same number."""

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"

TIME_LIMIT_SECONDS: Final = 60.0
"""How long a prediction may take, unless another time is given."""

_LONGEST: Final = 512
"""A model's name has at most 63 characters, so no path of these routes is longer."""

_MANY_ROWS: Final = 256
"""From so many on, numbers are answered from an array."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACE: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

_log = logging.getLogger("longshore.serving")
_access = logging.getLogger("longshore.access")


@dataclass(frozen=True, slots=True)
class Request:
    """A request, as a face hands it on.

    Args:
        method: Its method, in capitals.
        path: Its path, decoded, without the query.
        headers: Its headers, by name in small letters.
        body: Its body; a face stops reading once it is over :attr:`Application.body_limit`. None is one that there
            was no room for.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes | None = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a face sends.

    Args:
        status: HTTP status.
        body: The body.
        content_type: Its type.
        headers: Its headers; :meth:`Exchange.headers` gives all of them.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A prediction request that was answered, for whoever writes such down.

    Args:
        predictor: The model that was asked.
        protocol: What it was asked in: one of :data:`longshore.serving.metrics.PROTOCOLS`.
        request_id: The request's id.
        user: Who asked, where that is known.
        status: Status of the answer.
        seconds: From the request's arrival to the end of the answer.
        rows: Rows that were asked for; 0 where the request was none.
        asked: What the request's JSON held, with arrays where tensors came binary; None where it was no JSON.
        answered: What the answer's JSON holds, likewise.
        size: Bytes of both.
    """

    predictor: Predictor
    protocol: str
    request_id: str
    user: str | None
    status: int
    seconds: float
    rows: int
    asked: Mapping[str, Any] | None
    answered: Mapping[str, Any]
    size: int


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


class Application:
    """Answers requests for the versions of one model.

    Args:
        models: The versions.
        body_limit: Largest body in bytes.
        room_bytes: Bytes that large bodies may take together, until they are answered.
        seconds: How long a prediction may take.
        authorise: Raises a RequestError where headers do not allow a request, and names who asks where it knows;
            None allows all.
        record: Is given each prediction request once it is answered, and must return at once; none that was refused
            before its body was read.
        access_log: Whether each request is logged.

    Attributes:
        room: Where bodies are.
        draining: Set to True, readiness is refused and each connection closed with its next answer; predictions go on
            being answered.
        reload: Loads the versions anew, if they can be; takes its time, and says whether it went well.
        make_way: Called before a model is asked that takes its time, for whoever lets other requests in meanwhile.
    """

    def __init__(
        self,
        models: Models,
        *,
        body_limit: int = BODY_LIMIT,
        room_bytes: int = ROOM_BYTES,
        seconds: float = TIME_LIMIT_SECONDS,
        authorise: Callable[[Mapping[bytes, bytes]], str | None] | None = None,
        record: Callable[[Recorded], None] | None = None,
        access_log: bool = False,
    ) -> None:
        self.models, self.body_limit, self.seconds = models, body_limit, seconds
        self.room = Room(room_bytes)
        self.authorise, self.record, self.access_log = authorise, record, access_log
        self.metrics: Metrics = models.default.metrics
        self.draining = False
        self.reload: Callable[[], bool] | None = None
        self.make_way: Callable[[], None] | None = None

    def close(self) -> None:
        """Finish what is written beside the answers; no request is to come any more."""
        if (capture := self.models.default.capture) is not None:
            capture.close()

    def count(self, method: str, path: str, route: str | None, status: int, seconds: float, **ids: str) -> None:
        """Count a request that has ended, and log it if that is wanted.

        Args:
            method: Its method.
            path: Its path.
            route: Template of the route that it found.
            status: What was answered.
            seconds: How long that took.
            ids: Its ``request_id`` and ``trace_id``.
        """
        self.metrics.observe(method, route, status, seconds)
        if self.access_log:
            extra = {"method": method, "path": path, "route": route, "status": status, "seconds": round(seconds, 6)}
            request_id = ids.get("request_id", "-")
            _access.info("%s %r %d %.6f %s", method, path, status, seconds, request_id, extra={**extra, **ids})

    @classmethod
    def of(cls, *predictors: Predictor, **options: Any) -> Application:
        """The application of the versions of one model, the highest of which is the default."""
        return cls(Models(predictors), **options)

    def answer(self, request: Request) -> Answer:
        """Answer a request, an error among the answers. It can be called from several threads at once."""
        exchange = Exchange(self, request.method, request.path, request.headers)
        try:
            if request.body is None:
                raise exchange.no_room()
            answer = exchange.begin()
            if answer is None:
                if len(request.body) > self.body_limit:
                    raise exchange.too_large()
                call = exchange.read(request.body)
                if self.make_way is not None and exchange.predictor.slow:
                    self.make_way()
                answer = exchange.predicted(call, exchange.predictor.answer(call.ask, seconds=self.seconds))
        except Exception as error:  # noqa: BLE001 - it is logged where it should be, and the client is told
            answer = exchange.refused(error)
        exchange.end(answer.status, len(answer.body))
        return Answer(answer.status, answer.body, answer.content_type, exchange.headers(answer))


class Exchange:
    """The course of one request: :meth:`begin`, for a prediction :meth:`read` and :meth:`predicted`, then :meth:`end`.

    Whatever is raised on the way is given to :meth:`refused`, which knows the answer.

    Args:
        application: What answers.
        method: Method of the request.
        path: Its path.
        headers: Its headers, by name in small letters.

    Attributes:
        request_id: The client's own id for it, or a new one.
        predictor: The model that is asked; the default version where none is.
        user: Who asks, where that is known.
        place: What its body holds of the room, where that is the face's business.
    """

    __slots__ = (
        "_answered",
        "_application",
        "_asked",
        "_began",
        "_binary",
        "_failed",
        "_headers",
        "_route",
        "_rows",
        "_size",
        "method",
        "path",
        "place",
        "predictor",
        "request_id",
        "user",
    )

    def __init__(self, application: Application, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        self._began = time.perf_counter()
        self._application, self._headers = application, headers
        self._route: Route | None = None
        self._failed: Kind | None = None
        self._binary: Collection[str] = ()
        self._asked: Mapping[str, Any] | None = None
        self._answered: Mapping[str, Any] = {}
        self._rows, self._size = 0, -1
        self.user: str | None = None
        self.place: Place | None = None
        self.method, self.path = method, path
        self.predictor = application.models.default
        application.metrics.in_flight.inc()
        given = headers.get(b"x-request-id")
        self.request_id = given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else os.urandom(12).hex()

    def begin(self, found: Found | None = None) -> Answer | None:
        """Find who answers.

        Args:
            found: What :func:`find_route` says, where it is known already.

        Returns:
            The answer, or None for a prediction, whose body is wanted.

        Raises:
            RequestError: 401, 404, 405, 413 or 415.
        """
        application = self._application
        found = found or find_route(self.method, self.path)
        if found is None:
            raise _no_route(self.method, self.path)
        route, parameters = found
        self._route = route
        if application.authorise is not None and not route.open:
            self.user = application.authorise(self._headers)
        if "model" in parameters:
            self.predictor = application.models.find(parameters["model"], parameters.get("version", ""))
        if route.answer is not None:
            return route.answer(application, self.predictor)
        encoding = self._headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            raise RequestError(415, f"the body is compressed ({encoding.decode('latin-1')}): send it as it is")
        # refused before it is read, so that a client which waits for '100 Continue' need not send it
        length = self._headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > application.body_limit:
            raise self.too_large()
        return None

    def too_large(self) -> RequestError:
        """What is raised for a body over the limit."""
        limit = self._application.body_limit
        return RequestError(413, f"the body is larger than {limit} bytes: send fewer rows at a time")

    def keep(self, size: int) -> None:
        """Hold room for so much of the body.

        Raises:
            RequestError: 503, if there is none.
        """
        if self.place is None:
            self.place = Place(self._application.room)
        if not self.place.grow(size):
            raise self.no_room()

    def no_room(self) -> RequestError:
        """What is raised for a body that there is no room for."""
        found = find_route(self.method, self.path)
        if found is not None:
            self._route = found[0]
        return RequestError(503, "large bodies of other requests take all the room: come again in a second")

    def read(self, body: bytes) -> Call:
        """What a prediction's body asks.

        Raises:
            RequestError: If it is no such request.
        """
        self._size = len(body)
        call = self._read(body)
        self._rows = len(call.ask)
        changes: dict[str, Any] = {} if self._rows < _MANY_ROWS else {"arrays": True}
        if self.predictor.capture is not None:
            changes["request_id"] = self.request_id
        return replace(call, ask=replace(call.ask, **changes)) if changes else call

    def _read(self, body: bytes) -> Call:
        if self._protocol == "v1":
            self._asked = protocol.parse(body)
            return protocol.read_v1(self.predictor, self._asked)
        length = self._headers.get(b"inference-header-content-length")
        self._asked = content = protocol.parse_v2(body) if length is None else tensors.split(body, length)
        self._binary = tensors.binary_outputs(content)
        return protocol.read_v2(self.predictor, content)

    def predicted(self, call: Call, prediction: Prediction) -> Answer:
        """The answer to a prediction."""
        self._answered = content = call.answer(prediction)
        if not self._binary:
            return Answer(200, protocol.encode(content))
        body, length = tensors.join(content, self._binary)
        return Answer(200, body, BINARY, (("inference-header-content-length", str(length)),))

    def refused(self, error: Exception) -> Answer:
        """The answer to a request that went wrong; logged, unless that is the client's fault."""
        status, text, headers = 500, str(error), list[tuple[str, str]]()
        if isinstance(error, RequestError):
            status = error.status
            self._failed = "server" if status >= 500 else "client"
            headers = [("retry-after", "1")] if status == 503 else []
            headers += [("www-authenticate", "Bearer")] if status == 401 else []
        elif isinstance(error, InputError):
            status, self._failed = 400, "client"
        elif isinstance(error, TimeoutError):
            status, self._failed = 504, "server"
            text = protocol.no_prediction(self._application.seconds)
        elif isinstance(error, ModelError):
            self._failed = "model"
            self._log("%s %r: %s", self.method, self.path, error, cause=error.__cause__)
        else:
            self._failed = "server"
            self._log("%s %r failed", self.method, self.path, cause=error)
            text = protocol.unexpected(error)
        self._answered = {"error": text}
        return Answer(status, protocol.encode(self._answered), headers=headers)

    def gone(self) -> None:
        """The client went away before it had sent all."""
        self._failed = "client"
        self.end(CLIENT_GONE)

    def headers(self, answer: Answer) -> list[tuple[str, str]]:
        """All headers of an answer, but its length."""
        headers = [("content-type", answer.content_type), ("x-request-id", self.request_id), *answer.headers]
        return [*headers, ("connection", "close")] if self._application.draining else headers

    def end(self, status: int, size: int = 0) -> None:
        """Count it, and have it written down.

        Args:
            status: Status of the answer.
            size: Bytes of its body.
        """
        seconds = time.perf_counter() - self._began
        application, route = self._application, None if self._route is None else self._route.template
        application.metrics.in_flight.dec()
        ids = self._ids() if application.access_log else {}
        application.count(self.method, self.path, route, status, seconds, **ids)
        if self._protocol is not None:
            self.predictor.counts.observe_prediction(self._protocol, seconds, self._failed)
            if self._application.record is not None and self._size >= 0:
                self._application.record(self._recorded(self._protocol, status, seconds, size))

    def _recorded(self, way: str, status: int, seconds: float, size: int) -> Recorded:
        return Recorded(
            predictor=self.predictor,
            protocol=way,
            request_id=self.request_id,
            user=self.user,
            status=status,
            seconds=seconds,
            rows=self._rows,
            asked=self._asked,
            answered=self._answered,
            size=self._size + size,
        )

    @property
    def _protocol(self) -> str | None:
        return None if self._route is None else self._route.reads

    def _log(self, message: str, *values: Any, cause: BaseException | None) -> None:
        _log.error(message, *values, exc_info=cause, extra=self._ids())

    def _ids(self) -> dict[str, str]:
        ids = {"request_id": self.request_id}
        trace = _TRACE.fullmatch(self._headers.get(b"traceparent", b""))
        if trace is not None:
            ids["trace_id"] = trace[1].decode()
        return ids


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


def _no_route(method: str, path: str) -> RequestError:
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
