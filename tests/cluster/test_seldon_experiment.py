"""An experiment with Seldon Core 1: shared out, observed by a real Prometheus, concluded, and written down."""

from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.prometheus import prometheus
from harness.seldon_metrics import SeldonMetrics
from harness.seldon_operator import SeldonOperator
from harness.system import Missing
from kfp.dsl import Artifact, Markdown, Metrics

from longshore import components
from longshore.deployment import deploy_model
from longshore.errors import ConfigError, DeployError, MonitorError
from longshore.experiments import compare_revisions
from longshore.registry import Registry
from longshore.spec import ModelSource, Service, Traffic
from longshore.targets.base import REVISION_LABEL
from longshore.targets.seldon import SeldonTarget

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")


@pytest.fixture(scope="module")
def observed(seldon_kinds, tmp_path_factory):
    """A Prometheus, and what it scrapes."""
    try:
        with SeldonMetrics() as exporter:
            folder = tmp_path_factory.mktemp("prometheus")
            with SeldonOperator(seldon_kinds), prometheus(folder) as server:
                server.scrape("pod", exporter.port)
                yield server, exporter
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture
def registry(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


@pytest.fixture
def experiment(observed, namespace, runtime, cluster, registry, monkeypatch):
    """Two revisions of fake pods that share the requests; names of theirs."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    service = Service(name="iris", namespace=namespace)
    where = {"platform": "seldon", "session": runtime.session, "tracking_uri": registry}
    revisions = []
    # the namespace in the data tells the revisions of different tests apart
    for number, traffic in ((1, Traffic()), (2, Traffic(percent=30))):
        model = replace(MODEL, uri=f"s3://{namespace}/{number}")
        model = Registry(registry).register(model, metrics={}, data_digest="", run=None)
        assert model.version == str(number)
        revisions.append(deploy_model(model, service, traffic=traffic, **where).release.revision)
    return namespace, *revisions


def shares(runtime, namespace) -> dict[str, int]:
    found = runtime.get(SeldonTarget().objects(Service(name="iris", namespace=namespace))[0])
    return {one["labels"][REVISION_LABEL]: one["traffic"] for one in found["spec"]["predictors"]}


def step(name, *artifacts, **given):
    return components.get(name).python_func(*artifacts, name="iris", **given)


@pytest.mark.parametrize("better", ["a", "b"])
def test_the_better_rewarded_one_is_promoted_and_both_are_written_down(
    better, observed, experiment, runtime, registry, tmp_path
):
    server, exporter = observed
    namespace, a, b = experiment
    assert shares(runtime, namespace) == {a: 70, b: 30}
    counted = f"sum(longshore_feedback_total{{revision=~'{a}|{b}'}})"

    def traffic(_):
        exporter.ask(a, 70)
        exporter.ask(b, 30)
        exporter.judge(a, *([1.0, 0.0] if better == "b" else [1.0, 1.0]))
        exporter.judge(b, *([1.0, 1.0] if better == "b" else [0.0, 1.0]))

    verdict = compare_revisions(
        "iris",
        prometheus=server.url,
        window_seconds=6,
        interval_seconds=0.2,
        namespace=namespace,
        session=runtime.session,
        on_progress=traffic,
    )
    assert (verdict.winner, verdict.decided) == (better, True), verdict
    assert (verdict.a.errors, verdict.b.errors) == (0, 0)
    # all that was scraped in the window, up to its end
    assert verdict.a.rewards + verdict.b.rewards <= server.value(counted)
    report, endpoint = Markdown(uri=str(tmp_path / "report.md")), Artifact()
    given = {"prometheus": server.url, "window_seconds": 1, "namespace": namespace, "winner": better}
    winner, revision, decided, reason = step("compare_revisions", Metrics(), report, **given)
    assert (winner, revision, decided, reason) == (better, verdict.revision, True, f"{better} was named")
    assert f"## {better} wins" in (tmp_path / "report.md").read_text()
    conclusion = {"revision": revision, "reason": verdict.reason, "namespace": namespace}
    with pytest.raises(DeployError, match="this could not be recorded"):
        step("conclude_experiment", endpoint, **conclusion, registry=f"sqlite:///{tmp_path}/none/here.db")
    # as a step that is retried
    for _ in range(2):
        step("conclude_experiment", endpoint, **conclusion, registry=registry)
    assert shares(runtime, namespace) == {revision: 100}
    second, first = Registry(registry).versions("iris")
    won, lost = (first, second) if better == "a" else (second, first)
    assert won.aliases == ("champion",)
    states = {one.version: one.deployments["iris"] for one in (won, lost)}
    assert states[won.version].state == "serving"
    assert states[won.version].revision == revision
    assert states[lost.version].state == ("rolled-back" if better == "a" else "replaced")
    assert states[lost.version].revision == (b if better == "a" else a)
    assert {state.reason for state in states.values()} == {verdict.reason}
    with pytest.raises(ConfigError, match="are not shared by two revisions"):
        compare_revisions("iris", prometheus=server.url, namespace=namespace, session=runtime.session)


def test_one_that_fails_ends_the_wait(observed, experiment, runtime):
    server, exporter = observed
    namespace, a, b = experiment

    def traffic(_):
        exporter.ask(a, 100)
        exporter.ask(b, 80)
        exporter.ask(b, 20, code="503")

    verdict = compare_revisions(
        "iris",
        prometheus=server.url,
        window_seconds=3600,
        interval_seconds=0.2,
        namespace=namespace,
        session=runtime.session,
        on_progress=traffic,
    )
    assert (verdict.winner, verdict.decided) == ("a", True)
    assert "b failed 20 % of its requests" in verdict.reason


def test_without_data_nothing_is_decided_and_without_prometheus_it_is_told_at_once(observed, experiment, runtime):
    server, _ = observed
    namespace, a, _ = experiment
    where = {"namespace": namespace, "session": runtime.session}
    verdict = compare_revisions("iris", prometheus=server.url, window_seconds=1, **where)
    assert (verdict.revision, verdict.decided) == (a, False)
    assert "a answered 0 requests, 100 are needed" in verdict.reason
    with pytest.raises(MonitorError, match="could not be asked"):
        compare_revisions("iris", prometheus="http://127.0.0.1:9", **where)


def test_a_winner_that_does_not_run_is_refused(experiment, runtime):
    namespace, a, b = experiment
    with pytest.raises(ConfigError, match=f"there is {a}, {b}"):
        step("conclude_experiment", Artifact(), revision="iris-0", reason="", namespace=namespace)
    eventually(lambda: shares(runtime, namespace) == {a: 70, b: 30}, "the shares as they were")
