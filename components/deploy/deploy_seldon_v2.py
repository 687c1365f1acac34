"""Serve a model on Seldon Core 2."""

from typing import Any, Dict, List, NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_seldon_v2(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    namespace: Optional[str] = None,
    requirements: Optional[List[str]] = None,
    server: Optional[str] = None,
    own_server: Optional[Dict[str, Any]] = None,
    storage_secret: Optional[str] = None,
    memory: Optional[str] = None,
    min_replicas: int = 1,
    max_replicas: Optional[int] = None,
    traffic_percent: int = 100,
    traffic_rest: Optional[Dict[str, int]] = None,
    mirror_percent: int = 0,
    artifact_version: Optional[int] = None,
    parameters: Optional[Dict[str, str]] = None,
    logger_percent: Optional[int] = None,
    explainer: Optional[Dict[str, str]] = None,
    pipeline: Optional[Dict[str, Any]] = None,
    default: Optional[str] = None,
    mesh_namespace: Optional[str] = None,
    env: Optional[Dict[str, str]] = None,
    secrets: Optional[List[str]] = None,
    service_account: Optional[str] = None,
    image: Optional[str] = None,
    labels: Optional[Dict[str, str]] = None,
    annotations: Optional[Dict[str, str]] = None,
    node_selector: Optional[Dict[str, str]] = None,
    tolerations: Optional[List[Dict[str, Any]]] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
    patience_seconds: int = 30,
    force: bool = False,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a model as a Model of Seldon Core 2, behind an Experiment of the service's name, once it is available.

    Each revision is a Model of its own, and the Experiment shares the requests out, so that clients keep one name:
    ``NAME.experiment``. A new Model gets requests once it is available, and if anything fails, what served before goes
    on serving; where nothing did, nothing is left. The step needs the Role of manifests/rbac/deployer.yaml in the
    namespace that it deploys to.

    Args:
        model: A model in a format that MLServer or Triton loads, in a store that rclone reads.
        endpoint: Where it answers.
        name: Name of the service: of the Experiment.
        namespace: Kubernetes namespace, one with a SeldonRuntime; by default that of the step, or of the kubeconfig's
            context.
        requirements: Capabilities that a Server needs to run the model; by default the one that loads its format.
        server: Name of the Server that runs it; by default Seldon's scheduler takes one.
        own_server: A Server for each revision of this service alone: a mapping with, if need be, ``config``,
            ``container``, ``capabilities`` and ``resources``.
        storage_secret: Kubernetes Secret with the rclone configuration of the model's storage.
        memory: Memory that the model takes of its Server, such as ``100Mi``.
        min_replicas: Least number of replicas of the model; a Server has to have as many.
        max_replicas: Largest number; by default it is fixed.
        traffic_percent: Share of the requests for this revision; the rest stays where it was. At 0 the revision can be
            asked by its own name only.
        traffic_rest: Where several others keep a part: percent by revision, which makes 100 with ``traffic_percent``.
        mirror_percent: Share of the requests that it gets a copy of, with ``traffic_percent`` 0.
        artifact_version: Number of the folder below the model's URI; by default the largest.
        parameters: Handed to the model when it is loaded.
        logger_percent: Share of the requests whose payloads Seldon logs.
        explainer: Explains predictions, as a Model beside it: ``type`` and ``uri``.
        pipeline: Steps around the model, joined by Kafka: a mapping with ``steps``, each with ``name`` and, if need be,
            ``inputs``, ``triggers`` and the other fields of ``SeldonV2Step``, one of them called ``model``; ``output``.
        default: Name of a Model that is there already and whose clients get this service's answers from now on.
        mesh_namespace: Namespace of the Service ``seldon-mesh``; by default the service's own.
        env: Environment of the pods of ``own_server``. Secrets do not belong here.
        secrets: Kubernetes Secrets whose keys become environment variables of these.
        service_account: Their Kubernetes service account.
        image: Their container image, in place of that of the config.
        labels: Labels of all objects.
        annotations: Annotations of them.
        node_selector: Labels of the nodes that the pods of ``own_server`` may run on.
        tolerations: Taints that they tolerate: mappings with ``key``, ``value``, ``effect`` and ``seconds``.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the revision to become available, and for the requests to be shared out.
        patience_seconds: For what stalls the revision from outside to end: Servers without room, a scheduler that is
            away.
        force: Take over what somebody else has set in the objects.

    Returns:
        url: Address of the mesh, in the cluster.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If a value is not valid, or something that it names is not there.
        ClusterError: If the cluster refuses or cannot be reached, or does not have Seldon Core 2.
        DeployError: If the revision did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.deployment import default_namespace, deploy_model
    from longshore.spec import Resources, Scaling, SeldonV2Options, Service, Toleration, Traffic, from_plain

    options = {
        "requirements": requirements or [],
        "server": server,
        "own_server": own_server,
        "storage_secret": storage_secret,
        "artifact_version": artifact_version,
        "parameters": parameters or {},
        "logger_percent": logger_percent,
        "explainer": explainer,
        "pipeline": pipeline,
        "default": default,
        "mesh_namespace": mesh_namespace,
    }
    service = Service(
        name=name,
        namespace=namespace or default_namespace("seldon-v2"),
        resources=Resources(memory=memory),
        scaling=Scaling(min_replicas=min_replicas, max_replicas=max_replicas),
        service_account=service_account,
        labels=labels or {},
        annotations=annotations or {},
        env=env or {},
        secrets=secrets or (),
        image=image,
        node_selector=node_selector or {},
        tolerations=[from_plain(Toleration, one) for one in tolerations or ()],
        seldon_v2=from_plain(SeldonV2Options, options),
    )
    done = deploy_model(
        read_model(model),
        service,
        platform="seldon-v2",
        traffic=Traffic(percent=traffic_percent, mirror_percent=mirror_percent, rest=traffic_rest or {}),
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
        patience_seconds=patience_seconds,
        force=force,
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
