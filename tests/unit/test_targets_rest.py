"""The platform ``rest``: what it renders, refuses and reads."""

from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import HealthState, ModelSource, Release, Resources, Scaling, Service, Traffic
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Ref
from longshore.targets.pods import server_image
from longshore.targets.rest import RestTarget

MODEL = ModelSource(uri="s3://models/iris/3", format="sklearn", name="iris", version="3", digest="sha256:" + "a" * 64)
SERVICE = Service(
    name="iris",
    namespace="prod",
    resources=Resources(cpu="500m", memory="1Gi", gpu=1),
    scaling=Scaling(min_replicas=3),
    service_account="reader",
    labels={"team": "a"},
    annotations={"owner": "b"},
    env={"LOG": "1"},
    secrets=["bucket"],
)
RELEASE = Release(service=SERVICE, model=MODEL)


def rendered(release: Release = RELEASE):
    return RestTarget().render(release)


def container(release: Release = RELEASE):
    (only,) = rendered(release)[0]["spec"]["template"]["spec"]["containers"]
    return only


def test_a_deployment_and_a_service_with_labels_and_annotations():
    deployment, service, *others = rendered()
    for manifest in (deployment, service, *others):
        assert manifest["metadata"]["name"] == "iris"
        assert manifest["metadata"]["namespace"] == "prod"
        assert manifest["metadata"]["labels"] == {"team": "a", SERVICE_LABEL: "iris"}
        assert manifest["metadata"]["annotations"] == {"owner": "b"}
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["metadata"]["labels"][REVISION_LABEL] == RELEASE.revision
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == {SERVICE_LABEL: "iris"}
    assert service["spec"]["ports"][0]["port"] == 80
    assert rendered(replace(RELEASE, service=replace(SERVICE, port=9000)))[1]["spec"]["ports"][0]["port"] == 9000


def test_the_server_is_told_what_to_load_and_may_do_nothing_else():
    server = container()
    assert server["image"] == server_image("fastapi")
    flask = rendered(replace(RELEASE, service=replace(SERVICE, framework="flask")))[0]["spec"]["template"]["spec"]
    assert flask["containers"][0]["image"] == server_image("flask")
    assert "--framework=flask" in flask["containers"][0]["args"]
    assert "--model=s3://models/iris/3" in server["args"]
    assert f"--digest={MODEL.digest}" in server["args"]
    assert f"--revision={RELEASE.revision}" in server["args"]
    assert server["env"] == [{"name": "LOG", "value": "1"}]
    assert server["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert server["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"},
    }
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    pod = rendered()[0]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "reader"
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_what_is_not_asked_for_is_left_to_the_cluster():
    plain = Release(service=Service(name="iris"), model=replace(MODEL, digest=None, version=None))
    server = container(plain)
    assert server["resources"] == {}
    assert not [argument for argument in server["args"] if argument.startswith(("--digest", "--model-version"))]
    assert "serviceAccountName" not in rendered(plain)[0]["spec"]["template"]["spec"]


def test_a_model_on_a_volume_is_mounted_read_only():
    release = replace(RELEASE, model=replace(MODEL, uri="pvc://models/iris/3"))
    pod = rendered(release)[0]["spec"]["template"]["spec"]
    assert {"name": "model", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod["volumes"]
    assert {"name": "model", "mountPath": "/mnt/models", "readOnly": True} in container(release)["volumeMounts"]
    assert "--model=/mnt/models/iris/3" in container(release)["args"]


@pytest.mark.parametrize(
    ("release", "field"),
    [
        (replace(RELEASE, traffic=Traffic(percent=10)), "Traffic.percent"),
        (replace(RELEASE, service=replace(SERVICE, scaling=Scaling(min_replicas=0))), "Scaling.min_replicas"),
        (replace(RELEASE, service=replace(SERVICE, scaling=Scaling(metric="rps"))), "Scaling.metric"),
        (replace(RELEASE, service=replace(SERVICE, scaling=Scaling(max_replicas=2, metric="rps"))), "Scaling.metric"),
        (
            replace(RELEASE, service=replace(SERVICE, scaling=Scaling(max_replicas=2), resources=Resources())),
            "Resources.cpu",
        ),
        (
            replace(RELEASE, service=replace(SERVICE, scaling=Scaling(max_replicas=2), resources=Resources(cpu="0"))),
            "Resources.cpu",
        ),
        (
            replace(
                RELEASE,
                service=replace(
                    SERVICE, scaling=Scaling(max_replicas=2, metric="memory"), resources=Resources(cpu="1")
                ),
            ),
            "Resources.memory",
        ),
        (replace(RELEASE, model=replace(MODEL, uri="/models/iris")), "ModelSource.uri"),
        (replace(RELEASE, model=replace(MODEL, uri="file:///models/iris")), "ModelSource.uri"),
        (replace(RELEASE, model=replace(MODEL, uri="pvc:///iris")), "ModelSource.uri"),
    ],
)
def test_what_the_platform_cannot_do_is_refused_by_name(release, field):
    with pytest.raises(InvalidValue) as refused:
        rendered(release)
    assert refused.value.field == field


def test_equal_releases_render_equally_and_a_new_model_only_changes_the_pods():
    assert rendered() == rendered(Release(service=replace(SERVICE), model=replace(MODEL)))
    other = replace(RELEASE, model=replace(MODEL, uri="s3://models/iris/4", version="4"))
    assert rendered(other)[1] == rendered()[1]
    changed = rendered(other)[0]
    changed["spec"]["template"] = rendered()[0]["spec"]["template"]
    assert changed == rendered()[0]


def seen(release: Release = RELEASE, **status):
    deployment, *others = rendered(release)
    deployment["metadata"]["generation"] = 2
    ready = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}
    deployment["status"] = {**ready, **status}
    return [deployment, *others]


def test_the_verdict_is_on_this_very_revision():
    target = RestTarget()
    assert target.health(RELEASE, seen()).state is HealthState.READY
    assert target.health(RELEASE, seen(observedGeneration=1)).state is HealthState.PROGRESSING
    assert target.health(RELEASE, []).state is HealthState.PROGRESSING
    other = replace(RELEASE, model=replace(MODEL, version="4"))
    verdict = target.health(other, seen())
    assert verdict.state is HealthState.FAILED
    assert verdict.why == f"somebody else changed the Deployment: it runs revision {RELEASE.revision}"


def test_pods_of_the_revision_before_say_nothing_of_this_one():
    crashing = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "old", "labels": {REVISION_LABEL: "iris-00000000"}},
        "status": {"phase": "Failed", "message": "evicted"},
    }
    health = RestTarget().health(RELEASE, [*seen(updatedReplicas=1), crashing])
    assert health.state is HealthState.PROGRESSING
    assert "crash" not in health.why
    health = RestTarget().health(RELEASE, [*seen(), crashing])
    assert health.why == "1 pods of another revision are ending"


def test_the_endpoint_is_the_services_name_in_dns():
    endpoint = RestTarget().endpoint(RELEASE, seen())
    assert endpoint.url == "http://iris.prod.svc"
    assert endpoint.predict_url == "http://iris.prod.svc/v1/models/iris:predict"
    assert endpoint.revision == RELEASE.revision
    other = replace(RELEASE, service=replace(SERVICE, port=9000))
    assert RestTarget().endpoint(other, []).url == "http://iris.prod.svc:9000"


def test_the_children_are_the_services_pods_and_the_events_of_its_namespace():
    pods, events = RestTarget().children(RELEASE)
    assert (pods.kind, pods.namespace, dict(pods.labels)) == ("Pod", "prod", {SERVICE_LABEL: "iris"})
    assert (events.kind, events.namespace) == ("Event", "prod")


def scaled(**scaling) -> Release:
    return replace(RELEASE, service=replace(SERVICE, scaling=Scaling(**scaling)))


def kinds(release: Release) -> dict[str, dict]:
    return {manifest["kind"]: manifest for manifest in rendered(release)}


@pytest.mark.parametrize(
    ("scaling", "more"),
    [
        ({}, set()),
        ({"max_replicas": 1}, set()),
        ({"min_replicas": 2}, {"PodDisruptionBudget"}),
        ({"min_replicas": 2, "max_replicas": 2}, {"PodDisruptionBudget"}),
        ({"max_replicas": 2}, {"PodDisruptionBudget", "HorizontalPodAutoscaler"}),
    ],
)
def test_a_budget_where_there_can_be_several_pods_and_an_autoscaler_where_their_number_changes(scaling, more):
    release = scaled(**scaling)
    found = kinds(release)
    assert set(found) == {"Deployment", "Service", "NetworkPolicy", *more}
    assert {Ref.of(manifest) for manifest in found.values()} <= set(RestTarget().objects(release.service))
    assert RestTarget().objects(release.service)[0] == Ref.of(rendered(release)[0])
    assert ("replicas" in found["Deployment"]["spec"]) == ("HorizontalPodAutoscaler" not in more)


def test_the_autoscaler_follows_a_resource_of_the_deployment_up_at_once_and_down_with_patience():
    found = kinds(scaled(min_replicas=2, max_replicas=6, metric="memory", target=70))
    deployment, autoscaler = found["Deployment"], found["HorizontalPodAutoscaler"]
    assert autoscaler["metadata"] == deployment["metadata"]
    spec = autoscaler["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "iris"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    target = {"type": "Utilization", "averageUtilization": 70}
    assert spec["metrics"] == [{"type": "Resource", "resource": {"name": "memory", "target": target}}]
    assert spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_guards_are_on_the_pods_of_the_service_and_spreading_is_by_revision():
    for release in (RELEASE, replace(RELEASE, lane=RELEASE.revision)):
        found = kinds(release)
        pods = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
        own = {SERVICE_LABEL: release.object_name}
        assert own.items() <= pods.items()
        assert found["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": own}
        policy = found["NetworkPolicy"]["spec"]
        assert policy["podSelector"] == {"matchLabels": own}
        assert policy["policyTypes"] == ["Ingress"]
        (rule,) = policy["ingress"]
        (port,) = container(release)["ports"]
        assert "from" not in rule
        assert {"protocol": "TCP", "port": port["containerPort"]} in rule["ports"]
        assert {"protocol": "TCP", "port": 15008} in rule["ports"]
        constraints = found["Deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in constraints} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
        for one in constraints:
            assert one["whenUnsatisfiable"] == "ScheduleAnyway"
            assert one["labelSelector"] == {"matchLabels": {**own, REVISION_LABEL: release.revision}}


def test_a_number_below_the_least_is_awaited_and_a_want_of_metrics_is_not():
    release = scaled(min_replicas=3, max_replicas=5)

    def observed(replicas: int, *conditions: dict) -> list:
        status = {"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
        deployment, *others = seen(release, **status)
        deployment["spec"]["replicas"] = replicas
        for manifest in others:
            if manifest["kind"] == "HorizontalPodAutoscaler":
                manifest["status"] = {"conditions": list(conditions)}
        return [deployment, *others]

    blind = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics"}
    limited = {"type": "ScalingLimited", "status": "True", "reason": "TooManyReplicas", "message": "at its bound"}
    stuck = {"type": "AbleToScale", "status": "False", "reason": "FailedUpdateScale", "message": "quota"}
    target = RestTarget()
    assert target.health(release, observed(5, blind, limited)).state is HealthState.READY
    assert target.health(release, observed(3, stuck)).state is HealthState.READY
    few = target.health(release, observed(1, stuck, limited))
    assert few.state is HealthState.PROGRESSING
    assert few.why == (
        "the HorizontalPodAutoscaler iris has not raised the number of replicas from 1 to the least, 3; "
        "FailedUpdateScale: quota"
    )
    assert target.health(release, observed(1)).state is HealthState.PROGRESSING
