"""KServe's Knative mode: its real controller, and a stand-in for Knative's with fake pods."""

from dataclasses import replace

import pytest
from harness.fleet import FAIL, READY_DELAY
from harness.knative import Knative

from longshore.errors import DeployError
from longshore.release import deploy
from longshore.spec import KServeOptions, ModelSource, Release, Resources, Scaling, Service, Traffic
from longshore.targets.base import Ref
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_runtimes import serving_runtime

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest="sha256:" + "0" * 64)
NEXT = replace(MODEL, uri="s3://models/iris/2")


@pytest.fixture
def knative(kserve, fleet):
    with Knative(fleet) as knative:
        yield knative


@pytest.fixture
def service(knative, fleet, namespace) -> Service:
    fleet.apply(serving_runtime(namespace))
    return Service(
        name="iris",
        namespace=namespace,
        resources=Resources(cpu="10m", memory="64Mi"),
        kserve=KServeOptions(mode="Knative"),
    )


@pytest.fixture
def bring_up(runtime):
    def run(service, model=MODEL, percent=100, **options):
        options = {"timeout_seconds": 60, "patience_seconds": 3, **options}
        release = Release(service=service, model=model, traffic=Traffic(percent=percent))
        return deploy(release, target=KServeTarget(), runtime=runtime, **options)

    return run


def entries(runtime, service):
    ref = Ref("serving.knative.dev/v1", "Service", "iris-predictor", service.namespace)
    return runtime.get(ref)["status"]["traffic"]


def traffic(runtime, service) -> dict[str, int]:
    return {entry["revisionName"]: entry["percent"] for entry in entries(runtime, service)}


def tags(runtime, service) -> dict[str, str]:
    return {entry["tag"]: entry["revisionName"] for entry in entries(runtime, service)}


def test_a_canary_is_promoted_without_a_new_revision(service, bring_up, runtime, knative):
    bring_up(service)
    assert traffic(runtime, service) == {"iris-predictor-00001": 100}
    canary = bring_up(service, NEXT, 20)
    # it came up without traffic, where it has an address by its tag
    assert {"iris-predictor-00002": 0, "iris-predictor-00001": 100} in knative.history
    host = f"iris-predictor.{service.namespace}.svc.cluster.local"
    assert canary.endpoint.revision_url == f"http://latest-{host}"
    assert tags(runtime, service) == {"latest": "iris-predictor-00002", "prev": "iris-predictor-00001"}
    assert traffic(runtime, service) == {"iris-predictor-00002": 20, "iris-predictor-00001": 80}
    whole = bring_up(service, NEXT)
    assert whole.release.revision == canary.release.revision
    assert traffic(runtime, service) == {"iris-predictor-00002": 100}


def test_grpc_is_the_one_port(service, bring_up, runtime):
    options = KServeOptions(mode="Knative", protocol="grpc-v2")
    bring_up(replace(service, kserve=options))
    made = runtime.get(Ref("serving.knative.dev/v1", "Service", "iris-predictor", service.namespace))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"containerPort": 9000, "name": "h2c", "protocol": "TCP"}]
    assert container["readinessProbe"]["httpGet"]["port"] == 8080


def test_a_canary_is_taken_back(service, bring_up, runtime, knative):
    first = bring_up(service)
    bring_up(service, NEXT, 20)
    knative.history.clear()
    back = bring_up(service)
    assert back.release == first.release
    (revision,) = traffic(runtime, service)
    found = runtime.get(Ref("serving.knative.dev/v1", "Revision", revision, service.namespace))
    assert found["metadata"]["labels"]["longshore.dev/revision"] == first.release.revision
    # at once, while what served before starts anew
    assert knative.history[0] == {"iris-predictor-00002": 0, "iris-predictor-00001": 100}


def test_a_revision_that_never_gets_ready_gets_no_traffic(service, bring_up, runtime):
    first = bring_up(service)
    broken = replace(service, annotations={FAIL: "crash"})
    with pytest.raises(DeployError, match="ValueError: bad model") as failure:
        bring_up(broken, NEXT)
    assert failure.value.restored == first.release.revision
    (revision,) = traffic(runtime, service)
    found = runtime.get(Ref("serving.knative.dev/v1", "Revision", revision, service.namespace))
    assert found["metadata"]["labels"]["longshore.dev/revision"] == first.release.revision


def test_a_first_revision_that_fails_leaves_nothing(service, bring_up, runtime):
    with pytest.raises(DeployError, match="Nothing served before, and nothing was left behind"):
        bring_up(replace(service, annotations={FAIL: "image"}))
    assert runtime.get(KServeTarget().objects(service)[0]) is None


def test_ready_of_the_revision_before_is_not_believed(service, bring_up, runtime):
    bring_up(service)
    told = []
    bring_up(replace(service, annotations={READY_DELAY: "3s"}), NEXT, on_progress=told.append)
    assert any("iris-predictor-00002 is not ready yet" in line for line in told)
    assert traffic(runtime, service) == {"iris-predictor-00002": 100}


def test_a_change_of_scale_alone_is_awaited_too(service, bring_up, runtime):
    bring_up(service)
    scaled = replace(service, scaling=Scaling(min_replicas=2, max_replicas=4, metric="rps", target=50))
    bring_up(scaled)
    # to Knative that is a new revision, too
    assert traffic(runtime, service) == {"iris-predictor-00002": 100}
