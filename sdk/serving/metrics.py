"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE", "KINDS", "PROTOCOLS", "UNMATCHED", "Kind", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
"""Content type of what :meth:`Metrics.render` gives."""

UNMATCHED: Final = "unmatched"
"""Route label of every request that no route matches: what strangers ask for must not make new series."""

Kind = Literal["client", "model", "server"]
"""Whose fault an error is: of a request that does not fit or whose client went away, of the model, or of the server."""

PROTOCOLS: Final = ("v1", "v2", "grpc-v2")
"""What predictions are asked for in, as KServe names it."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Counters of one revision, in a registry of their own. They can be used from several threads at once.

    Args:
        model: Name of the model.
        version: Its version in the registry.
        revision: The revision.
        digest: Digest of the model directory.
        bins: Number of bins of each feature.

    Attributes:
        registry: The registry.
        in_flight: Requests being answered.
    """

    def __init__(
        self, *, model: str, version: str | None, revision: str, digest: str | None, bins: Mapping[str, int]
    ) -> None:
        self.registry = CollectorRegistry()
        self._labels = (model, revision)
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["method", "route", "status", "model", "revision"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being answered.", registry=self.registry)
        seconds = Histogram(
            "longshore_prediction_duration_seconds",
            "Time from a prediction request's arrival to its answer, a refusal or failure among the answers.",
            ["model", "revision", "protocol"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        errors = Counter(
            "longshore_prediction_errors",
            "Prediction requests that were refused or failed, by whose fault it is: client, model or server.",
            ["model", "revision", "protocol", "kind"],
            registry=self.registry,
        )
        # all at once: a series that appears with its first value has no rise that rate() could see
        self._predictions = {protocol: seconds.labels(*self._labels, protocol) for protocol in PROTOCOLS}
        self._errors = {
            (protocol, kind): errors.labels(*self._labels, protocol, kind) for protocol in PROTOCOLS for kind in KINDS
        }
        self._batches = Histogram(
            "longshore_batch_rows",
            "Rows that the model predicted in one call, of one request or of several.",
            ["model", "revision"],
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        ).labels(*self._labels)
        counter = Counter(
            "longshore_feature_bin",
            "Rows predicted, by feature and bin of the training data's distribution.",
            ["feature", "bin", "revision"],
            registry=self.registry,
        )
        self._bins = {
            feature: [counter.labels(feature, str(index), revision) for index in range(size)]
            for feature, size in bins.items()
        }
        info = Gauge(
            "longshore_model_info",
            "The model that is served; always 1.",
            ["model", "version", "revision", "digest"],
            registry=self.registry,
        )
        info.labels(model, version or "", revision, digest or "").set(1)

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            method: Its method.
            route: Template of the route that answered, such as ``/v2/models/{model}``; None if there was none.
            status: Status of the answer.
            seconds: From the request's arrival to the end of the answer.
        """
        method = method if method in _METHODS else "other"
        self._seconds.labels(method, route or UNMATCHED, str(status), *self._labels).observe(seconds)

    def observe_prediction(self, protocol: str, seconds: float, failed: Kind | None = None) -> None:
        """Count an answered prediction request, over whatever face it came.

        Args:
            protocol: One of :data:`PROTOCOLS`.
            seconds: From the request's arrival to its answer.
            failed: Whose fault it is that there is no prediction; None if there is one.
        """
        self._predictions[protocol].observe(seconds)
        if failed is not None:
            self._errors[protocol, failed].inc()

    def observe_batch(self, rows: int) -> None:
        """Count a call of the model."""
        self._batches.observe(rows)

    def count_bins(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Count rows by feature and bin."""
        for feature, numbers in counts.items():
            for child, number in zip(self._bins[feature], numbers, strict=True):
                if number:
                    child.inc(number)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
