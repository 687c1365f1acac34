"""Serve a model by a process on this machine."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def deploy_local(
    model: Input[Model],
    endpoint: Output[Artifact],
    name: str,
    port: Optional[int] = None,
    framework: str = "fastapi",
    registry: Optional[str] = None,
    timeout_seconds: int = 120,
) -> NamedTuple("Outputs", [("url", str), ("revision", str), ("replaced", str)]):
    """Serve a model over HTTP on this machine and return once the new revision has answered real requests.

    The new revision is started beside the one that serves, tested at an address of its own, and takes over
    without a lost request. If anything fails, the old one goes on serving.

    Args:
        model: A packaged model.
        endpoint: Where it answers.
        name: Name of the service.
        port: Port for clients; by default the one the service had, or a free one.
        framework: Web framework of the server.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the revision to become ready.

    Returns:
        url: Base URL of the service.
        revision: The revision that serves.
        replaced: The revision that served before, empty if none did.

    Raises:
        InvalidValue: If the name, port or framework is not valid.
        DeployError: If the revision did not come up or did not answer well; says what serves instead.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.deployment import deploy_model
    from longshore.spec import Service

    service = Service(name=name, port=port, framework=framework)
    done = deploy_model(read_model(model), service, tracking_uri=registry, timeout_seconds=timeout_seconds)
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.endpoint.revision, done.previous.revision if done.previous else ""
