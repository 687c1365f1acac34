"""A release as a SeldonDeployment: what is rendered, and what is refused."""

from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    KedaTrigger,
    ModelSource,
    PayloadLogger,
    Release,
    Resources,
    Router,
    Scaling,
    SeldonExplainer,
    SeldonGateway,
    SeldonNode,
    SeldonOptions,
    Service,
    Traffic,
)
from longshore.targets import target_of
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Ref
from longshore.targets.pods import SELDON_IMAGE, server_image
from longshore.targets.seldon import SeldonTarget

DIGEST = "sha256:" + "a" * 64
MODEL = ModelSource(uri="s3://models/iris/3", format="sklearn", name="iris", version="3", digest=DIGEST)
PLAIN = replace(MODEL, digest=None)
SERVICE = Service(name="iris", namespace="prod", labels={"team": "a"}, annotations={"owner": "b"})
TARGET = SeldonTarget()
OWN = SeldonNode(name="model")
OTHER = SeldonNode(name="other", implementation="XGBOOST_SERVER", uri="s3://models/other")


def release(model=MODEL, options=None, traffic=None, **service):
    return Release(service=replace(SERVICE, seldon=options, **service), model=model, traffic=traffic or Traffic())


def rendered(wanted):
    return {manifest["kind"]: manifest for manifest in TARGET.render(wanted)}


def predictors(wanted):
    return rendered(wanted)["SeldonDeployment"]["spec"]["predictors"]


def predictor(wanted=None, **given):
    (only,) = predictors(wanted or release(**given))
    return only


def container(wanted=None, index=0, **given):
    return predictor(wanted, **given)["componentSpecs"][0]["spec"]["containers"][index]


def parameters(node):
    return {one["name"]: (one["type"], one["value"]) for one in node.get("parameters", ())}


def test_what_longshore_packaged_runs_in_seldons_microservice():
    wanted = release()
    made = predictor(wanted)
    assert f"iris-{made['name']}" == wanted.revision
    assert made["traffic"] == 100
    assert made["replicas"] == 1
    assert made["annotations"] == {"owner": "b", "version": wanted.revision}
    assert made["labels"] == {
        "team": "a",
        SERVICE_LABEL: "iris",
        REVISION_LABEL: wanted.revision,
        "version": wanted.revision,
    }
    assert "shadow" not in made
    assert made["graph"]["type"] == "MODEL"
    assert made["graph"]["modelUri"] == "s3://models/iris/3"
    assert parameters(made["graph"]) == {
        "name": ("STRING", "iris"),
        "version": ("STRING", "3"),
        "revision": ("STRING", wanted.revision),
        "digest": ("STRING", DIGEST),
    }
    (server,) = made["componentSpecs"][0]["spec"]["containers"]
    assert server["name"] == made["graph"]["name"] == "iris"
    assert server["image"] == SELDON_IMAGE
    assert server["args"] == ["longshore.serving.seldon_app.Model", "--service-type", "MODEL"]
    assert server["startupProbe"]["httpGet"] == {"path": "/health/status", "port": 9000}
    assert server["securityContext"]["readOnlyRootFilesystem"]
    assert rendered(wanted)["SeldonDeployment"]["spec"]["protocol"] == "seldon"


def test_with_v2_longshores_server_is_asked_by_the_nodes_name():
    made = predictor(options=SeldonOptions(protocol="v2", graph=SeldonNode(name="node")))
    (server,) = made["componentSpecs"][0]["spec"]["containers"]
    assert server["image"] == server_image("fastapi")
    assert {"--name=node", f"--digest={DIGEST}", "--port=9000", "--grpc-port=9500"} <= set(server["args"])
    assert server["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 9000}
    assert "parameters" not in made["graph"]


@pytest.mark.parametrize(
    ("model_format", "given", "server", "protocol"),
    [
        ("sklearn", {}, "SKLEARN_SERVER", "v2"),
        ("sklearn", {"protocol": "seldon"}, "SKLEARN_SERVER", "seldon"),
        ("xgboost", {}, "XGBOOST_SERVER", "v2"),
        ("mlflow", {}, "MLFLOW_SERVER", "v2"),
        ("tensorflow", {}, "TENSORFLOW_SERVER", "tensorflow"),
        ("tensorflow", {"protocol": "seldon"}, "TENSORFLOW_SERVER", "seldon"),
        ("onnx", {}, "TRITON_SERVER", "v2"),
        ("pytorch", {"implementation": "TRITON_SERVER"}, "TRITON_SERVER", "v2"),
        ("huggingface", {}, "HUGGINGFACE_SERVER", "v2"),
    ],
)
def test_the_prepackaged_server_that_fits(model_format, given, server, protocol):
    wanted = release(replace(PLAIN, format=model_format), SeldonOptions(**given))
    made = predictor(wanted)
    assert made["graph"]["implementation"] == server
    assert "type" not in made["graph"]
    (own,) = made["componentSpecs"][0]["spec"]["containers"]
    assert "image" not in own
    assert "securityContext" not in made["componentSpecs"][0]["spec"]
    assert rendered(wanted)["SeldonDeployment"]["spec"]["protocol"] == protocol
    endpoint = TARGET.endpoint(wanted, [])
    assert endpoint.protocols == (protocol, f"grpc-{protocol}")
    assert endpoint.takes == "tensors"


def test_a_packaged_model_in_a_prepackaged_server():
    made = predictor(options=SeldonOptions(implementation="SKLEARN_SERVER"))
    assert made["graph"]["implementation"] == "SKLEARN_SERVER"
    assert "image" not in made["componentSpecs"][0]["spec"]["containers"][0]


def test_an_image_of_ones_own():
    options = SeldonOptions(parameters={"method": "predict_proba", "threshold": 0.5, "verbose": True, "batch": 8})
    made = predictor(model=PLAIN, options=options, image="team/server:2")
    assert made["graph"]["type"] == "MODEL"
    assert parameters(made["graph"]) == {
        "method": ("STRING", "predict_proba"),
        "threshold": ("FLOAT", "0.5"),
        "verbose": ("BOOL", "true"),
        "batch": ("INT", "8"),
    }
    (own,) = made["componentSpecs"][0]["spec"]["containers"]
    assert own["image"] == "team/server:2"
    assert "command" not in own


def test_a_model_of_the_hub():
    options = SeldonOptions(parameters={"task": "text-classification"})
    made = predictor(model=replace(PLAIN, uri="hf://acme/small", format="huggingface"), options=options)
    assert "modelUri" not in made["graph"]
    assert parameters(made["graph"]) == {
        "pretrained_model": ("STRING", "acme/small"),
        "task": ("STRING", "text-classification"),
    }


def test_compute_secrets_and_where_it_runs():
    options = SeldonOptions(
        storage_secret="store",
        logger=PayloadLogger(url="http://sink", mode="request"),
        engine=Resources(cpu="50m", memory="64Mi"),
        engine_env={"SELDON_LOG_LEVEL": "INFO"},
        rest_timeout_seconds=5,
        grpc_timeout_seconds=7,
    )
    wanted = release(
        options=options,
        resources=Resources(cpu="1", memory="1Gi"),
        service_account="reader",
        secrets=["keys"],
        env={"A": "b"},
        node_selector={"pool": "gpu"},
    )
    made = predictor(wanted)
    graph, spec = made["graph"], made["componentSpecs"][0]["spec"]
    assert (graph["envSecretRefName"], graph["serviceAccountName"]) == ("store", "reader")
    assert graph["logger"] == {"mode": "request", "url": "http://sink"}
    (server,) = spec["containers"]
    assert server["resources"] == {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert server["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert (spec["serviceAccountName"], spec["nodeSelector"]) == ("reader", {"pool": "gpu"})
    assert made["svcOrchSpec"] == {
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}},
        "env": [{"name": "SELDON_LOG_LEVEL", "value": "INFO"}],
    }
    timeouts = {"seldon.io/rest-timeout": "5000", "seldon.io/grpc-timeout": "7000"}
    assert timeouts.items() <= made["annotations"].items()
    assert timeouts.items() <= rendered(wanted)["SeldonDeployment"]["metadata"]["annotations"].items()
    assert TARGET.needs(wanted) == {
        "Service.secrets[0]": Ref("v1", "Secret", "keys", "prod"),
        "SeldonOptions.storage_secret": Ref("v1", "Secret", "store", "prod"),
    }


def test_all_ports_are_named_so_that_seldon_numbers_none():
    """It counts on over the containers of all predictors, and a promotion would restart the pods that serve."""
    graph = SeldonNode(name="before", kind="transformer", image="team/t:1", children=[OWN])
    for index in (0, 1):
        ports = container(release(options=SeldonOptions(graph=graph)), index)["ports"]
        assert {port["name"]: port["containerPort"] for port in ports} == {
            "http": 9000 + index,
            "grpc": 9500 + index,
            "metrics": 6000 + index,
        }


def test_a_bandit_before_two_models():
    bandit = SeldonNode(
        name="bandit",
        kind="router",
        implementation="EPSILON_GREEDY",
        parameters={"epsilon": 0.2},
        resources=Resources(cpu="10m"),
        secrets=["s"],
        children=[OWN, replace(OTHER, name="second")],
    )
    wanted = release(options=SeldonOptions(graph=bandit))
    graph = predictor(wanted)["graph"]
    assert (graph["type"], [child["name"] for child in graph["children"]]) == ("ROUTER", ["model", "second"])
    assert parameters(graph) == {"epsilon": ("FLOAT", "0.2"), "branches": ("STRING", "model,second")}
    assert graph["children"][1] == {
        "name": "second",
        "implementation": "XGBOOST_SERVER",
        "modelUri": "s3://models/other",
    }
    assert container(wanted)["args"] == ["longshore.serving.seldon_router.EpsilonGreedy", "--service-type", "ROUTER"]
    assert container(wanted)["image"] == SELDON_IMAGE
    assert "image" not in container(wanted, 2)
    assert list(TARGET.needs(wanted)) == ["SeldonNode.secrets[0] of bandit"]
    assert TARGET.endpoint(wanted, []).model == "bandit"


def test_what_seldons_executor_draws_by_itself_has_no_container():
    graph = SeldonNode(
        name="draw",
        kind="router",
        implementation="RANDOM_ABTEST",
        parameters={"ratioA": 0.3},
        children=[OWN, OTHER],
    )
    made = predictor(options=SeldonOptions(graph=graph))
    assert made["graph"]["implementation"] == "RANDOM_ABTEST"
    assert "type" not in made["graph"]
    assert [one["name"] for one in made["componentSpecs"][0]["spec"]["containers"]] == ["model", "other"]


def test_transformers_and_a_combiner():
    graph = SeldonNode(
        name="after",
        kind="output-transformer",
        image="team/after:1",
        command=["serve"],
        args=["--x"],
        env={"A": "b"},
        children=[SeldonNode(name="mean", kind="combiner", implementation="AVERAGE_COMBINER", children=[OWN, OTHER])],
    )
    wanted = release(options=SeldonOptions(graph=graph))
    made = predictor(wanted)["graph"]
    assert made["type"] == "OUTPUT_TRANSFORMER"
    assert made["children"][0]["type"] == "COMBINER"
    after, mean = container(wanted), container(wanted, 1)
    assert (after["command"], after["args"]) == (["serve"], ["--x"])
    assert mean["args"] == ["longshore.serving.seldon_router.AverageCombiner", "--service-type", "COMBINER"]


def test_an_explainer():
    explainer = SeldonExplainer(
        type="AnchorTabular",
        uri="s3://models/explainer",
        storage_secret="store",
        image="team/explain:1",
        config={"threshold": "0.9"},
        resources=Resources(cpu="100m"),
    )
    made = predictor(options=SeldonOptions(explainer=explainer))
    assert made["explainer"] == {
        "type": "AnchorTabular",
        "modelUri": "s3://models/explainer",
        "envSecretRefName": "store",
        "config": {"threshold": "0.9"},
        "containerSpec": {
            "name": "explainer",
            "image": "team/explain:1",
            "resources": {"requests": {"cpu": "100m"}},
        },
    }


def test_kubernetes_autoscaler():
    wanted = release(resources=Resources(cpu="500m"), scaling=Scaling(min_replicas=2, max_replicas=5, target=70))
    made = predictor(wanted)
    assert "replicas" not in made
    metric = {"type": "Resource", "resource": {"name": "cpu", "targetAverageUtilization": 70}}
    assert made["componentSpecs"][0]["hpaSpec"] == {"minReplicas": 2, "maxReplicas": 5, "metrics": [metric]}
    assert rendered(wanted)["PodDisruptionBudget"]["spec"]["selector"] == {
        "matchLabels": {"seldon-deployment-id": "iris"}
    }
    assert [ref.kind for ref in TARGET.objects(wanted.service)] == list(rendered(wanted))


def test_keda():
    trigger = KedaTrigger(type="prometheus", metadata={"query": "up", "threshold": "5"}, authentication="prom")
    made = predictor(options=SeldonOptions(keda=[trigger]), scaling=Scaling(min_replicas=1, max_replicas=5))
    assert made["componentSpecs"][0]["kedaSpec"] == {
        "minReplicaCount": 1,
        "maxReplicaCount": 5,
        "triggers": [
            {
                "type": "prometheus",
                "metadata": {"query": "up", "threshold": "5"},
                "authenticationRef": {"name": "prom"},
            }
        ],
    }
    assert "hpaSpec" not in made["componentSpecs"][0]


def test_the_gateways_settings_reach_no_pod():
    istio = SeldonGateway(
        url="https://models.example.com/",
        gateway="istio-system/public",
        hosts=["a.example.com", "b.example.com"],
        retries=2,
        retry_seconds=3,
    )
    wanted = release(options=SeldonOptions(gateway=istio), annotations={"seldon.io/headless-svc": "true"})
    deployment = rendered(wanted)["SeldonDeployment"]
    assert deployment["metadata"]["annotations"] == {
        "seldon.io/headless-svc": "true",
        "seldon.io/istio-gateway": "istio-system/public",
        "seldon.io/istio-host": "a.example.com,b.example.com",
        "seldon.io/istio-retries": "2",
        "seldon.io/istio-retries-timeout": "3",
    }
    assert predictor(wanted)["annotations"] == {"version": wanted.revision}
    assert "annotations" not in deployment["spec"]
    endpoint = TARGET.endpoint(wanted, [])
    assert endpoint.url == "https://models.example.com/seldon/prod/iris"
    assert endpoint.grpc_url == "https://models.example.com"
    assert endpoint.headers == {"seldon": "iris", "namespace": "prod"}
    ambassador = SeldonGateway(kind="ambassador", headers={"x-team": "a", "x-zone": "b"}, retries=1, id="inner")
    annotations = rendered(release(options=SeldonOptions(gateway=ambassador)))["SeldonDeployment"]["metadata"]
    assert annotations["annotations"] == {
        "owner": "b",
        "seldon.io/ambassador-header": "x-team:a:x-zone:b",
        "seldon.io/ambassador-id": "inner",
        "seldon.io/ambassador-retries": "1",
    }


def test_in_the_cluster_a_service_of_its_own_leads_to_the_revision():
    wanted = release()
    address = rendered(wanted)["Service"]
    # Seldon takes away Services that bear its label and are none of its own
    assert "seldon-deployment-id" not in address["metadata"]["labels"]
    assert address["spec"]["selector"] == {"seldon-app": wanted.revision}
    assert {port["name"]: (port["port"], port["targetPort"]) for port in address["spec"]["ports"]} == {
        "http": (80, 8000),
        "grpc": (5001, 5001),
    }
    endpoint = TARGET.endpoint(wanted, [])
    assert endpoint.url == "http://iris.prod.svc.cluster.local"
    assert endpoint.grpc_url == "http://iris.prod.svc.cluster.local:5001"
    assert endpoint.revision_url == f"http://{wanted.revision}.prod.svc.cluster.local:8000"
    assert endpoint.through("https://10.0.0.1").url == "https://10.0.0.1/seldon/prod/iris"
    assert endpoint.takes == "rows"


BEFORE = release(replace(MODEL, uri="s3://models/iris/2", version="2"))


def shared(wanted):
    return {one["labels"][REVISION_LABEL]: one["traffic"] for one in predictors(wanted) if "shadow" not in one}


def test_a_part_of_the_requests():
    wanted = release(traffic=Traffic(percent=20)).next_to(BEFORE)
    assert shared(wanted) == {BEFORE.revision: 80, wanted.revision: 20}
    # the pods that serve must not be touched: theirs is what was rendered for them alone
    (alone,) = predictors(BEFORE)
    assert predictors(wanted)[0] == {**alone, "traffic": 80}
    assert rendered(wanted)["Service"]["spec"]["selector"] == {"seldon-app": BEFORE.revision}
    most = release(traffic=Traffic(percent=60)).next_to(BEFORE)
    assert rendered(most)["Service"]["spec"]["selector"] == {"seldon-app": most.revision}


def test_none_of_the_requests_and_the_first_release_of_all():
    assert shared(release(traffic=Traffic(percent=0)).next_to(BEFORE)) == {BEFORE.revision: 100, release().revision: 0}
    assert shared(release(traffic=Traffic(percent=20))) == {release().revision: 100}
    assert shared(release(traffic=Traffic(percent=20, rest={"iris-0": 80}))) == {release().revision: 100}


def test_three_revisions():
    second = release(traffic=Traffic(percent=20)).next_to(BEFORE)
    third = replace(
        release(replace(MODEL, version="4")),
        traffic=Traffic(percent=10, rest={BEFORE.revision: 70, second.revision: 20}),
    )
    assert shared(third.next_to(second)) == {BEFORE.revision: 70, second.revision: 20, third.revision: 10}


def test_a_copy_of_the_requests():
    wanted = release(traffic=Traffic(percent=0, mirror_percent=30)).next_to(BEFORE)
    served, shadow = predictors(wanted)
    assert (served["traffic"], shadow["traffic"], shadow["shadow"]) == (100, 30, True)
    assert "shadow" not in served
    # the first one of a service answers all, whatever its share
    assert predictor(release(traffic=Traffic(percent=0, mirror_percent=30)))["traffic"] == 100


def test_a_name_as_long_as_a_service_may_have():
    name = "i" * 53
    wanted = replace(release(), service=replace(SERVICE, name=name))
    assert len(wanted.revision) <= 63
    assert predictor(wanted)["name"] == wanted.revision[54:]


@pytest.mark.parametrize("name", ["m" * 63, "tfserving"])
def test_a_model_whose_name_no_node_can_have(name):
    assert predictor(model=replace(MODEL, name=name))["graph"]["name"] == "model"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (release(PLAIN, SeldonOptions(protocol="tensorflow")), "SeldonOptions.protocol"),
        (release(options=SeldonOptions(protocol="tensorflow")), "SeldonOptions.protocol"),
        (release(PLAIN, SeldonOptions(implementation="TRITON_SERVER", protocol="seldon")), "SeldonOptions.protocol"),
        (
            release(replace(PLAIN, format="huggingface"), SeldonOptions(protocol="tensorflow")),
            "SeldonOptions.protocol",
        ),
        (release(replace(PLAIN, format="pmml")), "ModelSource.format"),
        (release(replace(MODEL, uri="/models/iris")), "ModelSource.uri"),
        (release(replace(MODEL, uri="hf://acme/small")), "ModelSource.uri"),
        (release(replace(PLAIN, format="huggingface", uri="hf://acme/small:v1")), "ModelSource.uri"),
        (release(replace(MODEL, uri="pvc:///iris")), "ModelSource.uri"),
        (release(router=Router(kind="nginx")), "Service.router"),
        (release(scaling=Scaling(min_replicas=0)), "Scaling.min_replicas"),
        (release(scaling=Scaling(max_replicas=3)), "Resources.cpu"),
        (release(resources=Resources(cpu="1"), scaling=Scaling(max_replicas=3, metric="rps")), "Scaling.metric"),
        (release(options=SeldonOptions(keda=[KedaTrigger(type="cpu")])), "Scaling.max_replicas"),
        (
            release(
                options=SeldonOptions(keda=[KedaTrigger(type="cpu")]),
                scaling=Scaling(min_replicas=0, max_replicas=3),
            ),
            "Scaling.min_replicas",
        ),
        (
            release(
                options=SeldonOptions(engine=Resources(memory="64Mi")),
                resources=Resources(cpu="1"),
                scaling=Scaling(max_replicas=3),
            ),
            "SeldonOptions.engine.cpu",
        ),
        (
            release(
                options=SeldonOptions(
                    graph=SeldonNode(name="a", kind="transformer", image="t:1", children=[OWN]),
                ),
                resources=Resources(cpu="1"),
                scaling=Scaling(max_replicas=3),
            ),
            "SeldonNode.resources.cpu",
        ),
        (
            release(
                options=SeldonOptions(
                    protocol="seldon",
                    graph=SeldonNode(
                        name="draw",
                        kind="router",
                        implementation="RANDOM_ABTEST",
                        children=[OWN, replace(OTHER, implementation="TRITON_SERVER")],
                    ),
                )
            ),
            "SeldonNode.implementation",
        ),
        (
            release(
                options=SeldonOptions(
                    protocol="v2", graph=SeldonNode(name="a", kind="transformer", image="t:1", children=[OWN])
                )
            ),
            "SeldonOptions.graph",
        ),
        (release(traffic=Traffic(percent=20, base="iris-00000000")), "Traffic.base"),
        (
            release(options=SeldonOptions(protocol="v2"), traffic=Traffic(percent=0)).next_to(BEFORE),
            "SeldonOptions.protocol",
        ),
        (
            replace(
                release(traffic=Traffic(percent=0, mirror_percent=10)),
                beside=[replace(BEFORE, traffic=Traffic(percent=0, mirror_percent=5))],
            ),
            "Traffic.mirror_percent",
        ),
    ],
)
def test_what_seldon_does_not_have_is_refused_by_name(wanted, field):
    with pytest.raises(InvalidValue) as refused:
        TARGET.render(wanted)
    assert refused.value.field == field


def test_a_router_in_front_of_it_is_refused_where_the_platform_is_chosen():
    assert isinstance(target_of("seldon"), SeldonTarget)
    with pytest.raises(InvalidValue, match="Seldon shares requests out by itself"):
        target_of("seldon", routed=True)


def test_seldons_options_give_a_revision_another_name_only_where_they_are_given():
    assert release().revision == release(options=None).revision
    assert release(options=SeldonOptions(protocol="v2")).revision != release().revision
