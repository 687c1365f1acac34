"""What a service is given before it is deployed, so that a rollback finds it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from longshore.errors import InvalidValue
from longshore.spec import KServeOptions, ModelSource, Release, SeldonOptions, SeldonV2Options, Service

__all__ = ["REGISTRY_ANNOTATION", "as_deployed", "registry_of", "with_storage_secret"]

REGISTRY_ANNOTATION: Final = "longshore.dev/registry"
"""Where a service's deployments are recorded, if not in the registry of this machine: a rollback needs it."""


def with_storage_secret(service: Service, platform: str, secret: str | None) -> Service:
    """The service with a Secret that opens the model's storage to a platform that fetches models itself.

    Args:
        service: The service.
        platform: One of :data:`PLATFORMS`; those whose pods fetch models have their keys in ``Service.secrets``.
        secret: Name of the Secret; with None the service stays as it is.
    """
    if secret is None:
        return service
    if platform == "kserve":
        return replace(service, kserve=replace(service.kserve or KServeOptions(), storage_secret=secret))
    if platform == "seldon":
        return replace(service, seldon=replace(service.seldon or SeldonOptions(), storage_secret=secret))
    if platform == "seldon-v2":
        return replace(service, seldon_v2=replace(service.seldon_v2 or SeldonV2Options(), storage_secret=secret))
    raise InvalidValue("storage_secret", secret, f"on the platform {platform}, name it in secrets")


def as_deployed(service: Service, platform: str, model: ModelSource) -> Service:
    """The service with what a rollback must find again, whatever the defaults are by then."""
    if platform == "rest" and service.image is None:
        from longshore.targets.pods import server_image

        return replace(service, image=server_image(service.framework))
    if platform == "tensorflow-serving" and service.image is None:
        from longshore.targets.tfserving import SERVER_IMAGE

        return replace(service, image=SERVER_IMAGE)
    if platform == "seldon" and service.image is None:
        from longshore.targets.seldon_graph import own_image

        return replace(service, image=own_image(Release(service=service, model=model)))
    if platform == "kserve" and service.image is None:
        from longshore.targets.kserve_torchserve import torchserve_container

        return replace(service, image=torchserve_container(Release(service=service, model=model)).get("image"))
    if platform == "torchserve":
        from longshore.targets.torchserve import as_deployed

        return as_deployed(service, packaged=model.digest is not None)
    return service


def registry_of(service: Service) -> str | None:
    """Where a service's deployments are recorded, None for the registry of this machine."""
    return service.annotations.get(REGISTRY_ANNOTATION)
