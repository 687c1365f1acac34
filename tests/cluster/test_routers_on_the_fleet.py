"""Revisions beside each other, each an InferenceService, behind every router: KServe's real controller, fake pods.

Nginx's pods are fake as well; HTTPRoutes are judged by a stand-in for a Gateway's controller.
"""

from dataclasses import replace

import pytest
from harness.fleet import FAIL
from harness.gateway import Gateway, install_route_kinds

from longshore.errors import DeployError
from longshore.release import deploy, previous_release, remove
from longshore.spec import ModelSource, Release, Resources, Router, Service, Traffic
from longshore.targets import target_of
from longshore.targets.base import Ref, Selection
from longshore.targets.kserve import serving_runtime
from longshore.targets.routed import routed_bearer

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest="sha256:" + "0" * 64)
NEXT = replace(MODEL, uri="s3://models/iris/2")
ROUTERS = {
    "nginx": Router(kind="nginx"),
    "gateway-api": Router(kind="gateway-api", gateway="public", hosts=["iris.example.com"]),
    "istio": Router(kind="istio", hosts=["iris.example.com"], gateway="infra/public"),
}


@pytest.fixture(scope="session")
def routes(kserve, fleet):
    install_route_kinds(fleet)
    with Gateway(fleet, takes="public"):
        yield


@pytest.fixture(params=ROUTERS)
def service(request, routes, fleet, namespace) -> Service:
    fleet.apply(serving_runtime(namespace))
    resources = Resources(cpu="10m", memory="64Mi")
    return Service(name="iris", namespace=namespace, resources=resources, router=ROUTERS[request.param])


@pytest.fixture
def bring_up(runtime):
    """Deploy a model, as far as objects and health go: fake pods answer nothing."""

    def run(service, model=MODEL, **traffic):
        release = Release(service=service, model=model, traffic=Traffic(**traffic))
        target = target_of("kserve", routed=True)
        return deploy(release, target=target, runtime=runtime, timeout_seconds=60, patience_seconds=3)

    return run


def shares(runtime, service) -> dict[str, int]:
    """Percent of the requests by revision, as the router was told."""
    name, namespace = service.name, service.namespace
    if service.router.kind == "nginx":
        deployment = runtime.get(Ref("apps/v1", "Deployment", f"{name}-route", namespace))
        text = deployment["spec"]["template"]["metadata"]["annotations"]["longshore.dev/nginx.conf"]
        split = text.partition("$revision {")[2].partition("}")[0]
        parts = [part.split() for part in split.split(";") if part.strip()]
        some = {revision: int(percent.rstrip("%")) for percent, revision in parts[:-1]}
        return {**some, parts[-1][1]: 100 - sum(some.values())}
    if service.router.kind == "istio":
        (rule,) = runtime.get(Ref("networking.istio.io/v1", "VirtualService", name, namespace))["spec"]["http"]
        return {one["destination"]["host"].partition("-lane.")[0]: one["weight"] for one in rule["route"]}
    (rule,) = runtime.get(Ref("gateway.networking.k8s.io/v1", "HTTPRoute", name, namespace))["spec"]["rules"]
    return {one["name"].removesuffix("-lane"): one["weight"] for one in rule["backendRefs"]}


def running(runtime, service) -> set[str]:
    """The InferenceServices that are there."""
    found = runtime.find(Selection("serving.kserve.io/v1beta1", "InferenceService", service.namespace))
    return {manifest["metadata"]["name"] for manifest in found}


def test_a_revision_gets_a_part_then_all_and_is_taken_back(service, bring_up, runtime):
    first = bring_up(service).release.revision
    assert (shares(runtime, service), running(runtime, service)) == ({first: 100}, {first})
    second = bring_up(service, NEXT, percent=20).release.revision
    assert shares(runtime, service) == {second: 20, first: 80}
    assert running(runtime, service) == {first, second}
    bring_up(service)
    assert (shares(runtime, service), running(runtime, service)) == ({first: 100}, {first})
    bring_up(service, NEXT, percent=20)
    whole = bring_up(service, NEXT)
    assert (shares(runtime, service), running(runtime, service)) == ({second: 100}, {second})
    assert previous_release(routed_bearer("iris", service.namespace), runtime).revision == first
    remove(whole.release.service, target=target_of("kserve", routed=True), runtime=runtime)
    assert running(runtime, service) == set()
    lanes = runtime.find(Selection("v1", "Service", service.namespace))
    assert lanes == []


def test_a_revision_that_does_not_come_up_gets_nothing(service, bring_up, runtime):
    first = bring_up(service).release.revision
    before = runtime.get(routed_bearer("iris", service.namespace))["spec"]
    with pytest.raises(DeployError, match="ValueError: bad model") as failure:
        bring_up(replace(service, annotations={FAIL: "crash"}), NEXT, percent=20)
    assert failure.value.restored == first
    assert (shares(runtime, service), running(runtime, service)) == ({first: 100}, {first})
    assert runtime.get(routed_bearer("iris", service.namespace))["spec"] == before


def test_a_copy_of_the_requests_leaves_their_answers_alone(service, bring_up, runtime):
    first = bring_up(service).release.revision
    shadow = bring_up(service, NEXT, percent=0, mirror_percent=100).release.revision
    assert shares(runtime, service) == {first: 100}
    assert running(runtime, service) == {first, shadow}


@pytest.mark.parametrize("service", ["gateway-api"], indirect=True)
def test_a_gateway_that_refuses_the_route_is_told_and_nothing_is_left(service, bring_up, runtime):
    other = replace(service.router, gateway="internal")
    with pytest.raises(DeployError, match="not taken by the Gateway internal: NoMatchingParent"):
        bring_up(replace(service, router=other))
    assert running(runtime, service) == set()
