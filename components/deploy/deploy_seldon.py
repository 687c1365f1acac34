"""Serve a model on Seldon Core 1."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_seldon(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    namespace: Optional[str] = None,
    implementation: Optional[str] = None,
    protocol: Optional[str] = None,
    parameters: Optional[Dict[str, Any]] = None,
    graph: Optional[Dict[str, Any]] = None,
    explainer: Optional[Dict[str, Any]] = None,
    min_replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    keda: Optional[List[Dict[str, Any]]] = None,
    traffic_percent: int = 100,
    traffic_rest: Optional[Dict[str, int]] = None,
    mirror_percent: int = 0,
    gateway: Optional[Dict[str, Any]] = None,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    gpu: int = 0,
    engine_cpu: Optional[str] = None,
    engine_memory: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    secrets: Optional[List[str]] = None,
    storage_secret: Optional[str] = None,
    service_account: Optional[str] = None,
    image: Optional[str] = None,
    logger: Optional[Dict[str, Any]] = None,
    rest_timeout_seconds: Optional[int] = None,
    grpc_timeout_seconds: Optional[int] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a model as a predictor of a SeldonDeployment and return once this very revision serves.

    Each revision is a predictor of its own. A new one is brought up beside those that serve, without requests, and
    asked before it gets any; if anything fails, what served before goes on serving, and where nothing did, nothing is
    left. Seldon's own word is not taken for it: the Deployments have to carry this revision, and its pods have to be
    ready. The step needs the Role of manifests/rbac/deployer.yaml in the namespace that it deploys to.

    Args:
        model: A model: one packaged by longshore, or files in a format that one of Seldon's servers loads.
        endpoint: Where it answers.
        name: Name of the SeldonDeployment.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        implementation: Prepackaged server, such as ``SKLEARN_SERVER``; by default longshore's own for what longshore
            has packaged, what is in ``image`` where one is given, and else the server that fits the format.
        protocol: ``seldon``, ``v2`` or ``tensorflow``; by default the server's usual one. It stays for all revisions.
        parameters: Given to the server, such as ``{"method": "predict_proba"}``.
        graph: Nodes around the model: a mapping with ``name``, ``kind`` (``router``, ``combiner``, ``transformer``,
            ``output-transformer`` or ``model``), ``implementation`` or ``image``, ``children`` and the other fields of
            ``SeldonNode``. The node of the kind ``model`` with neither implementation nor image is this model.
        explainer: Explains predictions: ``type`` and, if need be, ``uri``, ``storage_secret``, ``service_account``,
            ``image``, ``config`` and ``resources``.
        min_replicas: Least number of pods of the revision.
        max_replicas: Largest number of pods; by default it is fixed.
        scale_metric: ``cpu`` or ``memory``, in percent of what the pods request.
        scale_target: The value of that metric that scaling aims at.
        keda: Triggers for KEDA in place of that: mappings with ``type``, ``metadata`` and ``authentication``.
        traffic_percent: Share of the requests for this revision; the rest stays where it was. At 0 the revision can be
            asked at its own address only.
        traffic_rest: Where several others keep a part: percent by revision, which makes 100 with ``traffic_percent``.
        mirror_percent: Share of the requests that it gets a copy of, with ``traffic_percent`` 0.
        gateway: Where requests come in: a mapping with ``kind`` (``istio`` or ``ambassador``), ``url`` and the other
            fields of ``SeldonGateway``.
        cpu: CPU that the model's container requests, such as ``500m``.
        memory: Memory that it requests and is limited to, such as ``1Gi``.
        gpu: GPUs of it.
        engine_cpu: CPU that Seldon's orchestrator requests in each pod; by default half a one.
        engine_memory: Memory of it.
        env: Environment of the model server. Secrets do not belong here.
        secrets: Kubernetes Secrets whose keys become environment variables of the model server.
        storage_secret: Kubernetes Secret with rclone's settings for the model's storage, as environment variables
            (``RCLONE_CONFIG_S3_TYPE`` and the like); by default the operator's own.
        service_account: Kubernetes service account of the serving pods.
        image: Container image of the model server.
        logger: Sends requests and answers on: ``url`` and, if need be, ``mode`` (``all``, ``request``, ``response``).
        rest_timeout_seconds: For an answer over REST.
        grpc_timeout_seconds: For an answer over gRPC.
        labels: Labels of the SeldonDeployment; they reach the pods, so that a change restarts them.
        annotations: Annotations of it; these do, too, but for those of ``seldon.io/``.
        node_selector: Labels of the nodes that pods may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the revision to become ready, which takes Seldon 20 seconds at least.
        patience_seconds: For what stalls the revision from outside to end: a full cluster, a used-up quota, an error
            that Seldon's operator runs into.
        force: Take over what somebody else has set in the SeldonDeployment.

    Returns:
        url: Base URL of the service, at its gateway or in the cluster.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or something that it names is not there.
        ClusterError: If the cluster refuses or cannot be reached, or does not have Seldon Core 1.
        DeployError: If the revision did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.deployment import default_namespace, deploy_model
    from longshore.spec import Resources, Scaling, SeldonOptions, Service, Toleration, Traffic, from_plain

    options = {
        "implementation": implementation,
        "protocol": protocol,
        "parameters": parameters or {},
        "graph": graph,
        "explainer": explainer,
        "keda": keda or [],
        "gateway": gateway,
        "engine": {"cpu": engine_cpu, "memory": engine_memory},
        "storage_secret": storage_secret,
        "logger": logger,
        "rest_timeout_seconds": rest_timeout_seconds,
        "grpc_timeout_seconds": grpc_timeout_seconds,
    }
    scaling = {
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "metric": scale_metric,
        "target": scale_target,
    }
    service = Service(
        name=name,
        namespace=namespace or default_namespace("seldon"),
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
        seldon=from_plain(SeldonOptions, options),
    )
    done = deploy_model(
        read_model(model),
        service,
        platform="seldon",
        traffic=Traffic(percent=traffic_percent, mirror_percent=mirror_percent, rest=traffic_rest or {}),
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
