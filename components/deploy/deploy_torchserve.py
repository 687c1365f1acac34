"""Serve a package with TorchServe on Kubernetes."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_torchserve(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    namespace: Optional[str] = None,
    instead: Optional[str] = None,
    token_secret: Optional[str] = None,
    anonymous: bool = False,
    tls: Optional[Dict[str, str]] = None,
    plaintext: bool = False,
    token_file: Optional[str] = None,
    port: Optional[int] = None,
    replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    pod_monitor: bool = False,
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
    setup_image: Optional[str] = None,
    gate_image: Optional[str] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a package with TorchServe in a Deployment, and return once the new revision has answered real requests.

    TorchServe is no longer developed, and gets no fixes of security. Take it where you have it already. The way out is
    ``instead``: ``longshore`` has longshore's own server answer from the same package, at the same address, to the same
    tokens; ``kserve-triton`` takes the model out of the package and serves it by Triton on KServe.

    Clients need a token and come by TLS, unless that is switched off by name. If anything fails, what served before
    goes on serving; where nothing did, nothing is left. The step needs the Role of manifests/rbac/deployer.yaml in the
    namespace that it deploys to, and ``get`` for the Secret of the tokens (``longshore rbac --secret``) or a
    ``token_file``, as the smoke test is a client too.

    Args:
        model: A package that ``package_torchserve`` has made.
        endpoint: Where it answers.
        name: Name of the service.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        instead: What answers in TorchServe's place: ``longshore``, or ``kserve-triton`` for models of ONNX, TorchScript
            and SavedModels, with tokens and TLS of KServe's gateway; by default TorchServe does.
        token_secret: Name of the Secret with the tokens of clients, each of its values one, or one on each line.
        anonymous: Whether whoever reaches the service may ask, without a token.
        tls: The certificate: ``secret``, the name of a Secret of type ``kubernetes.io/tls``, and, if need be, ``host``,
            the name that it is for, and ``ca``, the certificates (PEM) that vouch for it. With a router it is
            the router's.
        plaintext: Whether clients come without TLS.
        token_file: File of this step with a token for the smoke test; by default it is read from ``token_secret``.
        port: Port for clients; by default 443, or 80 without TLS. gRPC is at 9000.
        replicas: Number of pods; the least where ``max_replicas`` is given.
        max_replicas: Largest number of pods; by default it is fixed.
        scale_metric: What it follows: ``cpu`` or ``memory`` in percent of what a pod requests.
        scale_target: The value of that metric that scaling aims at.
        pod_monitor: Whether to make a PodMonitor, by which Prometheus' operator collects the metrics.
        traffic_percent: Share of the requests for this revision; the rest stays where it was. It needs a router.
        traffic_rest: Where several others keep a part: percent by revision, which makes 100 with ``traffic_percent``.
        mirror_percent: Share of the requests that it gets a copy of, with ``traffic_percent`` 0 and a router.
        router: Shares the requests out to revisions that run beside each other: a mapping with ``kind`` (``nginx``,
            ``gateway-api`` or ``istio``) and, if need be, the other fields of ``longshore.Router``.
        cpu: CPU that TorchServe requests, such as ``500m``.
        memory: Memory that it requests and is limited to, such as ``2Gi``.
        gpu: GPUs of a pod.
        env: Environment of TorchServe. Secrets do not belong here.
        secrets: Kubernetes Secrets whose keys become environment variables, such as the credentials of the store that
            the package is in.
        storage_secret: With ``kserve-triton``, the Secret with those credentials, annotated as KServe wants it.
        service_account: Kubernetes service account of the pods.
        image: Container image with TorchServe; by default longshore's, for packages that longshore made.
        setup_image: Image with longshore that brings the package into the pod, and answers with
            ``instead="longshore"``; by default longshore's.
        gate_image: Image of the Nginx in front of TorchServe; by default the official one that needs no root.
        labels: Added to every object.
        annotations: Added to every object.
        node_selector: Labels of the nodes that pods may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the revision to become ready.
        patience_seconds: For what stalls the revision from outside to end: a full cluster, a used-up quota.
        force: Take over what somebody else has set in the service's objects, such as a number of replicas.

    Returns:
        url: Base URL of the service, in the cluster.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or neither a token nor ``anonymous``, neither TLS nor ``plaintext`` is
            asked for.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the revision did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.client import Access
    from longshore.deployment import default_namespace, deploy_model
    from longshore.leaving import TRITON, for_triton
    from longshore.spec import Service, Traffic, from_plain

    service = {
        "name": name,
        "namespace": namespace or default_namespace("torchserve"),
        "port": port,
        "resources": {"cpu": cpu, "memory": memory, "gpu": gpu},
        "scaling": {
            "min_replicas": replicas,
            "max_replicas": max_replicas,
            "metric": scale_metric,
            "target": scale_target,
        },
        "service_account": service_account,
        "labels": labels or {},
        "annotations": annotations or {},
        "env": env or {},
        "secrets": secrets or [],
        "image": image,
        "node_selector": node_selector or {},
        "tolerations": tolerations or [],
        "router": router,
        "torchserve": {
            "token_secret": token_secret,
            "anonymous": anonymous,
            "tls": tls,
            "plaintext": plaintext,
            "instead": None if instead == TRITON else instead,
            "pod_monitor": pod_monitor,
            "setup_image": setup_image,
            "gate_image": gate_image,
        },
    }
    source, wanted, platform = read_model(model), from_plain(Service, service), "torchserve"
    if instead == TRITON:
        (source, wanted), platform = for_triton(source, wanted, storage_secret), "kserve"
    done = deploy_model(
        source,
        wanted,
        platform=platform,
        traffic=Traffic(percent=traffic_percent, mirror_percent=mirror_percent, rest=traffic_rest or {}),
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
        access=None if token_file is None else Access(token_file=token_file),
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
