"""KServe's language models: what is refused and rendered, and how what KServe makes of one is read."""

import json
from dataclasses import replace

import pytest

from longshore.errors import InvalidValue
from longshore.spec import (
    HealthState,
    KServeOptions,
    LLMPrefill,
    LLMRouter,
    LLMService,
    Parallelism,
    Resources,
    Scaling,
    Service,
    Toleration,
    from_plain,
    to_plain,
)
from longshore.targets.base import Ref
from longshore.targets.kserve_llm import KServeLLMTarget

SERVICE = Service(name="chat", namespace="prod", labels={"team": "a"}, annotations={"owner": "b"})
LLM = LLMService(service=SERVICE, uri="hf://acme/small")


def llm(**service):
    return replace(LLM, service=replace(SERVICE, **service))


def rendered(wanted, version=(0, 20)):
    (manifest,) = KServeLLMTarget(version).render(wanted)
    return manifest


def main(pod):
    (container,) = pod["containers"]
    assert container["name"] == "main"
    return container


def test_the_least_that_serves():
    manifest = rendered(LLM)
    assert manifest["metadata"] == {
        "name": "chat",
        "namespace": "prod",
        "labels": {"team": "a"},
        "annotations": {"owner": "b"},
    }
    assert manifest["spec"] == {
        "model": {"uri": "hf://acme/small", "name": "chat"},
        "replicas": 1,
        "template": {
            "containers": [
                {"name": "main", "env": [{"name": "LONGSHORE_REVISION", "value": LLM.revision}], "envFrom": []}
            ]
        },
    }
    assert KServeLLMTarget().objects(SERVICE) == [Ref.of(manifest)]


@pytest.mark.parametrize(
    ("version", "api"), [((0, 16), "v1alpha1"), ((0, 17), "v1alpha2"), ((0, 19), "v1alpha2"), ((0, 20), "v1alpha2")]
)
def test_the_api_is_the_newest_of_the_version(version, api):
    assert rendered(LLM, version)["apiVersion"] == f"serving.kserve.io/{api}"


def test_compute_place_environment_and_arguments():
    wanted = llm(
        scaling=Scaling(min_replicas=3),
        resources=Resources(cpu="8", memory="64Gi", gpu=4),
        service_account="reader",
        node_selector={"pool": "gpu"},
        tolerations=[Toleration(key="gpu")],
        env={"A": "b"},
        secrets=["hub"],
        image="team/vllm:1",
    )
    spec = rendered(replace(wanted, model="acme/small-chat", args=["--chat-template", "a b"], base_refs=["ours"]))[
        "spec"
    ]
    assert spec["model"] == {"uri": "hf://acme/small", "name": "acme/small-chat"}
    assert spec["replicas"] == 3
    assert spec["baseRefs"] == [{"name": "ours"}]
    pod = spec["template"]
    assert (pod["serviceAccountName"], pod["nodeSelector"]) == ("reader", {"pool": "gpu"})
    assert pod["tolerations"] == [{"operator": "Exists", "key": "gpu"}]
    container = main(pod)
    assert container["image"] == "team/vllm:1"
    assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "4"}
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (given["A"], given["VLLM_ADDITIONAL_ARGS"]) == ("b", "--chat-template 'a b'")


def test_a_replica_across_nodes_has_workers():
    spread = Parallelism(tensor=8, data=16, data_local=8, expert=True)
    spec = rendered(replace(LLM, parallelism=spread))["spec"]
    assert spec["parallelism"] == {"tensor": 8, "data": 16, "dataLocal": 8, "expert": True}
    assert spec["worker"] == spec["template"]
    assert "worker" not in rendered(replace(LLM, parallelism=Parallelism(tensor=8)))["spec"]
    assert [p.nodes for p in (spread, Parallelism(pipeline=3), Parallelism())] == [2, 3, 1]


def test_prompts_are_read_by_pods_of_their_own():
    prefill = LLMPrefill(replicas=2, resources=Resources(gpu=1), parallelism=Parallelism(tensor=1))
    spec = rendered(replace(LLM, prefill=prefill))["spec"]
    assert (spec["prefill"]["replicas"], spec["prefill"]["parallelism"]) == (2, {"tensor": 1})
    assert main(spec["prefill"]["template"])["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "resources" not in main(spec["template"])


ROUTERS = [
    (LLMRouter(), {"route": {}, "gateway": {}, "scheduler": {}}),
    (LLMRouter(scheduler=False), {"route": {}, "gateway": {}}),
    (
        LLMRouter(gateways=["edge/public", "own"], scheduler=False),
        {
            "route": {},
            "gateway": {"refs": [{"name": "public", "namespace": "edge"}, {"name": "own", "namespace": "prod"}]},
        },
    ),
    # KServe refuses routes of one's own with its own gateway
    (LLMRouter(routes=["mine"], scheduler=False), {"route": {"http": {"refs": [{"name": "mine"}]}}}),
]


@pytest.mark.parametrize(("router", "spec"), ROUTERS)
def test_a_router(router, spec):
    assert rendered(replace(LLM, router=router))["spec"]["router"] == spec


REFUSED = {
    "Parallelism.tensor": lambda: Parallelism(tensor=0),
    "Parallelism.data": lambda: Parallelism(data_local=2),
    "Parallelism.data_local": lambda: Parallelism(data=2),
    "Parallelism.pipeline": lambda: Parallelism(pipeline=2, data=2, data_local=1),
    "LLMPrefill.replicas": lambda: LLMPrefill(replicas=0),
    "LLMRouter.gateways": lambda: LLMRouter(gateways=["Edge/x"]),
    "LLMRouter.routes[0]": lambda: LLMRouter(routes=["a/b"]),
    "LLMService.model": lambda: replace(LLM, model='a" --trust-remote-code'),
    "LLMService.args": lambda: replace(LLM, args="--max-model-len 1"),
    "LLMService.base_refs[0]": lambda: replace(LLM, base_refs=["A"]),
    "LLMService.uri": lambda: rendered(replace(LLM, uri="gs://a/b")),
    "Service.port": lambda: rendered(llm(port=80)),
    "Service.kserve": lambda: rendered(llm(kserve=KServeOptions())),
    "Service.env key": lambda: rendered(llm(env={"VLLM_ADDITIONAL_ARGS": "-x"})),
    "Scaling.min_replicas": lambda: rendered(llm(scaling=Scaling(min_replicas=0))),
    "Scaling.max_replicas": lambda: rendered(llm(scaling=Scaling(max_replicas=3))),
}


@pytest.mark.parametrize("field", REFUSED)
def test_what_cannot_be_is_refused_by_name(field):
    with pytest.raises(InvalidValue) as caught:
        REFUSED[field]()
    assert caught.value.field == field


def test_what_a_version_cannot_do_is_refused_by_name():
    with pytest.raises(InvalidValue, match=r"LLMInferenceService came with KServe 0\.16"):
        KServeLLMTarget((0, 15))
    with pytest.raises(InvalidValue, match=r"takes them since 0\.18"):
        rendered(replace(LLM, args=["-x"]), (0, 16))


def test_a_language_model_comes_back_as_it_was():
    whole = replace(LLM, parallelism=Parallelism(tensor=2), router=LLMRouter(gateways=["a"]), prefill=LLMPrefill())
    back = from_plain(LLMService, json.loads(json.dumps(to_plain(whole))))
    assert back == whole
    assert back.revision == whole.revision


def test_only_what_restarts_a_pod_is_another_revision():
    for same in (
        llm(scaling=Scaling(min_replicas=4)),
        llm(annotations={}),
        llm(labels={}),
        replace(LLM, router=LLMRouter()),
    ):
        assert same.revision == LLM.revision
    for other in (llm(env={"A": "b"}), replace(LLM, args=["-x"]), replace(LLM, uri="hf://acme/large")):
        assert other.revision != LLM.revision
    split = replace(LLM, prefill=LLMPrefill())
    assert replace(split, prefill=LLMPrefill(replicas=2)).revision == split.revision != LLM.revision
    # written down: fields that are added later must not change it
    assert LLM.revision == "chat-3721f741"


SPLIT = replace(LLM, prefill=LLMPrefill())
ROUTED = replace(LLM, router=LLMRouter())
WIDE = replace(LLM, parallelism=Parallelism(pipeline=2))
WORKLOAD = "llminferenceservice-workload"
SCHEDULER = "llminferenceservice-router-scheduler"


def live(wanted=LLM, *, seen=2, ready="True", conditions=(), **metadata):
    manifest = rendered(wanted)
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "generation": 2, "uid": "u", **metadata},
        "status": {"observedGeneration": seen, "conditions": [{"type": "Ready", "status": ready}, *conditions]},
    }


def labelled(kind, component, **spec):
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "chat-kserve", "generation": 2, "labels": {"app.kubernetes.io/component": component}},
        **spec,
    }


def containers(revision):
    return {"containers": [{"name": "main", "env": [{"name": "LONGSHORE_REVISION", "value": revision}]}]}


def deployment(revision=LLM.revision, *, component=WORKLOAD, replicas=1, available=1):
    status = {
        "observedGeneration": 2,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "availableReplicas": available,
    }
    spec = {"replicas": replicas, "template": {"spec": containers(revision)}}
    return labelled("Deployment", component, spec=spec, status=status)


def pod(revision=LLM.revision, *, component=WORKLOAD, waiting=None, ready="True"):
    state = {"waiting": waiting} if waiting else {"running": {}}
    status = {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [{"name": "main", "image": "vllm:1", "state": state}],
    }
    return labelled("Pod", component, spec=containers(revision), status=status)


def false(kind, reason, message=""):
    return {"type": kind, "status": "False", "reason": reason, "message": message}


def event(message):
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "labels": {}},
        "involvedObject": {"uid": "u"},
        "type": "Warning",
        "reason": "Error",
        "message": message,
    }


NO_IMAGE = {"reason": "ImagePullBackOff", "message": "vllm:9 not found"}
NO_CONFIG = false("PresetsCombined", "ConfigNotFound", "ours is not there")
READY, PROGRESSING = HealthState.READY, HealthState.PROGRESSING
STALLED, FAILED = HealthState.STALLED, HealthState.FAILED
LEADER, WORKER = f"{WORKLOAD}-leader", f"{WORKLOAD}-worker"

STATES = {
    "all is there": (LLM, [live(), deployment(), pod()], READY, ""),
    "nothing is there": (LLM, [], PROGRESSING, "is not there yet"),
    "it is stopped": (
        LLM,
        [live(annotations={"serving.kserve.io/stop": "true"}), deployment()],
        FAILED,
        "take its annotation",
    ),
    "somebody changed it": (LLM, [live(SPLIT), deployment()], FAILED, f"asks for revision {SPLIT.revision}"),
    "KServe has not seen it": (LLM, [live(seen=1), deployment(), pod()], PROGRESSING, "has not seen the change"),
    "no Deployment yet": (LLM, [live(seen=1)], PROGRESSING, "has not made the Deployment"),
    "a config that is missing": (
        LLM,
        [live(ready="Unknown", conditions=[NO_CONFIG])],
        STALLED,
        "PresetsCombined: ConfigNotFound: ours is not there",
    ),
    "the same, while the revision before runs": (
        LLM,
        [live(ready="True", conditions=[]), deployment("chat-before")],
        PROGRESSING,
        "has not passed this revision on",
    ),
    "KServe's own words": (
        LLM,
        [live(ready="Unknown"), event("Reconciliation failed: no account")],
        STALLED,
        "Reconciliation failed: no account",
    ),
    "KServe has not seen yet that the pods are ready": (
        LLM,
        [
            live(ready="False", conditions=[false("MainWorkloadReady", "MinimumReplicasUnavailable", "no pods")]),
            deployment(),
            pod(),
        ],
        PROGRESSING,
        "KServe has not said yet",
    ),
    "KServe cannot make the pods": (
        LLM,
        [live(ready="False", conditions=[false("MainWorkloadReady", "ReconcileWorkloadServiceError", "quota")])],
        STALLED,
        "MainWorkloadReady: ReconcileWorkloadServiceError: quota",
    ),
    "new pods are coming, whatever KServe says": (
        LLM,
        [live(), deployment(available=0), pod(ready="False")],
        PROGRESSING,
        "0 of 1 pods are ready",
    ),
    "no image": (LLM, [live(), deployment(available=0), pod(waiting=NO_IMAGE)], FAILED, "cannot be pulled"),
    "pods before are ending": (
        LLM,
        [live(), deployment(), pod(), pod("chat-before")],
        PROGRESSING,
        "1 pods of another revision",
    ),
    "another number of pods": (LLM, [live(), deployment(replicas=2, available=2)], PROGRESSING, "for 2 pods yet, 1"),
    "no pods for the prompts yet": (
        SPLIT,
        [live(SPLIT), deployment(SPLIT.revision)],
        PROGRESSING,
        "workload-prefill yet",
    ),
    "broken pods for the prompts": (
        SPLIT,
        [
            live(SPLIT),
            deployment(SPLIT.revision),
            deployment(SPLIT.revision, component=f"{WORKLOAD}-prefill", available=0),
            pod(SPLIT.revision, component=f"{WORKLOAD}-prefill", waiting=NO_IMAGE),
        ],
        FAILED,
        "cannot be pulled",
    ),
    "no scheduler yet": (ROUTED, [live(ROUTED), deployment()], PROGRESSING, "the scheduler's Deployment"),
    "a gateway that is not ready": (
        ROUTED,
        [
            live(ROUTED, ready="False", conditions=[false("GatewaysReady", "NotProgrammed", "no address")]),
            deployment(),
            deployment(component=SCHEDULER),
        ],
        STALLED,
        "GatewaysReady: NotProgrammed: no address",
    ),
    "routed": (ROUTED, [live(ROUTED), deployment(), deployment(component=SCHEDULER)], READY, ""),
    "across nodes": (
        WIDE,
        [live(WIDE), pod(WIDE.revision, component=LEADER), pod(WIDE.revision, component=WORKER)],
        READY,
        "",
    ),
    "across nodes, a worker is missing": (
        WIDE,
        [live(WIDE), pod(WIDE.revision, component=LEADER)],
        PROGRESSING,
        "1 of 2 pods are ready",
    ),
    "across nodes, a worker is broken": (
        WIDE,
        [live(WIDE), pod(WIDE.revision, component=WORKER, waiting=NO_IMAGE)],
        FAILED,
        "cannot be pulled",
    ),
    "across nodes, the revision before": (
        WIDE,
        [live(WIDE), pod("chat-before", component=LEADER), pod("chat-before", component=WORKER)],
        PROGRESSING,
        "has not had pods of this revision made",
    ),
}


@pytest.mark.parametrize("what", STATES)
def test_the_verdict(what):
    wanted, observed, state, why = STATES[what]
    health = KServeLLMTarget().health(wanted, observed)
    assert (health.state, why in health.why) == (state, True), health.why


def test_the_endpoint_is_the_gateways_or_the_services():
    status = {"url": "http://edge.example/prod/chat"}
    routed = {**live(ROUTED), "status": status}
    assert KServeLLMTarget().endpoint(ROUTED, [routed]).url == "http://edge.example/prod/chat"
    ports = {"ports": [{"name": "https", "port": 8000}]}
    service = labelled("Service", WORKLOAD, spec=ports)
    service["metadata"]["name"] = "chat-kserve-workload-svc"
    endpoint = KServeLLMTarget().endpoint(LLM, [live(), service])
    assert endpoint.url == "https://chat-kserve-workload-svc.prod.svc.cluster.local:8000"
    assert endpoint.protocols == ("openai",)
