"""Counters as Seldon's executor and longshore's server export them, for a Prometheus to scrape.

The executor comes as an image only: these have its names and labels.
"""

from __future__ import annotations

import threading
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, Counter, Histogram, make_wsgi_app

__all__ = ["SeldonMetrics"]

_EXECUTOR = ["deployment_name", "predictor_name", "predictor_version", "service", "method", "code"]
_OURS = ["model", "version", "revision", "predictor_name", "predictor_version"]
_THEIRS = ["deployment_name", "model_name", "predictor_name", "predictor_version"]


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class SeldonMetrics:
    """An exporter on loopback, as long as it is entered.

    Attributes:
        port: Where it listens.
        theirs: Rewards as Seldon's own microservice counts them.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._requests = Histogram(
            "seldon_api_executor_server_requests_seconds", "Requests.", _EXECUTOR, registry=registry, buckets=[1]
        )
        self._feedback, self._reward, self._penalty = (
            Counter(f"longshore_feedback{what}", "Feedback.", _OURS, registry=registry)
            for what in ("", "_reward", "_penalty")
        )
        self.theirs = Counter("seldon_api_model_feedback_reward", "Rewards.", _THEIRS, registry=registry)
        self._server = make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port: int = self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def ask(
        self, revision: str, count: int, *, service: str = "predictions", code: str = "200", name: str = "iris"
    ) -> None:
        """Count requests to a revision's predictor."""
        predictor = revision.rpartition("-")[2]
        for _ in range(count):
            self._requests.labels(name, predictor, revision, service, "post", code).observe(0.01)

    def judge(self, revision: str, *rewards: float) -> None:
        """Count rewards for a revision's answers."""
        labels = ("iris", "1", revision, revision.rpartition("-")[2], revision)
        for counter in (self._feedback, self._reward, self._penalty):
            counter.labels(*labels)
        for reward in rewards:
            self._feedback.labels(*labels).inc()
            (self._reward if reward > 0 else self._penalty).labels(*labels).inc(abs(reward))
