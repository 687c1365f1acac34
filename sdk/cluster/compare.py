"""Whether what a cluster has is what is wanted already: pure functions on objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from longshore.spec.quantity import quantity
from longshore.targets.base import APPLIED_ANNOTATION, MANAGED_BY, Manifest

__all__ = ["MANAGER", "prepared", "unchanged"]

MANAGER: Final = "longshore"
"""The field manager that longshore applies as."""


def prepared(manifest: Manifest, namespace: str | None) -> Manifest:
    """The object as it is applied: with its namespace, the owner label and the digest of all that."""
    metadata = dict(manifest["metadata"])
    if namespace is not None:
        metadata["namespace"] = namespace
    metadata["labels"] = {**(metadata.get("labels") or {}), **MANAGED_BY}
    wanted = {**manifest, "metadata": metadata}
    content = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), APPLIED_ANNOTATION: digest}
    return wanted


def unchanged(wanted: Manifest, live: Manifest) -> bool:
    """Whether applying ``wanted`` to ``live`` would change nothing.

    It was the last that was applied, and every field still has the value it was given; nobody deletes it.
    """
    annotations = live["metadata"].get("annotations") or {}
    if annotations.get(APPLIED_ANNOTATION) != wanted["metadata"]["annotations"][APPLIED_ANNOTATION]:
        return False
    return "deletionTimestamp" not in live["metadata"] and _covers(live, wanted)


def _covers(live: Any, wanted: Any) -> bool:
    """Whether ``live`` has all that ``wanted`` has; a server adds defaults, and writes quantities its own way."""
    if isinstance(wanted, Mapping):
        # what is empty, a server may leave out
        return (isinstance(live, Mapping) and all(_covers(live.get(key), value) for key, value in wanted.items())) or (
            not wanted and live is None
        )
    if isinstance(wanted, list):
        if live is None:
            return not wanted
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(one, other) for one, other in zip(live, wanted, strict=True))
        )
    if wanted is None:
        return live is None
    return bool(live == wanted) or _same_quantity(live, wanted)


def _same_quantity(one: Any, other: Any) -> bool:
    if not isinstance(one, (str, int)) or not isinstance(other, (str, int)):
        return False
    first, second = quantity(str(one)), quantity(str(other))
    return first is not None and first == second
