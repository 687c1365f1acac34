"""Serve a model on KServe."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_kserve(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    namespace: Optional[str] = None,
    mode: str = "Standard",
    runtime: Optional[str] = None,
    protocol: Optional[str] = None,
    min_replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    autoscaler: Optional[str] = None,
    traffic_percent: int = 100,
    traffic_rest: Optional[Dict[str, int]] = None,
    mirror_percent: int = 0,
    router: Optional[Dict[str, Any]] = None,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    gpu: int = 0,
    env: Optional[Dict[str, str]] = None,
    secrets: Optional[List[str]] = None,
    storage_secret: Optional[str] = None,
    service_account: Optional[str] = None,
    image: Optional[str] = None,
    args: Optional[List[str]] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    transformer: Optional[Dict[str, Any]] = None,
    explainer: Optional[Dict[str, Any]] = None,
    logger: Optional[Dict[str, Any]] = None,
    batcher: Optional[Dict[str, Any]] = None,
    huggingface: Optional[Dict[str, Any]] = None,
    request_timeout_seconds: Optional[int] = None,
    kserve_version: Optional[str] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a model as an InferenceService and return once the new revision itself serves.

    KServe's own word is not taken for it: the Deployment or Knative Service has to carry this revision, and its pods
    have to be ready. If anything fails, what served before goes on serving; where nothing did, nothing is left. The
    step needs the Role of manifests/rbac/deployer.yaml in the namespace that it deploys to.

    Args:
        model: A model: one packaged by longshore, or files in a format that a KServe runtime loads.
        endpoint: Where it answers.
        name: Name of the InferenceService.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        mode: ``Standard``, a Deployment, or ``Knative``, which scales by requests and to zero.
        runtime: Name of the ServingRuntime; by default longshore's for what longshore has packaged, and the one of
            KServe's that fits the format for anything else.
        protocol: ``v1``, ``v2``, ``grpc-v1`` or ``grpc-v2``; by default the runtime's usual one.
        min_replicas: Least number of pods; 0 in Knative mode scales to zero.
        max_replicas: Largest number of pods; by default it is fixed.
        scale_metric: ``cpu`` or ``memory`` in percent of the request; in Knative mode also ``concurrency`` and ``rps``.
        scale_target: The value of that metric that scaling aims at.
        autoscaler: ``hpa``, ``keda`` or ``external`` in Standard mode.
        traffic_percent: Share of the requests for this revision; the rest stays where it was. Standard mode needs a
            router for it. At 0 the revision can be asked at its own address only.
        traffic_rest: Where several others keep a part: percent by revision, which makes 100 with ``traffic_percent``.
        mirror_percent: Share of the requests that it gets a copy of, with ``traffic_percent`` 0 and a router.
        router: Shares the requests out in Standard mode: a mapping with ``kind`` (``nginx``, ``gateway-api`` or
            ``istio``) and, if need be, ``gateway``, ``hosts``, ``url``, ``replicas`` and ``image``.
        cpu: CPU that a pod requests, such as ``500m``.
        memory: Memory that a pod requests and is limited to, such as ``1Gi``.
        gpu: GPUs of a pod.
        env: Environment of the model server. Secrets do not belong here.
        secrets: Kubernetes Secrets whose keys become environment variables of the model server.
        storage_secret: Kubernetes Secret with the credentials of the model's storage, annotated as KServe wants it; by
            default those of the service account.
        service_account: Kubernetes service account of the serving pods.
        image: Container image in place of the runtime's.
        args: Arguments for the model server beyond the runtime's.
        labels: Labels of the InferenceService; they reach the pods, so that a change restarts them.
        annotations: Annotations of it; these do, too.
        node_selector: Labels of the nodes that pods may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        transformer: Container before and after the model: a mapping with ``image`` and, if need be, ``command``,
            ``args``, ``env``, ``secrets`` and ``resources``.
        explainer: Container that explains predictions, in the same form.
        logger: Sends requests and answers on: ``url`` and, if need be, ``mode`` (``all``, ``request``, ``response``).
        batcher: Gathers V1 requests: ``max_size``, ``max_latency_ms`` and ``timeout_seconds``.
        huggingface: For a model of the format ``huggingface``: ``task``, ``backend``, ``dtype``, ``max_length``,
            ``tensor_parallel``, ``token_secret`` and the other fields of ``HuggingFaceOptions``.
        request_timeout_seconds: For a request, in Knative mode.
        kserve_version: Version of KServe in the cluster, such as ``0.17``; by default it is read there.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the revision to become ready.
        patience_seconds: For what stalls the revision from outside to end: a full cluster, a used-up quota.
        force: Take over what somebody else has set in the InferenceService.

    Returns:
        url: Base URL of the service, in the cluster.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or not possible with this version of KServe.
        ClusterError: If the cluster refuses or cannot be reached, or does not have KServe.
        DeployError: If the revision did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.deployment import default_namespace, deploy_model
    from longshore.spec import (
        KServeOptions,
        Resources,
        Router,
        Scaling,
        Service,
        Toleration,
        Traffic,
        from_plain,
    )
    from longshore.targets.kserve_versions import parse_version

    options = {
        "mode": mode,
        "runtime": runtime,
        "protocol": protocol,
        "autoscaler": autoscaler,
        "storage_secret": storage_secret,
        "transformer": transformer,
        "explainer": explainer,
        "logger": logger,
        "batcher": batcher,
        "huggingface": huggingface,
        "timeout_seconds": request_timeout_seconds,
        "args": args or [],
    }
    scaling = {
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "metric": scale_metric,
        "target": scale_target,
    }
    service = Service(
        name=name,
        namespace=namespace or default_namespace("kserve"),
        resources=Resources(cpu=cpu, memory=memory, gpu=gpu),
        scaling=from_plain(Scaling, scaling),
        service_account=service_account,
        labels=labels or {},
        annotations=annotations or {},
        env=env or {},
        secrets=secrets or (),
        image=image,
        node_selector=node_selector or {},
        tolerations=[from_plain(Toleration, one) for one in tolerations or ()],
        router=None if router is None else from_plain(Router, router),
        kserve=from_plain(KServeOptions, options),
    )
    done = deploy_model(
        read_model(model),
        service,
        platform="kserve",
        traffic=Traffic(percent=traffic_percent, mirror_percent=mirror_percent, rest=traffic_rest or {}),
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
        kserve_version=None if kserve_version is None else parse_version(kserve_version),
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
