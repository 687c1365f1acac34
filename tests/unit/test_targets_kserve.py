"""The platform ``kserve``: what it renders and refuses, and how it reads what KServe and Knative report."""

from copy import deepcopy
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    Batcher,
    Container,
    HealthState,
    KServeOptions,
    ModelSource,
    PayloadLogger,
    Release,
    Resources,
    Scaling,
    Service,
    Toleration,
    Traffic,
)
from longshore.spec.image import image_name
from longshore.targets.base import APPLIED_ANNOTATION, PREVIOUS_ANNOTATION, RELEASE_ANNOTATION, REVISION_LABEL, Ref
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_health import INFERENCE_SERVICE_LABEL
from longshore.targets.kserve_runtimes import serving_runtime
from longshore.targets.pods import server_image

MODEL = ModelSource(
    uri="s3://models/iris/3", format="sklearn", name="flowers", version="3", digest="sha256:" + "a" * 64
)
BARE = ModelSource(uri="s3://models/iris/3", format="sklearn", name="flowers")
SERVICE = Service(name="iris", namespace="prod", labels={"team": "a"}, annotations={"owner": "b"})
RELEASE = Release(service=SERVICE, model=MODEL)
KNATIVE = KServeOptions(mode="Knative")


def release(model=MODEL, percent=100, options=None, **service):
    return Release(service=replace(SERVICE, kserve=options, **service), model=model, traffic=Traffic(percent=percent))


def rendered(wanted=RELEASE, version=(0, 20)):
    (manifest,) = KServeTarget(version).render(wanted)
    return manifest


def predictor(*arguments, **options):
    return rendered(release(*arguments, **options))["spec"]["predictor"]


def test_an_inference_service_with_labels_and_annotations():
    manifest = rendered()
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert manifest["metadata"]["labels"] == {"team": "a"}
    assert manifest["metadata"]["annotations"] == {
        "owner": "b",
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }
    assert KServeTarget().objects(SERVICE) == [Ref.of(manifest)]


def test_what_longshore_notes_down_does_not_reach_the_pods():
    masked = rendered()["spec"]["predictor"]["annotations"]
    assert set(masked) == {APPLIED_ANNOTATION, RELEASE_ANNOTATION, PREVIOUS_ANNOTATION}
    assert set(masked.values()) == {"-"}


def test_a_packaged_model_is_served_by_longshores_runtime():
    model = predictor()["model"]
    assert model["runtime"] == "longshore"
    assert model["modelFormat"] == {"name": "sklearn"}
    assert model["storageUri"] == "s3://models/iris/3"
    assert model["protocolVersion"] == "v1"
    assert model["args"] == [
        "--name=flowers",
        f"--revision={RELEASE.revision}",
        f"--digest={MODEL.digest}",
        "--model-version=3",
    ]
    assert model["lifecycle"] == {"preStop": {"sleep": {"seconds": 3}}}
    assert model["readinessProbe"]["periodSeconds"] == 1
    assert predictor()["labels"] == {REVISION_LABEL: RELEASE.revision}


@pytest.mark.parametrize(("digest", "runtime"), [(MODEL.digest, "longshore"), (None, "kserve-tritonserver")])
def test_onnx_is_served_by_longshore_where_longshore_packaged_it(digest, runtime):
    model = predictor(replace(MODEL, format="onnx", digest=digest))["model"]
    assert (model["runtime"], model["modelFormat"]["name"]) == (runtime, "onnx")
    assert "onnx" in [entry["name"] for entry in serving_runtime()["spec"]["supportedModelFormats"]]


RUNTIMES = [
    ("sklearn", None, "kserve-sklearnserver", "v1"),
    ("sklearn", "v2", "kserve-sklearnserver", "v2"),
    ("xgboost", None, "kserve-xgbserver", "v1"),
    ("lightgbm", None, "kserve-lgbserver", "v1"),
    ("mlflow", None, "kserve-mlserver", "v2"),
    ("pytorch", "grpc-v2", "kserve-torchserve", "grpc-v2"),
    ("torchserve", None, "kserve-torchserve", "v1"),
    ("tensorflow", None, "kserve-tensorflow-serving", "v1"),
    ("onnx", None, "kserve-tritonserver", "v2"),
    ("huggingface", None, "kserve-huggingfaceserver", "v1"),
    ("pmml", None, "kserve-pmmlserver", "v1"),
    ("paddle", None, "kserve-paddleserver", "v1"),
]


@pytest.mark.parametrize(("form", "protocol", "runtime", "spoken"), RUNTIMES)
def test_runtime_and_protocol_of_a_model_that_longshore_did_not_package(form, protocol, runtime, spoken):
    model = predictor(replace(BARE, format=form), options=KServeOptions(protocol=protocol))["model"]
    assert (model["runtime"], model["protocolVersion"]) == (runtime, spoken)
    assert model["args"] == []


def test_a_package_for_torchserve_runs_in_longshores_image_without_kserves_wrapper():
    release = Release(service=Service(name="iris"), model=replace(MODEL, format="torchserve"))
    model = predictor(release.model)["model"]
    assert (model["runtime"], model["modelFormat"]) == ("kserve-torchserve", {"name": "pytorch", "version": "1"})
    assert model["image"] == image_name("torch")
    assert model["command"] == ["python", "-m", "longshore.serving.torchserve_server"]
    assert model["readinessProbe"]["exec"]["command"] == ["test", "-e", "/tmp/ready"]
    assert f"--digest={MODEL.digest}" in model["args"]
    # predictions alone are for the network; and the runtime's envelope is taken off
    assert "--set=inference_address=http://0.0.0.0:8080" in model["args"]
    assert "--set=management_address=http://127.0.0.1:8086" in model["args"]
    assert "--set=service_envelope=" in model["args"]
    endpoint = KServeTarget().endpoint(release, [])
    assert (endpoint.model, endpoint.takes, endpoint.protocols) == ("flowers", "rows", ("v1", "v2"))
    with pytest.raises(InvalidValue, match=r"KServeOptions\.protocol"):
        predictor(release.model, options=KServeOptions(protocol="grpc-v2"))
    # an archive of others is what KServe's image is for
    theirs = predictor(replace(BARE, format="torchserve"))["model"]
    assert theirs["modelFormat"]["name"] == "pytorch"
    assert "image" not in theirs
    assert "command" not in theirs
    mine = predictor(release.model, options=KServeOptions(runtime="mine"))["model"]
    assert "command" not in mine


def test_a_runtime_of_ones_own_takes_any_format_and_its_own_protocol():
    model = predictor(replace(BARE, format="prophet"), options=KServeOptions(runtime="mine", args=["--fast"]))["model"]
    assert model["runtime"] == "mine"
    assert model["modelFormat"] == {"name": "prophet"}
    assert "protocolVersion" not in model
    assert model["args"] == ["--fast"]
    assert "readinessProbe" not in model


def test_compute_and_where_it_runs():
    parts = predictor(
        resources=Resources(cpu="4", memory="2Gi", gpu=1),
        node_selector={"pool": "gpu"},
        tolerations=[Toleration(key="gpu", value="yes", effect="NoExecute", seconds=30), Toleration()],
        service_account="reader",
        env={"LOG": "1"},
        secrets=["keys"],
        image="registry.example/server:2",
    )
    assert parts["model"]["resources"] == {
        "requests": {"cpu": "4", "memory": "2Gi"},
        "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"},
    }
    assert parts["nodeSelector"] == {"pool": "gpu"}
    assert parts["tolerations"] == [
        {"operator": "Equal", "key": "gpu", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 30},
        {"operator": "Exists"},
    ]
    assert parts["serviceAccountName"] == "reader"
    assert parts["model"]["image"] == "registry.example/server:2"
    assert parts["model"]["env"] == [{"name": "LOG", "value": "1"}]
    assert parts["model"]["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_more_than_the_limit_of_kserves_own_runtimes_is_given_a_limit():
    assert predictor(BARE, resources=Resources(cpu="2"))["model"]["resources"]["limits"] == {"cpu": "2"}
    assert predictor(BARE, resources=Resources(cpu="500m"))["model"]["resources"] == {"requests": {"cpu": "500m"}}


def test_transformer_explainer_logger_and_batcher():
    options = KServeOptions(
        transformer=Container(image="team/transform:1", args=["--x"], env={"A": "b"}, secrets=["s"]),
        explainer=Container(image="team/explain:1", command=["explain"], resources=Resources(memory="1Gi")),
        logger=PayloadLogger(url="http://sink", mode="request"),
        batcher=Batcher(max_size=8),
        storage_secret="bucket",
        timeout_seconds=30,
    )
    manifest = rendered(release(options=options))
    assert manifest["metadata"]["annotations"]["serving.kserve.io/storageSecretName"] == "bucket"
    spec = manifest["spec"]
    assert spec["predictor"]["logger"] == {"url": "http://sink", "mode": "request"}
    assert spec["predictor"]["batcher"] == {"maxBatchSize": 8, "maxLatency": 50, "timeout": 60}
    assert spec["predictor"]["timeout"] == 30
    (transformer,) = spec["transformer"]["containers"]
    assert (transformer["name"], transformer["image"]) == ("kserve-container", "team/transform:1")
    assert transformer["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert spec["transformer"]["labels"] == spec["predictor"]["labels"]
    assert spec["explainer"]["containers"][0]["command"] == ["explain"]
    endpoint = KServeTarget().endpoint(release(options=options), [])
    assert endpoint.url == "http://iris-transformer.prod.svc.cluster.local"
    needed = KServeTarget().needs(release(options=options, secrets=["keys"]))
    assert {field: ref.name for field, ref in needed.items()} == {
        "Service.secrets[0]": "keys",
        "KServeOptions.storage_secret": "bucket",
        "KServeOptions.transformer.secrets[0]": "s",
    }


@pytest.mark.parametrize(
    ("told", "external"),
    [
        ("http://iris-prod.example.com", "http://iris-prod.example.com"),
        ("http://iris-predictor.prod.svc.cluster.local", None),
        (None, None),
    ],
)
def test_an_ingress_knows_the_service_by_the_name_that_kserve_gives(told, external):
    observed = {
        "kind": "InferenceService",
        "status": {"url": told, "address": {"url": "http://iris-predictor.prod.svc"}},
    }
    endpoint = KServeTarget().endpoint(release(), [observed])
    assert (endpoint.url, endpoint.external_url) == ("http://iris-predictor.prod.svc", external)


HTTP_PORT = {"containerPort": 8080, "name": "http1", "protocol": "TCP"}
GRPC_PORT = {"containerPort": 9000, "name": "h2c", "protocol": "TCP"}


@pytest.mark.parametrize(
    ("mode", "ports", "protocols"),
    [("Standard", [HTTP_PORT, GRPC_PORT], ("v1", "v2", "grpc-v2")), ("Knative", [GRPC_PORT], ("grpc-v2",))],
)
def test_grpc_of_longshores_runtime_has_its_port(mode, ports, protocols):
    wanted = release(options=KServeOptions(mode=mode, protocol="grpc-v2"))
    model = rendered(wanted)["spec"]["predictor"]["model"]
    assert model["protocolVersion"] == "grpc-v2"
    assert model["protocolVersion"] in serving_runtime()["spec"]["protocolVersions"]
    assert model["ports"] == ports
    assert "--grpc-port=9000" in model["args"]
    # readiness is asked for over HTTP still
    assert model["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8080}
    endpoint = KServeTarget().endpoint(wanted, [])
    assert endpoint.protocols == protocols
    grpc = "http://iris-predictor.prod.svc.cluster.local:9000"
    assert endpoint.grpc_url == (grpc if mode == "Standard" else None)


@pytest.mark.parametrize("options", [KServeOptions(), KServeOptions(protocol="v2"), KNATIVE])
def test_there_is_no_grpc_where_nobody_asks_for_it(options):
    model = predictor(options=options)["model"]
    assert "ports" not in model
    assert not any("grpc" in argument for argument in model["args"])
    assert KServeTarget().endpoint(release(options=options), []).protocols == ("v1", "v2")


@pytest.mark.parametrize("option", [{"logger": PayloadLogger(url="http://sink")}, {"batcher": Batcher()}])
def test_what_reads_http_is_refused_where_there_is_only_grpc(option):
    predictor(options=KServeOptions(protocol="grpc-v2", **option))
    with pytest.raises(InvalidValue, match="gRPC port only"):
        predictor(options=KServeOptions(mode="Knative", protocol="grpc-v2", **option))


def test_scaling():
    assert predictor(scaling=Scaling(min_replicas=2))["maxReplicas"] == 2
    hpa = release(scaling=Scaling(min_replicas=2, max_replicas=5, metric="memory", target=70))
    assert rendered(hpa)["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
    parts = rendered(hpa)["spec"]["predictor"]
    assert (parts["minReplicas"], parts["maxReplicas"]) == (2, 5)
    assert (parts["scaleMetric"], parts["scaleTarget"]) == ("memory", 70)
    keda = release(scaling=Scaling(max_replicas=5), options=KServeOptions(autoscaler="keda"))
    parts = rendered(keda)["spec"]["predictor"]
    assert "scaleMetric" not in parts
    assert parts["autoScaling"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 80
    zero = release(scaling=Scaling(min_replicas=0, max_replicas=3, metric="rps", target=50), options=KNATIVE)
    parts = rendered(zero)["spec"]["predictor"]
    assert (parts["minReplicas"], parts["scaleMetric"], parts["scaleTarget"]) == (0, "rps", 50)
    assert "serving.kserve.io/autoscalerClass" not in rendered(zero)["metadata"]["annotations"]


def test_knative_is_given_nothing_that_it_refuses():
    parts = predictor(options=KNATIVE, percent=20)
    assert parts["canaryTrafficPercent"] == 20
    for field in ("securityContext", "terminationGracePeriodSeconds"):
        assert field not in parts
    assert "lifecycle" not in parts["model"]
    assert "canaryTrafficPercent" not in predictor(options=KNATIVE)


@pytest.mark.parametrize(
    ("version", "standard", "knative"),
    [((0, 15), "RawDeployment", "Serverless"), ((0, 16), "Standard", "Knative"), ((0, 20), "Standard", "Knative")],
)
def test_modes_have_the_names_of_the_version(version, standard, knative):
    key = "serving.kserve.io/deploymentMode"
    assert rendered(version=version)["metadata"]["annotations"][key] == standard
    assert rendered(release(options=KNATIVE), version)["metadata"]["annotations"][key] == knative


REFUSED = {
    "a path": (release(replace(MODEL, uri="/models/iris")), "pods cannot read a path"),
    "half of a Hugging Face name": (release(replace(BARE, uri="hf://bert", format="huggingface")), "hf://OWNER/MODEL"),
    "a format without a runtime": (release(replace(BARE, format="prophet")), "name a runtime of your own"),
    "a protocol that none speaks": (
        release(replace(BARE, format="mlflow"), options=KServeOptions(protocol="v1")),
        "for mlflow, KServe speaks v2",
    ),
    "a protocol that the runtime does not speak": (
        release(options=KServeOptions(protocol="grpc-v1")),
        "the runtime longshore speaks v1, v2",
    ),
    "a split in Standard mode": (release(percent=10), "Standard mode has no split"),
    "zero replicas in Standard mode": (release(scaling=Scaling(min_replicas=0)), "only KServe's Knative mode scales"),
    "requests in Standard mode": (release(scaling=Scaling(max_replicas=2, metric="rps")), "scales by requests"),
    "memory in Knative mode": (
        release(scaling=Scaling(max_replicas=2, metric="memory"), options=KNATIVE),
        "Knative scales by concurrency, rps or cpu",
    ),
    "a name too long for Knative": (release(name="a" * 46, options=KNATIVE), "at most 44 characters"),
    "a host name too long": (release(name="a" * 40, namespace="b" * 20), "which has 73 characters"),
    "a claim without a name": (release(replace(MODEL, uri="pvc:///x")), "pvc://CLAIM/PATH"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_kserve_cannot_do_is_refused_before_it_is_asked(what):
    asked, words = REFUSED[what]
    with pytest.raises(InvalidValue, match=words):
        KServeTarget().render(asked)


def test_what_a_version_cannot_do_is_refused_by_name():
    openvino = release(replace(BARE, format="openvino"))
    assert rendered(openvino, (0, 17))["spec"]["predictor"]["model"]["runtime"] == "kserve-openvino"
    with pytest.raises(InvalidValue, match=r"the cluster has KServe 0\.16, and this came with 0\.17"):
        rendered(openvino, (0, 16))
    native = release(replace(MODEL, uri="oci+native://registry.example/iris:1"))
    with pytest.raises(InvalidValue, match=r"this came with 0\.20"):
        rendered(native, (0, 19))
    with pytest.raises(InvalidValue, match=r"from 0\.15 on"):
        KServeTarget((0, 14))


@pytest.mark.parametrize(
    ("protocol", "more"),
    [(None, "--enable_grpc=false"), ("v2", "--enable_grpc=false"), ("grpc-v2", "--grpc_port=9000")],
)
def test_kserves_own_server_is_told_what_longshores_is(protocol, more):
    wanted = release(options=KServeOptions(runtime="longshore-kserve", protocol=protocol))
    model = rendered(wanted)["spec"]["predictor"]["model"]
    assert model["runtime"] == "longshore-kserve"
    told = ["--name=flowers", f"--revision={wanted.revision}", f"--digest={MODEL.digest}", "--model-version=3"]
    assert model["args"] == [*told, more]
    endpoint = KServeTarget().endpoint(wanted, [])
    assert (endpoint.takes, endpoint.model) == ("rows", MODEL.name)
    runtime = serving_runtime("prod", name="longshore-kserve")
    assert runtime["metadata"]["name"] == "longshore-kserve"
    (container,) = runtime["spec"]["containers"]
    assert container["image"].startswith("ghcr.io/longshore/longshore-kserve:")
    assert container["args"] == ["--model=/mnt/models", "--http_port=8080", "--drain-seconds=20"]
    with pytest.raises(InvalidValue, match="use one of longshore, longshore-kserve"):
        serving_runtime(name="mine")


def test_options_are_part_of_the_revision():
    names = {release(options=options).revision for options in (None, KServeOptions(protocol="v2"), KNATIVE)}
    assert len(names) == 3
    assert release(scaling=Scaling(min_replicas=3)).revision == RELEASE.revision


def test_the_runtime_is_for_a_cluster_or_a_namespace():
    runtime = serving_runtime()
    assert (runtime["kind"], "namespace" in runtime["metadata"]) == ("ClusterServingRuntime", False)
    assert runtime["spec"]["containers"][0]["image"] == server_image("fastapi")
    # what the runtime declares, an InferenceService cannot take away, and Knative wants one port
    assert "ports" not in runtime["spec"]["containers"][0]
    # KServe's own choice for services that name no runtime stays what it was
    assert not any(entry["autoSelect"] for entry in runtime["spec"]["supportedModelFormats"])
    own = serving_runtime("prod", image="registry.example/server:2")
    assert (own["kind"], own["metadata"]["namespace"]) == ("ServingRuntime", "prod")
    assert own["spec"]["containers"][0]["image"] == "registry.example/server:2"


# ---- health


APPLIED = "2026-11-23T10:00:00Z"
LATER = "2026-11-23T10:00:02Z"
BEFORE = "2026-11-23T09:00:00Z"


def live(wanted=RELEASE, *, ready="True", transition="UpToDate", info=None, written=LATER, **metadata):
    """The InferenceService as KServe reports on it."""
    manifest = deepcopy(rendered(wanted))
    manifest["metadata"] |= {"uid": "u", "generation": 2, **metadata}
    manifest["metadata"]["managedFields"] = [
        {"manager": "longshore", "operation": "Apply", "time": APPLIED},
        {"manager": "manager", "operation": "Update", "subresource": "status", "time": written},
    ]
    manifest["status"] = {
        "conditions": [{"type": "Ready", "status": ready, "reason": "Because", "message": "of this"}],
        "modelStatus": {"transitionStatus": transition, "lastFailureInfo": info},
    }
    return manifest


def deployment(wanted=RELEASE, *, revision=None, asked=1, replicas=1, updated=1, available=1, component="predictor"):
    spec = rendered(wanted)["spec"][component]
    template = {
        "labels": {"team": "a", **spec["labels"], REVISION_LABEL: revision or wanted.revision},
        "annotations": dict(spec["annotations"]),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"iris-{component}", "generation": 2},
        "spec": {"replicas": asked, "template": {"metadata": template}},
        "status": {
            "observedGeneration": 2,
            "replicas": replicas,
            "updatedReplicas": updated,
            "availableReplicas": available,
            "conditions": [],
        },
    }


def pod(name="p", *, revision=RELEASE.revision, component="predictor", waiting=None, **labels):
    state = {"name": "kserve-container", "image": "x", "state": {"waiting": waiting} if waiting else {}}
    labels = {INFERENCE_SERVICE_LABEL: "iris", "component": component, REVISION_LABEL: revision, **labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "status": {"containerStatuses": [state]},
    }


def event(message, *, reason="InternalError", time=LATER, uid="u"):
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": message},
        "involvedObject": {"uid": uid},
        "reason": reason,
        "message": message,
        "lastTimestamp": time,
    }


PULL = {"reason": "ImagePullBackOff", "message": "not found"}
INVALID = {"reason": "RuntimeNotRecognized", "message": "Waiting for runtime to become available"}
WITH_TRANSFORMER = release(options=KServeOptions(transformer=Container(image="team/t:1")))

STANDARD = {
    "all is there": (RELEASE, [live(), deployment(), pod()], HealthState.READY, ""),
    "nothing yet": (RELEASE, [], HealthState.PROGRESSING, "not there yet"),
    "no deployment": (RELEASE, [live()], HealthState.PROGRESSING, "has not made the Deployment iris-predictor"),
    # right after a change, everything is Ready and up to date: of the revision before
    "stale Ready": (RELEASE, [live(), deployment(revision="iris-old")], HealthState.PROGRESSING, "not passed"),
    "new pods on their way": (
        RELEASE,
        [live(), deployment(asked=1, replicas=2)],
        HealthState.PROGRESSING,
        "0 of 1 pods are ready",
    ),
    "a label that has not reached the pods": (
        release(labels={"team": "b"}),
        [live(release(labels={"team": "b"})), deployment()],
        HealthState.PROGRESSING,
        "not passed",
    ),
    "old pods are ending": (
        RELEASE,
        [live(), deployment(), pod(), pod("old", revision="iris-old")],
        HealthState.PROGRESSING,
        "1 pods of another revision",
    ),
    # KServe calls this Ready, UpToDate and Loaded
    "a crash loop": (
        RELEASE,
        [live(), deployment(updated=1, available=1, replicas=2), pod(waiting={"reason": "CrashLoopBackOff"})],
        HealthState.FAILED,
        "crashes again and again",
    ),
    "no image": (
        RELEASE,
        [live(ready="False", transition="InProgress"), deployment(available=0), pod(waiting=PULL)],
        HealthState.FAILED,
        "cannot be pulled",
    ),
    "scaling up": (
        release(scaling=Scaling(min_replicas=3)),
        [live(release(scaling=Scaling(min_replicas=3))), deployment()],
        HealthState.PROGRESSING,
        "for 1 pods yet, 3",
    ),
    "an invalid spec": (
        RELEASE,
        [live(transition="InvalidSpec", info=INVALID), deployment(revision="iris-old")],
        HealthState.FAILED,
        "RuntimeNotRecognized: Waiting for runtime",
    ),
    "an invalid spec of before": (
        RELEASE,
        [live(transition="InvalidSpec", info=INVALID, written=BEFORE), deployment(revision="iris-old")],
        HealthState.STALLED,
        "RuntimeNotRecognized",
    ),
    "an error of KServe's": (
        RELEASE,
        [live(), deployment(revision="iris-old"), event("no idea")],
        HealthState.STALLED,
        "KServe cannot carry it out: no idea",
    ),
    "a conflict of KServe's own": (
        RELEASE,
        [live(), event("fails to update: the object has been modified; please apply your changes again")],
        HealthState.PROGRESSING,
        "has not made the Deployment",
    ),
    "an error that is over": (
        RELEASE,
        [live(transition="InvalidSpec", info=INVALID), deployment(available=0), event("no idea")],
        HealthState.PROGRESSING,
        "0 of 1 pods",
    ),
    "an error that stays": (
        RELEASE,
        [live(), event("StorageURI not supported: gopher://x")],
        HealthState.FAILED,
        "StorageURI not supported",
    ),
    "an error of before, and another service's": (
        RELEASE,
        [live(), deployment(revision="o"), event("old", time=BEFORE), event("other", uid="v")],
        HealthState.PROGRESSING,
        "not passed",
    ),
    "an ingress that is not there": (
        RELEASE,
        [live(ready="False"), deployment(), pod()],
        HealthState.PROGRESSING,
        "not Ready yet: Because: of this",
    ),
    # KServe does not look again once the pods of a failed revision have gone
    "a load that failed before": (
        RELEASE,
        [live(transition="BlockedByFailedLoad"), deployment(), pod()],
        HealthState.READY,
        "",
    ),
    "stopped": (
        RELEASE,
        [live(annotations={"serving.kserve.io/stop": "true"}), deployment()],
        HealthState.FAILED,
        "is stopped",
    ),
    "a transformer that cannot start": (
        WITH_TRANSFORMER,
        [
            live(WITH_TRANSFORMER),
            deployment(WITH_TRANSFORMER),
            deployment(WITH_TRANSFORMER, available=0, component="transformer"),
            pod(revision=WITH_TRANSFORMER.revision),
            pod("t", revision=WITH_TRANSFORMER.revision, component="transformer", waiting=PULL),
        ],
        HealthState.FAILED,
        "pod t, container kserve-container: the image",
    ),
}


@pytest.mark.parametrize("what", STANDARD)
def test_the_verdict_in_standard_mode(what):
    wanted, observed, state, words = STANDARD[what]
    health = KServeTarget().health(wanted, observed)
    assert health.state is state, health.why
    assert words in health.why


def test_a_change_by_somebody_else_is_not_taken_for_this_release():
    health = KServeTarget().health(RELEASE, [live(release(env={"A": "b"}))])
    assert health.state is HealthState.FAILED
    assert "somebody else changed the InferenceService" in health.why


K_RELEASE = release(options=KNATIVE)


def knative(wanted=K_RELEASE, *, created="iris-predictor-00002", ready="iris-predictor-00002", **changes):
    spec = rendered(wanted)["spec"]["predictor"]
    share = spec.get("canaryTrafficPercent", 100)
    traffic = [{"revisionName": created, "latestRevision": True, "percent": share}]
    if share < 100:
        traffic.append({"revisionName": "iris-predictor-00001", "percent": 100 - share, "latestRevision": False})
    scale = {"autoscaling.knative.dev/min-scale": str(spec["minReplicas"])}
    template = {
        "labels": {"team": "a", **spec["labels"]} | changes.get("labels", {}),
        "annotations": {**spec["annotations"], **scale},
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "iris-predictor", "generation": 3},
        "spec": {"template": {"metadata": template}},
        "status": {
            "observedGeneration": changes.get("observed", 3),
            "latestCreatedRevisionName": created,
            "latestReadyRevisionName": ready,
            "traffic": changes.get("traffic", traffic),
            "conditions": [],
        },
    }


def knative_revision(status, message=""):
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": "iris-predictor-00002"},
        "status": {"conditions": [{"type": "Ready", "status": status, "message": message}]},
    }


CANARY = release(options=KNATIVE, percent=20)
KNATIVE_STATES = {
    "all is there": (K_RELEASE, [live(K_RELEASE), knative()], HealthState.READY, ""),
    "a canary": (CANARY, [live(CANARY), knative(CANARY)], HealthState.READY, ""),
    "nothing yet": (K_RELEASE, [live(K_RELEASE)], HealthState.PROGRESSING, "not made the Knative Service"),
    "stale Ready": (
        K_RELEASE,
        [live(K_RELEASE), knative(labels={REVISION_LABEL: "iris-old"})],
        HealthState.PROGRESSING,
        "not passed this revision",
    ),
    "not seen by Knative": (
        K_RELEASE,
        [live(K_RELEASE), knative(observed=2)],
        HealthState.PROGRESSING,
        "Knative has not seen",
    ),
    "a revision on its way": (
        K_RELEASE,
        [live(K_RELEASE), knative(ready="iris-predictor-00001"), knative_revision("Unknown")],
        HealthState.PROGRESSING,
        "iris-predictor-00002 is not ready yet",
    ),
    "a revision that never gets ready": (
        K_RELEASE,
        [live(K_RELEASE), knative(ready="iris-predictor-00001"), knative_revision("False", "exit code 1")],
        HealthState.FAILED,
        "Knative Revision iris-predictor-00002: exit code 1",
    ),
    "its pod knows first": (
        K_RELEASE,
        [
            live(K_RELEASE),
            knative(ready="iris-predictor-00001"),
            pod(
                revision=K_RELEASE.revision,
                waiting=PULL,
                **{"serving.knative.dev/revision": "iris-predictor-00002"},
            ),
        ],
        HealthState.FAILED,
        "cannot be pulled",
    ),
    "traffic of before": (
        CANARY,
        [
            live(CANARY),
            knative(
                CANARY,
                traffic=[{"latestRevision": True, "percent": 100}, {"revisionName": "iris-predictor-00001"}],
            ),
        ],
        HealthState.PROGRESSING,
        "does not send 20 %",
    ),
}


@pytest.mark.parametrize("what", KNATIVE_STATES)
def test_the_verdict_in_knative_mode(what):
    wanted, observed, state, words = KNATIVE_STATES[what]
    health = KServeTarget().health(wanted, observed)
    assert health.state is state, health.why
    assert words in health.why


def test_the_children_are_what_the_mode_makes():
    kinds = [child.kind for child in KServeTarget().children(RELEASE)]
    assert kinds == ["Deployment", "Pod", "Event"]
    kinds = [(child.api_version, child.kind) for child in KServeTarget().children(release(options=KNATIVE))]
    assert kinds[:2] == [("serving.knative.dev/v1", "Service"), ("serving.knative.dev/v1", "Revision")]


SAVED = ModelSource(
    uri="s3://models/reviews/4", format="tensorflow", name="reviews", version="4", digest="sha256:" + "c" * 64
)


def test_a_packaged_saved_model_is_fetched_to_where_tensorflow_serving_looks_for_versions():
    release = Release(service=Service(name="reviews"), model=SAVED)
    predictor = KServeTarget().render(release)[0]["spec"]["predictor"]
    assert predictor["storageUris"] == [{"uri": SAVED.uri, "mountPath": "/mnt/models/4"}]
    container = predictor["model"]
    assert "storageUri" not in container
    assert (container["modelFormat"], container["runtime"]) == (
        {"name": "tensorflow", "version": "2"},
        "kserve-tensorflow-serving",
    )
    assert container["args"] == ["--max_num_load_retries=0"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/reviews/versions/4/metadata"
    endpoint = KServeTarget().endpoint(release, [])
    assert (endpoint.protocols[0], endpoint.takes, endpoint.model) == ("tensorflow", "tensors", "reviews")


def test_a_saved_model_that_nobody_packaged_is_a_folder_of_versions():
    release = Release(service=Service(name="reviews"), model=replace(SAVED, digest=None, uri="s3://models/reviews"))
    predictor = KServeTarget().render(release)[0]["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == "s3://models/reviews"
    assert "storageUris" not in predictor
    assert predictor["model"]["args"] == []


@pytest.mark.parametrize(
    ("model", "version", "field"),
    [
        (SAVED, (0, 15), "ModelSource.uri"),
        (replace(SAVED, uri="pvc://models/reviews/4"), (0, 20), "ModelSource.uri"),
        (replace(SAVED, version=None), (0, 20), "ModelSource.version"),
    ],
)
def test_a_saved_model_that_kserve_cannot_put_there_is_refused(model, version, field):
    with pytest.raises(InvalidValue) as refused:
        KServeTarget(version).render(Release(service=Service(name="reviews"), model=model))
    assert refused.value.field == field
