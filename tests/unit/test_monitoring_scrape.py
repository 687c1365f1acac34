import http.server
import math
import threading
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from longshore.errors import MonitorError
from longshore.monitoring import ServingStats, bin_counts, read_metrics, summarise
from longshore.monitoring.scrape import quantile

LABELS = ("model", "version", "revision", "protocol")


def parse(registry: CollectorRegistry) -> list:
    return [s for family in text_string_to_metric_families(generate_latest(registry).decode()) for s in family.samples]


def durations(*observed: tuple[str, str, str, float]) -> CollectorRegistry:
    """Requests by protocol, whose fault an error was, revision and seconds."""
    registry = CollectorRegistry()
    histogram = Histogram(
        "longshore_prediction_duration_seconds", "x", LABELS, registry=registry, buckets=(0.1, 0.2, 0.4, math.inf)
    )
    errors = Counter("longshore_prediction_errors", "x", (*LABELS, "kind"), registry=registry)
    for protocol, fault, revision, seconds in observed:
        histogram.labels("iris", "3", revision, protocol).observe(seconds)
        if fault:
            errors.labels("iris", "3", revision, protocol, fault).inc()
    return registry


# expected values: computed by hand from the definition in Prometheus' documentation
@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {0.1: 10, 0.2: 10, math.inf: 10}, 0.05),
        (0.5, {0.1: 0, 0.2: 10, math.inf: 10}, 0.15),
        (0.9, {0.1: 4, 0.2: 8, 0.4: 10, math.inf: 10}, 0.3),
        (1.0, {0.1: 4, 0.2: 8, 0.4: 10, math.inf: 10}, 0.4),
        (0.0, {0.1: 4, 0.2: 8, math.inf: 8}, 0.0),
        (0.99, {0.1: 1, 0.2: 1, math.inf: 100}, 0.2),
        (0.5, {0.1: 0, math.inf: 0}, 0.0),
        (0.5, {}, 0.0),
        (0.5, {math.inf: 3}, 0.0),
        (0.5, {0.1: 3}, 0.0),
        (0.5, {-1.0: 9, 1.0: 10, math.inf: 10}, -1.0),
        (1.0, {0.1: 5, 0.2: 4, math.inf: 5}, 0.1),
    ],
)
def test_quantiles_are_those_of_promql(q, buckets, expected):
    assert quantile(q, buckets) == pytest.approx(expected)


def test_only_predictions_of_the_revision_are_counted_over_all_protocols():
    samples = parse(
        durations(
            ("v1", "", "a", 0.05),
            ("v1", "", "a", 0.15),
            ("grpc-v2", "client", "a", 0.05),
            ("v2", "server", "a", 0.3),
            ("seldon", "model", "a", 0.05),
            ("v1", "", "b", 0.05),
        )
    )
    mine = summarise(samples, revision="a")
    assert (mine.requests, mine.errors) == (5, 2)
    assert summarise(samples).requests == 6
    # 3 of 5 up to 0.1: the median is 2.5/3 of the first bucket; 4.95 lies in the bucket up to 0.4
    assert mine.p50_seconds == pytest.approx(0.1 * 2.5 / 3)
    assert mine.p99_seconds == pytest.approx(0.2 + 0.2 * 0.95)


def test_nothing_served_is_all_zero():
    nothing = ServingStats(requests=0, errors=0, p50_seconds=0.0, p99_seconds=0.0)
    assert summarise([]) == nothing
    assert summarise(parse(durations(("v1", "", "a", 0.1))), revision="b") == nothing


def test_bins_are_counted_by_index():
    registry = CollectorRegistry()
    counter = Counter("longshore_feature_bin", "x", ("feature", "bin", "revision"), registry=registry)
    for feature, index, revision, count in [
        ("Größe (m²)", "0", "a", 3),
        ("Größe (m²)", "10", "a", 2),
        ("Größe (m²)", "0", "b", 5),
        ('a "b"\nc', "1", "a", 1),
        ("odd", "many", "a", 1),
    ]:
        counter.labels(feature, index, revision).inc(count)
    samples = parse(registry)
    assert bin_counts(samples, revision="a") == {"Größe (m²)": [3, *[0] * 9, 2], 'a "b"\nc': [0, 1]}
    assert bin_counts(samples)["Größe (m²)"][0] == 8
    assert bin_counts(samples, revision="c") == {}


@contextmanager
def answering(status: int, body: bytes, *, length: int | None = None):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_metrics_are_read_from_a_server_past_any_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(200, generate_latest(durations(("v1", "", "a", 0.1)))) as url:
        assert summarise(read_metrics(url), revision="a").requests == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"nothing here", "status 404"),
        (200, b"<html>hello</html>", "Prometheus"),
        (200, b"\xff\xfe\x00", "Prometheus"),
    ],
)
def test_an_answer_that_is_no_metrics_is_told(status, body, words):
    with answering(status, body) as url, pytest.raises(MonitorError) as raised:
        read_metrics(url)
    assert words in str(raised.value)
    assert url in str(raised.value)


def test_an_answer_cut_short_is_told():
    with answering(200, b"a 1\n", length=1000) as url, pytest.raises(MonitorError, match="could not be read"):
        read_metrics(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/metrics", "file:///etc/passwd", "127.0.0.1:80", "http:///metrics", "http://a b/metrics"]
)
def test_a_url_that_cannot_be_read_is_told(url):
    with pytest.raises(MonitorError) as raised:
        read_metrics(url, timeout_seconds=2)
    assert url in str(raised.value)
