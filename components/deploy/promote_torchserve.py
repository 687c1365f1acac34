"""Make another version the default on a TorchServe that runs."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Output

from longshore.authoring import component


@component(cached=False)
def promote_torchserve(
    endpoint: Output[Artifact],
    name: str,
    version: str,
    management: str,
    inference: str,
    grpc: Optional[str] = None,
    key_file: Optional[str] = None,
    ca_file: Optional[str] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 300,
) -> NamedTuple("Outputs", [("url", str), ("version", str), ("replaced", str)]):
    """Have a registered version answer those who name none: one that was tried out, or the one before, to go back.

    No request fails. A version whose workers were taken away gets one again first.

    Args:
        endpoint: Where it answers.
        name: Name of the model.
        version: The version; ``update_torchserve`` tells the one that it replaced.
        management: URL of the management API.
        inference: URL where TorchServe predicts.
        grpc: URL where it predicts over gRPC.
        key_file: The ``key_file.json`` that TorchServe has written; by default the tokens come from the environment, as
            ``update_torchserve`` says.
        ca_file: Certificates of the authorities to trust.
        registry: MLflow tracking URI where it is recorded; by default the registry of this machine.
        timeout_seconds: For its workers to be ready.

    Returns:
        url: Where TorchServe predicts.
        version: The version.
        replaced: The version that answered before, empty if it is the same.

    Raises:
        ConfigError: If it is not registered.
        DeployError: If its workers do not come up; what served before still does.
    """
    from longshore.artifacts import write_endpoint
    from longshore.torchserve import ModelServer, promote_version

    server = ModelServer.connect(management, inference, grpc=grpc, key_file=key_file, ca_file=ca_file)
    done = promote_version(server, name, version, tracking_uri=registry, timeout_seconds=timeout_seconds)
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds)
    return done.endpoint.url, done.version, done.replaced or ""
