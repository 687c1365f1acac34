"""What a server counts, for Prometheus."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "KINDS", "PROTOCOLS", "UNMATCHED", "Kind", "Metrics", "ModelMetrics", "SharedMetrics"]

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
_COUNT_SECONDS: Final = 1.0

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """Counters of one server process. They can be used from several threads at once.

    Args:
        model: Name of the model.
        revision: The revision.
        protocols: What predictions can be asked for in.

    Attributes:
        registry: Where they are registered: of this object alone.
        in_flight: Requests being answered.
    """

    def __init__(self, *, model: str, revision: str, protocols: Sequence[str] = PROTOCOLS) -> None:
        self._protocols = protocols
        # as one of several workers, whose counters are in files; see longshore.serving.workers
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.registry = CollectorRegistry()
        self._before_collect = list[Callable[[], None]]()
        # the first one is asked first, by whatever shows the registry
        self.registry.register(_Before(self._before_collect))
        if self._shared:
            threading.Thread(target=self._keep_counting, name="metrics", daemon=True).start()
        self._labels = (model, revision)
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["method", "route", "status", "model", "revision"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._children = dict[tuple[str, str, int], Histogram]()
        self.in_flight = Gauge(
            "http_requests_in_flight",
            "Requests being answered.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._predictions = Histogram(
            "longshore_prediction_duration_seconds",
            "Time from a prediction request's arrival to its answer, a refusal or failure among the answers.",
            ["model", "version", "revision", "protocol"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._errors = Counter(
            "longshore_prediction_errors",
            "Prediction requests that were refused or failed, by whose fault it is: client, model or server.",
            ["model", "version", "revision", "protocol", "kind"],
            registry=self.registry,
        )
        self._batches = Histogram(
            "longshore_batch_rows",
            "Rows that the model predicted in one call, of one request or of several.",
            ["model", "version", "revision"],
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        )
        self._bins = Counter(
            "longshore_feature_bin",
            "Rows predicted, by feature and bin of the training data's distribution.",
            ["feature", "bin", "version", "revision"],
            registry=self.registry,
        )
        reloads = Counter(
            "longshore_reloads",
            "Times that the models were loaded anew while they served; a failure leaves those before in place.",
            ["revision", "outcome"],
            registry=self.registry,
        )
        self._reloads = {True: reloads.labels(revision, "failure"), False: reloads.labels(revision, "success")}
        captures = Counter(
            "longshore_captured_requests",
            "Requests that were to be captured: written, or dropped as the disk was full or slow.",
            ["revision", "outcome"],
            registry=self.registry,
        )
        self._captures = {True: captures.labels(revision, "written"), False: captures.labels(revision, "dropped")}
        self._info = Gauge(
            "longshore_model_info",
            "The model that is served; always 1.",
            ["model", "version", "revision", "digest"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )

    def of_version(self, version: str | None, digest: str | None, bins: Mapping[str, int]) -> ModelMetrics:
        """The counters of one version of the model.

        Args:
            version: Its version in the registry.
            digest: Digest of the model directory.
            bins: Number of bins of each feature.
        """
        model, revision = self._labels
        labels = (model, version or "", revision)
        self._info.labels(*labels, digest or "").set(1)
        # all at once: a series that appears with its first value has no rise that rate() could see
        return ModelMetrics(
            predictions={way: self._predictions.labels(*labels, way) for way in self._protocols},
            errors={(way, kind): self._errors.labels(*labels, way, kind) for way in self._protocols for kind in KINDS},
            batches=self._batches.labels(*labels),
            bins={
                feature: [self._bins.labels(feature, str(index), version or "", revision) for index in range(size)]
                for feature, size in bins.items()
            },
        )

    def hide(self, version: str | None, digest: str | None) -> None:
        """A model is served no more; what it has counted stays."""
        model, revision = self._labels
        if self._shared:
            # what is in the workers' files cannot be removed
            self._info.labels(model, version or "", revision, digest or "").set(0)
        else:
            self._info.remove(model, version or "", revision, digest or "")

    def reloaded(self, *, failed: bool) -> None:
        """Count that the models were loaded anew, or could not be."""
        self._reloads[failed].inc()

    def captured(self, *, written: bool) -> None:
        """Count a request that was to be captured."""
        self._captures[written].inc()

    def forget(self, work: Callable[[], None]) -> None:
        """Undo :meth:`before_collect`."""
        self._before_collect.remove(work)

    def before_collect(self, work: Callable[[], None]) -> None:
        """Have something counted that is only counted when somebody looks."""
        self._before_collect.append(work)

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count an answered request.

        Args:
            method: Its method.
            route: Template of the route that answered, such as ``/v2/models/{model}``; None if there was none.
            status: Status of the answer.
            seconds: From the request's arrival to the end of the answer.
        """
        key = (method, route or "", status)
        child = self._children.get(key)
        if child is None:
            labels = (method if method in _METHODS else "other", route or UNMATCHED, str(status), *self._labels)
            child = self._seconds.labels(*labels)
            # a method is whatever a stranger sends
            if method in _METHODS:
                self._children[key] = child
        child.observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format; those of all workers, where there are several."""
        if not self._shared:
            return generate_latest(self.registry)
        self._count_kept()
        shared = CollectorRegistry()
        SharedMetrics(shared)
        return generate_latest(shared)

    def _count_kept(self) -> None:
        for work in tuple(self._before_collect):
            work()

    def _keep_counting(self) -> None:
        # whoever is asked for metrics answers for all workers, and cannot make the others count
        while True:
            time.sleep(_COUNT_SECONDS)
            self._count_kept()


class SharedMetrics(MultiProcessCollector):
    """What several processes count, each in files.

    prometheus_client fails on a file that a process is about to make, or was killed while it did.

    Args:
        registry: Where it is registered; None is nowhere.
        path: The folder of the files; None is the one that the environment names.
    """

    def __init__(self, registry: CollectorRegistry | None = None, path: str | None = None) -> None:
        super().__init__(registry, path)  # type: ignore[no-untyped-call]

    def collect(self) -> Any:
        """The metrics, summed up."""
        files = list[str]()
        for file in Path(self._path).glob("*.db"):
            # a worker that has ended takes some with it
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_size:
                    files.append(str(file))
        return self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]


class _Before(Collector):
    """Has no metrics: it is told when others are collected."""

    def __init__(self, work: Sequence[Callable[[], None]]) -> None:
        self._work = work

    def collect(self) -> Iterable[Metric]:
        for work in self._work:
            work()
        return ()

    def describe(self) -> Iterable[Metric]:
        return ()


class ModelMetrics:
    """Counters of one version of a model; :meth:`Metrics.of_version` makes them."""

    def __init__(
        self,
        *,
        predictions: Mapping[str, Histogram],
        errors: Mapping[tuple[str, Kind], Counter],
        batches: Histogram,
        bins: Mapping[str, Sequence[Counter]],
    ) -> None:
        self._predictions, self._errors, self._batches, self._bins = predictions, errors, batches, bins

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
