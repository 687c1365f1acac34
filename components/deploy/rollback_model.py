"""Serve again what a service served before."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Output

from longshore.authoring import component


@component(cached=False)
def rollback_model(
    endpoint: Output[Artifact],
    name: str,
    platform: str = "kserve",
    namespace: Optional[str] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
) -> NamedTuple("Outputs", [("url", str), ("revision", str)]):
    """Give all requests back to the release that served before the current one.

    A revision that still runs, such as the one beside a canary, gets them at once; any other is started first, and the
    current one answers until then.

    Args:
        endpoint: Where the service answers.
        name: Name of the service.
        platform: ``kserve``, ``rest``, ``seldon``, ``seldon-v2``, ``torchserve``, ``tensorflow-serving`` or ``local``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        registry: MLflow tracking URI where the outcome is recorded; by default where the deploy was.
        timeout_seconds: For the revision to become ready.

    Returns:
        url: Base URL of the service.
        revision: The revision that serves again.

    Raises:
        ConfigError: If there is nothing to go back to.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the earlier release does not come up; the current one then still serves.
    """
    from longshore.artifacts import write_endpoint
    from longshore.deployment import rollback_service

    done = rollback_service(
        name, platform=platform, namespace=namespace, tracking_uri=registry, timeout_seconds=timeout_seconds
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision
