"""How many pods the platform ``rest`` has, and whose their number is: real controllers, fake pods, chosen metrics.

What the number was in between is read from the API server's own history.
"""

import json
from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.fleet import FAIL, READY_DELAY
from harness.metrics import Metrics
from kfp.dsl import Artifact, Model
from kubernetes.client.rest import ApiException

from longshore import components
from longshore.cluster import ClusterRuntime, Session
from longshore.cluster.replicas import KEEPER, owners
from longshore.errors import ClusterError, DeployError, InvalidValue
from longshore.rbac import deployer_objects
from longshore.release import deploy, previous_release, remove
from longshore.spec import ModelSource, Release, Resources, Router, Scaling, Service
from longshore.targets import target_of
from longshore.targets.base import MANAGED_BY, Ref, Selection
from longshore.targets.rest import RestTarget

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")
NEXT = replace(MODEL, uri="s3://models/iris/2")
FIXED = Scaling(min_replicas=3)
SCALED = Scaling(min_replicas=2, max_replicas=6, target=50)
AUTOSCALER = ("autoscaling/v2", "HorizontalPodAutoscaler")
BUDGET = ("policy/v1", "PodDisruptionBudget")
GUARDS = (AUTOSCALER, BUDGET, ("networking.k8s.io/v1", "NetworkPolicy"))


@pytest.fixture(scope="module")
def metrics(plane, fleet):
    with Metrics(plane, fleet) as metrics:
        yield metrics


@pytest.fixture
def service(fleet, namespace) -> Service:
    return Service(name="iris", namespace=namespace, resources=Resources(cpu="100m", memory="64Mi"))


@pytest.fixture
def bring_up(runtime, service):
    def run(scaling, model=MODEL, *, target=None, using=None, **options):
        release = Release(service=replace(service, scaling=scaling), model=model)
        options = {"timeout_seconds": 60, "patience_seconds": 3, **options}
        return deploy(release, target=target or RestTarget(), runtime=using or runtime, **options)

    return run


@pytest.fixture
def web(service) -> Ref:
    return Ref("apps/v1", "Deployment", "iris", service.namespace)


@pytest.fixture
def replicas(runtime, web):
    """The number that is asked for now."""
    return lambda: runtime.get(web)["spec"]["replicas"]


@pytest.fixture
def history(fleet, runtime, web):
    """The numbers that were asked for since a version of the Deployment."""

    def numbers(version: str) -> list[int]:
        pool, headers = fleet.pool()
        fields = {
            "watch": "true",
            "resourceVersion": version,
            "fieldSelector": "metadata.name=iris",
            "timeoutSeconds": "1",
        }
        path = f"{fleet.url}/apis/apps/v1/namespaces/{web.namespace}/deployments"
        lines = pool.request("GET", path, fields=fields, headers=headers).data.splitlines()
        events = [json.loads(line) for line in lines]
        assert {event["type"] for event in events} == {"MODIFIED"}
        return [event["object"]["spec"]["replicas"] for event in events]

    return numbers


@pytest.fixture
def version(runtime, web):
    return lambda: runtime.get(web)["metadata"]["resourceVersion"]


def there(runtime, namespace, kinds=GUARDS) -> set[str]:
    return {kind for api, kind in kinds if runtime.find(Selection(api, kind, namespace))}


class Annotated(RestTarget):
    """Pods with an annotation, where they run a certain model."""

    def __init__(self, uri: str, **annotations: str) -> None:
        self._uri, self._annotations = uri, annotations

    def render(self, release: Release) -> list:
        deployment, *others = super().render(release)
        if release.model.uri == self._uri:
            deployment["spec"]["template"]["metadata"]["annotations"] = self._annotations
        return [deployment, *others]


def test_the_number_is_handed_over_and_taken_back_and_never_falls(bring_up, runtime, web, replicas, history, version):
    first = bring_up(FIXED).release
    start = version()
    bring_up(SCALED, NEXT)
    assert replicas() == 3
    assert there(runtime, web.namespace) == {kind for _, kind in GUARDS}
    # without metrics the controller has nothing to change
    bring_up(SCALED, replace(MODEL, uri="s3://models/iris/3"))
    bring_up(SCALED)
    assert replicas() == 3
    bring_up(FIXED, NEXT)
    assert there(runtime, web.namespace) == {kind for _, kind in GUARDS[1:]}
    back = previous_release(web, runtime)
    deploy(back, target=RestTarget(), runtime=runtime)
    assert there(runtime, web.namespace) == {kind for _, kind in GUARDS}
    bring_up(FIXED)
    assert min(history(start)) == 3
    bring_up(Scaling(min_replicas=5), first.model)
    bring_up(Scaling(min_replicas=4), first.model)
    assert replicas() == 4


def test_a_first_release_starts_with_the_least(bring_up, runtime, web, replicas):
    bring_up(Scaling(min_replicas=4, max_replicas=6))
    assert replicas() == 4
    # an autoscaler looks for the first time after fifteen seconds, unless it is told otherwise as here
    assert owners(runtime.get(web)) == {KEEPER}


def test_the_real_autoscaler_raises_the_number_and_releases_leave_it_alone(
    bring_up, metrics, runtime, web, replicas, history, version, service
):
    bring_up(SCALED)
    metrics.usage[service.namespace] = {"cpu": "90m", "memory": "10Mi"}
    eventually(lambda: replicas() == 6, "the autoscaler raises the number", 60)
    start = version()
    bring_up(SCALED, NEXT)
    bring_up(Scaling(min_replicas=3, max_replicas=6, target=50), NEXT)
    assert set(history(start)) == {6}
    start = version()
    bring_up(FIXED)
    assert there(runtime, web.namespace) == {"PodDisruptionBudget", "NetworkPolicy"}
    # all that served until the new revision had passed, then what was asked for
    numbers = history(start)
    assert sorted(numbers, reverse=True) == numbers
    assert set(numbers) == {6, 3}
    deploy(previous_release(web, runtime), target=RestTarget(), runtime=runtime)
    eventually(lambda: replicas() == 6, "the autoscaler raises the number again", 60)


@pytest.mark.parametrize("force", [False, True], ids=["asks", "forces"])
def test_a_failed_release_leaves_the_number_and_the_autoscaler(
    bring_up, metrics, runtime, replicas, history, version, service, force
):
    bring_up(SCALED)
    metrics.usage[service.namespace] = {"cpu": "90m", "memory": "10Mi"}
    eventually(lambda: replicas() == 6, "the autoscaler raises the number", 60)
    start = version()
    with pytest.raises(DeployError, match="bad model"):
        bring_up(
            Scaling(min_replicas=1),
            NEXT,
            target=Annotated(NEXT.uri, **{FAIL: "crash"}),
            using=ClusterRuntime(runtime.session, force=force),
        )
    assert set(history(start)) == {6}
    assert there(runtime, service.namespace) == {kind for _, kind in GUARDS}


def test_an_autoscaler_that_came_with_what_failed_goes_with_it(bring_up, runtime, replicas, history, version, service):
    bring_up(Scaling(min_replicas=1))
    start = version()
    with pytest.raises(DeployError, match="bad model"):
        bring_up(Scaling(min_replicas=3, max_replicas=5), NEXT, target=Annotated(NEXT.uri, **{FAIL: "crash"}))
    assert there(runtime, service.namespace) == {"NetworkPolicy"}
    assert replicas() == 1
    assert max(history(start)) == 3
    with pytest.raises(DeployError, match="nothing was left behind"):
        missing = replace(service, name="other", scaling=SCALED)
        deploy(
            Release(service=missing, model=NEXT),
            target=Annotated(NEXT.uri, **{FAIL: "crash"}),
            runtime=runtime,
            patience_seconds=3,
        )
    assert all(runtime.get(ref) is None for ref in RestTarget().objects(missing))


def test_a_quota_that_forbids_the_least_is_named(bring_up, fleet, service):
    metadata = {"name": "few", "namespace": service.namespace}
    fleet.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "2"}}})
    with pytest.raises(DeployError, match=r"its pods are refused: .*exceeded quota: few"):
        bring_up(Scaling(min_replicas=3, max_replicas=6))


def test_others_objects_of_the_same_name_stay(bring_up, runtime, fleet, service, web, replicas):
    bring_up(FIXED)
    metadata = {"name": "iris", "namespace": service.namespace}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "iris"}
    theirs = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": {"scaleTargetRef": target, "minReplicas": 4, "maxReplicas": 6},
    }
    fleet.apply(theirs)
    eventually(lambda: replicas() == 4, "their autoscaler raises the number", 60)
    with pytest.raises(DeployError, match=r".spec.replicas belongs to 'kube-controller-manager'"):
        bring_up(FIXED, NEXT)
    assert replicas() == 4
    remove(service, target=RestTarget(), runtime=runtime)
    assert runtime.get(web) is None
    assert runtime.get(Ref(*AUTOSCALER, "iris", service.namespace))["metadata"].get("labels") is None


def test_a_service_is_deleted_whole(bring_up, runtime, service):
    bring_up(SCALED)
    assert all(runtime.get(ref) is not None for ref in RestTarget().objects(service))
    remove(service, target=RestTarget(), runtime=runtime)
    assert all(runtime.get(ref) is None for ref in RestTarget().objects(service))
    remove(service, target=RestTarget(), runtime=runtime)


def evict(fleet, pod) -> int:
    """The API server's answer."""
    metadata = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/eviction"
    try:
        fleet.request("POST", path, {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})
    except ApiException as error:
        return error.status
    return 201


@pytest.fixture
def pods(fleet, service):
    def ready() -> list:
        found = fleet.get(f"/api/v1/namespaces/{service.namespace}/pods")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    return ready


@pytest.fixture
def allowed(fleet, service):
    """How many pods may be evicted now, once the budget's controller has seen all."""
    path = f"/apis/policy/v1/namespaces/{service.namespace}/poddisruptionbudgets/iris"
    return lambda: (fleet.get(path).get("status") or {}).get("disruptionsAllowed")


def test_pods_are_evicted_one_at_a_time(bring_up, fleet, pods, allowed):
    slow = Annotated(MODEL.uri, **{READY_DELAY: "5s"})
    bring_up(Scaling(min_replicas=3), target=slow)
    eventually(lambda: allowed() == 1, "the budget")
    one, two, _ = pods()
    assert evict(fleet, one) == 201
    assert evict(fleet, two) == 429
    eventually(lambda: allowed() == 1, "the pod that takes its place")
    assert evict(fleet, two) == 201


def test_a_single_pod_does_not_hold_up_a_drain(bring_up, fleet, pods, allowed):
    bring_up(Scaling(min_replicas=1, max_replicas=2))
    eventually(lambda: allowed() == 1, "the budget")
    (only,) = pods()
    assert evict(fleet, only) == 201


def test_the_least_role_is_enough_and_its_lack_is_named(bring_up, fleet, service):
    account, role, binding = deployer_objects(service.namespace, platforms=["rest"])
    old = [rule for rule in role["rules"] if rule["apiGroups"] != ["autoscaling"]]
    for manifest in (account, {**role, "rules": old}, binding):
        fleet.apply(manifest)
    session = Session.from_kubeconfig(fleet.kubeconfig_of(service.namespace, account["metadata"]["name"]))
    poor = ClusterRuntime(session)

    def refused(verb: str) -> bool:
        with pytest.raises((ClusterError, DeployError)) as failure:
            bring_up(SCALED, using=poor)
        return f"may not {verb} horizontalpodautoscalers.autoscaling in namespace {service.namespace}" in str(
            failure.value
        )

    eventually(lambda: refused("get"), "the role takes effect", 10)
    fleet.apply(role)
    path = f"/apis/autoscaling/v2/namespaces/{service.namespace}/horizontalpodautoscalers"
    eventually(lambda: session.request("GET", path, "the list") is not None, "the role takes effect", 10)
    bring_up(SCALED, using=poor)
    bring_up(FIXED, NEXT, using=poor)
    bring_up(SCALED, using=poor)
    remove(service, target=RestTarget(), runtime=poor)
    session.close()


def test_the_step_hands_the_scaling_on(runtime, fleet, service, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(fleet.kubeconfig))
    model = Model(name="iris", uri=MODEL.uri, metadata={"format": "sklearn", "name": "iris"})
    given = {"name": "iris", "namespace": service.namespace, "platform": "rest", "cpu": "100m", "memory": "64Mi"}
    step = components.get("deploy_model").python_func
    with pytest.raises(InvalidValue, match="Knative") as refused:
        step(model, Artifact(), **given, max_replicas=3, scale_metric="rps")
    assert refused.value.field == "Scaling.metric"
    step(model, Artifact(), **given, replicas=2, max_replicas=3, scale_metric="memory", scale_target=70)
    spec = runtime.get(Ref(*AUTOSCALER, "iris", service.namespace))["spec"]
    target = {"type": "Utilization", "averageUtilization": 70}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 3)
    assert spec["metrics"] == [{"type": "Resource", "resource": {"name": "memory", "target": target}}]


def test_each_revision_behind_a_router_has_guards_of_its_own(bring_up, runtime, service):
    routed = target_of("rest", routed=True)
    service = replace(service, router=Router(kind="nginx"))

    def run(scaling, model=MODEL):
        release = Release(service=replace(service, scaling=scaling), model=model)
        return deploy(release, target=routed, runtime=runtime, timeout_seconds=60).release.revision

    def names(kind) -> set[str]:
        found = runtime.find(Selection(*kind, service.namespace))
        return {m["metadata"]["name"] for m in found if m["metadata"]["labels"].items() >= MANAGED_BY.items()}

    first = run(SCALED)
    assert [names(kind) for kind in GUARDS] == [{first}] * 3
    # the same revision, with other wishes
    assert run(Scaling(min_replicas=1)) == first
    assert [names(kind) for kind in GUARDS] == [set(), set(), {first}]
    assert run(SCALED) == first
    second = run(SCALED, NEXT)
    assert [names(kind) for kind in GUARDS] == [{second}] * 3
    remove(service, target=routed, runtime=runtime)
    assert [names(kind) for kind in GUARDS] == [set()] * 3
