"""Serve a model on the platform of one's choice."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_model(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    platform: str = "local",
    namespace: Optional[str] = None,
    replicas: int = 1,
    max_replicas: Optional[int] = None,
    scale_metric: str = "cpu",
    scale_target: int = 80,
    cpu: Optional[str] = None,
    memory: Optional[str] = None,
    port: Optional[int] = None,
    framework: str = "fastapi",
    secrets: Optional[List[str]] = None,
    storage_secret: Optional[str] = None,
    service_account: Optional[str] = None,
    image: Optional[str] = None,
    traffic_percent: int = 100,
    traffic_rest: Optional[Dict[str, int]] = None,
    mirror_percent: int = 0,
    router: Optional[Dict[str, Any]] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a model over HTTP and return once the new revision has answered real requests.

    If anything fails, what served before goes on serving; where nothing did, nothing is left. The step in a
    cluster needs the Role of manifests/rbac/deployer.yaml in the namespace that it deploys to.

    Args:
        model: A packaged model.
        endpoint: Where it answers.
        name: Name of the service.
        platform: ``local``, a process on this machine, ``rest``, a Deployment and a Service on Kubernetes,
            ``kserve``, an InferenceService with longshore's runtime, ``seldon``, a SeldonDeployment of Seldon Core 1,
            ``seldon-v2``, a Model of Seldon Core 2, or ``tensorflow-serving``, a Deployment of that server;
            ``deploy_kserve``, ``deploy_seldon``, ``deploy_seldon_v2`` and ``deploy_tfserving`` have all that these can
            do. TorchServe has ``deploy_torchserve``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        replicas: Number of pods, or of processes on this machine, where several need a router; the least where
            ``max_replicas`` is given.
        max_replicas: Largest number of pods on Kubernetes; by default it is fixed.
        scale_metric: What it follows: ``cpu`` or ``memory`` in percent of what a pod requests.
        scale_target: The value of that metric that scaling aims at.
        cpu: CPU that a pod requests, such as ``500m``.
        memory: Memory that a pod requests and is limited to, such as ``1Gi``.
        port: Port for clients, where the platform lets one choose; by default 80 on Kubernetes, on this machine the one
            the service had or a free one.
        framework: Web framework of the server.
        secrets: Kubernetes Secrets whose keys become environment variables of the server, such as the credentials
            of the store that the model is in.
        storage_secret: The Secret with those credentials on the platforms that fetch the model themselves, ``kserve``,
            ``seldon`` and ``seldon-v2``; by default those of the service account, or of Seldon's Servers.
        service_account: Kubernetes service account of the serving pods.
        image: Container image of the server, for a registry of one's own.
        traffic_percent: Share of the requests for this revision; the rest stays where it was. It needs a router.
        traffic_rest: Where several others keep a part: percent by revision, which makes 100 with ``traffic_percent``.
        mirror_percent: Share of the requests that it gets a copy of, with ``traffic_percent`` 0 and a router.
        router: Shares the requests out to revisions that run beside each other: a mapping with ``kind`` (``nginx``, and
            on Kubernetes ``gateway-api`` or ``istio``) and, if need be, the other fields of ``longshore.Router``.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the revision to become ready.
        patience_seconds: For what stalls the revision from outside to end: a full cluster, a used-up quota.
        force: Take over what somebody else has set in the service's objects, such as a number of replicas.

    Returns:
        url: Base URL of the service.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or not possible on the platform.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the revision did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.deployment import default_namespace, deploy_model, with_storage_secret
    from longshore.spec import Resources, Router, Scaling, Service, Traffic, from_plain

    scaling = {
        "min_replicas": replicas,
        "max_replicas": max_replicas,
        "metric": scale_metric,
        "target": scale_target,
    }
    service = Service(
        name=name,
        namespace=namespace or default_namespace(platform),
        port=port,
        framework=framework,
        resources=Resources(cpu=cpu, memory=memory),
        scaling=from_plain(Scaling, scaling),
        secrets=secrets or (),
        service_account=service_account,
        image=image,
        router=None if router is None else from_plain(Router, router),
    )
    done = deploy_model(
        read_model(model),
        with_storage_secret(service, platform, storage_secret),
        platform=platform,
        traffic=Traffic(percent=traffic_percent, mirror_percent=mirror_percent, rest=traffic_rest or {}),
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
