"""Small objects for tests to apply."""

from __future__ import annotations

from typing import Any

__all__ = ["config_map", "deployment"]


def config_map(namespace: str, name: str = "one", **data: str) -> dict[str, Any]:
    """A ConfigMap; without data, with one key."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data or {"key": "value"}}


def deployment(namespace: str, **spec: Any) -> dict[str, Any]:
    """A Deployment of one pod that only a fake node can run."""
    labels = {"app": "web"}
    container = {"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            **spec,
        },
    }
