"""What Seldon's executor and longshore's server count of an experiment, asked of a real Prometheus.

The executor comes as an image only: its counters are exported here under its names and labels.
"""

import pytest
from harness.cluster import eventually
from harness.prometheus import prometheus
from harness.seldon_metrics import SeldonMetrics
from harness.system import Missing, free_port

from longshore.errors import InvalidValue, MonitorError
from longshore.monitoring import by_label, instant
from longshore.targets.seldon_signals import REVISION_OF_SERIES, experiment_queries

A, B, OTHER = "iris-0a0a0a0a", "iris-1b1b1b1b", "iris-2c2c2c2c"
BOTH = (A, B)


@pytest.fixture(scope="module")
def exporter():
    with SeldonMetrics() as exporter:
        yield exporter


@pytest.fixture(scope="module")
def server(exporter, tmp_path_factory):
    try:
        with prometheus(tmp_path_factory.mktemp("prometheus")) as server:
            server.scrape("pod-1", exporter.port)
            yield server
    except Missing as error:
        pytest.skip(str(error))


def look(server, window=3600, **options):
    queries = experiment_queries("iris", BOTH, window, **options)
    return {what: by_label(instant(server.url, query), REVISION_OF_SERIES) for what, query in queries.items()}


def test_what_is_counted_of_each_revision(server, exporter):
    assert look(server) == {"requests": {}, "errors": {}, "rewards": {}, "reward_sum": {}}
    exporter.ask(A, 40)
    exporter.ask(A, 3, code="500")
    exporter.ask(A, 2, code="400")
    exporter.ask(B, 10, service="/seldon.protos.Seldon/Predict", code="OK")
    exporter.ask(B, 5, service="/inference.GRPCInferenceService/ModelInfer", code="Unavailable")
    exporter.ask(B, 1, service="/inference.GRPCInferenceService/ModelInfer", code="InvalidArgument")
    # none of this is of these two, or a prediction
    exporter.ask(OTHER, 7)
    exporter.ask(A, 7, name="iris-2")
    exporter.ask(A, 7, service="status")
    exporter.judge(A, 1.0, 1.0, 0.0, -0.5)
    server.wait("seldon_api_executor_server_requests_seconds_count", 82)
    server.wait("longshore_feedback_total", 4)
    assert look(server) == {
        "requests": {A: 45, B: 16},
        "errors": {A: 3, B: 5},
        "rewards": {A: 4},
        "reward_sum": {A: 1.5},
    }
    # of a server that is not longshore's, rewards are Seldon's and their number is the executor's
    exporter.ask(B, 8, service="feedback")
    exporter.theirs.labels("iris", "m", "1b1b1b1b", B).inc(3)
    server.wait("seldon_api_model_feedback_reward_total", 3)
    found = look(server)
    assert (found["rewards"], found["reward_sum"]) == ({A: 4, B: 8}, {A: 1.5, B: 3})
    assert look(server, matchers={"instance": "pod-1"}) == found
    assert look(server, matchers={"instance": "pod-2"})["requests"] == {}


def test_what_was_before_the_window_does_not_count(server, exporter):
    exporter.ask(A, 5)
    counted = "seldon_api_executor_server_requests_seconds_count{deployment_name='iris',service='predictions'}"
    before = server.value(counted)
    server.wait(f"{counted} offset 2s", before + 5)
    assert look(server, window=1)["requests"][A] == 0
    exporter.ask(A, 4)
    eventually(lambda: look(server, window=2)["requests"][A] == 4, "those of the last two seconds", 30)


def test_what_prometheus_refuses_is_told_in_its_words(server, exporter):
    with pytest.raises(MonitorError, match="refuses the query sum[(]: .*parse error"):
        instant(server.url, "sum(")
    with pytest.raises(MonitorError, match="gives a scalar for 1: a vector is wanted"):
        instant(server.url, "1")
    with pytest.raises(MonitorError, match="no JSON: is a Prometheus there"):
        instant(f"http://127.0.0.1:{exporter.port}", "up")
    with pytest.raises(MonitorError, match="could not be asked .* Check that it runs"):
        instant(f"http://127.0.0.1:{free_port()}", "up")
    with pytest.raises(MonitorError, match="use an http or https URL"):
        instant("prometheus:9090", "up")


def test_a_label_that_is_none_is_refused():
    with pytest.raises(InvalidValue, match="use the name of a label"):
        experiment_queries("iris", BOTH, 60, matchers={'a="b"} or up{x': "y"})
    query = experiment_queries("iris", BOTH, 60, matchers={"namespace": 'a"b\\c'})["requests"]
    assert r'namespace="a\"b\\c"' in query
