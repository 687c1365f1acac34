"""The way from TorchServe, which is no longer developed, to KServe with Triton."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from longshore.deployment import with_storage_secret
from longshore.errors import InvalidValue
from longshore.packaging import package_triton
from longshore.spec import ModelSource, Service, TorchServeOptions

__all__ = ["TRITON", "for_triton"]

TRITON: Final = "kserve-triton"
"""What the way is called where a deploy to TorchServe takes it."""


def for_triton(
    package: ModelSource, service: Service, storage_secret: str | None = None
) -> tuple[ModelSource, Service]:
    """What KServe is to serve in place of a package for TorchServe, and the service as it is told it.

    The model in the package has to be one that Triton runs: ONNX, TorchScript or a SavedModel. It is laid out for
    Triton beside the package's repository, in ``triton/``. On KServe the gateway asks for tokens and speaks TLS.

    Args:
        package: The package, at ``<repository>/<name>/<version>``.
        service: The service as TorchServe's.
        storage_secret: Name of the Secret with the credentials of the store, annotated as KServe wants it; None takes
            those of the service account.

    Raises:
        ConfigError: If Triton has no backend for the model.
        DigestMismatch: If the package is not what was recorded.
        InvalidValue: If the service asks for tokens or TLS, which nothing would see to.
        ModelError: If there is not one model of longshore's in the package.
        StorageError: If the package cannot be read, or the repository cannot be written.
    """
    options = service.torchserve or TorchServeOptions()
    for name in ("token_secret", "tls"):
        if (value := getattr(options, name)) is not None:
            raise InvalidValue(
                f"TorchServeOptions.{name}",
                value if isinstance(value, str) else value.secret,
                "on KServe its gateway asks for tokens and speaks TLS: see to it there, and leave this out",
            )
    repository = package.uri.rstrip("/").rsplit("/", 2)[0]
    version = package.version or "1"
    made = package_triton(package, f"{repository}/triton", name=package.name, version=version)
    # an image with TorchServe is none with Triton
    return made, with_storage_secret(replace(service, port=None, image=None, torchserve=None), "kserve", storage_secret)
