"""Serve a model on TensorFlow Serving."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_tfserving(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    label: str = "stable",
    namespace: Optional[str] = None,
    replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    gpu: int = 0,
    grpc: bool = False,
    batching: Optional[Dict[str, Any]] = None,
    warmup: bool = True,
    rest_timeout_seconds: float = 30.0,
    pod_monitor: bool = False,
    router: Optional[Dict[str, Any]] = None,
    traffic_percent: Optional[int] = None,
    servers: Optional[List[str]] = None,
    base_path: Optional[str] = None,
    keep_previous: bool = True,
    others: Optional[List[Dict[str, Any]]] = None,
    rest_url: Optional[str] = None,
    port: Optional[int] = None,
    env: Optional[Dict[str, str]] = None,
    secrets: Optional[List[str]] = None,
    service_account: Optional[str] = None,
    image: Optional[str] = None,
    loader_image: Optional[str] = None,
    args: Optional[List[str]] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a version of a SavedModel under a label, on Kubernetes or on TensorFlow Servings that run already.

    As ``stable`` it answers the service's clients, in place of what did. As ``canary`` it is loaded beside that, in the
    same servers, and answers who asks for that label. A label is given to a version once every server has it available
    and it has answered; if anything fails, what served before goes on serving.

    On Kubernetes pods are replaced one by one, and the step needs the Role of manifests/rbac/deployer.yaml in the
    namespace that it deploys to. Servers that run already are told by gRPC, and nothing is started anew.

    Args:
        model: A registered SavedModel that ``package_tensorflow`` packaged.
        endpoint: Where it answers.
        name: Name of the service.
        label: ``stable`` or ``canary``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        replicas: Number of pods; the least where ``max_replicas`` is given.
        max_replicas: Largest number of pods; by default it is fixed.
        scale_metric: What it follows: ``cpu`` or ``memory`` in percent of what a pod requests.
        scale_target: The value of that metric that scaling aims at.
        cpu: CPU that a pod requests, such as ``500m``.
        memory: Memory that a pod requests and is limited to, such as ``1Gi``: with a canary, two versions of the model.
        gpu: Number of GPUs of a pod; take an ``image`` with the tag ``-gpu`` then.
        grpc: Whether clients may speak gRPC. Whoever may do that may also have the server load other models.
        batching: Requests are answered together: a mapping with, if need be, the fields of ``longshore.spec.Batching``.
        warmup: Whether a version answers the requests that it was packaged with before it gets any.
        rest_timeout_seconds: For a request over REST.
        pod_monitor: Whether the Prometheus Operator is told to collect the metrics.
        router: Shares requests out to versions that have pods of their own each, instead of labels in the same server:
            a mapping with ``kind`` (``nginx``, ``gateway-api`` or ``istio``) and, if need be, the other fields of
            ``longshore.Router``.
        traffic_percent: Share of the requests that the router gives this version; the rest stays where it was.
        servers: ``HOST:PORT`` of each server that runs already, where gRPC is spoken; nothing is done on Kubernetes.
        base_path: With these: directory of the model's versions as they see it; by default that of the model's URI.
        keep_previous: With these: whether the version that was stable stays loaded.
        others: With these: their other models, which would be unloaded otherwise: mappings with ``name``, ``base_path``
            and the other fields of ``longshore.packaging.ServedModel``.
        rest_url: With these: where they speak REST, for clients.
        port: Port of the Service for REST; by default 8501.
        env: Environment of the server. Secrets do not belong here.
        secrets: Kubernetes Secrets whose keys become environment variables, such as the credentials of the store that
            the model is in.
        service_account: Kubernetes service account of the pods.
        image: Container image of TensorFlow Serving.
        loader_image: Container image with longshore, which brings the model.
        args: Arguments for the server beyond its own.
        labels: Labels of all objects.
        annotations: Annotations of them.
        node_selector: Labels of the nodes that pods may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the version to be available.
        patience_seconds: For what stalls the pods from outside to end: a full cluster, a used-up quota.
        force: Take over what somebody else has set in the service's objects, such as a number of replicas.

    Returns:
        url: Base URL of the service.
        revision: The revision that has the label.
        replaced: What served before, empty if nothing did: a revision, or with ``servers`` a version's number.

    Raises:
        InvalidValue: If a value is not valid, or it is no SavedModel with a version.
        ClusterError: If the cluster refuses or cannot be reached.
        RegistryError: With ``servers``: if what serves could not be recorded.
        DeployError: If the version did not become available or did not answer well, in the server's words; says what
            serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.deployment import default_namespace, deploy_model
    from longshore.packaging import ServedModel
    from longshore.spec import Resources, Router, Scaling, Service, TensorFlowServingOptions, Toleration, from_plain
    from longshore.tfserving import label_traffic, switch_version

    if servers:
        switched = switch_version(
            servers,
            read_model(model),
            label=label,
            base_path=base_path,
            keep_previous=keep_previous,
            others=[from_plain(ServedModel, one) for one in others or ()],
            rest_url=rest_url,
            service=name,
            tracking_uri=registry,
            record=True,
            timeout_seconds=timeout_seconds,
        )
        write_endpoint(endpoint, switched.endpoint, seconds=switched.seconds)
        return switched.endpoint.url, switched.endpoint.revision, str(switched.replaced or "")
    options = {
        "batching": batching,
        "grpc": grpc,
        "warmup": warmup,
        "rest_timeout_seconds": rest_timeout_seconds,
        "pod_monitor": pod_monitor,
        "loader_image": loader_image,
        "args": args or [],
    }
    scaling = {
        "min_replicas": replicas,
        "max_replicas": max_replicas,
        "metric": scale_metric,
        "target": scale_target,
    }
    service = Service(
        name=name,
        namespace=namespace or default_namespace("tensorflow-serving"),
        port=port,
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
        tfserving=from_plain(TensorFlowServingOptions, options),
    )
    done = deploy_model(
        read_model(model),
        service,
        platform="tensorflow-serving",
        traffic=label_traffic(label, traffic_percent),
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
    )
    answers = done.endpoint.at_revision() if router is None else done.endpoint
    write_endpoint(endpoint, answers, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
