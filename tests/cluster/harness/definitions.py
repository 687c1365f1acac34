"""CRDs that no package registry has: they come from a folder that the caller names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.cluster import Cluster, eventually
from harness.system import Missing
from harness.webhooks import documents

__all__ = ["CRDS", "install_definitions", "is_served"]

CRDS = "LONGSHORE_TEST_CRDS"
"""The folder: ``seldon-v1``, ``seldon-v2`` and ``kfp`` lie in it, with CRDs as they were published."""

_LEVELS = 10


def install_definitions(cluster: Cluster, folder: str) -> None:
    """Install the CRDs of a folder, and return when the API server serves their kinds.

    Args:
        cluster: Where.
        folder: The folder's name in that of :data:`CRDS`.

    Raises:
        Missing: If the variable is not set.
    """
    if not os.environ.get(CRDS):
        # the rule for skipped tests in CI knows this beginning
        raise Missing(
            f"{CRDS} is not set: name a folder with {folder}/*.yaml in it, the CRDs of an installation "
            "(kubectl get crd -o yaml); no package registry has them"
        )
    found = list(_definitions(Path(os.environ[CRDS]) / folder))
    if not found:
        raise FileNotFoundError(f"there is no CRD in {folder}/*.yaml of {CRDS}={os.environ[CRDS]}")
    for definition in found:
        cluster.apply(definition)
    eventually(lambda: all(is_served(cluster, one) for one in found), f"the kinds of {folder}")


def _definitions(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.yaml")):
        for definition in documents(path):
            for version in definition["spec"]["versions"]:
                _complete(version["schema"]["openAPIV3Schema"], _LEVELS)
            yield definition


def _complete(schema: dict[str, Any], levels: int) -> None:
    """Fill in what generated CRDs leave open, as a project's installation does.

    A kind that contains itself, such as the node of a graph, is written out so many levels deep, since a CRD cannot
    refer to itself. A port's protocol has the default that it has everywhere.
    """
    properties = schema.get("properties") or {}
    if "protocol" in properties and "containerPort" in properties:
        properties["protocol"].setdefault("default", "TCP")
    for name in [name for name, one in properties.items() if one.get("type") == "array" and one.get("items") == {}]:
        inner = {key: value for key, value in properties.items() if key != name}
        if levels > 1:
            inner[name] = {"type": "array", "items": {}}
        items = {**schema, "properties": inner}
        _complete(items, levels - 1)
        properties[name] = {"type": "array", "items": items}
    for one in (*properties.values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(one, dict):
            _complete(one, levels)


def is_served(cluster: Cluster, definition: Mapping[str, Any]) -> bool:
    """Whether the API server answers for a CRD's kind in all its versions."""
    spec = definition["spec"]
    roots = [f"/apis/{spec['group']}/{version['name']}" for version in spec["versions"] if version["served"]]
    known = [[kind["name"] for kind in cluster.request("GET", root)["resources"]] for root in roots]
    return all(spec["names"]["plural"] in names for names in known)
