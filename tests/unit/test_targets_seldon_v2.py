"""Seldon Core 2: what is rendered and refused, and how its words are read."""

from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    HealthState,
    KServeOptions,
    ModelSource,
    Release,
    Resources,
    Router,
    Scaling,
    SeldonOptions,
    SeldonV2Explainer,
    SeldonV2Options,
    SeldonV2Pipeline,
    SeldonV2Server,
    SeldonV2Step,
    Service,
    Toleration,
    Traffic,
)
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, UNSEEN_ANNOTATION, Ref
from longshore.targets.seldon_v2 import SeldonV2Target, requirements_of

TARGET = SeldonV2Target()
MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris")
SERVICE = Service(name="iris", namespace="prod", labels={"team": "a"}, annotations={"owner": "b"})
BASE = "iris-00000000"


def release(percent=100, base=None, mirror=0, model=MODEL, options=None, **service):
    traffic = Traffic(percent=percent, mirror_percent=mirror, base=base)
    return Release(service=replace(SERVICE, seldon_v2=options, **service), model=model, traffic=traffic)


def rendered(wanted):
    return {manifest["kind"]: manifest for manifest in TARGET.render(wanted)}


def test_a_model_named_after_the_revision_and_an_experiment_named_after_the_service():
    wanted = release()
    experiment, model = TARGET.render(wanted)
    assert TARGET.objects(SERVICE) == [Ref.of(experiment)]
    assert (model["apiVersion"], model["kind"]) == ("mlops.seldon.io/v1alpha1", "Model")
    assert model["metadata"] == {
        "name": wanted.revision,
        "namespace": "prod",
        "labels": {"team": "a", SERVICE_LABEL: "iris", REVISION_LABEL: wanted.revision},
        "annotations": {"owner": "b"},
    }
    assert model["spec"] == {"storageUri": "s3://models/iris/1", "requirements": ["sklearn"], "replicas": 1}
    assert experiment["spec"] == {"resourceType": "model", "candidates": [{"name": wanted.revision, "weight": 100}]}


def test_requests_are_shared_out_by_weights():
    canary = release(20, base=BASE)
    assert rendered(canary)["Experiment"]["spec"]["candidates"] == [
        {"name": BASE, "weight": 80},
        {"name": canary.revision, "weight": 20},
    ]


def test_a_revision_without_traffic_is_no_candidate():
    # a candidate that is not available yet takes the whole route away
    spec = rendered(release(0, base=BASE))["Experiment"]["spec"]
    assert spec["candidates"] == [{"name": BASE, "weight": 100}]
    assert "mirror" not in spec


def test_a_mirror_gets_copies():
    wanted = release(0, base=BASE, mirror=30)
    spec = rendered(wanted)["Experiment"]["spec"]
    assert spec["candidates"] == [{"name": BASE, "weight": 100}]
    assert spec["mirror"] == {"name": wanted.revision, "percent": 30}


def test_a_first_revision_has_nobody_to_share_with_or_to_copy_from():
    for wanted in (release(0), release(20), release(0, mirror=20)):
        spec = rendered(wanted)["Experiment"]["spec"]
        assert spec["candidates"] == [{"name": wanted.revision, "weight": 100}]
        assert "mirror" not in spec


def test_a_default_leads_its_clients_here_and_answers_nobody():
    wanted = release(20, base=BASE, options=SeldonV2Options(default="old-iris"))
    spec = rendered(wanted)["Experiment"]["spec"]
    assert spec["default"] == "old-iris"
    assert spec["candidates"][-1] == {"name": "old-iris", "weight": 0}
    assert sum(one["weight"] for one in spec["candidates"]) == 100


def test_all_that_a_model_is_told():
    options = SeldonV2Options(
        requirements=["sklearn", "gpu"],
        server="mine",
        storage_secret="store",
        artifact_version=3,
        parameters={"a": "b"},
        logger_percent=10,
    )
    scaling = Scaling(min_replicas=2, max_replicas=5)
    model = rendered(release(options=options, scaling=scaling, resources=Resources(memory="100Mi")))["Model"]
    assert model["spec"] == {
        "storageUri": "s3://models/iris/1",
        "requirements": ["sklearn", "gpu"],
        "minReplicas": 2,
        "maxReplicas": 5,
        "secretName": "store",
        "memory": "100Mi",
        "server": "mine",
        "artifactVersion": 3,
        "parameters": [{"name": "a", "value": "b"}],
        "logger": {"percent": 10},
    }


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (replace(MODEL, format="mlflow"), "mlflow"),
        (replace(MODEL, format="onnx"), "onnx"),
        (replace(MODEL, format="tensorflow"), "tensorflow"),
        (replace(MODEL, format="xgboost"), "xgboost"),
        # packaged by longshore, it is a joblib file
        (replace(MODEL, format="xgboost", digest="sha256:" + "0" * 64), "sklearn"),
        (replace(MODEL, format="onnx", digest="sha256:" + "0" * 64), "onnx"),
    ],
)
def test_the_format_says_what_a_server_has_to_offer(model, wanted):
    assert requirements_of(release(model=model)) == (wanted,)


def test_a_server_of_its_own_has_the_services_pods():
    wanted = release(
        options=SeldonV2Options(
            own_server=SeldonV2Server(config="triton", capabilities=["gpu"], resources=Resources(cpu="2", gpu=1))
        ),
        model=replace(MODEL, format="onnx"),
        image="registry.example/triton:1",
        env={"A": "b"},
        secrets=["keys"],
        service_account="reader",
        node_selector={"pool": "gpu"},
        tolerations=[Toleration(key="gpu")],
    )
    made = rendered(wanted)
    assert made["Model"]["spec"]["server"] == made["Server"]["metadata"]["name"] == wanted.revision
    assert made["Server"]["spec"] == {
        "serverConfig": "triton",
        "replicas": 1,
        "extraCapabilities": ["gpu"],
        "podSpec": {
            "containers": [
                {
                    "name": "triton",
                    "image": "registry.example/triton:1",
                    "env": [{"name": "A", "value": "b"}],
                    "envFrom": [{"secretRef": {"name": "keys"}}],
                    "resources": {"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "1"}},
                }
            ],
            "serviceAccountName": "reader",
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"operator": "Exists", "key": "gpu"}],
        },
    }


def test_an_explainer_is_a_model_beside_it():
    options = SeldonV2Options(
        explainer=SeldonV2Explainer(type="anchor_tabular", uri="s3://models/explainer"), storage_secret="store"
    )
    wanted = release(options=options)
    explainer = next(m for m in TARGET.render(wanted) if m["metadata"]["name"] == f"{wanted.revision}-explainer")
    assert explainer["metadata"]["labels"][REVISION_LABEL] == wanted.revision
    assert explainer["spec"] == {
        "storageUri": "s3://models/explainer",
        "requirements": ["alibi-explain"],
        "explainer": {"type": "anchor_tabular", "modelRef": wanted.revision},
        "secretName": "store",
    }


FLOW = SeldonV2Options(
    pipeline=SeldonV2Pipeline(
        steps=[
            SeldonV2Step(name="scaler", inputs=["pipeline.inputs.x"]),
            SeldonV2Step(
                name="model", inputs=["scaler"], join_window_ms=100, tensor_map={"scaler.outputs.y": "features"}
            ),
            SeldonV2Step(name="audit", inputs=["model.outputs"], triggers=["scaler"], triggers_join="any"),
        ],
        output=["model"],
    )
)


def test_a_pipeline_around_the_model():
    wanted = release(20, base=BASE, options=FLOW)
    made, own = rendered(wanted), f"{wanted.revision}-model"
    assert made["Model"]["metadata"]["name"] == own
    # requests are shared out to the pipelines
    assert made["Experiment"]["spec"]["resourceType"] == "pipeline"
    assert (
        made["Experiment"]["spec"]["candidates"][1]["name"] == made["Pipeline"]["metadata"]["name"] == wanted.revision
    )
    assert made["Pipeline"]["spec"] == {
        "steps": [
            {"name": "scaler", "inputs": [f"{wanted.revision}.inputs.x"], "inputsJoinType": "inner"},
            {
                "name": own,
                "inputs": ["scaler"],
                "inputsJoinType": "inner",
                "joinWindowMs": 100,
                "tensorMap": {"scaler.outputs.y": "features"},
            },
            {
                "name": "audit",
                "inputs": [f"{own}.outputs"],
                "inputsJoinType": "inner",
                "triggers": ["scaler"],
                "triggersJoinType": "any",
            },
        ],
        "output": {"steps": [own], "stepsJoin": "inner"},
    }


OWN_SERVER = SeldonV2Options(own_server=SeldonV2Server())
REFUSED = {
    "a path": ({"model": replace(MODEL, uri="/models/iris")}, "ModelSource.uri"),
    "a claim": ({"model": replace(MODEL, uri="pvc://claim/iris")}, "ModelSource.uri"),
    "a format that no Server loads": ({"model": replace(MODEL, format="pmml")}, "ModelSource.format"),
    "a port": ({"port": 8080}, "Service.port"),
    "CPU of a model": ({"resources": Resources(cpu="1")}, "Resources.cpu"),
    "GPU of a model": ({"resources": Resources(gpu=1), "options": OWN_SERVER}, "Resources.gpu"),
    "parts of a byte": ({"resources": Resources(memory="1500m")}, "Resources.memory"),
    "an image for a shared Server": ({"image": "a/b:1"}, "Service.image"),
    "variables for a shared Server": ({"env": {"A": "b"}}, "Service.env"),
    "secrets for a shared Server": ({"secrets": ["keys"]}, "Service.secrets"),
    "an account for a shared Server": ({"service_account": "me"}, "Service.service_account"),
    "no replicas": ({"scaling": Scaling(min_replicas=0)}, "Scaling.min_replicas"),
    "a measure": ({"scaling": Scaling(max_replicas=2, metric="rps", target=5)}, "Scaling.metric"),
    "a default that is a revision": (
        {"base": BASE, "percent": 10, "options": SeldonV2Options(default=BASE)},
        "SeldonV2Options.default",
    ),
    "a name that pods cannot append to": ({"name": "i" * 45, "options": OWN_SERVER}, "Service.name"),
    "what a Server of the config does not offer": (
        {"model": replace(MODEL, format="onnx"), "options": OWN_SERVER},
        "SeldonV2Options.requirements",
    ),
}


@pytest.mark.parametrize(("changes", "field"), REFUSED.values(), ids=REFUSED)
def test_what_seldon_does_not_have_is_refused(changes, field):
    with pytest.raises(InvalidValue) as refused:
        TARGET.render(release(**changes))
    assert refused.value.field == field


def test_there_is_no_router():
    with pytest.raises(InvalidValue, match=r"Service\.router"):
        target_of("seldon-v2", routed=True)
    assert Router(kind="nginx")


def server(name="mlserver", config="mlserver", **spec):
    metadata = {"name": name, "namespace": "prod"}
    return {"kind": "Server", "metadata": metadata, "spec": {"serverConfig": config, **spec}}


def complaint(wanted, field, found=()):
    return TARGET.needs(wanted)[f"SeldonV2Options.{field}"].complaint(found)


def test_what_has_to_be_there():
    options = SeldonV2Options(storage_secret="store", server="mine", default="old", own_server=None)
    needed = TARGET.needs(release(options=options))
    assert {field: (need.kind, need.name) for field, need in needed.items() if isinstance(need, Ref)} == {
        "SeldonV2Options.storage_secret": ("Secret", "store"),
        "SeldonV2Options.server": ("Server", "mine"),
        "SeldonV2Options.default": ("Model", "old"),
    }
    assert "SeldonV2Options.requirements" not in needed
    keys = TARGET.needs(release(options=OWN_SERVER, secrets=["keys"]))
    assert keys["Service.secrets[0]"] == Ref("v1", "Secret", "keys", "prod")


def test_a_requirement_that_seldon_does_not_bring_is_looked_for_in_the_servers():
    wanted, field = release(options=SeldonV2Options(requirements=["sklearn", "gpu"])), "requirements"
    told = complaint(wanted, field, [server(), server("triton", "triton")])
    assert "offers gpu (there is mlserver, triton)" in told
    assert complaint(wanted, field, [server(), server("big", extraCapabilities=["gpu"])]) is None
    assert complaint(wanted, field, [server(capabilities=["gpu"])]) is None
    # only its ServerConfig says
    assert complaint(wanted, field, [server(config="our-own")]) is None
    assert "there is none" in complaint(wanted, field)


def test_models_and_pipelines_do_not_share_requests():
    flow, plain = rendered(release(options=FLOW))["Experiment"], rendered(release())["Experiment"]
    assert "to pipelines" in complaint(release(), "pipeline", [flow])
    assert "to models" in complaint(release(options=FLOW), "pipeline", [plain])
    assert complaint(release(), "pipeline", [plain]) is None
    assert complaint(release(), "pipeline") is None


def test_clients_keep_one_name_and_a_revision_has_its_own():
    wanted = release(20, base=BASE)
    endpoint = TARGET.endpoint(wanted, [])
    assert endpoint.url == "http://seldon-mesh.prod.svc.cluster.local"
    assert endpoint.in_cluster == ("seldon-mesh", "prod")
    assert (endpoint.model, endpoint.headers) == ("iris", {"seldon-model": "iris.experiment"})
    assert endpoint.protocols == ("v2", "grpc-v2")
    own = endpoint.at_revision()
    assert (own.url, own.model, own.headers) == (endpoint.url, wanted.revision, {"seldon-model": wanted.revision})
    outside = endpoint.through("https://203.0.113.7")
    assert (outside.url, outside.headers) == ("https://203.0.113.7", endpoint.headers)
    assert outside.at_revision().headers == own.headers
    packaged = release(model=replace(MODEL, digest="sha256:" + "0" * 64))
    assert (endpoint.takes, TARGET.endpoint(packaged, []).takes) == ("tensors", "rows")
    flow = TARGET.endpoint(release(options=replace(FLOW, mesh_namespace="seldon-mesh")), [])
    assert flow.url == "http://seldon-mesh.seldon-mesh.svc.cluster.local"
    assert flow.at_revision().headers["seldon-model"] == f"{flow.revision}.pipeline"


def condition(kind, status="True", reason="", message="", at="2026-01-01T00:00:00Z"):
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def with_status(manifest, *conditions, **status):
    return {**manifest, "status": {"conditions": list(conditions), **status}}


ACTIVE = (
    condition("ExperimentReady", reason="experiment active"),
    condition("CandidatesReady", reason="Candidates ready"),
    condition("MirrorReady", reason="Mirror ready"),
)
AVAILABLE = condition("ModelReady", message="ModelAvailable")


def health(wanted, *, model=(AVAILABLE,), loaded=1, experiment=ACTIVE, others=()):
    made = rendered(wanted)
    observed = [
        with_status(made["Experiment"], *experiment),
        with_status(made["Model"], *model, availableReplicas=loaded),
    ]
    return TARGET.health(wanted, [*observed, *others])


def test_ready_with_its_model_and_its_share():
    assert health(release(20, base=BASE)).state is HealthState.READY


def test_nothing_is_there_yet():
    assert TARGET.health(release(), []).state is HealthState.PROGRESSING
    experiment, model = TARGET.render(release())
    silent = TARGET.health(release(), [experiment, model])
    assert (silent.state, "does its operator run" in silent.why) == (HealthState.PROGRESSING, True)


def not_ready(message, reason=""):
    return (condition("ModelReady", "False", reason=reason, message=message),)


MODEL_WORDS = {
    "loading": (not_ready("ModelProgressing"), HealthState.PROGRESSING, "ModelProgressing"),
    "failed": (not_ready("ModelFailed", "rclone: no such bucket"), HealthState.FAILED, "rclone: no such bucket"),
    "corrupt": (
        not_ready("ModelFailed", "rpc error: code = Internal desc = 110"),
        HealthState.FAILED,
        "desc = 110 (the log of its Server says why)",
    ),
    "as Seldon 2.2 says it": (not_ready("no such bucket", "ModelFailed"), HealthState.FAILED, "no such bucket"),
    "no room": (
        not_ready("ScheduleFailed", "no matching server had enough suitable replicas"),
        HealthState.STALLED,
        "no matching server had enough suitable replicas",
    ),
    "no scheduler": (
        not_ready("ModelProgressing", "rpc error: code = Unavailable desc = no addresses"),
        HealthState.STALLED,
        "is there a SeldonRuntime in the namespace",
    ),
    "refused": (
        not_ready("ModelFailed", "rpc error: code = FailedPrecondition desc = Model x is in process of deletion"),
        HealthState.FAILED,
        "in process of deletion",
    ),
    "scaled down": (not_ready("ModelScaledDown"), HealthState.STALLED, "scaled down"),
}


@pytest.mark.parametrize(("said", "state", "words"), MODEL_WORDS.values(), ids=MODEL_WORDS)
def test_seldons_words_on_a_model(said, state, words):
    told = health(release(), model=said)
    assert told.state is state
    assert words in told.why


def test_what_the_servers_lack_is_told():
    said = not_ready("ScheduleFailed", "no matching servers are available")

    def why(*servers, **options):
        return health(release(options=SeldonV2Options(**options)), model=said, others=servers).why

    assert "there is no Server in the namespace" in why()
    assert "none of mlserver offers gpu" in why(server(), requirements=["sklearn", "gpu"])
    assert "there is no Server big in the namespace, but mlserver" in why(server(), server="big")
    assert "need room in memory" in why(server())
    assert "offers" not in why(server(config="our-own"), requirements=["gpu"])


def test_all_replicas_have_to_be_loaded():
    wanted = release(scaling=Scaling(min_replicas=3))
    assert "1 of 3 replicas" in health(wanted, loaded=1).why
    assert health(wanted, loaded=3).state is HealthState.READY
    scaled = release(scaling=Scaling(min_replicas=2, max_replicas=9))
    assert health(scaled, loaded=2).state is HealthState.READY


def test_a_model_of_before_that_is_being_deleted_is_awaited():
    wanted = release()
    made = rendered(wanted)
    leaving = with_status(made["Model"], AVAILABLE, availableReplicas=1)
    leaving["metadata"] = {**leaving["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    told = TARGET.health(wanted, [with_status(made["Experiment"], *ACTIVE), leaving])
    assert (told.state, "being deleted" in told.why) == (HealthState.PROGRESSING, True)


def unseen(manifest):
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "annotations": {UNSEEN_ANNOTATION: "true"}}}


def experiment_health(*conditions, mark=False, change=None, wanted=None):
    wanted = wanted or release(20, base=BASE)
    made = rendered(wanted)
    experiment = with_status(made["Experiment"], *conditions)
    experiment = unseen(experiment) if mark else experiment
    if change:
        experiment = {**experiment, "spec": {**experiment["spec"], **change}}
    return TARGET.health(wanted, [experiment, with_status(made["Model"], AVAILABLE, availableReplicas=1)])


REFUSAL = condition(
    "ModelReady", "False", reason="rpc error: code = FailedPrecondition desc = Resource old already in experiment b"
)


def test_what_was_said_before_the_change_is_not_believed():
    told = experiment_health(*ACTIVE, mark=True)
    assert (told.state, "as it is now" in told.why) == (HealthState.PROGRESSING, True)
    told = experiment_health(*ACTIVE, REFUSAL, mark=True)
    assert (told.state, "already in experiment b" in told.why) == (HealthState.STALLED, True)


def test_what_the_scheduler_refuses():
    later = {**REFUSAL, "lastTransitionTime": "2026-01-01T00:00:05Z"}
    told = experiment_health(*ACTIVE, later)
    assert (told.state, "already in experiment b" in told.why) == (HealthState.FAILED, True)
    assert experiment_health(REFUSAL).state is HealthState.FAILED
    away = {**later, "reason": "rpc error: code = Unavailable desc = connection refused"}
    assert experiment_health(*ACTIVE, away).state is HealthState.STALLED
    # it was overcome: the operator never takes it away
    assert experiment_health(*ACTIVE, REFUSAL).state is HealthState.READY


def test_an_experiment_waits_for_the_other_candidates():
    waiting = (ACTIVE[0], condition("CandidatesReady", "False"), ACTIVE[2])
    told = experiment_health(*waiting)
    assert (told.state, BASE in told.why) == (HealthState.STALLED, True)
    mirrored = release(0, base=BASE, mirror=10)
    told = experiment_health(*ACTIVE[:2], condition("MirrorReady", "False"), wanted=mirrored)
    assert (told.state, mirrored.revision in told.why) == (HealthState.STALLED, True)
    assert experiment_health(condition("ExperimentReady", "False"), *ACTIVE[1:]).state is HealthState.PROGRESSING


def test_somebody_elses_shares_are_told():
    told = experiment_health(*ACTIVE, change={"candidates": [{"name": "x", "weight": 1}]})
    assert (told.state, "somebody else changed" in told.why) == (HealthState.FAILED, True)


FLOWS = tuple(condition(kind) for kind in ("PipelineReady", "PipelineGwReady", "ModelsReady"))
PIPELINE_WORDS = {
    "ready": (FLOWS, HealthState.READY, ""),
    "silent": ((), HealthState.PROGRESSING, "has said nothing of the Pipeline"),
    "creating": (
        (condition("PipelineReady", "False", "PipelineCreating", "Empty reason | Empty reason"), *FLOWS[1:]),
        HealthState.PROGRESSING,
        "PipelineCreating",
    ),
    "failed": (
        (condition("PipelineReady", "False", "PipelineFailed", "Empty reason | no topic"), *FLOWS[1:]),
        HealthState.FAILED,
        ": no topic",
    ),
    "no Kafka": (
        (condition("PipelineReady", "False", "PipelineCreate", "no dataflow engines available to handle pipeline"),),
        HealthState.STALLED,
        "no dataflow engines",
    ),
    "another step's model": (
        (*FLOWS[:2], condition("ModelsReady", "False")),
        HealthState.STALLED,
        "its steps are scaler, ",
    ),
}


@pytest.mark.parametrize(("said", "state", "words"), PIPELINE_WORDS.values(), ids=PIPELINE_WORDS)
def test_seldons_words_on_a_pipeline(said, state, words):
    wanted = release(options=FLOW)
    told = health(wanted, others=[with_status(rendered(wanted)["Pipeline"], *said)])
    assert told.state is state
    assert words in told.why


def test_a_server_of_its_own_comes_first():
    wanted = release(options=OWN_SERVER)
    made = rendered(wanted)["Server"]
    no_server = not_ready("ScheduleFailed", "no matching servers are available")
    starting = with_status(made, condition("Ready", "False", "StatefulSet not ready"))
    # a model that finds no Server is no news as long as the Server starts
    told = health(wanted, model=no_server, others=[starting])
    assert (told.state, "is not ready yet" in told.why) == (HealthState.PROGRESSING, True)
    waiting = {
        "name": "mlserver",
        "image": "a/b:1",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}},
    }
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "status": {"containerStatuses": [waiting]}}
    told = health(wanted, model=no_server, others=[starting, pod])
    assert (told.state, "a/b:1 cannot be pulled" in told.why) == (HealthState.FAILED, True)
    missing = with_status(made, condition("Ready", "False", 'ServerConfig "mlserver" not found'))
    assert health(wanted, model=no_server, others=[missing]).state is HealthState.STALLED
    up = with_status(made, condition("Ready"))
    assert health(wanted, others=[up]).state is HealthState.READY


@pytest.mark.parametrize(
    ("platform", "kind"), [("seldon", "SeldonDeployment"), ("seldon-v2", "Experiment"), ("kserve", "InferenceService")]
)
def test_one_service_for_all_three_platforms_while_somebody_moves(platform, kind):
    wanted = release(
        options=SeldonV2Options(storage_secret="store-rclone"),
        seldon=SeldonOptions(storage_secret="store-env"),
        kserve=KServeOptions(storage_secret="store-annotated"),
        resources=Resources(memory="512Mi"),
    )
    target = target_of(platform)
    assert target.objects(wanted.service)[0].kind == kind
    assert kind in {manifest["kind"] for manifest in target.render(wanted)}
