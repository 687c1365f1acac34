"""Reads a server's Prometheus metrics and turns them into the few numbers that people ask for."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from longshore.errors import MissingExtra, MonitorError

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

__all__ = ["ServingStats", "bin_counts", "quantile", "read_metrics", "summarise"]

_DURATION: Final = "longshore_prediction_duration_seconds"
_ERRORS: Final = "longshore_prediction_errors_total"
_CLIENTS: Final = "client"
_BINS: Final = "longshore_feature_bin_total"
_MAX_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class ServingStats:
    """What a server has answered since it started.

    Args:
        requests: Prediction requests answered over any protocol, whatever their status.
        errors: Of them that failed by no fault of the client: over HTTP, with a 5xx status.
        p50_seconds: Median latency, estimated from the histogram; 0.0 if nothing was answered.
        p99_seconds: 99th percentile of latency, likewise.
    """

    requests: int
    errors: int
    p50_seconds: float
    p99_seconds: float


def read_metrics(url: str, *, timeout_seconds: float = 10) -> list[Sample]:
    """Read the metrics that a server exports in Prometheus' text format.

    Args:
        url: Such as ``http://127.0.0.1:8080/metrics``. It is read directly, whatever proxies the environment names.
        timeout_seconds: For the connection and for each read.

    Raises:
        MonitorError: If they cannot be read or are no metrics; names the URL and the reason.
        MissingExtra: If prometheus-client is not installed.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ModuleNotFoundError as error:
        raise MissingExtra("reading metrics", "prometheus-client", "monitor") from error
    text = _get(url, timeout_seconds)
    try:
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (ValueError, KeyError, IndexError) as error:
        raise MonitorError(f"{url} did not answer with Prometheus metrics ({error}): check the URL") from error


def _get(url: str, timeout_seconds: float) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise MonitorError(f"metrics cannot be read from {url!r}: use an http or https URL")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_seconds) as answer:
            body: bytes = answer.read(_MAX_BYTES + 1)
            if answer.length and len(body) <= _MAX_BYTES:
                raise IncompleteRead(body, answer.length)
    except urllib.error.HTTPError as error:
        with error:
            raise MonitorError(f"{url} answered with status {error.code} instead of metrics: check the URL") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise MonitorError(f"metrics could not be read from {url}: {reason}. Check that the server runs") from error
    if len(body) > _MAX_BYTES:
        raise MonitorError(f"{url} answered with more than {_MAX_BYTES // 2**20} MiB: these are no metrics of a server")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MonitorError(f"{url} did not answer with Prometheus metrics ({error}): check the URL") from error


def summarise(samples: Iterable[Sample], *, revision: str | None = None) -> ServingStats:
    """Requests, errors and latency of prediction requests.

    Args:
        samples: What :func:`read_metrics` gave.
        revision: Count only what this revision has answered; None counts all.
    """
    buckets: dict[float, float] = defaultdict(float)
    requests = errors = 0.0
    for sample in samples:
        labels = sample.labels
        if not _is_of(labels, revision):
            continue
        if sample.name == f"{_DURATION}_count":
            requests += sample.value
        elif sample.name == _ERRORS and labels.get("kind") != _CLIENTS:
            errors += sample.value
        elif sample.name == f"{_DURATION}_bucket" and "le" in labels:
            buckets[float(labels["le"])] += sample.value
    return ServingStats(
        requests=int(requests),
        errors=int(errors),
        p50_seconds=quantile(0.5, buckets),
        p99_seconds=quantile(0.99, buckets),
    )


def quantile(q: float, buckets: Mapping[float, float]) -> float:
    """Estimate a quantile from a cumulative histogram as PromQL's ``histogram_quantile`` does for classic buckets.

    Within the bucket that holds the quantile the observations are taken to be spread evenly; the lowest bucket
    begins at 0 if its bound is positive; a quantile in the bucket ``+Inf`` is given as the highest finite bound, so
    it is then a lower bound of the truth. Source: prometheus.io/docs/prometheus/latest/querying/functions, and
    ``bucketQuantile`` in promql/quantile.go.

    Args:
        q: From 0 to 1.
        buckets: Count of observations up to each upper bound (``le``), ``inf`` included.

    Returns:
        The quantile in the unit of the bounds; 0.0 for a histogram without observations.
    """
    bounds = sorted(buckets)
    if len(bounds) < 2 or bounds[-1] != math.inf or buckets[math.inf] <= 0:
        return 0.0
    counts = _rising([buckets[bound] for bound in bounds])
    rank = q * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= rank)
    if index == len(bounds) - 1:
        return bounds[-2]
    if index == 0 and bounds[0] <= 0:
        return bounds[0]
    low, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    inside = counts[index] - below
    return low + (bounds[index] - low) * (rank - below) / inside if inside else low


def _rising(counts: Sequence[float]) -> list[float]:
    # a scrape is no snapshot: a bucket may be a request ahead of the next one
    highest, rising = 0.0, []
    for count in counts:
        highest = max(highest, count)
        rising.append(highest)
    return rising


def bin_counts(
    samples: Iterable[Sample], *, revision: str | None = None, version: str | None = None
) -> dict[str, list[int]]:
    """How many values of each feature fell in each bin of the training data.

    Args:
        samples: What :func:`read_metrics` gave.
        revision: Count only what this revision was asked; None counts all.
        version: Count only what this version of the model was asked, whose bins these are; None counts all.

    Returns:
        Counts by feature, index by index up to the last bin that the server names.
    """
    found: dict[str, dict[int, float]] = {}
    for sample in samples:
        index = sample.labels.get("bin", "")
        if sample.name != _BINS or not _is_of(sample.labels, revision) or not (index.isascii() and index.isdecimal()):
            continue
        if version is not None and sample.labels.get("version", version) != version:
            continue
        bins = found.setdefault(sample.labels.get("feature", ""), defaultdict(float))
        bins[int(index)] += sample.value
    return {name: [int(bins.get(i, 0)) for i in range(max(bins) + 1)] for name, bins in found.items()}


def _is_of(labels: Mapping[str, str], revision: str | None) -> bool:
    return revision is None or labels.get("revision") == revision
