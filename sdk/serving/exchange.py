"""The course of one request, whatever web framework it came by."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from longshore.errors import InputError, ModelError
from longshore.serving import protocol, tensors
from longshore.serving.core import Prediction
from longshore.serving.messages import BINARY, CLIENT_GONE, Answer, Recorded
from longshore.serving.metrics import Kind
from longshore.serving.protocol import Call
from longshore.serving.refusals import RequestError, check_length, no_room
from longshore.serving.room import Place
from longshore.serving.routes import Found, Route, find_route, no_route

if TYPE_CHECKING:
    from longshore.serving.application import Application

__all__ = ["Exchange"]

_MANY_ROWS: Final = 256
"""From so many on, numbers are answered from an array."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACE: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")

_log = logging.getLogger("longshore.serving")


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
            raise no_route(self.method, self.path)
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
        check_length(self._headers, application.body_limit)
        return None

    def keep(self, size: int) -> None:
        """Hold room for so much of the body.

        Raises:
            RequestError: 503, if there is none.
        """
        if self.place is None:
            self.place = Place(self._application.room)
        if not self.place.grow(size):
            raise no_room()

    def locate(self) -> None:
        """Find the route, of what is refused before it has begun."""
        found = find_route(self.method, self.path)
        if found is not None:
            self._route = found[0]

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
