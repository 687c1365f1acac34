"""The platform ``tensorflow-serving``: what it renders and refuses."""

import json
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    Batching,
    HealthState,
    ModelSource,
    Release,
    Resources,
    Router,
    Scaling,
    Service,
    TensorFlowServingOptions,
    Traffic,
    from_plain,
    to_plain,
)
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Ref
from longshore.targets.tfserving import SERVER_IMAGE, TensorFlowServingTarget

MODEL = ModelSource(
    uri="s3://models/iris/3", format="tensorflow", name="iris", version="3", digest="sha256:" + "a" * 64
)
NEWER = replace(MODEL, uri="s3://models/iris/4", version="4", digest="sha256:" + "b" * 64)
SERVICE = Service(name="flowers", namespace="prod", resources=Resources(cpu="1", memory="1Gi"), secrets=["bucket"])
RELEASE = Release(service=SERVICE, model=MODEL)
CANARY = Release(service=SERVICE, model=NEWER, traffic=Traffic(percent=0)).next_to(RELEASE)


def rendered(release=RELEASE, **options):
    if options:
        service = replace(release.service, tfserving=TensorFlowServingOptions(**options))
        release = replace(release, service=service)
    return {manifest["kind"]: manifest for manifest in TensorFlowServingTarget().render(release)}


def pod(release=RELEASE, **options):
    return rendered(release, **options)["Deployment"]["spec"]["template"]["spec"]


def flags(container):
    return dict(word.split("=", 1) for word in container["args"] if "=" in word)


def test_the_server_reads_what_the_loader_wrote():
    (loader,), (server, _) = pod()["initContainers"], pod()["containers"]
    assert (server["image"], server["command"]) == (SERVER_IMAGE, ["tensorflow_model_server"])
    given = flags(server)
    assert given["--model_config_file"] == f"{flags(loader)['--to']}/models.config"
    assert given["--max_num_load_retries"] == "0"
    assert given["--allow_version_labels_for_unavailable_models"] == "true"
    assert "--enable_batching" not in given
    (model,) = json.loads(flags(loader)["--models"])
    assert from_plain(ModelSource, model) == MODEL
    assert json.loads(flags(loader)["--labels"]) == {"stable": "3"}
    # the keys of the store
    assert loader["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert TensorFlowServingTarget().needs(RELEASE) == {"Service.secrets[0]": Ref("v1", "Secret", "bucket", "prod")}


def test_a_canary_is_loaded_beside_what_serves():
    (loader,), (server, watcher) = pod(CANARY)["initContainers"], pod(CANARY)["containers"]
    assert [model["version"] for model in json.loads(flags(loader)["--models"])] == ["3", "4"]
    assert json.loads(flags(loader)["--labels"]) == {"stable": "3", "canary": "4"}
    assert flags(watcher)["--versions"] == "3,4"
    # a status is told of a version that failed, too
    assert server["startupProbe"]["httpGet"]["path"] == "/v1/models/iris/versions/4/metadata"
    endpoint = TensorFlowServingTarget().endpoint(CANARY, [])
    assert (endpoint.url, endpoint.model) == ("http://flowers.prod.svc:8501", "iris/labels/stable")
    assert endpoint.at_revision().model == "iris/labels/canary"
    moved = replace(CANARY, traffic=Traffic(), beside=())
    assert TensorFlowServingTarget().endpoint(moved, []).at_revision().model == "iris/labels/stable"
    # the label alone starts other pods
    assert moved.revision == CANARY.revision
    assert pod(moved) != pod(CANARY)


def test_the_first_one_may_be_a_canary():
    first = replace(CANARY, traffic=Traffic(percent=0), beside=())
    assert json.loads(flags(pod(first)["initContainers"][0])["--labels"]) == {"canary": "4"}


def test_grpc_has_the_control_of_the_server_and_is_open_where_it_is_wanted():
    def ports(manifests):
        (rule,) = manifests["NetworkPolicy"]["spec"]["ingress"]
        return [port["port"] for port in manifests["Service"]["spec"]["ports"]], [p["port"] for p in rule["ports"]]

    closed, opened = ports(rendered()), ports(rendered(grpc=True))
    assert (closed[0], 8500 in closed[1]) == ([8501], False)
    assert (opened[0], 8500 in opened[1]) == ([8501, 8500], True)
    assert TensorFlowServingTarget().endpoint(RELEASE, []).protocols == ("tensorflow",)
    spoken = replace(RELEASE, service=replace(SERVICE, tfserving=TensorFlowServingOptions(grpc=True)))
    endpoint = TensorFlowServingTarget().endpoint(spoken, [])
    assert (endpoint.protocols, endpoint.grpc_url) == (
        ("tensorflow", "grpc-tensorflow"),
        "http://flowers.prod.svc:8500",
    )


def test_what_the_server_is_told_beside():
    options = {
        "batching": Batching(max_batch_size=8, allowed_sizes=[4, 8]),
        "warmup": False,
        "intra_op_threads": 2,
        "inter_op_threads": 1,
        "rest_timeout_seconds": 5,
        "args": ["--enable_grpc_healthcheck_service"],
    }
    (loader,), (server, _) = pod(**options)["initContainers"], pod(**options)["containers"]
    given = flags(server)
    assert given["--batching_parameters_file"].endswith("batching.config")
    assert from_plain(Batching, json.loads(flags(loader)["--batching"])) == options["batching"]
    assert (given["--enable_model_warmup"], given["--rest_api_timeout_in_ms"]) == ("false", "5000")
    assert (given["--tensorflow_intra_op_parallelism"], given["--tensorflow_inter_op_parallelism"]) == ("2", "1")
    assert server["args"][-1] == "--enable_grpc_healthcheck_service"


def test_pods_run_as_nobody_may_object_to():
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    (mount,) = (one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "models")
    assert mount["readOnly"] is True
    # an autoscaler goes by percent of what every container requests
    assert all("cpu" in container["resources"]["requests"] for container in spec["containers"])


def test_it_scales_and_is_guarded_and_watched():
    scaled = replace(RELEASE, service=replace(SERVICE, scaling=Scaling(min_replicas=2, max_replicas=5)))
    manifests = rendered(scaled, pod_monitor=True)
    assert {"HorizontalPodAutoscaler", "PodDisruptionBudget", "PodMonitor"} <= manifests.keys()
    monitor = manifests["PodMonitor"]["spec"]
    assert monitor["selector"] == manifests["Deployment"]["spec"]["selector"]
    assert monitor["podMetricsEndpoints"] == [{"port": "http", "path": "/monitoring/prometheus/metrics"}]
    assert monitor["podTargetLabels"] == [SERVICE_LABEL, REVISION_LABEL]
    given = rendered(scaled, pod_monitor=True)["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--monitoring_config_file=/models/monitoring.config" in given
    watched = replace(SERVICE, tfserving=TensorFlowServingOptions(pod_monitor=True))
    kinds = [[ref.kind for ref in TensorFlowServingTarget().objects(service)] for service in (SERVICE, watched)]
    assert ["PodMonitor" in found for found in kinds] == [False, True]


def test_models_of_claims_are_mounted():
    claims = [replace(MODEL, uri="pvc://models/iris/3"), replace(NEWER, uri="pvc://others/iris/4")]
    stable = replace(RELEASE, model=claims[0])
    spec = pod(Release(service=SERVICE, model=claims[1], traffic=Traffic(percent=0)).next_to(stable))
    named = [one["persistentVolumeClaim"]["claimName"] for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert named == ["models", "others"]
    (loader,) = spec["initContainers"]
    uris = [model["uri"] for model in json.loads(flags(loader)["--models"])]
    assert uris == ["/claims/models/iris/3", "/claims/others/iris/4"]
    assert {"name": "claim-models", "mountPath": "/claims/models", "readOnly": True} in loader["volumeMounts"]


@pytest.mark.parametrize(
    ("release", "field"),
    [
        (replace(RELEASE, traffic=Traffic(percent=10)), "Traffic.percent"),
        (replace(RELEASE, traffic=Traffic(percent=0, mirror_percent=5)), "Traffic.mirror_percent"),
        (replace(RELEASE, model=replace(MODEL, format="sklearn")), "ModelSource.format"),
        (replace(RELEASE, model=replace(MODEL, version=None)), "ModelSource.version"),
        (replace(RELEASE, model=replace(MODEL, version="03")), "ModelSource.version"),
        (replace(RELEASE, model=replace(MODEL, uri="/tmp/iris/3")), "ModelSource.uri"),
        (replace(RELEASE, model=replace(MODEL, uri="pvc:///iris")), "ModelSource.uri"),
        (replace(CANARY, model=replace(NEWER, version="3")), "ModelSource.version"),
        (replace(CANARY, model=replace(NEWER, name="rose")), "ModelSource.name"),
        (replace(RELEASE, service=replace(SERVICE, scaling=Scaling(metric="rps"))), "Scaling.metric"),
    ],
)
def test_what_it_cannot_do_is_refused(release, field):
    with pytest.raises(InvalidValue) as refused:
        TensorFlowServingTarget().render(release)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "options",
    [
        {"intra_op_threads": 0},
        {"inter_op_threads": 0},
        {"rest_timeout_seconds": 0},
        {"loader_image": "two words"},
        {"args": "--port=1"},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InvalidValue):
        TensorFlowServingOptions(**options)


def test_options_can_be_written_down():
    options = TensorFlowServingOptions(batching=Batching(allowed_sizes=[1, 64]), args=["--a=b"])
    assert from_plain(TensorFlowServingOptions, json.loads(json.dumps(to_plain(options)))) == options
    assert replace(RELEASE, service=replace(SERVICE, tfserving=options)).revision != RELEASE.revision


def test_with_a_router_each_version_has_pods_of_its_own():
    target = target_of("tensorflow-serving", routed=True)
    service = replace(SERVICE, router=Router(kind="nginx"), tfserving=TensorFlowServingOptions(grpc=True))
    stable = Release(service=service, model=MODEL)
    release = Release(service=service, model=NEWER, traffic=Traffic(percent=10)).next_to(stable)
    deployments = [one for one in target.render(release) if one["kind"] == "Deployment"]
    own = next(one for one in deployments if one["metadata"]["name"] == release.revision)
    (loader,) = own["spec"]["template"]["spec"]["initContainers"]
    assert json.loads(flags(loader)["--labels"]) == {"stable": "4"}
    endpoint = target.endpoint(release, [])
    # routers share out HTTP
    assert (endpoint.model, endpoint.protocols) == ("iris/labels/stable", ("tensorflow",))


def test_the_verdict_is_on_the_pods():
    wanted = TensorFlowServingTarget().render(RELEASE)[0]
    observed = {**wanted, "metadata": {**wanted["metadata"], "generation": 1, "uid": "1"}}
    observed["status"] = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1}
    words = "TensorFlow Serving cannot load iris, version 3: INVALID_ARGUMENT: no op named X"
    crashed = {
        "name": "watcher",
        "image": "any",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "message": words}},
    }
    labels = {SERVICE_LABEL: "flowers", REVISION_LABEL: RELEASE.revision}
    pods = {"kind": "Pod", "metadata": {"name": "p", "labels": labels}, "status": {"containerStatuses": [crashed]}}
    health = TensorFlowServingTarget().health(RELEASE, [observed, pods])
    assert health.state is HealthState.FAILED
    assert words in health.why
