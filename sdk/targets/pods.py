"""What pods have on every platform: pure functions from a service to parts of a pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from longshore.spec import Resources, Service, Toleration
from longshore.spec.image import image_name
from longshore.targets.base import Ref

__all__ = [
    "KSERVE_IMAGE",
    "LINGER_SECONDS",
    "SELDON_IMAGE",
    "container_resources",
    "container_security",
    "environment",
    "pod_security",
    "scheduling",
    "secret_refs",
    "server_image",
]

KSERVE_IMAGE: Final = image_name("kserve")
"""The image with the model server inside KServe's own."""

SELDON_IMAGE: Final = image_name("seldon")
"""The image with the model server inside Seldon's microservice, and the nodes of graphs that longshore brings."""

LINGER_SECONDS: Final = 3
"""How long a pod that leaves goes on answering: until every node knows."""

_USER: Final = 1000


def server_image(framework: str) -> str:
    """The image with the model server in front of which a web framework stands."""
    return image_name(framework)


def environment(env: Mapping[str, str], secrets: Sequence[str]) -> dict[str, Any]:
    """A container's variables: those given, and the keys of the Secrets that are named."""
    return {
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "envFrom": [{"secretRef": {"name": name}} for name in secrets],
    }


def secret_refs(service: Service, others: Mapping[str, str | None]) -> dict[str, Ref]:
    """The Secrets that a service's pods name, by the field that names them.

    Args:
        service: The service.
        others: Names by the field, beside those of ``Service.secrets``; None where a field names none.
    """
    named = {f"Service.secrets[{index}]": name for index, name in enumerate(service.secrets)}
    return {
        field: Ref("v1", "Secret", name, service.namespace)
        for field, name in {**named, **others}.items()
        if name is not None
    }


def container_resources(asked: Resources) -> dict[str, dict[str, str]]:
    """A container's resources: memory is a limit as well, CPU is not, so that a server may use what is idle."""
    requests = {name: value for name, value in (("cpu", asked.cpu), ("memory", asked.memory)) if value is not None}
    limits = {} if asked.memory is None else {"memory": asked.memory}
    if asked.gpu:
        limits["nvidia.com/gpu"] = str(asked.gpu)
    return {name: value for name, value in (("requests", requests), ("limits", limits)) if value}


def container_security() -> dict[str, Any]:
    """The security context of a container in the profile ``restricted``."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod_security() -> dict[str, Any]:
    """The security context of a pod in the profile ``restricted``."""
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def scheduling(service: Service) -> dict[str, Any]:
    """Where a pod may run, and as whom."""
    pod: dict[str, Any] = {}
    if service.service_account is not None:
        pod["serviceAccountName"] = service.service_account
    if service.node_selector:
        pod["nodeSelector"] = dict(service.node_selector)
    if service.tolerations:
        pod["tolerations"] = [_toleration(one) for one in service.tolerations]
    return pod


def _toleration(one: Toleration) -> dict[str, Any]:
    fields = {"key": one.key, "value": one.value, "effect": one.effect, "tolerationSeconds": one.seconds}
    operator = "Exists" if one.value is None else "Equal"
    return {"operator": operator, **{name: value for name, value in fields.items() if value is not None}}
