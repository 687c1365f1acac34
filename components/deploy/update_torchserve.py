"""Serve a new version on a TorchServe that runs."""

from typing import NamedTuple, Optional

from kfp.dsl import Artifact, Input, Model, Output

from longshore.authoring import component


@component(cached=False)
def update_torchserve(
    model: Input[Model],
    endpoint: Output[Artifact],
    management: str,
    inference: str,
    grpc: Optional[str] = None,
    store: Optional[str] = None,
    archive_url: Optional[str] = None,
    workers: Optional[int] = None,
    make_default: bool = True,
    keep_versions: Optional[int] = None,
    key_file: Optional[str] = None,
    ca_file: Optional[str] = None,
    logs: Optional[str] = None,
    registry: Optional[str] = None,
    timeout_seconds: int = 300,
) -> NamedTuple("Outputs", [("url", str), ("version", str), ("replaced", str)]):
    """Bring a packaged version up on a TorchServe that runs, beside the one that serves, and make it the default.

    Its workers load it, it is asked for its example rows at its own address, and then all requests that name no version
    come to it, without one that fails; on any failure it is unregistered, and the version before serves on. TorchServe
    has to run with ``enable_model_api=true``. Tokens come from the environment variables
    ``LONGSHORE_TORCHSERVE_MANAGEMENT_TOKEN`` and ``LONGSHORE_TORCHSERVE_INFERENCE_TOKEN`` (``use_secret_as_env`` of
    ``kfp.kubernetes`` sets them from a Secret), or from ``key_file``.

    TorchServe is not developed any further, and gets no fixes of security: KServe with ONNX or Triton, and
    ``deploy_model`` with longshore's own server, serve the same registered model.

    Args:
        model: What ``package_torchserve`` made.
        endpoint: Where it answers: at the model's address, or at its own if it is not made the default.
        management: URL of the management API, such as ``http://torchserve:8081``.
        inference: URL where TorchServe predicts, such as ``http://torchserve:8080``.
        grpc: URL where it predicts over gRPC, such as ``grpc://torchserve:7070``.
        store: Path or URI at which this step reaches TorchServe's model store, such as that of a mounted volume; the
            archive is copied there.
        archive_url: Where TorchServe finds the archive by itself: the name of a file that is in its store already, or
            an http URL. By default the package's own place.
        workers: So many processes shall answer at least; by default as many as were packaged.
        make_default: Whether those who name no version get this one; else it is asked as ``NAME/VERSION``.
        keep_versions: How many of the versions before it stay for a rollback, the one that it replaces first; by
            default all. The others are unregistered once they have answered what they were asked.
        key_file: The ``key_file.json`` that TorchServe has written, where this step can read it.
        ca_file: Certificates of the authorities to trust.
        logs: Directory with TorchServe's logs, where this step can read it: only there is why a model cannot be loaded.
        registry: MLflow tracking URI where the outcome is recorded; by default the registry of this machine.
        timeout_seconds: For the workers to load the model.

    Returns:
        url: Where TorchServe predicts.
        version: The version.
        replaced: The version that answered before, empty if none did, or does still.

    Raises:
        ConfigError: If it cannot be done as written.
        DeployError: If the version did not come up or did not answer well; the message says what serves.
        DigestMismatch: If the package is not what was recorded.
        ModelError: If the archive is not to be unpacked.
    """
    from longshore.artifacts import read_model, write_endpoint
    from longshore.torchserve import ModelServer, deploy_version

    done = deploy_version(
        read_model(model),
        ModelServer.connect(management, inference, grpc=grpc, key_file=key_file, ca_file=ca_file),
        store=store,
        archive_url=archive_url,
        workers=workers,
        make_default=make_default,
        keep_versions=keep_versions,
        logs=logs,
        tracking_uri=registry,
        timeout_seconds=timeout_seconds,
    )
    write_endpoint(endpoint, done.endpoint, seconds=done.seconds, archive_digest=done.archive_digest)
    return done.endpoint.url, done.version, done.replaced or ""
