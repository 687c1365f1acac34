"""Language models against KServe's own controllers; pods are those of fake nodes."""

import time
from dataclasses import replace

import pytest
from harness.fleet import FAIL, READY_DELAY
from kfp.dsl import Artifact

from longshore import components
from longshore.artifacts import read_endpoint
from longshore.errors import ClusterError, DeployError
from longshore.kserve import delete_llm, deploy_llm
from longshore.rbac import deployer_objects
from longshore.spec import (
    HuggingFaceOptions,
    KServeOptions,
    LLMPrefill,
    LLMRouter,
    LLMService,
    ModelSource,
    Parallelism,
    Release,
    Resources,
    Scaling,
    Service,
)
from longshore.targets.base import Ref
from longshore.targets.kserve import KServeTarget
from longshore.targets.kserve_llm import KServeLLMTarget


def test_a_model_of_the_hub_on_kserves_hugging_face_server(kserve, fleet, namespace, runtime):
    secret = {"name": "hub", "namespace": namespace}
    fleet.apply({"apiVersion": "v1", "kind": "Secret", "metadata": secret, "stringData": {"HF_TOKEN": "hf_test"}})
    options = HuggingFaceOptions(backend="vllm", tensor_parallel=2, max_length=4096, token_secret="hub")
    release = Release(
        service=Service(
            name="chat",
            namespace=namespace,
            resources=Resources(cpu="2", memory="8Gi", gpu=2),
            kserve=KServeOptions(huggingface=options),
        ),
        model=ModelSource(uri="hf://meta-llama/Llama-3-8B", format="huggingface", name="llama"),
    )
    # no node has a GPU: it is the objects that are looked at
    (manifest,) = KServeTarget().render(release)
    runtime.apply([manifest])
    children = KServeTarget().children(release)
    deadline = time.monotonic() + 60
    for observed in runtime.observe(KServeTarget().objects(release.service), also=children, deadline=deadline):
        pods = [found["spec"] for found in observed if found["kind"] == "Pod"]
        if pods:
            break
    (pod,) = pods
    (server,) = pod["containers"]
    assert server["args"] == [
        "--model_name=chat",
        "--backend=vllm",
        "--max_model_len=4096",
        "--tensor-parallel-size=2",
        "--disable_log_requests",
    ]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "2"
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}}
    assert token in server["env"]
    (initializer,) = pod["initContainers"]
    assert initializer["args"] == ["hf://meta-llama/Llama-3-8B", "/mnt/models"]
    assert token in initializer["env"]


API = "serving.kserve.io/v1alpha2"


@pytest.fixture
def llm(language_models, namespace) -> LLMService:
    return LLMService(service=Service(name="chat", namespace=namespace), uri="hf://acme/small")


@pytest.fixture
def bring_up(runtime):
    def run(llm, **options):
        options = {"timeout_seconds": 30, "patience_seconds": 3, **options}
        return deploy_llm(llm, session=runtime.session, **options)

    return run


def found(runtime, llm):
    return runtime.get(Ref(API, "LLMInferenceService", "chat", llm.service.namespace))


def deployment(runtime, llm, suffix=""):
    return runtime.get(Ref("apps/v1", "Deployment", f"chat-kserve{suffix}", llm.service.namespace))


def variables(deployment):
    (main,) = [c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == "main"]
    return {variable["name"]: variable.get("value") for variable in main["env"]}


def test_a_language_model_is_deployed_replaced_scaled_and_deleted(llm, bring_up, runtime):
    first = bring_up(llm)
    assert first.previous is None
    assert first.endpoint.url == f"http://chat-kserve-workload-svc.{llm.service.namespace}.svc.cluster.local:8000"
    second = bring_up(replace(llm, args=["--max-model-len", "4096"]))
    assert second.previous == first.release
    given = variables(deployment(runtime, llm))
    assert given["VLLM_ADDITIONAL_ARGS"] == "--max-model-len 4096"
    assert given["LONGSHORE_REVISION"] == second.release.revision
    before = deployment(runtime, llm)["spec"]["template"]
    more = replace(second.release, service=replace(llm.service, scaling=Scaling(min_replicas=2)))
    assert bring_up(more).release.revision == second.release.revision
    scaled = deployment(runtime, llm)
    assert (scaled["status"]["availableReplicas"], scaled["spec"]["template"]) == (2, before)
    generation = found(runtime, llm)["metadata"]["generation"]
    bring_up(more)
    assert found(runtime, llm)["metadata"]["generation"] == generation
    delete_llm("chat", namespace=llm.service.namespace, session=runtime.session)
    assert found(runtime, llm) is None
    delete_llm("chat", namespace=llm.service.namespace, session=runtime.session)


def test_the_steps_do_with_the_least_role(llm, runtime, fleet, monkeypatch):
    namespace = llm.service.namespace
    for manifest in deployer_objects(namespace, service_account="worker", platforms=["kserve"]):
        fleet.apply(manifest)
    monkeypatch.setenv("KUBECONFIG", str(fleet.kubeconfig_of(namespace, "worker")))
    endpoint = Artifact()
    given = {"name": "chat", "namespace": namespace, "uri": llm.uri, "args": ["--seed=1"], "parallelism": {"tensor": 1}}
    _, revision, replaced = components.get("deploy_llm_inference_service").python_func(endpoint, **given)
    assert replaced == ""
    assert read_endpoint(endpoint).revision == revision
    assert read_endpoint(endpoint).protocols == ("openai",)
    components.get("delete_llm_inference_service").python_func("chat", namespace=namespace)
    assert found(runtime, llm) is None


def test_prompts_are_read_by_pods_of_their_own(llm, bring_up, runtime):
    split = replace(llm, prefill=LLMPrefill(replicas=2, parallelism=Parallelism(tensor=1)))
    done = bring_up(split)
    for suffix, replicas in (("", 1), ("-prefill", 2)):
        made = deployment(runtime, llm, suffix)
        assert made["status"]["availableReplicas"] == replicas
        assert variables(made)["LONGSHORE_REVISION"] == done.release.revision


def config(fleet, llm, name, **annotations):
    fleet.apply(
        {
            "apiVersion": API,
            "kind": "LLMInferenceServiceConfig",
            "metadata": {"name": name, "namespace": llm.service.namespace},
            # the schema wants a model; what is laid over it has one
            "spec": {"model": {"uri": "hf://acme/small"}, "annotations": annotations},
        }
    )


def test_ready_is_not_believed_before_the_new_pods_are(llm, bring_up, runtime, fleet):
    bring_up(llm)
    config(fleet, llm, "slow", **{READY_DELAY: "3s"})
    told = []
    bring_up(replace(llm, base_refs=["slow"]), on_progress=told.append)
    assert any("0 of 1 pods are ready" in line for line in told)


BROKEN = {
    "an image that is nowhere": ({"base_refs": ["image"]}, {}, "cannot be pulled"),
    "a server that crashes": ({"base_refs": ["crash"]}, {}, "crashes again and again"),
    "a config that is missing": ({"base_refs": ["none"]}, {}, "none"),
    "a service account that is missing": ({}, {"service_account": "nobody"}, "nobody"),
    "no GPU": ({}, {"resources": Resources(gpu=1)}, "Insufficient nvidia.com/gpu"),
    "a gateway that is missing": ({"router": LLMRouter(gateways=["none"])}, {}, "none"),
}


@pytest.mark.parametrize("served", [True, False], ids=["replacing", "first"])
@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_serve_is_told_in_seconds(what, served, llm, bring_up, runtime, fleet):
    changes, service, words = BROKEN[what]
    for name in ("image", "crash"):
        config(fleet, llm, name, **{FAIL: name})
    first = bring_up(llm) if served else None
    with pytest.raises((DeployError, ClusterError)) as failure:
        bring_up(replace(llm, **changes, service=replace(llm.service, **service)))
    assert "not ready after" not in str(failure.value)
    assert words in str(failure.value)
    if first is None:
        assert found(runtime, llm) is None
    else:
        assert f"Revision {first.release.revision} serves as before" in str(failure.value)
        assert variables(deployment(runtime, llm))["LONGSHORE_REVISION"] == first.release.revision


def test_every_field_passes_kserves_schema_and_webhook_in_both_versions(llm, runtime):
    whole = replace(
        llm,
        model="acme/small",
        parallelism=Parallelism(tensor=2, data=4, data_local=2, expert=True),
        prefill=LLMPrefill(parallelism=Parallelism(pipeline=2)),
        router=LLMRouter(gateways=["edge/public"]),
        service=replace(llm.service, env={"A": "b"}, secrets=["s"], image="team/vllm:1", node_selector={"pool": "gpu"}),
    )
    routed = replace(llm, router=LLMRouter(routes=["mine"], scheduler=False))
    for version in ((0, 16), (0, 20)):
        for wanted in (whole, routed):
            runtime.apply(KServeLLMTarget(version).render(wanted), dry_run=True)
