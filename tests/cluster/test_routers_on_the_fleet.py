"""Revisions beside each other behind every router: KServe's real controller, fake pods.

Nginx's pods are fake as well; HTTPRoutes are judged by a stand-in for a Gateway's controller.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from harness.fleet import FAIL
from harness.gateway import Gateway, install_route_kinds

from longshore.deployment import delete_service, deploy_model
from longshore.errors import ConfigError, DeployError
from longshore.release import deploy, previous_release, remove
from longshore.spec import ModelSource, Release, Resources, Router, Service, Traffic
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, Ref, Selection
from longshore.targets.kserve_runtimes import serving_runtime
from longshore.targets.routed import routed_bearer

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest="sha256:" + "0" * 64)
NEXT = replace(MODEL, uri="s3://models/iris/2")
NGINX = Router(kind="nginx")
GATEWAY = Router(kind="gateway-api", gateway="public", hosts=["iris.example.com"])
ISTIO = Router(kind="istio", hosts=["iris.example.com"], gateway="infra/public")
WAYS = [("kserve", NGINX), ("kserve", GATEWAY), ("kserve", ISTIO), ("rest", NGINX)]
KINDS = {"kserve": ("serving.kserve.io/v1beta1", "InferenceService"), "rest": ("apps/v1", "Deployment")}


@pytest.fixture(scope="module")
def routes(kserve, fleet):
    install_route_kinds(fleet)
    with Gateway(fleet, takes="public"):
        yield


def name_of(way) -> str:
    return f"{way[0]}-{way[1].kind}"


@pytest.fixture(params=WAYS, ids=name_of)
def way(request):
    """A platform, and the router in front of it."""
    return request.param


@pytest.fixture
def platform(way) -> str:
    return way[0]


@pytest.fixture
def service(way, routes, fleet, namespace) -> Service:
    fleet.apply(serving_runtime(namespace))
    return Service(name="iris", namespace=namespace, resources=Resources(cpu="10m", memory="64Mi"), router=way[1])


@pytest.fixture
def bring_up(runtime, platform):
    """Deploy a model, as far as objects and health go: fake pods answer nothing."""

    def run(service, model=MODEL, **traffic):
        release = Release(service=service, model=model, traffic=Traffic(**traffic))
        target = target_of(platform, routed=True)
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


@pytest.fixture
def running(runtime, service, platform):
    """The revisions that are there."""

    def names() -> set[str]:
        found = runtime.find(Selection(*KINDS[platform], service.namespace))
        return {m["metadata"]["name"] for m in found if REVISION_LABEL in m["metadata"]["labels"]}

    return names


def test_a_revision_gets_a_part_then_all_and_is_taken_back(service, bring_up, runtime, running, platform):
    first = bring_up(service).release.revision
    assert (shares(runtime, service), running()) == ({first: 100}, {first})
    second = bring_up(service, NEXT, percent=20).release.revision
    assert shares(runtime, service) == {second: 20, first: 80}
    assert running() == {first, second}
    bring_up(service)
    assert (shares(runtime, service), running()) == ({first: 100}, {first})
    bring_up(service, NEXT, percent=20)
    whole = bring_up(service, NEXT)
    assert (shares(runtime, service), running()) == ({second: 100}, {second})
    assert previous_release(routed_bearer("iris", service.namespace), runtime).revision == first
    remove(whole.release.service, target=target_of(platform, routed=True), runtime=runtime)
    assert running() == set()
    services = runtime.find(Selection("v1", "Service", service.namespace))
    # what KServe made goes with its InferenceService
    assert [m for m in services if "ownerReferences" not in m["metadata"]] == []


@pytest.mark.parametrize("way", WAYS[:3], indirect=True, ids=name_of)
def test_a_revision_that_does_not_come_up_gets_nothing(service, bring_up, runtime, running):
    first = bring_up(service).release.revision
    before = runtime.get(routed_bearer("iris", service.namespace))["spec"]
    with pytest.raises(DeployError, match="ValueError: bad model") as failure:
        bring_up(replace(service, annotations={FAIL: "crash"}), NEXT, percent=20)
    assert failure.value.restored == first
    assert (shares(runtime, service), running()) == ({first: 100}, {first})
    assert runtime.get(routed_bearer("iris", service.namespace))["spec"] == before


def test_a_copy_of_the_requests_leaves_their_answers_alone(service, bring_up, runtime, running):
    first = bring_up(service).release.revision
    shadow = bring_up(service, NEXT, percent=0, mirror_percent=100).release.revision
    assert shares(runtime, service) == {first: 100}
    assert running() == {first, shadow}


@pytest.mark.parametrize("way", [("kserve", GATEWAY)], indirect=True, ids=name_of)
def test_a_gateway_that_refuses_the_route_is_told_and_nothing_is_left(service, bring_up, running):
    other = replace(service.router, gateway="internal")
    with pytest.raises(DeployError, match="not taken by the Gateway internal: NoMatchingParent"):
        bring_up(replace(service, router=other))
    assert running() == set()


@pytest.mark.parametrize("way", [("kserve", NGINX)], indirect=True, ids=name_of)
def test_requests_are_moved_and_given_back_by_command(service, runtime, cluster):
    """A model without a card has no rows to be asked with: fake pods answer nothing."""
    where = {"platform": "kserve", "session": runtime.session}
    first = deploy_model(replace(MODEL, digest=None), service, **where).release.revision
    second = deploy_model(replace(NEXT, digest=None), service, traffic=Traffic(percent=20), **where).release.revision
    with pytest.raises(ConfigError, match="iris is served with a router"):
        deploy_model(replace(NEXT, digest=None), replace(service, router=None), **where)

    def command(*words):
        command = [sys.executable, "-m", "longshore.cli", *words, "iris", "--namespace", service.namespace]
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"serves revision {second} to 50 % of the requests" in command("promote", "--percent", "50")
    assert shares(runtime, service) == {second: 50, first: 50}
    command("promote")
    assert shares(runtime, service) == {second: 100}
    assert f"iris serves revision {first} at" in command("rollback")
    assert shares(runtime, service) == {first: 100}
    delete_service("iris", platform="kserve", namespace=service.namespace, session=runtime.session)
    assert runtime.get(routed_bearer("iris", service.namespace)) is None
