"""Serve several InferenceServices behind one endpoint."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Output

from longshore.authoring import component


@component(cached=False)
def deploy_inference_graph(
    endpoint: Output[Artifact],
    name: str,
    nodes: Dict[str, Any],
    namespace: Optional[str] = None,
    mode: str = "Standard",
    example: Optional[Dict[str, Any]] = None,
    min_replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    autoscaler: Optional[str] = None,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    service_account: Optional[str] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    router_timeouts: Optional[Dict[str, int]] = None,
    request_timeout_seconds: Optional[int] = None,
    kserve_version: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a graph of InferenceServices and return once its router runs this very revision.

    KServe's own word is not taken for it: the router's Deployment or Knative Service has to carry this revision, its
    pods and the services that the steps ask have to be ready. If anything fails, the graph that served before goes on
    serving; where none did, nothing is left. The step needs the Role of manifests/rbac/deployer.yaml in the namespace
    that it deploys to.

    Args:
        endpoint: Where the graph answers.
        name: Name of the InferenceGraph.
        nodes: The nodes by name, ``root`` among them: mappings with ``kind`` (``Sequence``, ``Switch``, ``Ensemble`` or
            ``Splitter``) and ``steps``, mappings with one of ``service``, ``node`` and ``url`` and, if need be,
            ``name``, ``data`` (``$request`` or ``$response``), ``condition``, ``weight``, ``dependency`` (``Soft`` or
            ``Hard``) and ``map_predictions``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        mode: ``Standard``, a Deployment, or ``Knative``, which scales by requests and to zero.
        example: Body of a request that the graph has to answer before it is taken for deployed.
        min_replicas: Least number of router pods; 0 in Knative mode scales to zero.
        max_replicas: Largest number of them; by default it is fixed.
        scale_metric: ``cpu`` or ``memory`` in percent of the request; in Knative mode also ``concurrency`` and ``rps``.
        scale_target: The value of that metric that scaling aims at.
        autoscaler: ``hpa`` or ``external`` in Standard mode.
        cpu: CPU that a router pod requests, such as ``100m``; by default what KServe's configuration has.
        memory: Memory that it requests and is limited to, such as ``256Mi``.
        service_account: Kubernetes service account of the router pods.
        labels: Labels of the InferenceGraph; they reach the pods, so that a change restarts them.
        annotations: Annotations of it; these do, too.
        node_selector: Labels of the nodes that router pods may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        router_timeouts: How long the router waits, in seconds: ``read``, ``write``, ``idle`` and ``step``.
        request_timeout_seconds: For a request, in Knative mode.
        kserve_version: Version of KServe in the cluster, such as ``0.17``; by default it is read there.
        timeout_seconds: For the revision to become ready.
        patience_seconds: For a service that a step asks and that is missing or not ready, and for a full cluster.
        force: Take over what somebody else has set in the InferenceGraph.

    Returns:
        url: Base URL of the graph, in the cluster.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or not possible with this version of KServe.
        ClusterError: If the cluster refuses or cannot be reached, or does not have KServe.
        DeployError: If the graph did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import write_endpoint
    from longshore.deployment import default_namespace
    from longshore.kserve import deploy_graph
    from longshore.spec import InferenceGraph, from_plain
    from longshore.targets.kserve_versions import parse_version

    service = {
        "name": name,
        "namespace": namespace or default_namespace("kserve"),
        "resources": {"cpu": cpu, "memory": memory},
        "scaling": {
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "metric": scale_metric,
            "target": scale_target,
        },
        "service_account": service_account,
        "labels": labels or {},
        "annotations": annotations or {},
        "node_selector": node_selector or {},
        "tolerations": tolerations or [],
        "kserve": {"mode": mode, "autoscaler": autoscaler, "timeout_seconds": request_timeout_seconds},
    }
    graph = {"service": service, "nodes": nodes, "timeouts": router_timeouts or {}}
    done = deploy_graph(
        from_plain(InferenceGraph, graph),
        example=example,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
        kserve_version=None if kserve_version is None else parse_version(kserve_version),
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
