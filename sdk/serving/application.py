"""What a model server answers, whatever web framework it stands in.

A face (FastAPI, Flask, Django) turns what its framework knows of a request into a :class:`Request`, and an
:class:`Answer` into what its framework sends. :data:`longshore.serving.routes.ROUTES` says which paths there are. With
threads a face calls :meth:`Application.answer`; one with an event loop takes the same steps through
:class:`longshore.serving.exchange.Exchange` and waits for the model in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from longshore.serving.core import Predictor
from longshore.serving.exchange import Exchange
from longshore.serving.messages import Answer, Recorded, Request
from longshore.serving.metrics import Metrics
from longshore.serving.models import Models
from longshore.serving.refusals import BODY_LIMIT, RequestError
from longshore.serving.room import ROOM_BYTES, Room

__all__ = ["TIME_LIMIT_SECONDS", "Application"]

TIME_LIMIT_SECONDS: Final = 60.0
"""How long a prediction may take, unless another time is given."""

_access = logging.getLogger("longshore.access")


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
            answer = exchange.begin()
            if answer is None:
                if isinstance(request.body, RequestError):
                    raise request.body
                call = exchange.read(request.body)
                if self.make_way is not None and exchange.predictor.slow:
                    self.make_way()
                answer = exchange.predicted(call, exchange.predictor.answer(call.ask, seconds=self.seconds))
        except Exception as error:  # noqa: BLE001 - it is logged where it should be, and the client is told
            answer = exchange.refused(error)
        return _ended(exchange, answer)

    def refuse(self, request: Request, error: RequestError) -> Answer:
        """Refuse a request before it has begun, or in another's stead; it is counted as any other."""
        exchange = Exchange(self, request.method, request.path, request.headers)
        exchange.locate()
        return _ended(exchange, exchange.refused(error))


def _ended(exchange: Exchange, answer: Answer) -> Answer:
    exchange.end(answer.status, len(answer.body))
    return Answer(answer.status, answer.body, answer.content_type, exchange.headers(answer))
