"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one revision.

    Args:
        model: Name of the model.
        version: Its version in the registry.
        revision: The revision.
        digest: Digest of the model directory.
    """

    def __init__(self, *, model: str, version: str | None, revision: str, digest: str | None) -> None:
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
        self._bins = Counter(
            "longshore_feature_bin",
            "Rows by feature and bin of the training data's distribution.",
            ["feature", "bin", "revision"],
            registry=self.registry,
        )
        info = Gauge(
            "longshore_model_info",
            "The model that is served.",
            ["model", "version", "revision", "digest"],
            registry=self.registry,
        )
        info.labels(model, version or "", revision, digest or "").set(1)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._seconds.labels(method, route, str(status), *self._labels).observe(seconds)

    def count_bins(self, counts: Mapping[str, Sequence[int]]) -> None:
        """Count rows by feature and bin."""
        revision = self._labels[1]
        for feature, numbers in counts.items():
            for index, number in enumerate(numbers):
                if number:
                    self._bins.labels(feature, str(index), revision).inc(number)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
