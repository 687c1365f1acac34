"""Which version of a product a cluster has, as far as its published schema tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from longshore.cluster.session import Session

__all__ = ["kserve_version"]

_PATH: Final = "/openapi/v3/apis/serving.kserve.io/v1beta1"
_KIND: Final = "InferenceService"
# the newest first: a field, and the version that brought it
_KSERVE_FIELDS: Final = (("spec.canary", (0, 20)), ("spec.predictor.storageUris", (0, 16)))
_OLDEST: Final = (0, 15)


def kserve_version(session: Session) -> tuple[int, int] | None:
    """The newest KServe whose fields the cluster's InferenceServices have.

    Everybody who may ask the cluster at all may read its schema, unlike KServe's own Deployment. It tells no more than
    the fields do: 0.16 stands for 0.16 to 0.19.

    Returns:
        Major and minor version; None where KServe was installed with its minimal CRDs, which describe no fields.

    Raises:
        ClusterError: If the cluster does not have KServe.
    """
    session.resource("serving.kserve.io/v1beta1", _KIND)
    schemas = session.request("GET", _PATH, "KServe's schema")["components"]["schemas"]
    return _version(next(schema for schema in schemas.values() if _is_of(schema)))


def _is_of(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("x-kubernetes-group-version-kind") or ()
    return any(kind.get("kind") == _KIND for kind in kinds)


def _version(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    if not _has(schema, "spec.predictor"):
        return None
    return next((version for field, version in _KSERVE_FIELDS if _has(schema, field)), _OLDEST)


def _has(schema: Mapping[str, Any], field: str) -> bool:
    for name in field.split("."):
        properties = schema.get("properties") or {}
        if name not in properties:
            return False
        schema = properties[name]
    return True
