"""What KServe's controllers take from a cluster that starts them in pods: manifests, certificates, addresses."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

from harness.plane import Plane

__all__ = ["documents", "webhook_address", "write_certificates"]


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file, without what only a server writes."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    # the loader in C, where it is there: KServe's CRDs are one to two megabytes each
    found = [document for document in yaml.load_all(path.read_text(), Loader=loader) if document]
    for document in found:
        document.pop("status", None)
        document.get("metadata", {}).pop("creationTimestamp", None)
    return found


def webhook_address(plane: Plane, port: int, path: str) -> dict[str, str]:
    """A webhook's ``clientConfig`` for a process on loopback, in place of a Service."""
    authority = base64.b64encode(plane.authority.pem).decode()
    return {"url": f"https://127.0.0.1:{port}{path}", "caBundle": authority}


def write_certificates(plane: Plane, folder: Path, name: str) -> None:
    """A webhook server's certificate, where controller-runtime looks for it below TMPDIR."""
    certificate, key = plane.authority.issue(name, f"{name}-webhooks", hosts=["127.0.0.1"])
    place = folder / "k8s-webhook-server" / "serving-certs"
    place.mkdir(parents=True)
    (place / "tls.crt").symlink_to(certificate)
    (place / "tls.key").symlink_to(key)
