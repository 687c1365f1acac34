"""Give the revision that was deployed last a larger share of a service's requests."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Output

from longshore.authoring import component


@component(cached=False)
def promote_model(
    endpoint: Output[Artifact],
    name: str,
    platform: str = "kserve",
    namespace: Optional[str] = None,
    percent: int = 100,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
) -> NamedTuple("Outputs", [("url", str), ("revision", str)]):
    """Move requests to the revision that was deployed last, at last all of them.

    It was deployed with ``traffic_percent`` or ``mirror_percent``. If it does not answer well with its new share, the
    requests are shared out as before. With all of them, the revision before ends, and the registry's champion changes.

    Args:
        endpoint: Where the service answers.
        name: Name of the service.
        platform: ``kserve``, ``rest``, ``seldon``, ``seldon-v2``, ``torchserve`` or ``tensorflow-serving``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        percent: Its share from now on.
        registry: MLflow tracking URI where the outcome is recorded; by default where the deploy was.
        timeout_seconds: For the requests to be shared out so.

    Returns:
        url: Base URL of the service.
        revision: The revision.

    Raises:
        ConfigError: If nothing of that name was deployed.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the revision does not answer well; says what serves instead.
    """
    from longshore.artifacts import write_endpoint
    from longshore.deployment import promote_service

    done = promote_service(
        name,
        percent=percent,
        platform=platform,
        namespace=namespace,
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision
