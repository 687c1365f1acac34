"""Give all requests to the winner of an experiment."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Output

from longshore.authoring import component


@component(cached=False)
def conclude_experiment(
    endpoint: Output[Artifact],
    name: str,
    revision: str,
    reason: str,
    platform: str = "seldon",
    namespace: Optional[str] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 600,
) -> NamedTuple("Outputs", [("url", str), ("revision", str)]):
    """Move all requests to one of the revisions that share them, end the others, and record what became of each.

    If the winner does not answer well with all requests, they are shared out as before.

    Args:
        endpoint: Where the service answers.
        name: Name of the service.
        revision: The winner, as ``compare_revisions`` gives it.
        reason: Why it has won: kept with the versions in the registry.
        platform: ``seldon``.
        namespace: Kubernetes namespace; by default that of the step, or of the kubeconfig's context.
        registry: MLflow tracking URI where the outcome is recorded; by default where the deploy was.
        timeout_seconds: For the requests to be moved.

    Returns:
        url: Base URL of the service.
        revision: The revision.

    Raises:
        ConfigError: If nothing of that name was deployed, or the revision does not run.
        ClusterError: If the cluster refuses or cannot be reached.
        DeployError: If the revision does not answer well; says what serves instead.
        RegistryError: If it serves and this could not be recorded.
    """
    from longshore.artifacts import write_endpoint
    from longshore.experiments import conclude_experiment

    done = conclude_experiment(
        name,
        revision,
        reason=reason,
        platform=platform,
        namespace=namespace,
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision
