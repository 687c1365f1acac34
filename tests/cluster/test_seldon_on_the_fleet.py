"""The platform ``seldon`` and the engine: SeldonDeployments on a real API server with Seldon's CRD, fake pods.

What carries them out is a stand-in for Seldon's operator, in its order: see harness.seldon_operator.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from harness.cluster import eventually
from harness.fleet import FAIL, READY_DELAY
from harness.gateway import install_route_kinds
from harness.seldon_operator import SeldonOperator
from kfp.dsl import Artifact

from longshore import components
from longshore.artifacts import read_endpoint, write_model
from longshore.cluster import ClusterRuntime, Session
from longshore.deployment import delete_service, deploy_model
from longshore.errors import ClusterError, ConfigError, DeployError, InvalidValue
from longshore.rbac import deployer_objects
from longshore.release import current_release, deploy, previous_release
from longshore.spec import (
    KedaTrigger,
    ModelSource,
    PayloadLogger,
    Release,
    Resources,
    Scaling,
    SeldonExplainer,
    SeldonGateway,
    SeldonNode,
    SeldonOptions,
    Service,
    Toleration,
    Traffic,
)
from longshore.targets.base import REVISION_LABEL, Ref, Selection
from longshore.targets.seldon import SeldonTarget

MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest="sha256:" + "0" * 64)
NEXT = replace(MODEL, uri="s3://models/iris/2")
LATER = replace(MODEL, uri="s3://models/iris/3")
TARGET = SeldonTarget()


@pytest.fixture
def operator(seldon_kinds):
    with SeldonOperator(seldon_kinds) as operator:
        yield operator


@pytest.fixture
def service(seldon_kinds, namespace) -> Service:
    return Service(name="iris", namespace=namespace, resources=Resources(cpu="10m", memory="64Mi"))


@pytest.fixture
def bring_up(runtime):
    """Deploy a model, as far as objects and health go: fake pods answer nothing."""

    def run(service, model=MODEL, traffic=None, **options):
        options = {"timeout_seconds": 60, "patience_seconds": 3, **options}
        release = Release(service=service, model=model, traffic=traffic or Traffic())
        return deploy(release, target=TARGET, runtime=runtime, **options)

    return run


@pytest.fixture(scope="session")
def istio(seldon_kinds):
    """The kinds of Istio, which carries nothing out."""
    install_route_kinds(seldon_kinds)


def ref_of(service) -> Ref:
    return TARGET.objects(service)[0]


def shares(runtime, service) -> dict[str, int]:
    predictors = runtime.get(ref_of(service))["spec"]["predictors"]
    return {one["labels"][REVISION_LABEL]: one["traffic"] for one in predictors if not one.get("shadow")}


def deployments(cluster, service):
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments"
    query = {"labelSelector": f"seldon-deployment-id={service.name}"}
    return {
        one["metadata"]["labels"][REVISION_LABEL]: one for one in cluster.request("GET", path, query=query)["items"]
    }


def pods(cluster, service, revision):
    query = {"labelSelector": f"{REVISION_LABEL}={revision}"}
    found = cluster.request("GET", f"/api/v1/namespaces/{service.namespace}/pods", query=query)["items"]
    return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


def test_a_model_is_deployed_replaced_and_found_again(operator, fleet, service, bring_up, runtime):
    first = bring_up(service)
    assert first.endpoint.url == f"http://iris.{service.namespace}.svc.cluster.local"
    assert runtime.get(ref_of(service))["status"]["state"] == "Available"
    second = bring_up(service, NEXT)
    assert second.previous == first.release
    assert shares(runtime, service) == {second.release.revision: 100}
    assert current_release(ref_of(service), runtime) == second.release
    assert previous_release(ref_of(service), runtime) == first.release
    address = runtime.get(Ref("v1", "Service", "iris", service.namespace))
    assert address["spec"]["selector"] == {"seldon-app": second.release.revision}
    eventually(lambda: set(deployments(fleet, service)) == {second.release.revision}, "the end of the one before")


def test_a_part_then_all_without_touching_what_serves(operator, fleet, service, bring_up, runtime):
    first = bring_up(service).release.revision
    running = pods(fleet, service, first)
    second = bring_up(service, NEXT, Traffic(percent=20)).release.revision
    assert shares(runtime, service) == {first: 80, second: 20}
    assert pods(fleet, service, first) == running
    new = pods(fleet, service, second)
    third = bring_up(service, LATER, Traffic(percent=10, rest={first: 70, second: 20})).release.revision
    assert shares(runtime, service) == {first: 70, second: 20, third: 10}
    bring_up(service, NEXT)
    assert shares(runtime, service) == {second: 100}
    eventually(lambda: set(deployments(fleet, service)) == {second}, "the end of the others")
    assert pods(fleet, service, second) == new


def test_a_part_is_taken_back_and_nothing_starts(operator, fleet, service, bring_up, runtime):
    first = bring_up(service).release
    running = pods(fleet, service, first.revision)
    bring_up(service, NEXT, Traffic(percent=20))
    back = bring_up(service)
    assert back.release == first
    assert shares(runtime, service) == {first.revision: 100}
    assert pods(fleet, service, first.revision) == running


def test_a_copy_of_the_requests_then_a_part(operator, fleet, service, bring_up, runtime):
    first = bring_up(service).release.revision
    shadow = bring_up(service, NEXT, Traffic(percent=0, mirror_percent=25)).release.revision
    predictors = runtime.get(ref_of(service))["spec"]["predictors"]
    assert [(one["traffic"], one.get("shadow")) for one in predictors] == [(100, None), (25, True)]
    assert deployments(fleet, service)[shadow]["spec"]["template"]["metadata"]["labels"]["seldon.io/shadow"] == "true"
    bring_up(service, NEXT, Traffic(percent=50))
    assert shares(runtime, service) == {first: 50, shadow: 50}
    assert "seldon.io/shadow" not in deployments(fleet, service)[shadow]["spec"]["template"]["metadata"]["labels"]


def test_available_is_not_believed_before_the_new_pods_are(operator, fleet, service, bring_up, runtime):
    bring_up(service)
    slow = replace(service, annotations={READY_DELAY: "3s"})
    started = time.monotonic()
    # of the same revision: only its annotations have changed, and Seldon goes on to call it Available
    bring_up(slow)
    assert time.monotonic() - started >= 3
    assert runtime.get(ref_of(service))["status"]["state"] == "Available"


def test_slow_pods_are_awaited(operator, service, bring_up):
    bring_up(service)
    started, told = time.monotonic(), []
    bring_up(replace(service, annotations={READY_DELAY: "3s"}), NEXT, on_progress=told.append)
    assert time.monotonic() - started >= 3
    assert any("0 of 1 pods are ready" in line for line in told)


def test_failed_that_is_over_in_a_moment_is_no_failure(operator, service, bring_up):
    operator.errors["iris"] = ["Operation cannot be fulfilled on services: the object has been modified"] * 3
    bring_up(service)
    operator.errors["iris"] = ["the server was unable to return a response in the time allotted"] * 3
    bring_up(service, NEXT)
    assert operator.errors["iris"] == []


def test_failed_that_stays_is_told_in_seldons_words(operator, fleet, service, bring_up, runtime):
    first = bring_up(service).release
    operator.broken["iris"] = 'configmaps "seldon-config" not found'

    def mend(line: str) -> None:
        if "restoring" in line:
            del operator.broken["iris"]

    with pytest.raises(DeployError, match='Seldon cannot carry the SeldonDeployment out: configmaps "seldon') as told:
        bring_up(service, NEXT, on_progress=mend)
    assert told.value.restored == first.revision
    assert shares(runtime, service) == {first.revision: 100}


UPDATES = {
    "an image that is nowhere": ({"annotations": {FAIL: "image"}}, "cannot be pulled"),
    "a corrupt model": ({"annotations": {FAIL: "crash"}}, "crashes again and again"),
    "a missing object": ({"annotations": {FAIL: "init"}}, "crashes again and again"),
    "a missing key of a secret": ({"annotations": {FAIL: "config"}}, "CreateContainerConfigError"),
    "a missing service account": ({"service_account": "nobody"}, 'serviceaccount "nobody" not found'),
}


@pytest.mark.parametrize("what", UPDATES)
def test_what_cannot_serve_is_told_in_seconds(what, operator, fleet, service, bring_up, runtime):
    changes, words = UPDATES[what]
    first = bring_up(service).release.revision
    running = pods(fleet, service, first)
    with pytest.raises(DeployError) as failure:
        bring_up(replace(service, **changes), NEXT)
    assert "not ready after" not in str(failure.value)
    assert words in str(failure.value)
    assert f"Revision {first} serves as before" in str(failure.value)
    assert pods(fleet, service, first) == running
    assert shares(runtime, service) == {first: 100}


def test_of_a_first_one_that_cannot_serve_nothing_is_left(operator, service, bring_up, runtime):
    with pytest.raises(DeployError, match="Nothing served before, and nothing was left behind"):
        bring_up(replace(service, annotations={FAIL: "crash"}, scaling=Scaling(min_replicas=2)))
    assert [runtime.get(ref) for ref in TARGET.objects(service)] == [None] * 3


def test_an_update_that_never_comes_up_ends_with_what_was_last_known(operator, fleet, service, bring_up, runtime):
    first = bring_up(service).release.revision
    running = pods(fleet, service, first)
    with pytest.raises(DeployError, match="not ready after 2 s: 0 of 1 pods are ready") as failure:
        bring_up(replace(service, annotations={FAIL: "unready"}), NEXT, timeout_seconds=2)
    assert failure.value.restored == first
    assert pods(fleet, service, first) == running


def test_an_operator_that_is_away_is_told(seldon_kinds, service, bring_up, runtime):
    with pytest.raises(DeployError, match="Seldon has not made the Deployment of iris-.* yet"):
        bring_up(service, timeout_seconds=1)
    assert runtime.get(ref_of(service)) is None


def test_what_replaces_a_broken_one_is_not_held_up_by_it(operator, fleet, service, bring_up, runtime):
    broken = bring_up(service).release
    for deployment in deployments(fleet, service).values():
        # its pods end one after the other, as when their node has gone
        template = {"metadata": {"annotations": {FAIL: "unready"}}}
        change = {"spec": {"template": template, "strategy": {"type": "Recreate", "rollingUpdate": None}}}
        fleet.request("PATCH", fleet.path(deployment_ref(deployment)), change, kind="application/merge-patch+json")
    eventually(lambda: runtime.get(ref_of(service))["status"]["state"] == "Creating", "Seldon to see it")
    part = Traffic(percent=20)
    with pytest.raises(DeployError, match=f"once all revisions are available, and {broken.revision} is not"):
        bring_up(service, NEXT, part, patience_seconds=1, timeout_seconds=3)
    done = bring_up(service, LATER)
    assert shares(runtime, service) == {done.release.revision: 100}


def deployment_ref(deployment):
    return {**deployment, "apiVersion": "apps/v1", "kind": "Deployment"}


def test_a_quota_that_is_used_up_is_told(operator, fleet, service, bring_up):
    first = bring_up(service).release.revision
    metadata = {"name": "pods", "namespace": service.namespace}
    fleet.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "1"}}})
    path = f"/api/v1/namespaces/{service.namespace}/resourcequotas/pods"
    eventually(lambda: (fleet.get(path).get("status") or {}).get("used") == {"pods": "1"}, "the quota's count")
    with pytest.raises(DeployError, match="exceeded quota") as failure:
        bring_up(service, NEXT)
    assert failure.value.restored == first


def test_somebody_who_changes_it_at_the_same_time_is_seen(operator, fleet, service, bring_up, runtime):
    bring_up(service)

    def interfere(_: str) -> None:
        found = runtime.get(ref_of(service))
        predictors = [{**found["spec"]["predictors"][0], "traffic": 100}]
        path = fleet.path(found)
        fleet.request("PATCH", path, {"spec": {"predictors": predictors}}, kind="application/merge-patch+json")

    with pytest.raises(
        (DeployError, ClusterError), match="somebody else changed the SeldonDeployment|conflict|belongs"
    ):
        bring_up(replace(service, annotations={READY_DELAY: "20s"}), NEXT, on_progress=interfere)


def test_a_secret_that_is_not_there_is_refused_by_its_field(seldon_kinds, service, bring_up, runtime):
    options = SeldonOptions(storage_secret="nowhere")
    with pytest.raises(
        InvalidValue, match=r"SeldonOptions.storage_secret = 'nowhere' is not valid: there is no Secret"
    ):
        bring_up(replace(service, seldon=options))
    assert runtime.get(ref_of(service)) is None


def test_nothing_restarts_when_only_the_number_of_replicas_changed(operator, fleet, service, bring_up, runtime):
    revision = bring_up(service).release.revision
    before = deployments(fleet, service)[revision]
    generation = runtime.get(ref_of(service))["metadata"]["generation"]
    bring_up(service)
    assert runtime.get(ref_of(service))["metadata"]["generation"] == generation
    bring_up(replace(service, scaling=Scaling(min_replicas=3)))
    scaled = deployments(fleet, service)[revision]
    assert scaled["status"]["availableReplicas"] == 3
    assert scaled["spec"]["template"] == before["spec"]["template"]
    assert runtime.get(TARGET.objects(service)[2]) is not None
    bring_up(service)
    assert deployments(fleet, service)[revision]["spec"]["replicas"] == 1
    assert runtime.get(TARGET.objects(service)[2]) is None


def test_an_autoscaler_raises_a_revision_to_its_least(operator, fleet, service, bring_up, runtime):
    scaling = Scaling(min_replicas=2, max_replicas=4, target=70)
    revision = bring_up(replace(service, scaling=scaling)).release.revision
    deployment = deployments(fleet, service)[revision]
    assert deployment["spec"]["replicas"] == 2
    (autoscaler,) = fleet.request(
        "GET", f"/apis/autoscaling/v2/namespaces/{service.namespace}/horizontalpodautoscalers"
    )["items"]
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    bring_up(service)
    assert deployments(fleet, service)[revision]["spec"]["replicas"] == 1


def test_istio_is_told_the_shares_before_a_deploy_is_done(istio, seldon_kinds, service, bring_up, runtime):
    service = replace(service, seldon=SeldonOptions(gateway=SeldonGateway(url="https://models.example.com")))
    route = Ref("networking.istio.io/v1beta1", "VirtualService", "iris", service.namespace)

    def rule():
        (rule,) = runtime.get(route)["spec"]["http"]
        weights = {one["destination"]["host"].partition(".")[0]: one["weight"] for one in rule["route"]}
        return weights, (rule.get("mirror") or {}).get("host", "").partition(".")[0]

    with SeldonOperator(seldon_kinds, istio=True):
        first = bring_up(service)
        assert first.endpoint.url == f"https://models.example.com/seldon/{service.namespace}/iris"
        assert rule() == ({first.release.revision: 100}, "")
        second = bring_up(service, NEXT, Traffic(percent=20)).release.revision
        assert rule() == ({first.release.revision: 80, second: 20}, "")
        third = bring_up(service, LATER, Traffic(percent=0, mirror_percent=50)).release.revision
        assert rule() == ({first.release.revision: 100}, third)
        bring_up(service, NEXT)
        assert rule() == ({second: 100}, "")


def test_an_operator_without_istio_is_told(istio, operator, service, bring_up, runtime):
    with pytest.raises(DeployError, match="was its operator installed for Istio"):
        bring_up(replace(service, seldon=SeldonOptions(gateway=SeldonGateway())), patience_seconds=1)
    assert runtime.get(ref_of(service)) is None


OWN = SeldonNode(name="model")
WHOLE = SeldonOptions(
    protocol="seldon",
    parameters={"method": "predict_proba"},
    graph=SeldonNode(
        name="bandit",
        kind="router",
        implementation="EPSILON_GREEDY",
        parameters={"epsilon": 0.2, "seed": 3},
        resources=Resources(cpu="10m"),
        children=[
            OWN,
            SeldonNode(
                name="mean",
                kind="combiner",
                implementation="AVERAGE_COMBINER",
                resources=Resources(cpu="10m"),
                children=[
                    SeldonNode(
                        name="other", implementation="XGBOOST_SERVER", uri="s3://m/o", resources=Resources(cpu="10m")
                    ),
                    SeldonNode(
                        name="step",
                        kind="transformer",
                        image="team/step:1",
                        args=["--x"],
                        env={"A": "b"},
                        resources=Resources(cpu="10m"),
                    ),
                ],
            ),
        ],
    ),
    explainer=SeldonExplainer(
        type="AnchorTabular", uri="s3://m/e", image="team/explain:1", config={"threshold": "0.9"}
    ),
    logger=PayloadLogger(url="http://sink", mode="all"),
    gateway=SeldonGateway(hosts=["a.example.com"], retries=2),
    rest_timeout_seconds=5,
    grpc_timeout_seconds=5,
    engine=Resources(cpu="10m", memory="16Mi"),
    engine_env={"A": "b"},
)
WAYS = {
    "everything": (MODEL, {"seldon": WHOLE, "scaling": Scaling(max_replicas=3)}),
    "keda": (
        MODEL,
        {
            "seldon": SeldonOptions(
                keda=[KedaTrigger(type="prometheus", metadata={"query": "up"}, authentication="a")]
            ),
            "scaling": Scaling(max_replicas=3),
        },
    ),
    "v2": (MODEL, {"seldon": SeldonOptions(protocol="v2")}),
    "place": (
        MODEL,
        {
            "node_selector": {"pool": "gpu"},
            "tolerations": [Toleration(key="gpu", effect="NoExecute", seconds=30)],
            "resources": Resources(gpu=1),
            "service_account": "reader",
            "secrets": ["s"],
            "env": {"A": "b"},
            "labels": {"team": "a"},
        },
    ),
    "draw": (
        MODEL,
        {
            "seldon": SeldonOptions(
                graph=SeldonNode(
                    name="draw",
                    kind="router",
                    implementation="RANDOM_ABTEST",
                    parameters={"ratioA": 0.25},
                    children=[OWN, SeldonNode(name="other", implementation="SKLEARN_SERVER", uri="s3://m/o")],
                )
            )
        },
    ),
    "ambassador": (MODEL, {"seldon": SeldonOptions(gateway=SeldonGateway(kind="ambassador", headers={"x": "a"}))}),
    **{
        name: (replace(MODEL, digest=None, format=name), {})
        for name in ("sklearn", "xgboost", "mlflow", "tensorflow", "onnx", "huggingface")
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_every_field_passes_seldons_schema(way, seldon_kinds, service, runtime):
    model, given = WAYS[way]
    before = Release(service=replace(service, **given), model=replace(model, uri="s3://models/0"))
    release = Release(service=replace(service, **given), model=model)
    for traffic in (Traffic(percent=20), Traffic(percent=0, mirror_percent=10)):
        wanted = replace(release, traffic=traffic).next_to(before)
        runtime.apply(TARGET.render(wanted), dry_run=True)


def test_everything_comes_up(operator, fleet, service, bring_up):
    revision = bring_up(replace(service, seldon=replace(WHOLE, gateway=None))).release.revision
    made = deployments(fleet, service)
    assert set(made) == {revision}
    path = f"/apis/apps/v1/namespaces/{service.namespace}/deployments"
    assert len(fleet.get(path)["items"]) == 2


def test_by_command(operator, fleet, service, runtime):
    """A model without a card has no rows to be asked with: fake pods answer nothing."""
    where = {"platform": "seldon", "session": runtime.session}
    options = SeldonOptions(implementation="SKLEARN_SERVER")
    plain = replace(service, seldon=options)
    first = deploy_model(replace(MODEL, digest=None), plain, **where).release.revision
    second = deploy_model(replace(NEXT, digest=None), plain, traffic=Traffic(percent=20), **where).release.revision
    with pytest.raises(ConfigError, match="what serves speaks v2"):
        deploy_model(replace(NEXT, digest=None), replace(service, seldon=replace(options, protocol="seldon")), **where)

    def command(*words):
        command = [sys.executable, "-m", "longshore.cli", *words, "iris", "--namespace", service.namespace]
        environment = {**os.environ, "KUBECONFIG": str(fleet.kubeconfig)}
        done = subprocess.run(
            [*command, "--platform", "seldon"], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"serves revision {second} to 50 % of the requests" in command("promote", "--percent", "50")
    assert shares(runtime, service) == {first: 50, second: 50}
    command("promote")
    assert shares(runtime, service) == {second: 100}
    assert f"iris serves revision {first} at" in command("rollback")
    assert shares(runtime, service) == {first: 100}
    delete_service("iris", platform="seldon", namespace=service.namespace, session=runtime.session)
    assert runtime.get(ref_of(service)) is None
    left = runtime.find(Selection("v1", "Service", service.namespace))
    assert [one for one in left if "ownerReferences" not in one["metadata"]] == []


def test_the_steps_do_with_the_least_role(operator, fleet, service, runtime, monkeypatch):
    namespace = service.namespace
    for manifest in deployer_objects(namespace, service_account="worker", platforms=["seldon"], secrets=["store"]):
        fleet.apply(manifest)
    kubeconfig = fleet.kubeconfig_of(namespace, "worker")
    session = Session.from_kubeconfig(kubeconfig)
    eventually(lambda: ClusterRuntime(session).exists(ref_of(service)) is False, "the role takes effect", 10)
    session.close()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    model, endpoint = Artifact(), Artifact()
    given = {"storage_secret": "store", "cpu": "10m", "max_replicas": 3, "engine_cpu": "10m"}

    def step(component, *positional, **more):
        return components.get(component).python_func(*positional, **more, namespace=namespace)

    write_model(model, replace(MODEL, digest=None))
    with pytest.raises(InvalidValue, match="there is no Secret of this name"):
        step("deploy_seldon", model, endpoint, name="iris", **given)
    metadata = {"name": "store", "namespace": namespace}
    fleet.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"RCLONE_CONFIG_S3_TYPE": "s3"}}
    )
    url, first, _ = step("deploy_seldon", model, endpoint, name="iris", **given)
    assert url == f"http://iris.{namespace}.svc.cluster.local"
    assert read_endpoint(endpoint).protocols == ("v2", "grpc-v2")
    write_model(model, replace(NEXT, digest=None))
    _, second, replaced = step("deploy_seldon", model, endpoint, name="iris", traffic_percent=20, **given)
    assert (replaced, shares(runtime, service)) == (first, {first: 80, second: 20})
    write_model(model, replace(LATER, digest=None))
    rest = {first: 70, second: 20}
    _, third, _ = step("deploy_seldon", model, endpoint, name="iris", traffic_percent=10, traffic_rest=rest, **given)
    assert shares(runtime, service) == {**rest, third: 10}
    step("promote_model", endpoint, "iris", platform="seldon")
    assert shares(runtime, service) == {third: 100}
    step("delete_seldon", "iris")
    assert runtime.get(ref_of(service)) is None
