"""What Seldon's microservice leaves out, whatever class it runs: refusals' words, metrics of all workers, its end.

``seldon-core-microservice`` forks: a process for each worker of REST and of gRPC, and one that shows metrics. It has
three places where it has to be put right from outside, and all are here: it answers every refusal over gRPC with
UNKNOWN and no words; it shows only what passes through the dictionary that it shares between processes for that, by the
pickle, with each request; and told to end, it ends REST and then waits for gRPC, which nobody tells.

Source: PyPI's seldon-core 1.18.2 (seldon_core.wrapper, .microservice, .metrics), the last version of that package.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from prometheus_client import values
from seldon_core import microservice, wrapper
from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.metrics import SeldonMetrics

from longshore.errors import InputError, ModelError
from longshore.serving import protocol
from longshore.serving.metrics import SharedMetrics
from longshore.serving.refusals import RequestError

__all__ = ["Refused", "complete", "deployed", "refusals"]

_METHODS: Final = ("Predict", "SendFeedback", "TransformInput", "TransformOutput", "Route", "Aggregate")
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}
_SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"
_DRAIN_SECONDS: Final = 10.0

_log = logging.getLogger("longshore.serving")


class Refused(SeldonMicroserviceException):  # type: ignore[misc]
    """A request that is answered with an error, in Seldon's shape.

    Over REST that is ``{"status": {"code": ..., "info": ..., "reason": ..., "status": 1}}``.

    Args:
        status: HTTP status.
        message: What is wrong and what to do, for the client.
    """

    def __init__(self, status: int, message: str) -> None:
        reason = "MICROSERVICE_BAD_DATA" if status < 500 else "MICROSERVICE_INTERNAL_ERROR"
        super().__init__(message, status_code=status, reason=reason)

    def __str__(self) -> str:
        return str(self.message)

    def to_dict(self) -> dict[str, Any]:
        """What REST answers."""
        told: dict[str, Any] = super().to_dict()
        told["status"]["code"] = self.status_code
        return told


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what Seldon's microservice turns into the right status; what is not the client's fault is logged."""
    try:
        yield
    except SeldonMicroserviceException:
        raise
    except RequestError as error:
        raise Refused(error.status, str(error)) from None
    except InputError as error:
        raise Refused(400, str(error)) from None
    except ModelError as error:
        _log.error("%s", error, exc_info=error.__cause__)
        raise Refused(500, str(error)) from None
    except Exception as error:  # noqa: BLE001 - it is logged, and the client is told
        _log.exception("the request failed")
        raise Refused(500, protocol.unexpected(error)) from None


def deployed() -> dict[str, str]:
    """Where this is, as Seldon's operator tells its containers: ``unit``, ``predictor``, ``predictor_version``."""
    environment = {"unit": "PREDICTIVE_UNIT_ID", "predictor": "PREDICTOR_ID"}
    told = {name: os.environ[variable] for name, variable in environment.items() if os.environ.get(variable)}
    labels = json.loads(os.environ.get("PREDICTOR_LABELS") or "{}")
    return {**told, "predictor_version": labels["version"]} if "version" in labels else told


@functools.cache
def complete() -> None:
    """Put Seldon's microservice right, before it forks."""
    for name in _METHODS:
        setattr(wrapper.SeldonModelGRPC, name, _with_code(getattr(wrapper.SeldonModelGRPC, name)))
    _share_metrics()
    microservice.start_servers = _ending(microservice.start_servers)
    microservice._wait_forever = _wait_for_the_end  # noqa: SLF001 - it has no public way


def _ending(start: Callable[..., None]) -> Callable[..., None]:
    """Have gRPC end once REST has, which ends on a TERM."""

    def end_children() -> None:
        for child in microservice.mp.active_children():
            child.terminate()

    def run(rest: Callable[[], None], rpc: Callable[[], None] | None, *others: Callable[[], None] | None) -> None:
        def answer_rest() -> None:
            try:
                rest()
            finally:
                end_children()

        def answer_rpc() -> None:
            parent = os.getpid()

            def end(*_: object) -> None:
                if os.getpid() != parent:
                    # a worker that answers nobody yet: it loads
                    os._exit(0)
                end_children()

            signal.signal(signal.SIGTERM, end)
            if rpc is not None:
                rpc()

        start(answer_rest, None if rpc is None else answer_rpc, *others)

    return run


def _wait_for_the_end(server: grpc.Server) -> None:
    """Called in each worker of gRPC, which answers what has begun."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    # without a time it would not be woken by the signal
    while not told.wait(3600):
        pass
    server.stop(_DRAIN_SECONDS).wait()


def _with_code(method: Callable[[Any, Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except SeldonMicroserviceException as error:
            context.abort(_CODES.get(error.status_code, grpc.StatusCode.INTERNAL), str(error.message))
            raise AssertionError from error  # abort does not return

    return answer


def _share_metrics() -> None:
    """Have what all processes count from now on kept in files, and shown beside Seldon's own metrics."""
    if _SHARED not in os.environ:
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="longshore-metrics-")
        # it was settled when Seldon's package imported it
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    theirs = SeldonMetrics.collect

    def collect(self: SeldonMetrics) -> Iterator[Any]:
        yield from theirs(self)
        yield from SharedMetrics().collect()

    SeldonMetrics.collect = collect
