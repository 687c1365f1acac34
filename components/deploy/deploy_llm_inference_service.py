"""Serve a language model on KServe."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Output

from longshore.authoring import component


@component(cached=False)
def deploy_llm_inference_service(
    endpoint: Output[Artifact],
    name: str,
    uri: str,
    namespace: Optional[str] = None,
    model: Optional[str] = None,
    replicas: int = 1,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    gpu: int = 0,
    args: Optional[List[str]] = None,
    parallelism: Optional[Dict[str, Any]] = None,
    prefill: Optional[Dict[str, Any]] = None,
    router: Optional[Dict[str, Any]] = None,
    base_refs: Optional[List[str]] = None,
    env: Optional[Dict[str, str]] = None,
    secrets: Optional[List[str]] = None,
    service_account: Optional[str] = None,
    image: Optional[str] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    kserve_version: Optional[str] = None,
    timeout_seconds: int = 1800,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a language model as an LLMInferenceService and return once all pods of the new revision are ready.

    It takes KServe 0.16 or later, with its controller for language models. If anything fails, what served before goes
    on serving; where nothing did, nothing is left. The step needs the Role of manifests/rbac/deployer.yaml in the
    namespace that it deploys to.

    Args:
        endpoint: Where it answers, in OpenAI's protocol.
        name: Name of the LLMInferenceService.
        uri: Where the model lies: ``hf://OWNER/MODEL``, ``s3://``, ``pvc://CLAIM/PATH`` or ``oci://``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        model: Name of the model in requests; by default that of the service.
        replicas: Number of replicas.
        cpu: CPU that a pod requests, such as ``8``.
        memory: Memory that a pod requests and is limited to, such as ``64Gi``.
        gpu: GPUs of a pod.
        args: Arguments for vLLM beyond KServe's own, since KServe 0.18.
        parallelism: How a replica is spread: ``tensor``, ``pipeline``, ``data`` with ``data_local``, ``expert``.
        prefill: Pods of their own that read prompts: ``replicas``, ``resources`` (``cpu``, ``memory``, ``gpu``) and
            ``parallelism``.
        router: Brings requests there through the Gateway API: ``gateways``, ``routes`` and ``scheduler``, or nothing in
            it for KServe's own gateway; by default only the Service in the cluster does.
        base_refs: LLMInferenceServiceConfigs that this one is laid over.
        env: Environment of vLLM. Secrets do not belong here.
        secrets: Kubernetes Secrets whose keys become environment variables of vLLM.
        service_account: Kubernetes service account of the pods; its Secrets open the model's storage.
        image: Container image in place of KServe's.
        labels: Labels of the LLMInferenceService.
        annotations: Annotations of it.
        node_selector: Labels of the nodes that pods may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        kserve_version: Version of KServe in the cluster, such as ``0.18``; by default it is read there.
        timeout_seconds: For the revision to become ready, the model's download included.
        patience_seconds: For what stalls the revision from outside to end: GPUs that are taken, a gateway that is away.
        force: Take over what somebody else has set in the LLMInferenceService.

    Returns:
        url: Base URL, of the gateway or in the cluster.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or not possible with this version of KServe.
        ClusterError: If the cluster refuses or cannot be reached, or has no LLMInferenceService.
        DeployError: If the model did not come up; says what serves instead.
    """
    from longshore.artifacts import write_endpoint
    from longshore.deployment import default_namespace
    from longshore.kserve import deploy_llm
    from longshore.spec import LLMService, from_plain
    from longshore.targets.kserve_versions import parse_version

    service = {
        "name": name,
        "namespace": namespace or default_namespace("kserve"),
        "resources": {"cpu": cpu, "memory": memory, "gpu": gpu},
        "scaling": {"min_replicas": replicas},
        "service_account": service_account,
        "labels": labels or {},
        "annotations": annotations or {},
        "env": env or {},
        "secrets": secrets or [],
        "image": image,
        "node_selector": node_selector or {},
        "tolerations": tolerations or [],
    }
    llm = {
        "service": service,
        "uri": uri,
        "model": model,
        "args": args or [],
        "parallelism": parallelism or {},
        "prefill": prefill,
        "router": router,
        "base_refs": base_refs or [],
    }
    done = deploy_llm(
        from_plain(LLMService, llm),
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
        kserve_version=None if kserve_version is None else parse_version(kserve_version),
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
