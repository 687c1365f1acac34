"""Pods of tests: one command each, without root, as a pipeline's step runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.cluster import Cluster, eventually
from harness.images import longshore_image

__all__ = ["delete_pod", "run_pod", "start_pod"]

_ENDED = ("Succeeded", "Failed")


def start_pod(
    cluster: Cluster,
    namespace: str,
    name: str,
    command: Sequence[str],
    *,
    secret: str | None = None,
    service_account: str | None = None,
) -> None:
    """Start a pod that runs a command in the image of longshore's steps.

    Args:
        cluster: Where.
        namespace: Its namespace.
        name: Its name, which is its label ``app`` too.
        command: The command.
        secret: Name of a Secret whose keys become environment variables.
        service_account: Its service account.
    """
    container: dict[str, Any] = {
        "name": "step",
        "image": longshore_image("python"),
        "command": list(command),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if secret is not None:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if service_account is not None:
        spec["serviceAccountName"] = service_account
    metadata = {"name": name, "labels": {"app": name}}
    cluster.request("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": metadata, "spec": spec})


def run_pod(
    cluster: Cluster, namespace: str, name: str, command: Sequence[str], *, seconds: float = 200, **options: str | None
) -> tuple[bool, str]:
    """Run a command in a pod to its end; returns whether it succeeded, and what it wrote."""
    start_pod(cluster, namespace, name, command, **options)
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    phase = eventually(lambda: _ended(cluster.get(path)), f"the end of pod {name}", seconds)
    return phase == "Succeeded", cluster.log(namespace, name)


def delete_pod(cluster: Cluster, namespace: str, name: str) -> None:
    """Kill a pod."""
    cluster.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", {"gracePeriodSeconds": 0})


def _ended(pod: dict[str, Any] | None) -> str | None:
    phase: str | None = (pod or {}).get("status", {}).get("phase")
    return phase if phase in _ENDED else None
