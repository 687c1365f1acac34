"""Whose a Deployment's number of replicas is: pure functions on objects.

A field that its only owner applies no longer gets its default, and for the number of replicas that is 1. So before
longshore leaves the number to an autoscaler it hands it over to a field manager of its own, :data:`KEEPER`, which keeps
it until the autoscaler writes another one; and once the autoscaler is gone it takes the number back the same way. See
"Transferring ownership" in kubernetes.io/docs/reference/using-api/server-side-apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from longshore.cluster.compare import MANAGER
from longshore.targets.base import Manifest, Ref

__all__ = ["KEEPER", "kept", "least", "owners", "scaled", "takeable"]

KEEPER: Final = "longshore-replicas"
"""The field manager that holds a number of replicas that longshore does not apply any more."""

_AUTOSCALER: Final = "kube-controller-manager/scale"
"""The HorizontalPodAutoscaler's controller, as :func:`owners` calls it."""


def scaled(autoscalers: Iterable[Manifest]) -> dict[Ref, int]:
    """What HorizontalPodAutoscalers scale, and to how many replicas at least."""
    found = {}
    for manifest in autoscalers:
        spec, namespace = manifest["spec"], manifest["metadata"].get("namespace")
        target = spec["scaleTargetRef"]
        found[Ref(target["apiVersion"], target["kind"], target["name"], namespace)] = spec.get("minReplicas", 1)
    return found


def owners(live: Manifest) -> set[str]:
    """The field managers of the number of replicas; one that went by a subresource as ``MANAGER/SUBRESOURCE``."""
    return {
        "/".join(part for part in (entry.get("manager", ""), entry.get("subresource")) if part)
        for entry in live["metadata"].get("managedFields") or ()
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }


def kept(live: Manifest, fewest: int) -> int | None:
    """The number that must be handed over before longshore leaves it to an autoscaler; None if none need be."""
    number: int = live["spec"].get("replicas", 1)
    held = owners(live)
    if MANAGER in held or not held or number < fewest:
        return max(number, fewest)
    return None


def takeable(live: Manifest) -> bool:
    """Whether an autoscaler has set the number, or it was kept for one, and nobody else has."""
    held = owners(live)
    return bool(held - {MANAGER}) and held <= {MANAGER, KEEPER, _AUTOSCALER}


def least(manifest: Manifest, replicas: int) -> dict[str, Any]:
    """The object with nothing but a number of replicas, as :data:`KEEPER` applies it."""
    metadata: Mapping[str, Any] = manifest["metadata"]
    identity = {name: metadata[name] for name in ("name", "namespace") if name in metadata}
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": identity,
        "spec": {"replicas": replicas},
    }
